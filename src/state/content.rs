//! The content root: one digest for what an image holds, whatever it lies on.

use crate::format::{Digest, all_zero};

/// Bytes of a block that is hashed on its own: 64 KiB (extent-stream(5), "CONTENT ROOT").
const BLOCK: usize = 64 << 10;
/// Bytes of a block's digest.
const LEAF: usize = 32;
/// Zeros to hash. A block of zeros has a leaf of zeros, so a hole of 2048 blocks costs one turn over these.
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Computes a content root from an image's bytes in order.
///
/// The image is cut into blocks of 64 KiB, the last one as long as it is. A block's leaf is its BLAKE3, or 32 zero bytes
/// when all its bytes are zero. The root is BLAKE3 over `siphon-content-1`, the size in bytes as a 64-bit little-endian
/// integer, and all leaves.
pub struct ContentRoot {
    leaves: blake3::Hasher,
    block: blake3::Hasher,
    /// Bytes of the block that is being filled.
    filled: usize,
    /// No byte of that block was other than zero.
    blank: bool,
}

impl ContentRoot {
    /// The root of an image of `size` bytes, before its first byte.
    pub fn new(size: u64) -> ContentRoot {
        let mut leaves = blake3::Hasher::new();
        leaves.update(b"siphon-content-1");
        leaves.update(&size.to_le_bytes());
        ContentRoot { leaves, block: blake3::Hasher::new(), filled: 0, blank: true }
    }

    /// The next bytes.
    pub fn data(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            if self.blank && !all_zero(now) {
                // Whatever came before in this block was zeros that were not hashed.
                self.blank = false;
                self.hash_zeros(self.filled);
            }
            if !self.blank {
                self.block.update(now);
            }
            self.fill(now.len());
            bytes = rest;
        }
    }

    /// The next `len` bytes, all zero.
    pub fn zeros(&mut self, mut len: u64) {
        while len > 0 {
            if self.filled == 0 && len >= BLOCK as u64 {
                self.zero_leaves(len / BLOCK as u64);
                len %= BLOCK as u64;
                continue;
            }
            let now = usize::try_from(len).unwrap_or(BLOCK).min(BLOCK - self.filled);
            if !self.blank {
                self.hash_zeros(now);
            }
            self.fill(now);
            len -= now as u64;
        }
    }

    /// The root, after the last byte.
    pub fn finish(mut self) -> Digest {
        if self.filled > 0 {
            self.close_block();
        }
        Digest(*self.leaves.finalize().as_bytes())
    }

    fn hash_zeros(&mut self, len: usize) {
        self.block.update(&ZEROS[..len]);
    }

    /// The leaves of whole blocks of zeros.
    fn zero_leaves(&mut self, mut blocks: u64) {
        while blocks > 0 {
            let now = usize::try_from(blocks).unwrap_or(usize::MAX).min(ZEROS.len() / LEAF);
            self.leaves.update(&ZEROS[..now * LEAF]);
            blocks -= now as u64;
        }
    }

    /// Counts bytes of the block, and closes it when it is full.
    fn fill(&mut self, len: usize) {
        self.filled += len;
        if self.filled == BLOCK {
            self.close_block();
        }
    }

    fn close_block(&mut self) {
        let leaf = if self.blank { [0; LEAF] } else { *self.block.finalize().as_bytes() };
        self.leaves.update(&leaf);
        self.block.reset();
        self.filled = 0;
        self.blank = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(pieces: &[&[u8]], size: u64) -> Digest {
        let mut root = ContentRoot::new(size);
        pieces.iter().for_each(|piece| root.data(piece));
        root.finish()
    }

    #[test]
    fn a_root_does_not_depend_on_pieces_or_holes() {
        let mut image = vec![0; 5 * BLOCK + 1234];
        for at in [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 77, 5 * BLOCK + 1233] {
            image[at] = 7;
        }
        let size = image.len() as u64;
        let whole = root(&[&image], size);
        for step in [1000, 4096, BLOCK - 1, BLOCK + 1] {
            assert_eq!(root(&image.chunks(step).collect::<Vec<_>>(), size), whole);
        }
        let mut holes = ContentRoot::new(size);
        let mut at = 0;
        while at < image.len() {
            let zeros = image[at..].iter().take_while(|byte| **byte == 0).count();
            holes.zeros(zeros as u64);
            at += zeros;
            if at < image.len() {
                holes.data(&image[at..=at]);
                at += 1;
            }
        }
        assert_eq!(holes.finish(), whole);
        // Zeros have one leaf, however many they are: here nothing else tells the sizes apart.
        assert_ne!(root(&[&[0; 10]], 10), root(&[&[0; 20]], 20), "the size counts");
    }
}
