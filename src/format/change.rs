//! What an image stream says about content.

use super::Data;

/// One statement about the to-state of an image. Offsets and lengths are bytes.
///
/// Changes of one stream strictly ascend and do not overlap. Where none speaks, a whole stream (no from-state) says zero
/// and an increment says unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These bytes stand here.
    Data(
        /// At least one byte, at most the stream's payload bound.
        Data,
    ),
    /// This range reads as zero.
    Zero {
        /// Where the range begins.
        offset: u64,
        /// Its length, at least 1.
        len: u64,
        /// It was a hole at the source: the sink may free it.
        may_deallocate: bool,
    },
}

impl Change {
    /// Where it begins.
    pub fn offset(&self) -> u64 {
        match self {
            Change::Data(data) => data.offset(),
            Change::Zero { offset, .. } => *offset,
        }
    }

    /// How many bytes it speaks of.
    #[allow(clippy::len_without_is_empty, reason = "a change is never empty")]
    pub fn len(&self) -> u64 {
        match self {
            Change::Data(data) => data.bytes().len() as u64,
            Change::Zero { len, .. } => *len,
        }
    }

    /// The first byte behind it. Readers and sources have checked that it does not overflow.
    pub fn end(&self) -> u64 {
        self.offset().saturating_add(self.len())
    }
}
