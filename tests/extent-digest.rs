//! extent-digest(1): content alone decides, and what differs is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod common;

use std::path::Path;
use std::process::Output;

use common::streams::{Given, any_image, data, encoded, whole};
use common::{complaint, piped};
use proptest::prelude::*;
use siphon::format::Data;
use siphon::state::{Blocks, Comparison, ContentRoot, Fault, ManifestHeader, ManifestReader, ManifestWriter, file_source};

const BLOCK: usize = 64 << 10;

fn digest(args: &[&str], input: &[u8]) -> Output {
    piped(env!("CARGO_BIN_EXE_extent-digest"), args, input)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn root(image: &[u8]) -> String {
    let mut root = ContentRoot::new(image.len() as u64);
    root.data(&Data::new(0, image.to_vec()));
    root.finish().to_string()
}

/// Some blocks of content, one of zeros, a ragged end.
fn image() -> Vec<u8> {
    let mut image: Vec<u8> = (0..6 * BLOCK + 12_345).map(|n| (n / 4000) as u8).collect();
    image[2 * BLOCK..4 * BLOCK].fill(0);
    image
}

fn manifest(image: &[u8], fine: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let header = ManifestHeader { size: image.len() as u64, source: file_source(), fine };
    let mut writer = ManifestWriter::begin(&mut out, header).unwrap();
    blocks(image, |block| writer.block(block).map_err(|error| Fault::io("", &error))).unwrap();
    writer.finish(None).unwrap();
    out
}

fn blocks(image: &[u8], mut each: impl FnMut(&siphon::state::Block<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut blocks = Blocks::new(image.len() as u64);
    blocks.data(&Data::new(0, image.to_vec()), &mut |block| each(&block))?;
    blocks.finish(&mut |block| each(&block))
}

#[test]
fn the_root_is_that_of_the_content_whatever_it_came_as() {
    let folder = tempfile::tempdir().unwrap();
    let (file, saved) = (folder.path().join("image"), folder.path().join("manifest"));
    let image = image();
    std::fs::write(&file, &image).unwrap();
    let wanted = format!("{}\n", root(&image));
    // Written with holes, said in odd pieces, with zeros told and not told.
    let mut pieces = Vec::new();
    for (n, piece) in image.chunks(10 * 4096).enumerate() {
        if piece.iter().any(|byte| *byte != 0) {
            pieces.push(data((n * 10 * 4096) as u64, piece.to_vec()));
        }
    }
    let odd = encoded(&mut Given::new(0, 1, (0, image.len() as u64), pieces));
    std::fs::write(&saved, digest(&["--image", text(&file)], b"").stdout).unwrap();
    for (args, input) in [
        (vec!["--root"], whole(&image)),
        (vec!["--root"], odd),
        (vec!["--root", "--image", text(&file)], Vec::new()),
        (vec!["--root", text(&saved)], Vec::new()),
        (vec!["--root"], digest(&["--fine"], &whole(&image)).stdout),
    ] {
        let output = digest(&args, &input);
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stdout)),
            (Some(0), wanted.as_str().into()),
            "{args:?}"
        );
    }
}

#[test]
fn an_expected_root_is_equal_or_the_exit_code_is_5() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image");
    let mut image = image();
    std::fs::write(&file, &image).unwrap();
    let wanted = root(&image);
    assert_eq!(digest(&["--expect", &wanted], &whole(&image)).status.code(), Some(0));
    image[5] ^= 1;
    std::fs::write(&file, &image).unwrap();
    let output = digest(&["--expect", &wanted, "--image", text(&file)], b"");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(5), b"".as_slice()));
    assert!(complaint(&output).contains("[differs]"));
    assert_eq!(digest(&["--expect", "abc"], b"").status.code(), Some(2));
}

#[test]
fn a_damaged_stream_or_an_increment_has_no_root() {
    let stream = whole(&image());
    for cut in [0, 10, stream.len() / 2, stream.len() - 1] {
        let output = digest(&["--root"], &stream[..cut]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0), "cut at {cut}");
    }
    let increment = encoded(&mut Given::new(1, 2, (4096, 4096), vec![data(0, vec![7; 4096])]));
    let output = digest(&["--root"], &increment);
    assert_eq!(output.status.code(), Some(4));
    assert!(complaint(&output).contains("[unsupported]"));
}

