//! The records of a send stream as changes of an image.

use std::io::Read;

use crate::foreign::zfs_send::{Error, Record, Records, ZVOL_DATA, ZVOL_PROPERTIES};
use crate::format::{Change, Data};

/// Turns records into changes that ascend and lie inside the image.
///
/// `zfs send` tells a volume's data block by block in ascending order, with one exception: right behind the object it says
/// that everything behind its last block is free. That is held back until its turn comes.
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
            if let Some(change) = self.ready.take() {
                return Ok(Some(change));
            }
            let Some(record) = self.records.record()? else {
                return Ok(self.free_until(u64::MAX));
            };
            match record {
                Record::Write { object: ZVOL_DATA, offset, block } => {
                    let end = offset.checked_add(block.len()).ok_or_else(overflow)?;
                    self.advance(offset, end)?;
                    let kept = self.size.saturating_sub(offset).min(block.len());
                    if kept > 0 {
                        let mut bytes = block.unpack()?;
                        bytes.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
                        self.ready = Some(Change::Data(Data::new(offset, bytes)));
                    }
                    if let Some(free) = self.free_until(offset) {
                        return Ok(Some(free));
                    }
                }
                Record::Free { object: ZVOL_DATA, offset, len } if !self.whole => {
                    let end = offset.saturating_add(len).min(self.size);
                    // One that goes to the end may be told first.
                    if len == u64::MAX || end == self.size {
                        let first = self.free.map_or(offset, |(start, _)| start.min(offset));
                        self.free = (first < end).then_some((first, end));
                    } else {
                        self.advance(offset, end)?;
                        self.ready = (offset < end).then(|| zero(offset, end));
                        if let Some(free) = self.free_until(offset) {
                            return Ok(Some(free));
                        }
                    }
                }
                Record::Write { object: ZVOL_PROPERTIES, .. } => self.resized = true,
                Record::Write { .. } | Record::Free { .. } | Record::Object { .. } | Record::FreeObjects => {}
            }
        }
    }

    /// The stream said something about the volume's size.
    pub fn resized(&self) -> bool {
        self.resized
    }

    fn advance(&mut self, offset: u64, end: u64) -> Result<(), Error> {
        if offset < self.floor {
            return Err(Error::Damaged(format!("a block at offset {offset} after one that ended at {}", self.floor)));
        }
        self.floor = end;
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

fn overflow() -> Error {
    Error::Damaged("a block lies behind the end of all volumes".to_owned())
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
        let stream = Stream::begin(false, ZVOL, 0, 5).write(0, 8192, 0, &[1; 8192]).write(8192, 8192, 0, &[2; 8192]).end();
        assert_eq!(changes(&stream, 5000, false).unwrap(), [data(0, &[1; 5000])]);
        let stream = Stream::begin(false, ZVOL, 0, 5).free(4096, u64::MAX).end();
        assert_eq!(changes(&stream, 5000, false).unwrap(), [zero(4096, 5000)]);
        assert_eq!(changes(&stream, 4096, false).unwrap(), []);
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
