//! The rules that every extent obeys, for the reader and the writer alike.

use super::object::Wrong;
use super::{Change, Damage};

/// What the next extent of an image, or of a file, must keep to.
pub struct Extents {
    /// No extent may end behind this.
    size: u64,
    /// A power of two.
    grain: u64,
    /// No extent may begin before this.
    floor: u64,
}

impl Extents {
    /// The rules of what has so many bytes, before its first extent.
    pub(super) fn new(size: u64, grain: u32) -> Extents {
        Extents { size, grain: grain.into(), floor: 0 }
    }

    /// Admits the next extent; what is wrong with it otherwise.
    pub(super) fn admit(&mut self, change: &Change) -> Result<(), Wrong> {
        let (offset, len, size, grain) = (change.offset(), change.len(), self.size, self.grain);
        if len == 0 {
            return Err((Damage::Value, format!("an empty extent at offset {offset}")));
        }
        let Some(end) = offset.checked_add(len).filter(|end| *end <= size) else {
            let what = format!("{len} bytes at offset {offset} do not lie inside its {size} bytes");
            return Err((Damage::Bounds, what));
        };
        if offset < self.floor {
            let what = format!("the extent at offset {offset} begins before byte {}, where the last one ended", self.floor);
            return Err((Damage::Overlap, what));
        }
        let ragged = |at: u64| at & grain.wrapping_sub(1) != 0;
        if ragged(offset) || ragged(end) && end != size {
            let what = format!("{len} bytes at offset {offset} are no multiple of the grain, {grain} bytes");
            return Err((Damage::Alignment, what));
        }
        self.floor = end;
        Ok(())
    }
}
