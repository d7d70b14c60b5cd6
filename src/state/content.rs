//! The content root: one digest for what an image holds, whatever it lies on.

use crate::format::wire::BLOCK;
use crate::format::{Data, Digest, Leaf};

/// Bytes of a leaf.
const LEAF: usize = 32;
/// Leaves of zeros to hash at once: a hole of 2048 blocks costs one turn over these.
static ZERO_LEAVES: [u8; 2048 * LEAF] = [0; 2048 * LEAF];

/// Computes a content root (extent-stream(5), "CONTENT ROOT") from an image's bytes in order.
pub struct ContentRoot {
    root: blake3::Hasher,
    /// The image's size in bytes.
    size: u64,
    /// The block that came in parts so far; shorter than a block.
    block: Vec<u8>,
}

impl ContentRoot {
    /// The root of an image of `size` bytes, before its first byte.
    pub fn new(size: u64) -> ContentRoot {
        let mut root = blake3::Hasher::new();
        root.update(b"siphon-content-1");
        root.update(&size.to_le_bytes());
        ContentRoot { root, size, block: Vec::new() }
    }

    /// The next bytes.
    pub fn data(&mut self, data: &Data) {
        for piece in data.pieces() {
            // A whole block's leaf is the one that the digest chain takes.
            if piece.bytes.len() == BLOCK || piece.begins_block() && piece.end() == self.size {
                self.root.update(&piece.leaf().0);
            } else {
                self.block.extend_from_slice(piece.bytes);
                self.close_full_block();
            }
        }
    }

    /// The next `len` bytes, all zero.
    pub fn zeros(&mut self, len: u64) {
        let room = if self.block.is_empty() { 0 } else { BLOCK - self.block.len() };
        let first = usize::try_from(len).unwrap_or(usize::MAX).min(room);
        self.zeros_in_block(first);
        let rest = len - first as u64;
        let mut leaves = rest / BLOCK as u64 * LEAF as u64;
        while leaves > 0 {
            let now = usize::try_from(leaves).unwrap_or(usize::MAX).min(ZERO_LEAVES.len());
            self.root.update(&ZERO_LEAVES[..now]);
            leaves -= now as u64;
        }
        self.zeros_in_block(usize::try_from(rest % BLOCK as u64).unwrap_or(0));
    }

    /// The root, after the last byte.
    pub fn finish(mut self) -> Digest {
        if !self.block.is_empty() {
            self.close_block();
        }
        Digest(*self.root.finalize().as_bytes())
    }

    /// Zeros that do not leave the block.
    fn zeros_in_block(&mut self, len: usize) {
        self.block.resize(self.block.len() + len, 0);
        self.close_full_block();
    }

    fn close_full_block(&mut self) {
        if self.block.len() == BLOCK {
            self.close_block();
        }
    }

    fn close_block(&mut self) {
        self.root.update(&Leaf::of(&self.block).0);
        self.block.clear();
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
