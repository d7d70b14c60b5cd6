//! An image of which only some parts are read.

use std::path::Path;

use super::input::{Access, Input};
use super::{CHUNK, finished};
use crate::format::{Data, Pool};
use crate::host::record::STATE_DIR;
use crate::state::Fault;

/// An image file or block device that nobody else changes, read where it is asked.
pub struct ImageParts {
    input: Input,
    pool: Pool,
}

impl ImageParts {
    /// Opens it; one that is in use, or that an unfinished run left part old, part new, is refused.
    pub fn open(path: &Path) -> Result<ImageParts, Fault> {
        // Holes are not asked for, and so not believed: what is read is what is there.
        let input = Input::open(path, Access { live: false, trust_holes: false })?;
        finished(&input, Path::new(STATE_DIR))?;
        Ok(ImageParts { input, pool: Pool::new(CHUNK) })
    }

    /// Exact size in bytes.
    pub fn size(&self) -> u64 {
        self.input.size()
    }

    /// `len` bytes from `offset` on.
    pub fn read(&self, offset: u64, len: usize) -> Result<Data, Fault> {
        self.input.read(&self.pool, offset, len)
    }

    /// After the last part: nobody wrote to the image meanwhile.
    pub fn finish(self) -> Result<(), Fault> {
        self.input.unchanged()
    }
}
