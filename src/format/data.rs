//! Bytes at an offset, and the leaves that stand for them in digests.

use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;

use super::{all_zero, wire};

/// A block's bytes, as an offset.
const BLOCK: u64 = wire::BLOCK as u64;

/// What stands for a run of bytes in digests: their BLAKE3, or 32 zero bytes where all of them are zero
/// (extent-stream(5), "LEAVES").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf(pub [u8; 32]);

impl Leaf {
    /// The leaf of zeros, however many.
    pub const ZERO: Leaf = Leaf([0; 32]);

    /// The leaf of these bytes.
    pub fn of(bytes: &[u8]) -> Leaf {
        if all_zero(bytes) { Leaf::ZERO } else { Leaf(*blake3::hash(bytes).as_bytes()) }
    }
}

/// Bytes of an image, and where they begin.
///
/// Hashing is most of the work that a stream costs, and the same content is asked for its leaves twice: by the digest
/// chain and by a content root. So a leaf is computed when it is first asked for, and kept; also by the parts that
/// [`Data::slice`] takes out.
#[derive(Clone, Debug)]
pub struct Data {
    offset: u64,
    bytes: Bytes,
    /// One for each piece.
    leaves: Box<[OnceLock<Leaf>]>,
}

/// What of some [`Data`] lies in one block of 64 KiB of the image.
pub struct Piece<'a> {
    /// Where it begins in the image.
    pub offset: u64,
    /// At least one byte, at most a block.
    pub bytes: &'a [u8],
    leaf: &'a OnceLock<Leaf>,
}

impl Piece<'_> {
    /// Whether a block begins here.
    pub fn begins_block(&self) -> bool {
        self.offset.is_multiple_of(BLOCK)
    }

    /// The first byte behind it.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }

    /// Its leaf.
    pub fn leaf(&self) -> Leaf {
        *self.leaf.get_or_init(|| Leaf::of(self.bytes))
    }
}

impl Data {
    /// These bytes, from `offset` of the image on.
    pub fn new(offset: u64, bytes: impl Into<Bytes>) -> Data {
        let bytes = bytes.into();
        let pieces = if bytes.is_empty() { 0 } else { behind(offset).saturating_add(bytes.len()).div_ceil(wire::BLOCK) };
        Data { offset, bytes, leaves: vec![OnceLock::new(); pieces].into() }
    }

    /// Where they begin.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Computes all leaves: on another thread than the one that will ask for them.
    pub fn hash(&self) {
        self.pieces().for_each(|piece| _ = piece.leaf());
    }

    /// A part, without copying. `range` must lie inside.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Data {
        let before = behind(self.offset).saturating_add(range.start).checked_div(wire::BLOCK).unwrap_or(0);
        let mut part = Data::new(self.offset.wrapping_add(range.start as u64), self.bytes.slice(range));
        // A piece that was not cut keeps its leaf.
        let same =
            part.pieces().zip(self.pieces().skip(before)).map(|(part, whole)| match part.bytes.len() == whole.bytes.len() {
                true => whole.leaf.clone(),
                false => OnceLock::new(),
            });
        part.leaves = same.collect();
        part
    }

    /// The bytes, cut at every multiple of 64 KiB of the image.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let (mut offset, mut rest) = (self.offset, self.bytes.as_ref());
        self.leaves.iter().map(move |leaf| {
            let (bytes, left) = rest.split_at(rest.len().min(wire::BLOCK.saturating_sub(behind(offset))));
            let piece = Piece { offset, bytes, leaf };
            // Wraps where a hostile offset does; as 2^64 is a multiple of a block, the cuts stay where they are.
            offset = offset.wrapping_add(bytes.len() as u64);
            rest = left;
            piece
        })
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Data) -> bool {
        (self.offset, &self.bytes) == (other.offset, &other.bytes)
    }
}

impl Eq for Data {}

/// Bytes from the last cut to `offset`.
fn behind(offset: u64) -> usize {
    usize::try_from(offset % BLOCK).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::wire::BLOCK;
    use super::{Data, Leaf};

    fn leaves(data: &Data) -> Vec<Leaf> {
        data.pieces().map(|piece| piece.leaf()).collect()
    }

    #[test]
    fn a_part_has_the_leaves_of_its_own_bytes() {
        let bytes: Vec<u8> = (0..3 * BLOCK + 5000).map(|n| u8::try_from(n / 1000).unwrap()).collect();
        for offset in [0, 4096, BLOCK as u64 - 1, u64::MAX - 10_000] {
            let data = Data::new(offset, bytes.clone());
            leaves(&data);
            for range in [0..1, 0..BLOCK, 1..BLOCK, BLOCK..2 * BLOCK, 4096..3 * BLOCK, 0..bytes.len(), 70_000..bytes.len(), 9..9]
            {
                let part = data.slice(range.clone());
                let fresh = Data::new(offset.wrapping_add(range.start as u64), bytes.get(range.clone()).unwrap().to_vec());
                assert_eq!(part.bytes(), fresh.bytes());
                assert_eq!(leaves(&part), leaves(&fresh), "{range:?} of {offset}");
            }
        }
    }

    #[test]
    fn pieces_are_cut_at_blocks_of_the_image() {
        let lengths = |offset, len| Data::new(offset, vec![1; len]).pieces().map(|p| p.bytes.len()).collect::<Vec<_>>();
        assert_eq!(lengths(0, 0), [] as [usize; 0]);
        assert_eq!(lengths(0, BLOCK), [BLOCK]);
        assert_eq!(lengths(0, BLOCK + 1), [BLOCK, 1]);
        assert_eq!(lengths(BLOCK as u64 - 1, 2), [1, 1]);
        assert_eq!(lengths(5 * BLOCK as u64 + 4096, BLOCK), [BLOCK - 4096, 4096]);
        assert_eq!(lengths(u64::MAX, 2), [1, 1], "a hostile offset");
    }
}
