//! The records of a send stream as changes of an image.

use std::io::Read;

use crate::foreign::zfs_send::{Error, Record, Records, ZVOL_DATA, ZVOL_PROPERTIES};
use crate::format::{Change, Data, all_zero};

/// What all blocks of all volumes are multiples of, in bytes.
const SECTOR: u64 = 512;

/// Turns records into changes that ascend and lie inside the image.
///
/// `zfs send` tells a volume's data in ascending order, with one exception: right behind the object it says that everything
/// behind its last block is free. That is held back until its turn comes. What is told to be free in its order may reach
/// into it: a hole is told by the span of the block that would point to it (`dump_dnode` and `send_cb` of `dmu_send.c`).
pub(super) struct Extents<R: Read> {
    records: Records<R>,
    /// Exact size of the image in bytes. A volume may be larger: it has whole blocks, and their rest is zero.
    size: u64,
    whole: bool,
    /// No change may begin before this.
    floor: u64,
    /// A range that was freed: offset and end.
    free: Option<(u64, u64)>,
    /// A change whose turn is next.
    ready: Option<Change>,
    resized: bool,
}

impl<R: Read> Extents<R> {
    /// The changes of an image of `size` bytes. In a whole stream a gap is zero, so that nothing is said of what is free.
    pub fn new(records: Records<R>, size: u64, whole: bool) -> Extents<R> {
        Extents { records, size, whole, floor: 0, free: None, ready: None, resized: false }
    }

    /// The next change; `None` once the stream's END was right.
    pub fn change(&mut self) -> Result<Option<Change>, Error> {
        loop {
            if let Some(offset) = self.ready.as_ref().map(Change::offset) {
                // What is held back may have its turn before it.
                return Ok(self.free_until(offset).or_else(|| self.ready.take()));
            }
            let Some(record) = self.records.record()? else {
                return Ok(self.free_until(u64::MAX));
            };
            match record {
                Record::Write { object: ZVOL_DATA, offset, block } => {
                    self.advance(offset, block.len())?;
                    let mut bytes = block.unpack()?;
                    let kept = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
                    if !all_zero(&bytes[kept..]) {
                        return Err(Error::Unsupported(format!(
                            "the volume has data behind byte {}, where the image ends: is the size too small?",
                            self.size
                        )));
                    }
                    bytes.truncate(kept);
                    self.ready = (kept > 0).then(|| Change::Data(Data::new(offset, bytes)));
                }
                Record::Free { object: ZVOL_DATA, offset, len } if !self.whole => {
                    let end = offset.saturating_add(len).min(self.size);
                    if len == u64::MAX {
                        self.in_order(offset)?;
                        let first = self.free.map_or(offset, |(start, _)| start.min(offset));
                        self.free = (first < end).then_some((first, end));
                    } else {
                        self.advance(offset, len)?;
                        // What is held back speaks for itself.
                        let end = self.free.map_or(end, |(start, _)| end.min(start));
                        self.ready = (offset < end).then(|| zero(offset, end));
                    }
                }
                Record::Write { object: ZVOL_PROPERTIES, .. } => self.resized = true,
                Record::Write { .. } | Record::Free { .. } | Record::Other => {}
            }
        }
    }

    /// The stream said something about the volume's size.
    pub fn resized(&self) -> bool {
        self.resized
    }

    fn advance(&mut self, offset: u64, len: u64) -> Result<(), Error> {
        self.in_order(offset)?;
        let end = offset.checked_add(len).filter(|end| end.is_multiple_of(SECTOR));
        self.floor = end.ok_or_else(|| Error::Damaged(format!("a block of {len} bytes at offset {offset}")))?;
        Ok(())
    }

    fn in_order(&self, offset: u64) -> Result<(), Error> {
        if offset < self.floor || !offset.is_multiple_of(SECTOR) {
            return Err(Error::Damaged(format!("a block at offset {offset} after one that ended at {}", self.floor)));
        }
        Ok(())
    }

    /// What of the freed range lies before `offset`.
    fn free_until(&mut self, offset: u64) -> Option<Change> {
        let (start, end) = self.free.filter(|(start, _)| *start < offset)?;
        self.free = None;
        if end > offset {
            // A block inside: the rest is free all the same.
            self.free = Some((self.floor.max(offset), end)).filter(|(start, end)| start < end);
        }
        Some(zero(start, end.min(offset)))
    }
}

