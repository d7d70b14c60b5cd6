//! Which blocks of an image were touched.

use std::ops::Range;

use crate::format::wire::BLOCK;
use crate::state::{Fault, check_size};

/// A bit for each block of 64 KiB: 2 MiB of memory for 1 TiB of image, and only what was set is ever resident.
pub(super) struct Touched {
    words: Vec<u64>,
    /// How many blocks there are.
    blocks: u64,
}

impl Touched {
    /// None of an image of `size` bytes.
    pub fn none(size: u64) -> Result<Touched, Fault> {
        check_size(size)?;
        let blocks = size.div_ceil(BLOCK as u64);
        let words = usize::try_from(blocks.div_ceil(u64::BITS.into())).unwrap_or(usize::MAX);
        Ok(Touched { words: vec![0; words], blocks })
    }

    /// Every block that holds any of the bytes from `offset` to `end`.
    pub fn bytes(&mut self, offset: u64, end: u64) {
        for block in offset / BLOCK as u64..end.div_ceil(BLOCK as u64).min(self.blocks) {
            let (word, bit) = place(block);
            if let Some(word) = self.words.get_mut(word) {
                *word |= bit;
            }
        }
    }

    /// The longest run of blocks from `begin` on that are touched alike, and how; `None` behind the last block.
    pub fn run(&self, begin: u64) -> Option<(Range<u64>, bool)> {
        let touched = (begin < self.blocks).then(|| self.is(begin))?;
        let end = (begin..self.blocks).find(|block| self.is(*block) != touched).unwrap_or(self.blocks);
        Some((begin..end, touched))
    }

    fn is(&self, block: u64) -> bool {
        let (word, bit) = place(block);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }
}

/// The word of a block, and the block's bit in it.
fn place(block: u64) -> (usize, u64) {
    let bits = u64::from(u64::BITS);
    (usize::try_from(block / bits).unwrap_or(usize::MAX), 1 << (block % bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_touched_by_any_of_its_bytes_and_by_no_other() {
        const B: u64 = BLOCK as u64;
        let mut touched = Touched::none(200 * B + 1).unwrap();
        for (offset, end) in [(0, 1), (3 * B - 1, 3 * B + 1), (63 * B, 65 * B), (200 * B, 200 * B + 1)] {
            touched.bytes(offset, end);
        }
        let mut runs = Vec::new();
        while let Some((range, is)) = touched.run(runs.last().map_or(0, |(range, _): &(Range<u64>, bool)| range.end)) {
            runs.push((range, is));
        }
        let set: Vec<Range<u64>> = runs.iter().filter(|(_, is)| *is).map(|(range, _)| range.clone()).collect();
        assert_eq!(set, [0..1, 2..4, 63..65, 200..201]);
        assert_eq!(runs.last().unwrap().0.end, 201);
        assert!(Touched::none(0).unwrap().run(0).is_none());
    }

    #[test]
    fn a_declared_size_does_not_take_the_memory() {
        assert_eq!(Touched::none(i64::MAX as u64).err().unwrap().class, crate::state::Class::Unsupported);
    }
}
