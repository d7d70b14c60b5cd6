//! A random share of an image's blocks beside what a manifest says of them.

use std::io::Read;
use std::str::FromStr;

use super::cursor::ManifestCursor;
use super::manifest::{Entry, ManifestReader};
use super::{Class, Fault};
use crate::format::wire::BLOCK;
use crate::format::{Data, Leaf};

/// A share of all, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u32);

/// All of it.
const ALL: u32 = 1_000_000;
/// Digits that a share in percent may have behind its point.
const DECIMALS: usize = 4;

impl FromStr for Share {
    type Err = &'static str;

    /// A percentage from `0%` to `100%`, such as `5%` or `0.25%`.
    fn from_str(text: &str) -> Result<Share, &'static str> {
        const WRONG: &str = "a share is a percentage from 0% to 100%, such as 5% or 0.25%";
        let number = text.strip_suffix('%').ok_or(WRONG)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(decimals) || decimals.len() > DECIMALS {
            return Err(WRONG);
        }
        let millionths: u32 = format!("{whole}{decimals:0<DECIMALS$}").parse().map_err(|_| WRONG)?;
        if millionths <= ALL { Ok(Share(millionths)) } else { Err(WRONG) }
    }
}

/// Which blocks are compared.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// How many of them, about: each is chosen by itself.
    pub share: Share,
    /// The same number chooses the same blocks.
    pub seed: u64,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// Blocks that were read.
    pub compared: u64,
    /// Blocks of the image.
    pub blocks: u64,
    /// Blocks that were read and differ.
    pub differing: u64,
}

impl Sampled {
    /// Agrees if no block differs: else a fault of class *differs*.
    pub fn verdict(&self) -> Result<(), Fault> {
        match self.differing {
            0 => Ok(()),
            1 => Err(Fault::new(Class::Differs, "one block differs")),
            blocks => Err(Fault::new(Class::Differs, format!("{blocks} blocks differ"))),
        }
    }
}

impl Sample {
    fn chooses(&self, block: u64) -> bool {
        // SplitMix64 (Steele, Lea, Flood 2014): its n-th number, straight from n.
        let mut mixed = self.seed.wrapping_add(block.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % u64::from(ALL) < u64::from(self.share.0)
    }

    /// Compares an image of `size` bytes with a manifest: the blocks that were chosen, and those that the manifest says
    /// otherwise than `since` does. `read` gives that many bytes from an offset on; `differs` hears the offset and the length
    /// in bytes of each block that differs.
    pub fn compare<R: Read>(
        &self,
        size: u64,
        manifest: ManifestReader<R>,
        since: Option<ManifestReader<R>>,
        mut read: impl FnMut(u64, usize) -> Result<Data, Fault>,
        mut differs: impl FnMut(u64, u64) -> Result<(), Fault>,
    ) -> Result<Sampled, Fault> {
        let (mut now, mut before) = (ManifestCursor::new(manifest), since.map(ManifestCursor::new));
        let described = now.header().size;
        if size != described {
            let what = format!("this image has {size} bytes, and the manifest's {described}");
            return Err(Fault::new(Class::Differs, what));
        }
        let mut found = Sampled { compared: 0, blocks: size.div_ceil(BLOCK as u64), differing: 0 };
        for block in 0..found.blocks {
            let leaf = leaf(&now.next(1)?);
            let changed =
                before.as_mut().map(|before| before.next(1)).transpose()?.is_some_and(|before| self::leaf(&before) != leaf);
            if !changed && !self.chooses(block) {
                continue;
            }
            let offset = block * BLOCK as u64;
            let len = (size - offset).min(BLOCK as u64);
            found.compared += 1;
            if Leaf::of(read(offset, usize::try_from(len).unwrap_or(BLOCK))?.bytes()) != leaf {
                found.differing += 1;
                differs(offset, len)?;
            }
        }
        // Only now is it known that both were whole.
        now.finish()?;
        before.map_or(Ok(()), |before| before.finish().map(drop))?;
        Ok(found)
    }
}

fn leaf(entry: &Entry) -> Leaf {
    match entry {
        Entry::Zeros(_) => Leaf::ZERO,
        Entry::Full(digest) => digest.leaf,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages() {
        for (text, millionths) in [("0%", 0), ("5%", 50_000), ("0.25%", 2500), ("100%", ALL), ("0.0001%", 1), ("99.9%", 999_000)]
        {
            assert_eq!(text.parse(), Ok(Share(millionths)), "{text}");
        }
        for bad in ["", "%", "5", "-1%", "100.1%", "1.00001%", ".5%", "5.%", "+5%", "1e1%", "99999999999%"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }

    #[test]
    fn about_that_share_is_chosen_and_by_the_seed_alone() {
        let chosen = |share: &str, seed| {
            let sample = Sample { share: share.parse().unwrap(), seed };
            (0..100_000).filter(|block| sample.chooses(*block)).collect::<Vec<u64>>()
        };
        assert_eq!([chosen("0%", 1).len(), chosen("100%", 1).len()], [0, 100_000]);
        for seed in [0, 1, 2, u64::MAX] {
            let tenth = chosen("10%", seed);
            assert!((9_500..10_500).contains(&tenth.len()), "{} of seed {seed}", tenth.len());
            assert_eq!(tenth, chosen("10%", seed));
            assert_ne!(tenth, chosen("10%", seed ^ 8));
        }
    }
}
