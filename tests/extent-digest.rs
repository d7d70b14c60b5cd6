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

#[test]
fn a_wrong_byte_is_found_in_the_blocks_that_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let [file, old, new] = ["image", "old", "new"].map(|name| folder.path().join(name));
    let (before, mut after) = (image(), image());
    after[5 * BLOCK + 9] ^= 1;
    std::fs::write(&old, manifest(&before, false)).unwrap();
    std::fs::write(&new, manifest(&after, false)).unwrap();
    let look = |options: &[&str]| {
        let output = digest(&[&["--image", text(&file), "--compare", text(&new), "--sample"], options].concat(), b"");
        (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap(), complaint(&output))
    };
    let since = ["0%", "--since", text(&old)];
    std::fs::write(&file, &after).unwrap();
    for (options, compared) in [(&["100%"][..], 7), (&["0%"], 0), (&since, 1)] {
        let (code, said, complaint) = look(options);
        assert_eq!((code, said), (Some(0), format!("compared {compared} of 7 blocks\n")), "{options:?}: {complaint}");
    }
    // In a block that is the same in both manifests, and was zero.
    after[2 * BLOCK + 5] = 1;
    std::fs::write(&file, &after).unwrap();
    let (code, said, complaint) = look(&["100%"]);
    assert_eq!((code, said), (Some(5), format!("{}\t{BLOCK}\ncompared 7 of 7 blocks\n", 2 * BLOCK)), "{complaint}");
    assert!(complaint.contains("[differs]"), "{complaint}");
    assert_eq!(look(&since).0, Some(0), "nobody looked there");
    // In the one that changed between them.
    after[5 * BLOCK] ^= 1;
    std::fs::write(&file, &after).unwrap();
    let (code, said, complaint) = look(&since);
    assert_eq!((code, said), (Some(5), format!("{}\t{BLOCK}\ncompared 1 of 7 blocks\n", 5 * BLOCK)), "{complaint}");
    let (code, said, _) = look(&["0%", "--since", text(&old), "--json"]);
    let wanted = format!("{{\"len\":{BLOCK},\"offset\":{}}}\n{{\"blocks\":7,\"compared\":1,\"differing\":1}}\n", 5 * BLOCK);
    assert_eq!((code, said), (Some(5), wanted));
    // Of another size it is another image, and a damaged manifest says nothing.
    std::fs::write(&file, &after[..6 * BLOCK]).unwrap();
    assert_eq!(look(&["100%"]).0, Some(5));
    std::fs::write(&file, &before).unwrap();
    let whole = std::fs::read(&old).unwrap();
    std::fs::write(&old, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(look(&since).0, Some(3));
}

#[test]
fn a_seed_repeats_what_was_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let [file, saved] = ["image", "saved"].map(|name| folder.path().join(name));
    std::fs::write(&file, vec![0; 400 * BLOCK]).unwrap();
    std::fs::write(&saved, manifest(&vec![1; 400 * BLOCK], false)).unwrap();
    let all = ["--image", text(&file), "--compare", text(&saved), "--sample", "10%"];
    let (first, other) = (digest(&all, b""), digest(&all, b""));
    assert_ne!(first.stdout, other.stdout, "another share each time");
    let said = complaint(&first);
    let seed = said.lines().find_map(|line| line.split_once("--seed ")).unwrap().1;
    let again = digest(&[&all[..], &["--seed", seed]].concat(), b"");
    assert_eq!((again.status.code(), &again.stdout), (Some(5), &first.stdout), "{said}");
    let found = String::from_utf8(first.stdout).unwrap().lines().count() - 1;
    assert!((10..100).contains(&found), "{found} of 400");
}

#[test]
fn a_share_of_a_stream_makes_no_sense() {
    let saved = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(saved.path(), manifest(&image(), false)).unwrap();
    let output = digest(&["--compare", text(saved.path()), "--sample", "5%"], &whole(&image()));
    assert_eq!(output.status.code(), Some(2));
    assert!(complaint(&output).contains("--sample goes with --image: a stream is read to its end"), "{}", complaint(&output));
    for wrong in [&["--sample", "5%"][..], &["--seed", "1"], &["--since", "x"], &["--compare", "x", "--sample", "5"]] {
        assert_eq!(digest(wrong, b"").status.code(), Some(2), "{wrong:?}");
    }
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
        // The block that one image ends in is another block where the other goes on, and may be told as a whole.
        let end = old.len().min(new.len()) / BLOCK;
        for (n, grain) in new.chunks(4096).enumerate() {
            let at = n * 4096;
            let before: Vec<u8> = (at..at + grain.len()).map(|at| old.get(at).copied().unwrap_or(0)).collect();
            if before != grain {
                prop_assert!(told[n], "grain {n} differs");
            } else if fine && (old.len() == new.len() || at / BLOCK != end) {
                prop_assert!(!told[n], "grain {n} is the same");
            }
        }
    }
}
