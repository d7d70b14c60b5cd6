//! How a tool is told to look at a share of the blocks.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

use crate::format::Digest;
use crate::state::{Sample, Share};

/// Which blocks are read.
#[derive(clap::Args, Clone, Debug)]
pub struct SampleOptions {
    /// With --compare and --image: read only a random share of the blocks, such as 5% or 0.1%
    #[arg(long, value_name = "SHARE", requires = "compare")]
    sample: Option<Share>,
    /// With --sample: read all blocks, too, that differ between this older manifest and the other
    #[arg(long, value_name = "MANIFEST", requires = "sample")]
    pub since: Option<PathBuf>,
    /// With --sample: choose the blocks that were chosen when this number was shown
    #[arg(long, value_name = "N", requires = "sample")]
    seed: Option<u64>,
}

impl SampleOptions {
    /// The choice, if only a share is asked for.
    pub fn choice(&self) -> Option<Sample> {
        // The library's maps are seeded by the system's randomness, and more is not asked of it here.
        let seed = || RandomState::new().hash_one(0);
        self.sample.map(|share| Sample { share, seed: self.seed.unwrap_or_else(seed) })
    }
}

/// A content root.
pub fn parse_root(text: &str) -> Result<Digest, &'static str> {
    text.parse().map_err(|()| "a content root has 64 hexadecimal digits")
}