fn zero(offset: u64, end: u64) -> Change {
    Change::Zero { offset, len: end - offset, may_deallocate: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::zfs_send::tests::Stream;

    const ZVOL: u32 = 3;
    const MIB: u64 = 1 << 20;

    fn changes(stream: &[u8], size: u64, whole: bool) -> Result<Vec<Change>, Error> {
        let mut extents = Extents::new(Records::open(stream)?, size, whole);
        let mut all = Vec::new();
        while let Some(change) = extents.change()? {
            all.push(change);
        }
        Ok(all)
    }

    fn data(offset: u64, bytes: &[u8]) -> Change {
        Change::Data(Data::new(offset, bytes.to_vec()))
    }

    #[test]
    fn the_end_that_is_told_first_comes_in_its_turn() {
        let stream = Stream::begin(false, ZVOL, 0, 5)
            .free(MIB, u64::MAX)
            .write(4096, 4096, 0, &[1; 4096])
            .free(8192, 8192)
            .write(65536, 4096, 0, &[2; 4096])
            .end();
        let wanted = [data(4096, &[1; 4096]), zero(8192, 16384), data(65536, &[2; 4096]), zero(MIB, 2 * MIB)];
        assert_eq!(changes(&stream, 2 * MIB, false).unwrap(), wanted);
    }

    #[test]
    fn a_block_inside_of_what_is_free_cuts_it() {
        let stream = Stream::begin(false, ZVOL, 0, 5).free(0, u64::MAX).write(8192, 4096, 0, &[1; 4096]).end();
        assert_eq!(changes(&stream, MIB, false).unwrap(), [zero(0, 8192), data(8192, &[1; 4096]), zero(12288, MIB)]);
    }

    #[test]
    fn what_lies_behind_the_image_is_cut_off() {
        let block = [vec![1; 5000], vec![0; 3192]].concat();
        let stream = Stream::begin(false, ZVOL, 0, 5).write(0, 8192, 0, &block).write(8192, 8192, 0, &[0; 8192]).end();
        assert_eq!(changes(&stream, 5000, false).unwrap(), [data(0, &[1; 5000])]);
        // But never in silence.
        assert!(matches!(changes(&stream, 4999, false), Err(Error::Unsupported(_))));
        let stream = Stream::begin(false, ZVOL, 0, 5).free(4096, u64::MAX).end();
        assert_eq!(changes(&stream, 5000, false).unwrap(), [zero(4096, 5000)]);
        assert_eq!(changes(&stream, 4096, false).unwrap(), []);
    }

    #[test]
    fn a_hole_that_reaches_into_the_end_is_told_once() {
        let stream = Stream::begin(false, ZVOL, 0, 5).free(9 * MIB + 4096, u64::MAX).free(8 * MIB, 4 * MIB).end();
        let wanted = [zero(8 * MIB, 9 * MIB + 4096), zero(9 * MIB + 4096, 64 * MIB)];
        assert_eq!(changes(&stream, 64 * MIB, false).unwrap(), wanted);
        let stream = Stream::begin(false, ZVOL, 0, 5).free(MIB, u64::MAX).free(2 * MIB, MIB).end();
        assert_eq!(changes(&stream, 4 * MIB, false).unwrap(), [zero(MIB, 4 * MIB)]);
    }

    #[test]
    fn a_whole_stream_says_nothing_of_what_is_free() {
        let stream = Stream::begin(false, ZVOL, 0, 0).free(4096, u64::MAX).write(0, 4096, 0, &[1; 4096]).end();
        assert_eq!(changes(&stream, MIB, true).unwrap(), [data(0, &[1; 4096])]);
    }

    #[test]
    fn blocks_out_of_order_are_refused() {
        let stream = Stream::begin(false, ZVOL, 0, 5).write(8192, 4096, 0, &[1; 4096]).write(4096, 8192, 0, &[2; 8192]).end();
        assert!(matches!(changes(&stream, MIB, false), Err(Error::Damaged(_))));
    }
}
