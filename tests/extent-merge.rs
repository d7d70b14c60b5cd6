//! extent-merge(1): the merged stream does what its parts do one after the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::complaint;
use common::streams::{Given, data, encoded, since, whole};
use proptest::prelude::*;
use siphon::filter::{Merge, Normal};
use siphon::flow::copy;
use siphon::format::Change;
use siphon::sink::{Encoder, Memory};
use siphon::source::Decoder;

const GRAIN: usize = 4096;

fn merge(files: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_extent-merge")).args(files).output().unwrap()
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn applied(stream: &[u8], base: &[u8]) -> Vec<u8> {
    copy(&mut Decoder::open(stream).unwrap(), Memory::new(base.to_vec())).unwrap()
}

#[test]
fn a_full_and_its_increments_become_a_new_full() {
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<Vec<u8>> = (0..5_usize)
        .map(|n| {
            let mut image = vec![0; (6 << 20) + n * 5000];
            (0..=n).for_each(|k| image[k << 20..][..300_000 + n].fill(n as u8 + 1));
            image
        })
        .collect();
    let mut files = vec![file(folder.path(), "0", &whole(&images[0]))];
    for (n, pair) in images.windows(2).enumerate() {
        files.push(file(folder.path(), &format!("{}", n + 1), &since(&pair[0], &pair[1])));
    }
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let full = merge(&paths);
    assert!(full.status.success(), "{}", complaint(&full));
    assert!(applied(&full.stdout, b"") == images[4]);
    let increment = merge(&paths[1..]);
    assert!(applied(&increment.stdout, &images[0]) == images[4]);
}

#[test]
fn streams_that_do_not_follow_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = |byte: u8| vec![byte; 100_000];
    let full = file(folder.path(), "full", &whole(&image(1)));
    let one = file(folder.path(), "one", &since(&image(1), &image(2)));
    let two = file(folder.path(), "two", &since(&image(2), &image(3)));
    for (files, class) in [
        (vec![full.as_path(), &two], "wrong-base"),
        (vec![two.as_path(), &one], "wrong-base"),
        (vec![one.as_path(), &full], "wrong-base"),
        (vec![one.as_path(), &one], "wrong-base"),
    ] {
        let output = merge(&files);
        assert_eq!(output.status.code(), Some(4), "{files:?}: {}", complaint(&output));
        assert!(complaint(&output).contains(&format!("[{class}]")), "{}", complaint(&output));
        assert!(Decoder::open(output.stdout.as_slice()).is_err() || copy_fails(&output.stdout), "sealed all the same");
    }
    assert_eq!(merge(&[]).status.code(), Some(2));
}

fn copy_fails(stream: &[u8]) -> bool {
    copy(&mut Decoder::open(stream).unwrap(), Memory::new(vec![0; 100_000])).is_err()
}

#[test]
fn a_part_that_is_cut_makes_no_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (vec![1; 100_000], vec![2; 100_000]);
    let (full, increment) = (whole(&a), since(&a, &b));
    let good = file(folder.path(), "full", &full);
    for cut in [0, 30, increment.len() / 2, increment.len() - 1] {
        let bad = file(folder.path(), "bad", &increment[..cut]);
        let output = merge(&[&good, &bad]);
        assert_eq!(output.status.code(), Some(3), "{}", complaint(&output));
        assert!(complaint(&output).contains(&format!("{}: ", bad.display())), "{}", complaint(&output));
        let bad = file(folder.path(), "bad", &full[..cut.min(full.len() - 1)]);
        let next = file(folder.path(), "next", &increment);
        assert_eq!(merge(&[&bad, &next]).status.code(), Some(3));
    }
}

/// What is done to an image in a night: a size, and what is written or zeroed where.
#[derive(Clone, Debug)]
struct Night {
    size: usize,
    writes: Vec<(usize, usize, u8)>,
}

fn night() -> impl Strategy<Value = Night> {
    let size = prop_oneof![2 => Just(40 * GRAIN), 1 => (0..60 * GRAIN).prop_map(|n| n / 512 * 512), 1 => 0..60 * GRAIN];
    (size, proptest::collection::vec((0..60_usize, 1..9_usize, 0..4_u8), 0..8)).prop_map(|(size, writes)| Night { size, writes })
}

/// The image after a night, and the stream of what changed.
fn after(night: &Night, old: &[u8], number: u8) -> (Vec<u8>, Vec<u8>) {
    let mut new = old.to_vec();
    new.resize(night.size, 0);
    for (grain, grains, byte) in &night.writes {
        let end = ((grain + grains) * GRAIN).min(new.len());
        if grain * GRAIN < end {
            new[grain * GRAIN..end].fill(*byte);
        }
    }
    let old_at = |at: usize| old.get(at).copied().unwrap_or(0);
    let mut changes = Vec::new();
    for (n, grain) in new.chunks(GRAIN).enumerate() {
        let at = n * GRAIN;
        // What was cut off in this night is zero in `new` already.
        if grain.iter().enumerate().any(|(k, byte)| *byte != old_at(at + k)) {
            changes.push(match grain.iter().all(|byte| *byte == 0) {
                true => Change::Zero { offset: at as u64, len: grain.len() as u64, may_deallocate: number.is_multiple_of(2) },
                false => data(at as u64, grain.to_vec()),
            });
        }
    }
    let stream = encoded(&mut Given::new(number, number + 1, (old.len() as u64, new.len() as u64), changes));
    (new, stream)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn merged_is_the_same_as_one_after_the_other(first in night(), nights in proptest::collection::vec(night(), 1..6), whole_first: bool) {
        let mut image = if whole_first { Vec::new() } else { after(&first, b"", 0).0 };
        let base = image.clone();
        let mut streams = Vec::new();
        for (n, night) in std::iter::once(&first).filter(|_| whole_first).chain(&nights).enumerate() {
            let (new, stream) = after(night, &image, n as u8 + u8::from(!whole_first));
            streams.push(stream);
            image = new;
        }
        let mut sources = Merge::new(streams.iter().map(|stream| Decoder::open(stream.as_slice()).unwrap()).collect()).unwrap();
        let mut merged = Vec::new();
        copy(&mut sources, Normal::new(Encoder::new(&mut merged))).unwrap();
        // Onto other content, where it is whole.
        let base = if whole_first { vec![0xff; 10_000] } else { base };
        prop_assert!(applied(&merged, &base) == image);
    }
}
