//! An image beside the manifest of another state: where they differ.

use std::io::Read;

use super::Fault;
use super::content::Block;
use super::cursor::ManifestCursor;
use super::manifest::{BlockDigest, Entry, FINE_GRAIN, GrainDigest, ManifestEnd, ManifestHeader, ManifestReader, grain_digest};
use crate::format::wire::BLOCK;

/// Compares an image, block by block, with what a manifest describes.
///
/// Differences are told in grains of 4 KiB where the manifest is fine, else in blocks of 64 KiB. What lies behind the end
/// of the described image reads as zero. Nothing that was told may be relied on before [`Comparison::finish`], which
/// finds out whether the manifest was whole.
pub struct Comparison<R: Read> {
    described: ManifestCursor<R>,
    /// Everything before this offset was compared.
    at: u64,
    /// Exact size in bytes of the image that is compared.
    size: u64,
}

impl<R: Read> Comparison<R> {
    /// An image beside this manifest.
    pub fn new(manifest: ManifestReader<R>) -> Comparison<R> {
        Comparison { described: ManifestCursor::new(manifest), at: 0, size: 0 }
    }

    /// What the manifest is of.
    pub fn header(&self) -> ManifestHeader {
        self.described.header()
    }

    /// The image has `size` bytes.
    pub fn begin(&mut self, size: u64) {
        self.size = size;
    }

    /// Everything before this offset was compared.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next block of the image, or blocks of zeros. Tells `differs` the offset and the length in bytes of each range
    /// that differs, ascending.
    pub fn block(&mut self, block: &Block<'_>, differs: &mut impl FnMut(u64, u64) -> Result<(), Fault>) -> Result<(), Fault> {
        match *block {
            Block::Full { leaf, bytes } => match self.described.next(1)? {
                Entry::Full(other) if other.leaf == leaf => Ok(()),
                Entry::Full(other) => self.grains(bytes, &other.grains, differs),
                Entry::Zeros(_) => self.grains(bytes, &[[0; 16]; BLOCK / FINE_GRAIN], differs),
            }
            .map(|()| self.at += BLOCK as u64),
            Block::Zeros(mut count) => {
                while count > 0 {
                    let passed = match self.described.next(count)? {
                        Entry::Full(other) => self.grains_of_zeros(&other, differs).map(|()| 1)?,
                        Entry::Zeros(same) => same,
                    };
                    self.at += passed * BLOCK as u64;
                    count -= passed;
                }
                Ok(())
            }
        }
    }

    /// After the last block: what the manifest says at its end. It is read to there.
    pub fn finish(self) -> Result<ManifestEnd, Fault> {
        self.described.finish()
    }

    /// A block whose leaf differs.
    fn grains(
        &self,
        bytes: &[u8],
        others: &[GrainDigest],
        differs: &mut impl FnMut(u64, u64) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if others.is_empty() {
            return differs(self.at, bytes.len() as u64);
        }
        let mut found = false;
        for (n, grain) in bytes.chunks(FINE_GRAIN).enumerate() {
            if others.get(n) != Some(&grain_digest(grain)) {
                found = true;
                differs(self.at + (n * FINE_GRAIN) as u64, grain.len() as u64)?;
            }
        }
        // The longer digest has the last word.
        if found { Ok(()) } else { differs(self.at, bytes.len() as u64) }
    }

    /// A block that now is zeros.
    fn grains_of_zeros(&self, other: &BlockDigest, differs: &mut impl FnMut(u64, u64) -> Result<(), Fault>) -> Result<(), Fault> {
        let left = self.size.saturating_sub(self.at);
        if other.grains.is_empty() {
            return differs(self.at, left.min(BLOCK as u64));
        }
        for (n, _) in other.grains.iter().enumerate().filter(|(_, digest)| **digest != [0; 16]) {
            let begins = (n * FINE_GRAIN) as u64;
            if begins < left {
                differs(self.at + begins, (left - begins).min(FINE_GRAIN as u64))?;
            }
        }
        Ok(())
    }
}
