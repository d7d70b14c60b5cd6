//! What can be wrong with a stream.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The class of what is wrong with a stream: the stable word in brackets of a message, and a vector's expected class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Damage {
    /// No byte at all.
    Empty,
    /// It does not begin with the magic.
    NotAStream,
    /// Another major version.
    Version,
    /// An incompatible feature that this reader does not know.
    Feature,
    /// It stops before END.
    Truncated,
    /// A check sum over a preamble or frame header.
    HeaderCrc,
    /// A check sum over a payload.
    PayloadCrc,
    /// A reserved bit or byte that is not zero.
    Reserved,
    /// A frame type that this reader does not know and must not skip.
    UnknownFrame,
    /// A frame out of its place in the grammar, or its number out of sequence.
    Order,
    /// A payload too long for the bound, or of a wrong length for its type.
    Length,
    /// A field whose value the format rules out.
    Value,
    /// An extent that leaves the image.
    Bounds,
    /// Extents that do not strictly ascend, or overlap.
    Overlap,
    /// An extent that is not a multiple of the grain.
    Alignment,
    /// A path with a name that no entry can have, or beyond the limits.
    Path,
    /// Paths that are not in their order.
    PathOrder,
    /// An entry in what is no directory, or in one that was not said.
    Parent,
    /// A CHECKPOINT missing, misplaced or wrong.
    Checkpoint,
    /// The digest chain does not agree with what was read.
    Digest,
    /// The counts of END do not agree with what was read.
    Totals,
    /// Ids that contradict each other.
    Identity,
    /// Bytes after END.
    Trailing,
}

impl Damage {
    /// Every class, in the order of extent-stream(5), "WHAT A READER MUST REJECT".
    pub const ALL: [Damage; 23] = [
        Damage::Empty,
        Damage::NotAStream,
        Damage::Version,
        Damage::Feature,
        Damage::Truncated,
        Damage::HeaderCrc,
        Damage::PayloadCrc,
        Damage::Reserved,
        Damage::UnknownFrame,
        Damage::Order,
        Damage::Length,
        Damage::Value,
        Damage::Bounds,
        Damage::Overlap,
        Damage::Alignment,
        Damage::Path,
        Damage::PathOrder,
        Damage::Parent,
        Damage::Checkpoint,
        Damage::Digest,
        Damage::Totals,
        Damage::Identity,
        Damage::Trailing,
    ];

    /// The stable word.
    pub fn word(self) -> &'static str {
        match self {
            Damage::Empty => "empty",
            Damage::NotAStream => "not-a-stream",
            Damage::Version => "version",
            Damage::Feature => "feature",
            Damage::Truncated => "truncated",
            Damage::HeaderCrc => "header-crc",
            Damage::PayloadCrc => "payload-crc",
            Damage::Reserved => "reserved",
            Damage::UnknownFrame => "unknown-frame",
            Damage::Order => "order",
            Damage::Length => "length",
            Damage::Value => "value",
            Damage::Bounds => "bounds",
            Damage::Overlap => "overlap",
            Damage::Alignment => "alignment",
            Damage::Path => "path",
            Damage::PathOrder => "path-order",
            Damage::Parent => "parent",
            Damage::Checkpoint => "checkpoint",
            Damage::Digest => "digest",
            Damage::Totals => "totals",
            Damage::Identity => "identity",
            Damage::Trailing => "trailing",
        }
    }
}

/// A stream that must not be believed: the class, where, and what in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedStream {
    /// The class.
    pub class: Damage,
    /// Number of the damaged frame; where the stream ends too early, of the frame that is missing.
    pub frame: u64,
    /// Byte of the stream at which the damaged item begins.
    pub byte: u64,
    /// What is wrong, in words without a full stop; empty where the class says all.
    pub what: String,
}

impl fmt::Display for DamagedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.class, self.frame.checked_sub(1)) {
            (Damage::Truncated, Some(last)) => write!(f, "stream ends after frame {last} (byte {}), no END frame", self.byte),
            (Damage::Truncated, None) => write!(f, "stream ends at byte {}, before its first frame", self.byte),
            (Damage::Empty, _) => f.write_str("the input is empty"),
            (_, _) => write!(f, "{} at frame {} (byte {})", self.what, self.frame, self.byte),
        }
    }
}
