//! A manifest's blocks, as many at a time as are asked for.

use std::io::Read;

use super::Fault;
use super::manifest::{Entry, ManifestEnd, ManifestHeader, ManifestReader};

/// Goes through a manifest beside something else that is cut into blocks. What lies behind the end of the described image
/// reads as zero.
pub struct ManifestCursor<R: Read> {
    manifest: ManifestReader<R>,
    /// Blocks of zeros that the manifest told of and that were not given out yet.
    zeros: u64,
}

impl<R: Read> ManifestCursor<R> {
    /// At the first block.
    pub fn new(manifest: ManifestReader<R>) -> ManifestCursor<R> {
        ManifestCursor { manifest, zeros: 0 }
    }

    /// What the manifest is of.
    pub fn header(&self) -> ManifestHeader {
        self.manifest.header()
    }

    /// The next block, or at most so many of zeros.
    pub fn next(&mut self, most: u64) -> Result<Entry, Fault> {
        if self.zeros == 0 {
            match self.manifest.entry()? {
                Some(Entry::Full(digest)) => return Ok(Entry::Full(digest)),
                Some(Entry::Zeros(count)) => self.zeros = count,
                // Behind its end.
                None => self.zeros = u64::MAX,
            }
        }
        let count = self.zeros.min(most);
        self.zeros -= count;
        Ok(Entry::Zeros(count))
    }

    /// What the manifest says at its end. It is read to there: nothing that was given out may be relied on before.
    pub fn finish(self) -> Result<ManifestEnd, Fault> {
        self.manifest.verify().map(|(_, end)| end)
    }
}
