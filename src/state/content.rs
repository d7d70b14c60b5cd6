//! What an image holds, whatever it lies on: its blocks in order, and the content root over their leaves.

use std::convert::Infallible;

use super::{Class, Fault};
use crate::format::wire::BLOCK;
use crate::format::{Data, Digest, Leaf};

/// Bytes of a leaf.
const LEAF: usize = 32;
/// Leaves of zeros to hash at once: a hole of 2048 blocks costs one turn over these.
static ZERO_LEAVES: [u8; 2048 * LEAF] = [0; 2048 * LEAF];

/// The next of an image's blocks of 64 KiB; the last one may be shorter.
#[derive(Clone, Copy, Debug)]
pub enum Block<'a> {
    /// So many blocks of zeros.
    Zeros(u64),
    /// One block that holds other bytes, too.
    Full {
        /// Its leaf.
        leaf: Leaf,
        /// What it holds.
        bytes: &'a [u8],
    },
}

impl<'a> Block<'a> {
    fn new(leaf: Leaf, bytes: &'a [u8]) -> Block<'a> {
        if leaf == Leaf::ZERO { Block::Zeros(1) } else { Block::Full { leaf, bytes } }
    }
}

/// Cuts an image's content, said in order in whatever pieces, into its blocks.
pub struct Blocks {
    /// The image's size in bytes.
    size: u64,
    /// The block that came in parts so far; shorter than a block.
    part: Vec<u8>,
}

impl Blocks {
    /// The blocks of an image of `size` bytes.
    pub fn new(size: u64) -> Blocks {
        Blocks { size, part: Vec::new() }
    }

    /// The next bytes.
    pub fn data<E>(&mut self, data: &Data, each: &mut impl FnMut(Block<'_>) -> Result<(), E>) -> Result<(), E> {
        for piece in data.pieces() {
            // A whole block's leaf is the one that the digest chain takes.
            if piece.bytes.len() == BLOCK || piece.begins_block() && piece.end() == self.size {
                each(Block::new(piece.leaf(), piece.bytes))?;
            } else {
                self.part.extend_from_slice(piece.bytes);
                self.close_full(each)?;
            }
        }
        Ok(())
    }

    /// The next `len` bytes, all zero.
    pub fn zeros<E>(&mut self, len: u64, each: &mut impl FnMut(Block<'_>) -> Result<(), E>) -> Result<(), E> {
        let room = if self.part.is_empty() { 0 } else { BLOCK - self.part.len() };
        let first = usize::try_from(len).unwrap_or(usize::MAX).min(room);
        self.part.resize(self.part.len() + first, 0);
        self.close_full(each)?;
        let rest = len - first as u64;
        if rest >= BLOCK as u64 {
            each(Block::Zeros(rest / BLOCK as u64))?;
        }
        self.part.resize(self.part.len() + usize::try_from(rest % BLOCK as u64).unwrap_or(0), 0);
        Ok(())
    }

    /// After the last byte.
    pub fn finish<E>(mut self, each: &mut impl FnMut(Block<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.part.is_empty() { Ok(()) } else { self.close(each) }
    }

    fn close_full<E>(&mut self, each: &mut impl FnMut(Block<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.part.len() == BLOCK { self.close(each) } else { Ok(()) }
    }

    fn close<E>(&mut self, each: &mut impl FnMut(Block<'_>) -> Result<(), E>) -> Result<(), E> {
        each(Block::new(Leaf::of(&self.part), &self.part))?;
        self.part.clear();
        Ok(())
    }
}

/// The largest image, in bytes, of which a digest is taken: 1 PiB, whose zeros take half an hour. A stream may declare any size.
const LIMIT: u64 = 1 << 50;

/// Refuses an image that is too large for a digest.
pub fn check_size(size: u64) -> Result<(), Fault> {
    if size <= LIMIT { Ok(()) } else { Err(Fault::new(Class::Unsupported, "no digest is taken of an image of more than 1 PiB")) }
}

/// The content root (extent-stream(5), "CONTENT ROOT") from an image's blocks in order.
pub struct RootHasher(blake3::Hasher);

impl RootHasher {
    /// The root of an image of `size` bytes, before its first block.
    pub fn new(size: u64) -> RootHasher {
        let mut root = blake3::Hasher::new();
        root.update(b"siphon-content-1");
        root.update(&size.to_le_bytes());
        RootHasher(root)
    }

    /// A digest that has such blocks in it, too.
    pub(super) fn beginning_with(prefix: &[u8]) -> RootHasher {
        let mut root = RootHasher(blake3::Hasher::new());
        root.update(prefix);
        root
    }

    /// What is no block.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The next block, or blocks of zeros.
    pub fn block(&mut self, block: &Block<'_>) {
        match *block {
            Block::Full { leaf, .. } => _ = self.0.update(&leaf.0),
            Block::Zeros(count) => {
                let mut left = count.saturating_mul(LEAF as u64);
                while left > 0 {
                    let now = usize::try_from(left).unwrap_or(usize::MAX).min(ZERO_LEAVES.len());
                    self.0.update(&ZERO_LEAVES[..now]);
                    left -= now as u64;
                }
            }
        }
    }

    /// The root, after the last block.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

/// Computes a content root from an image's bytes in order.
pub struct ContentRoot {
    blocks: Blocks,
    root: RootHasher,
}

impl ContentRoot {
    /// The root of an image of `size` bytes, before its first byte.
    pub fn new(size: u64) -> ContentRoot {
        ContentRoot { blocks: Blocks::new(size), root: RootHasher::new(size) }
    }

    /// The next bytes.
    pub fn data(&mut self, data: &Data) {
        let ContentRoot { blocks, root } = self;
        let Ok(()) = blocks.data(data, &mut infallible(root));
    }

    /// The next `len` bytes, all zero.
    pub fn zeros(&mut self, len: u64) {
        let ContentRoot { blocks, root } = self;
        let Ok(()) = blocks.zeros(len, &mut infallible(root));
    }

    /// The root, after the last byte.
    pub fn finish(self) -> Digest {
        let ContentRoot { blocks, mut root } = self;
        let Ok(()) = blocks.finish(&mut infallible(&mut root));
        root.finish()
    }
}

fn infallible(root: &mut RootHasher) -> impl FnMut(Block<'_>) -> Result<(), Infallible> {
    |block| {
        root.block(&block);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(image: &[u8], step: usize) -> Digest {
        let mut root = ContentRoot::new(image.len() as u64);
        for (n, piece) in image.chunks(step).enumerate() {
            root.data(&Data::new((n * step) as u64, piece.to_vec()));
        }
        root.finish()
    }

    #[test]
    fn a_root_does_not_depend_on_pieces_or_holes() {
        let mut image = vec![0; 5 * BLOCK + 1234];
        for at in [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 77, 5 * BLOCK + 1233] {
            image[at] = 7;
        }
        let whole = root(&image, image.len());
        for step in [1000, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            assert_eq!(root(&image, step), whole, "pieces of {step}");
        }
        let mut holes = ContentRoot::new(image.len() as u64);
        let mut at = 0;
        while at < image.len() {
            let zeros = image[at..].iter().take_while(|byte| **byte == 0).count();
            holes.zeros(zeros as u64);
            at += zeros;
            if at < image.len() {
                holes.data(&Data::new(at as u64, vec![image[at]]));
                at += 1;
            }
        }
        assert_eq!(holes.finish(), whole);
        // Zeros have one leaf, however many they are: here nothing else tells the sizes apart.
        assert_ne!(root(&[0; 10], 10), root(&[0; 20], 20), "the size counts");
    }
}
