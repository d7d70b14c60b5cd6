//! The end of a stream: counts and the state reached.

use serde::{Deserialize, Serialize};

use super::fields::{Fields, PutFields};
use super::{Change, Digest, Id, wire};

/// What was said by a stream's changes, in counts and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// DATA changes.
    pub data_extents: u64,
    /// ZERO changes.
    pub zero_extents: u64,
    /// Bytes of DATA.
    pub data_bytes: u64,
    /// Bytes of ZERO.
    pub zero_bytes: u64,
}

impl Totals {
    /// Counts one more change. Extents of one stream do not overlap, so no sum passes 2^63.
    pub fn count(&mut self, change: &Change) {
        let (extents, bytes) = match change {
            Change::Data(_) => (&mut self.data_extents, &mut self.data_bytes),
            Change::Zero { .. } => (&mut self.zero_extents, &mut self.zero_bytes),
        };
        *extents = extents.saturating_add(1);
        *bytes = bytes.saturating_add(change.len());
    }
}

/// What END says: the state reached, and everything a reader needs to know that nothing is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The state that the image is in after the last change; `None`: it has no identity and cannot be marked.
    pub to: Option<Id>,
    /// Frames before END.
    pub frames: u64,
    /// What the changes said.
    pub totals: Totals,
    /// The last link of the digest chain.
    pub digest: Digest,
}

impl Trailer {
    /// The payload of END up to the digest, which covers it.
    pub(super) fn encode_undigested(to: Option<Id>, frames: u64, totals: &Totals) -> Vec<u8> {
        let mut out = Vec::with_capacity(wire::END_LEN);
        for number in [frames, totals.data_extents, totals.zero_extents, totals.data_bytes, totals.zero_bytes] {
            out.put_u64(number);
        }
        out.put_id(to);
        out
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Trailer> {
        let mut fields = Fields(payload);
        let frames = fields.u64()?;
        let totals = Totals {
            data_extents: fields.u64()?,
            zero_extents: fields.u64()?,
            data_bytes: fields.u64()?,
            zero_bytes: fields.u64()?,
        };
        let to = fields.id()?;
        let digest = Digest(fields.array()?);
        fields.0.is_empty().then_some(Trailer { to, frames, totals, digest })
    }
}