#[test]
fn a_planted_difference_is_found_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (file, coarse, fine) = (folder.path().join("image"), folder.path().join("coarse"), folder.path().join("fine"));
    let mut image = image();
    std::fs::write(&coarse, manifest(&image, false)).unwrap();
    std::fs::write(&fine, manifest(&image, true)).unwrap();
    for at in [3 * BLOCK + 5000, 4 * BLOCK + 4096, 6 * BLOCK + 12_344] {
        image[at] ^= 1;
    }
    std::fs::write(&file, &image).unwrap();
    // Zeros need no digest, so a block of them is compared grain by grain with a coarse manifest, too.
    let at = |block: usize, grain: usize| block * BLOCK + grain * 4096;
    let in_blocks = format!("{}\t4096\n{}\t{BLOCK}\n{}\t12345\n", at(3, 1), at(4, 0), at(6, 0));
    let in_grains = format!("{}\t4096\n{}\t4096\n{}\t57\n", at(3, 1), at(4, 1), at(6, 3));
    for (manifest, wanted) in [(&coarse, in_blocks), (&fine, in_grains)] {
        for (args, input) in [(vec!["--image", text(&file)], Vec::new()), (vec![], whole(&image))] {
            let output = digest(&[&["--compare", text(manifest)], args.as_slice()].concat(), &input);
            assert_eq!(output.status.code(), Some(5), "{}", complaint(&output));
            assert_eq!(String::from_utf8(output.stdout).unwrap(), wanted);
        }
    }
}

#[test]
fn json_says_the_same() {
    let image = image();
    let output = digest(&["--root", "--json"], &whole(&image));
    let state = siphon::state::file_state(root(&image).parse().unwrap());
    let wanted = format!("{{\"bytes\":{},\"root\":\"{}\",\"state\":\"{state}\"}}\n", image.len(), root(&image));
    assert_eq!(String::from_utf8_lossy(&output.stdout), wanted, "{}", complaint(&output));
    let saved = tempfile::NamedTempFile::new().unwrap();
    let mut other = image.clone();
    other[0] ^= 1;
    std::fs::write(&saved, manifest(&other, true)).unwrap();
    let output = digest(&["--json", "--compare", text(saved.path())], &whole(&image));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"len\":4096,\"offset\":0}\n", "{}", complaint(&output));
}

#[test]
fn a_manifest_that_is_cut_compares_with_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (file, saved) = (folder.path().join("image"), folder.path().join("manifest"));
    let image = image();
    std::fs::write(&file, &image).unwrap();
    let whole = manifest(&image, false);
    for keep in [0, 30, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&saved, &whole[..keep]).unwrap();
        let output = digest(&["--compare", text(&saved), "--image", text(&file)], b"");
        assert_eq!(output.status.code(), Some(3), "cut at {keep}: {}", complaint(&output));
        assert!(complaint(&output).contains("[manifest]"));
    }
    std::fs::write(&saved, &whole).unwrap();
    assert_eq!(digest(&["--compare", text(&saved), "--image", text(&file)], b"").status.code(), Some(0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn what_differs_is_told_and_what_is_told_differs(old in any_image(), new in any_image(), fine: bool) {
        let manifest = manifest(&old, fine);
        let mut told = vec![false; new.len().div_ceil(4096)];
        let mut comparison = Comparison::new(ManifestReader::open(manifest.as_slice()).unwrap());
        comparison.begin(new.len() as u64);
        blocks(&new, |block| comparison.block(block, &mut |offset, len| {
            assert!(len > 0 && offset + len <= new.len() as u64);
            told[offset as usize / 4096..(offset + len).div_ceil(4096) as usize].fill(true);
            Ok(())
        })).unwrap();
        comparison.finish().unwrap();
        for (n, grain) in new.chunks(4096).enumerate() {
            let at = n * 4096;
            let before: Vec<u8> = (at..at + grain.len()).map(|at| old.get(at).copied().unwrap_or(0)).collect();
            if before != grain {
                prop_assert!(told[n], "grain {n} differs");
            } else if fine && (old.len() <= at || old.len().min(at + 4096) == at + grain.len()) {
                // A grain that got longer or shorter with its image has another digest; all others are told exactly.
                prop_assert!(!told[n], "grain {n} is the same");
            }
        }
    }
}
