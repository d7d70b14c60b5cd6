//! What a stream is about.

use super::extents::Extents;
use super::{Change, Damage, Header, Id, Image};

/// What is wrong with bytes or values: the class, and words.
pub(super) type Wrong = (Damage, String);

/// A change on its way to the wire.
pub enum Written<'a> {
    /// As DATA or ZERO.
    Extent(&'a Change),
    /// As a frame of this type.
    Frame(u16, Vec<u8>),
}

/// What a stream is about, and what it says of that: an [`Image`] and its [`Change`]s, or a [`Tree`](super::Tree) and
/// its [`TreeChange`](super::TreeChange)s. Extents are part of both.
///
/// Only this layer has kinds of objects: what the functions take and give cannot be named elsewhere.
pub trait Object: Clone {
    /// The minor version of the format that has it.
    const MINOR: u16;
    /// One statement about the to-state.
    type Change: From<Change>;
    /// The rules that all changes of one stream obey, and what they remember of the ones before.
    type Rules;

    /// Incompatible features that a reader of such a stream knows, as bits.
    fn known_features() -> u64;
    /// The payload of OBJECT.
    fn encode(&self) -> Vec<u8>;
    /// Reads the payload of OBJECT.
    fn decode(payload: &[u8], header: &Header) -> Result<Self, Wrong>;
    /// The rules, before the first change.
    fn rules(&self, header: &Header) -> Self::Rules;
    /// Admits the next change; what is wrong with it otherwise.
    fn admit(rules: &mut Self::Rules, change: &Self::Change) -> Result<(), Wrong>;
    /// What is wrong with the last change being the last.
    fn close(_rules: &Self::Rules) -> Result<(), Wrong> {
        Ok(())
    }
    /// Reads a frame that is no extent; `None`: no frame of this object's.
    fn read(_kind: u16, _payload: &[u8]) -> Option<Result<Self::Change, Wrong>> {
        None
    }
    /// The change, if it is an extent.
    fn extent(change: &Self::Change) -> Option<&Change>;
    /// How the change is written.
    fn written(change: &Self::Change) -> Written<'_>;
    /// Exact size of the to-state in bytes, where the beginning of a stream says it.
    fn size(&self) -> Option<u64> {
        None
    }
    /// Two states that are one, and say so in two ways.
    fn contradicts(&self, _from: Option<Id>, _to: Option<Id>) -> bool {
        false
    }
}

impl Object for Image {
    const MINOR: u16 = 0;
    type Change = Change;
    type Rules = Extents;

    fn known_features() -> u64 {
        0
    }

    fn encode(&self) -> Vec<u8> {
        self.encode_payload()
    }

    fn decode(payload: &[u8], header: &Header) -> Result<Image, Wrong> {
        Image::decode_payload(payload, header)
    }

    fn rules(&self, _: &Header) -> Extents {
        Extents::new(self.new_size, self.grain)
    }

    fn admit(rules: &mut Extents, change: &Change) -> Result<(), Wrong> {
        rules.admit(change)
    }

    fn extent(change: &Change) -> Option<&Change> {
        Some(change)
    }

    fn written(change: &Change) -> Written<'_> {
        Written::Extent(change)
    }

    fn size(&self) -> Option<u64> {
        Some(self.new_size)
    }

    fn contradicts(&self, from: Option<Id>, to: Option<Id>) -> bool {
        self.one_state_of_two_sizes(from, to)
    }
}
