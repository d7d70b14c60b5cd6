//! Streams, made of given changes and of images.

use std::fs;

use proptest::prelude::*;
use siphon::filter::Normal;
use siphon::flow::{Ending, Source, copy};
use siphon::format::{Change, Data, Header, Id, Image, Names};
use siphon::sink::Encoder;
use siphon::source::{ImageFile, ImageOptions};
use siphon::state::Fault;
use tempfile::TempDir;

/// A source of given changes. Its states have ids of their own, as snapshots do.
pub struct Given {
    pub header: Header,
    pub image: Image,
    changes: std::vec::IntoIter<Change>,
}

impl Given {
    /// From state `from` (0: whole) to state `to`; the sizes are those of the image before and after.
    pub fn new(from: u8, to: u8, sizes: (u64, u64), changes: Vec<Change>) -> Given {
        let names = Names { source: b"vm1".to_vec(), from: vec![], to: format!("s{to}").into_bytes() };
        let header = Header::new(id(200), (from > 0).then(|| id(from)), Some(id(to)), names);
        Given { header, image: Image::new(sizes.0, sizes.1), changes: changes.into_iter() }
    }
}

impl Source for Given {
    fn header(&self) -> &Header {
        &self.header
    }
    fn object(&self) -> &Image {
        &self.image
    }
    fn change(&mut self) -> Result<Option<Change>, Fault> {
        Ok(self.changes.next())
    }
    fn finish(&mut self) -> Result<Ending, Fault> {
        Ok(Ending { to: self.header.to, digest: None })
    }
}

/// The id of state `n`.
pub fn id(n: u8) -> Id {
    Id::derive("test", &[&[n]])
}

pub fn data(offset: u64, bytes: Vec<u8>) -> Change {
    Change::Data(Data::new(offset, bytes))
}

/// What a tool would print.
pub fn encoded(source: &mut impl Source) -> Vec<u8> {
    let mut stream = Vec::new();
    copy(source, Normal::new(Encoder::new(&mut stream))).unwrap();
    stream
}

/// The stream of a whole image.
pub fn whole(image: &[u8]) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("new.img");
    fs::write(&path, image).unwrap();
    encoded(&mut ImageFile::whole(&path, &ImageOptions::default()).unwrap())
}

/// The stream of an image since another.
pub fn since(base: &[u8], image: &[u8]) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let [old, new] = ["old.img", "new.img"].map(|name| dir.path().join(name));
    fs::write(&old, base).unwrap();
    fs::write(&new, image).unwrap();
    encoded(&mut ImageFile::since(&old, &new, &ImageOptions::default(), || {}).unwrap())
}

/// Generations of one image: edited, cut, grown again, mostly zero, empty.
pub fn generations() -> Vec<Vec<u8>> {
    let mut first: Vec<u8> = (0..1_300_001_u32).map(|at| u8::try_from(at / 4096 % 200).unwrap() + 1).collect();
    first[100_000..900_000].fill(0);
    let mut edited = first.clone();
    edited[50_000] ^= 1;
    edited[1_000_000..1_200_000].fill(0);
    let cut = edited[..70_000].to_vec();
    let mut regrown = cut.clone();
    regrown.resize(2_000_003, 0);
    regrown[1_999_990..].fill(9);
    vec![first, edited, cut, regrown, vec![], vec![7; 5000]]
}

/// An image of few blocks, most of them alike, so that all kinds of neighbours come up.
pub fn any_image() -> impl Strategy<Value = Vec<u8>> {
    let grain = prop_oneof![3 => Just(0_u8), 1 => 1..4_u8];
    (proptest::collection::vec(grain, 0..80), 0..4096_usize).prop_map(|(grains, cut)| {
        let mut image: Vec<u8> = grains.into_iter().flat_map(|byte| vec![byte; 4096]).collect();
        image.truncate(image.len().saturating_sub(cut));
        image
    })
}
