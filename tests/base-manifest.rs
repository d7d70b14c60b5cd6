//! --base-manifest: a target that has no state in common gets what differs, and no more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod common;

use std::io::Cursor;
use std::path::Path;
use std::process::Output;

use common::streams::{Given, any_image, data};
use common::{complaint, piped};
use proptest::prelude::*;
use siphon::filter::{Against, Described, Digester, Keeping, Normal};
use siphon::flow::copy;
use siphon::sink::{Encoder, Memory};
use siphon::source::Decoder;

const GRAIN: usize = 4096;

const DIFF: &str = env!("CARGO_BIN_EXE_image-diff-stream");
const APPLY: &str = env!("CARGO_BIN_EXE_image-apply");
const DIGEST: &str = env!("CARGO_BIN_EXE_extent-digest");

fn ok(output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{}", complaint(&output));
    output.stdout
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn an_older_state_goes_over_a_newer_one_for_the_price_of_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let [sunday, monday, target] = ["sunday", "monday", "target"].map(|name| folder.path().join(name));
    let older: Vec<u8> = (0..8_u32 << 20).map(|n| (n / 5000 + n % 251) as u8).collect();
    let mut newer = older.clone();
    // 40 scattered grains, and a megabyte more.
    for n in 0..40 {
        newer[n * 200_000 / GRAIN * GRAIN..][..100].fill(0xee);
    }
    newer.extend(vec![0x77; 1 << 20]);
    std::fs::write(&sunday, &older).unwrap();
    std::fs::write(&monday, &newer).unwrap();
    ok(piped(APPLY, &[text(&target)], &ok(piped(DIFF, &[text(&monday)], b""))));
    for (wanted, differing) in [(&sunday, 40 * GRAIN), (&monday, 40 * GRAIN + (1 << 20))] {
        // The target is asked what it holds, and the source has nothing but the state that is wanted.
        let manifest = ok(piped(DIGEST, &["--fine", "--image", text(&target)], b""));
        let stream = ok(piped(DIFF, &["--base-manifest", "-", text(wanted)], &manifest));
        assert!(stream.len() * 10 <= differing * 11, "{} bytes for {differing}", stream.len());
        ok(piped(APPLY, &[text(&target)], &stream));
        assert!(std::fs::read(&target).unwrap() == std::fs::read(wanted).unwrap());
    }
}

#[test]
fn a_file_takes_an_increment_from_its_present_content_whoever_wrote_it() {
    let folder = tempfile::tempdir().unwrap();
    let [old, wanted, target] = ["old", "wanted", "target"].map(|name| folder.path().join(name));
    let image: Vec<u8> = (0..300_001_u32).map(|n| (n / 5000 + n % 251) as u8).collect();
    std::fs::write(&old, &image).unwrap();
    std::fs::write(&wanted, [&[9; 5000], &image[5000..]].concat()).unwrap();
    let from_present = |target: &Path| {
        let manifest = ok(piped(DIGEST, &["--fine", "--image", text(target)], b""));
        ok(piped(DIFF, &["--base-manifest", "-", text(&wanted)], &manifest))
    };
    // Written by hand after a state was received; and never received at all.
    ok(piped(APPLY, &[text(&target)], &ok(piped(DIFF, &[text(&old)], b""))));
    for record in [true, false] {
        if !record {
            std::fs::remove_file(folder.path().join("target.siphon")).unwrap();
        }
        let mut by_hand = image.clone();
        by_hand[100_000..100_100].fill(0xee);
        std::fs::write(&target, &by_hand).unwrap();
        let stream = from_present(&target);
        assert!(stream.len() < 30_000, "{} bytes", stream.len());
        let refused = piped(APPLY, &[text(&target)], &stream);
        assert_eq!(refused.status.code(), Some(4), "{}", complaint(&refused));
        // Written once more, it is not what the stream begins from.
        by_hand[0] ^= 1;
        std::fs::write(&target, &by_hand).unwrap();
        let refused = piped(APPLY, &["--by-content", text(&target)], &stream);
        assert!(complaint(&refused).contains("[wrong-base]"), "{}", complaint(&refused));
        assert!(std::fs::read(&target).unwrap() == by_hand);
        ok(piped(APPLY, &["--by-content", text(&target)], &from_present(&target)));
        assert!(std::fs::read(&target).unwrap() == std::fs::read(&wanted).unwrap());
        // From here on it is at a state again.
        ok(piped(APPLY, &[text(&target)], &ok(piped(DIFF, &["--base", text(&wanted), text(&old)], b""))));
    }
}

#[test]
fn a_damaged_manifest_sends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::write(&image, vec![5; 1 << 20]).unwrap();
    let manifest = ok(piped(DIGEST, &["--image", text(&image)], b""));
    for cut in [0, 10, manifest.len() / 2, manifest.len() - 1] {
        let output = piped(DIFF, &["--base-manifest", "-", text(&image)], &manifest[..cut]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0), "cut at {cut}");
        assert!(complaint(&output).contains("[manifest]"));
    }
    let output = piped(DIFF, &["--base-manifest", "-", text(&image)], &ok(piped(DIFF, &[text(&image)], b"")));
    assert_eq!(output.status.code(), Some(3), "a stream is no manifest");
}

#[test]
fn an_increment_is_not_compared() {
    // Its gaps are unchanged, not zero.
    let image = vec![7; 100_000];
    let mut increment = Given::new(1, 2, (100_000, 100_000), vec![data(0, vec![8; GRAIN])]);
    let described = Described::verify(Cursor::new(manifest(&image, true))).unwrap();
    let fault = copy(&mut increment, Against::new(Some(described), Memory::new(image))).unwrap_err();
    assert_eq!(fault.class.word(), "unsupported");
}

/// A whole stream of an image, in pieces of so many grains.
fn given(image: &[u8], state: u8, grains: usize) -> Given {
    let pieces = image.chunks(grains * GRAIN).enumerate().filter(|(_, piece)| piece.iter().any(|byte| *byte != 0));
    let changes = pieces.map(|(n, piece)| data((n * grains * GRAIN) as u64, piece.to_vec())).collect();
    Given::new(0, state, (0, image.len() as u64), changes)
}

fn manifest(image: &[u8], fine: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let digested = copy(&mut given(image, 1, 3), Digester::new(Keeping::new(&mut out, fine))).unwrap();
    digested.visitor.finish(digested.state).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn what_was_described_becomes_the_new_image(old in any_image(), new in any_image(), fine: bool, grains in 1..40_usize) {
        let described = Described::verify(Cursor::new(manifest(&old, fine))).unwrap();
        let mut stream = Vec::new();
        copy(&mut given(&new, 2, grains), Against::new(Some(described), Normal::new(Encoder::new(&mut stream)))).unwrap();
        let mut source = Decoder::open(stream.as_slice()).unwrap();
        let image = copy(&mut source, Memory::new(old.clone())).unwrap();
        prop_assert!(image == new);
        if fine && old.len() == new.len() {
            let differing = old.chunks(GRAIN).zip(new.chunks(GRAIN)).filter(|(a, b)| a != b).count();
            let head = 1000 + 40 * differing;
            prop_assert!(stream.len() <= differing * GRAIN + head, "{} bytes for {differing} grains", stream.len());
        }
    }
}
