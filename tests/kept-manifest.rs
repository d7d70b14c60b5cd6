//! --manifest of the sinks: what is kept is what the target holds, in a state that was committed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::apply::{APPLY, Bed};
use common::loop_device::Loop;
use common::nights::Nights;
use common::streams::{Given, any_image, data, encoded, generations, since, whole};
use common::{complaint, piped};
use proptest::prelude::*;
use siphon::filter::{Digester, Keeping};
use siphon::flow::copy;
use siphon::format::Change;
use siphon::source::resumed::{self, History};
use siphon::state::ManifestReader;

const GRAIN: usize = 4096;
const BLOCK: usize = 64 << 10;
const NOTE: &str = "reading the whole target for its manifest";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What extent-digest(1) says of an image file.
fn digest(image: &Path, options: &[&str]) -> Vec<u8> {
    let output = piped(env!("CARGO_BIN_EXE_extent-digest"), &[options, &["--image", text(image)]].concat(), b"");
    assert!(output.status.success(), "{}", complaint(&output));
    output.stdout
}

fn manifest_file(bed: &Bed) -> PathBuf {
    bed.dir.path().join("manifest")
}

/// Applies a stream that must be accepted, and gives what was said on standard error.
fn accept(bed: &Bed, stream: &[u8], options: &[&str]) -> String {
    let output = bed.apply(stream, &[&["--manifest", text(&manifest_file(bed))], options].concat());
    let said = complaint(&output);
    assert!(output.status.success(), "{said}");
    assert!(!bed.dir.path().join(".manifest.siphon-new").exists());
    said
}

fn assert_kept(bed: &Bed, options: &[&str]) {
    assert!(fs::read(manifest_file(bed)).unwrap() == digest(&bed.target, options));
}

#[test]
fn a_kept_manifest_is_that_of_every_generation() {
    let generations = generations();
    for options in [&[][..], &["--fine"]] {
        let bed = Bed::new();
        accept(&bed, &whole(&generations[0]), &[]);
        assert_kept(&bed, &[]);
        // Whoever wants a fine one begins with one, and it stays fine.
        fs::write(manifest_file(&bed), digest(&bed.target, options)).unwrap();
        for pair in generations.windows(2) {
            let said = accept(&bed, &since(&pair[0], &pair[1]), &[]);
            assert!(!said.contains(NOTE), "{said}");
            assert!(bed.content() == pair[1]);
            assert_kept(&bed, options);
        }
        let said = accept(&bed, &whole(&generations[1]), &["--replace"]);
        assert!(!said.contains(NOTE), "{said}");
        assert_kept(&bed, options);
    }
}

#[test]
fn a_manifest_of_something_else_is_not_believed() {
    let generations = generations();
    let (old, new) = (&generations[0], &generations[1]);
    let bed = Bed::new();
    let file = manifest_file(&bed);
    let other = bed.dir.path().join("other");
    let mut unlike = old.clone();
    unlike[900_000] ^= 1;
    fs::write(&other, &unlike).unwrap();
    let of_other = digest(&other, &[]);
    fs::write(&other, old).unwrap();
    let right = digest(&other, &[]);
    let mut damaged = right.clone();
    damaged[200] ^= 1;
    let cut = right[..right.len() - 1].to_vec();
    for (manifest, why) in [
        (None, "there is none yet"),
        (Some(of_other), "another state"),
        (Some(damaged), "seal"),
        (Some(cut), "too early"),
        (Some(Vec::new()), "too early"),
    ] {
        bed.clear();
        bed.accept(&whole(old), &[]);
        match manifest {
            Some(manifest) => fs::write(&file, manifest).unwrap(),
            None => fs::remove_file(&file).unwrap_or_default(),
        }
        let said = accept(&bed, &since(old, new), &[]);
        assert!(said.contains(NOTE) && said.contains(why), "{why}: {said}");
        assert_kept(&bed, &[]);
    }
}

#[test]
fn a_run_that_fails_leaves_the_manifest_as_it_was() {
    let generations = generations();
    let bed = Bed::new();
    let file = manifest_file(&bed);
    let options = ["--manifest", text(&file)];
    accept(&bed, &whole(&generations[0]), &[]);
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let before = fs::read(&file).unwrap();
    let stream = since(&generations[0], &generations[1]);
    for cut in [0, stream.len() / 2, stream.len() - 1] {
        let output = bed.apply(&stream[..cut], &options);
        assert_eq!(output.status.code(), Some(3), "{}", complaint(&output));
        assert!(fs::read(&file).unwrap() == before, "cut at {cut}");
        assert!(!bed.dir.path().join(".manifest.siphon-new").exists());
        bed.clear();
        bed.accept(&whole(&generations[0]), &[]);
    }
    // It cannot be written: then nothing is committed either.
    fs::create_dir(bed.dir.path().join(".manifest.siphon-new")).unwrap();
    let output = bed.apply(&stream, &options);
    assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
    assert!(fs::read(&file).unwrap() == before && bed.is_receiving());
    fs::remove_dir(bed.dir.path().join(".manifest.siphon-new")).unwrap();
    bed.clear();
    bed.accept(&whole(&generations[0]), &[]);
    accept(&bed, &stream, &[]);
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "it is as readable as the one before");
}

#[test]
fn a_manifest_takes_its_place_after_the_commit() {
    let generations = generations();
    let bed = Bed::new();
    let file = manifest_file(&bed);
    accept(&bed, &whole(&generations[0]), &[]);
    let before = fs::read(&file).unwrap();
    let stream = since(&generations[0], &generations[1]);
    let mut command = Command::new(APPLY);
    command.args(["--manifest", text(&file), text(&bed.target)]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut tool = command.spawn().unwrap();
    let mut stdin = tool.stdin.take().unwrap();
    stdin.write_all(&stream[..stream.len() - 1]).unwrap();
    while !bed.is_receiving() {
        std::thread::sleep(Duration::from_millis(5));
    }
    // The commit fails, once all was written and read back.
    fs::rename(&bed.target, bed.dir.path().join("moved")).unwrap();
    stdin.write_all(&stream[stream.len() - 1..]).unwrap();
    drop(stdin);
    let output = tool.wait_with_output().unwrap();
    assert!(complaint(&output).contains("[vanished]"), "{}", complaint(&output));
    assert!(fs::read(&file).unwrap() == before);
    assert!(!bed.dir.path().join(".manifest.siphon-new").exists());
}

#[test]
fn a_manifest_is_left_alone_where_nothing_is_written() {
    let image = &generations()[0];
    let bed = Bed::new();
    let file = manifest_file(&bed);
    bed.accept(&whole(image), &[]);
    let said = accept(&bed, &whole(image), &[]);
    assert!(said.contains(NOTE), "{said}");
    assert_kept(&bed, &[]);
    let before = file.metadata().unwrap();
    let said = accept(&bed, &whole(image), &[]);
    assert!(!said.contains(NOTE), "{said}");
    let after = file.metadata().unwrap();
    assert_eq!((before.ino(), before.ctime(), before.ctime_nsec()), (after.ino(), after.ctime(), after.ctime_nsec()));
    // Of another state it is made anew; a dry run touches none.
    fs::remove_file(&file).unwrap();
    bed.apply(&whole(image), &["--dry-run", "--manifest", text(&file)]);
    assert!(!file.exists());
}

#[test]
fn what_is_no_manifest_is_not_written_over() {
    let image = &generations()[0];
    let bed = Bed::new();
    let letter = bed.dir.path().join("letter");
    fs::write(&letter, "dear reader").unwrap();
    bed.refuse(&whole(image), &["--manifest", text(&letter)], 4, "exists");
    bed.refuse(&whole(image), &["--manifest", text(bed.dir.path())], 4, "unsupported");
    bed.refuse(&whole(image), &["--manifest", text(&bed.dir.path().join("none/manifest"))], 4, "not-found");
    bed.refuse(&whole(image), &["--manifest", text(&bed.target)], 2, "usage");
    assert!(!bed.target.exists(), "and all that before anything was touched");
    assert_eq!(fs::read(&letter).unwrap(), b"dear reader");
}

#[test]
fn the_same_run_again_begins_from_what_the_manifest_is_of() {
    let bed = Bed::new();
    let file = manifest_file(&bed);
    let image = vec![7; 5 * BLOCK];
    let states = |from, to, changes| encoded(&mut Given::new(from, to, (5 * BLOCK as u64, 5 * BLOCK as u64), changes));
    accept(&bed, &encoded(&mut Given::new(0, 1, (0, 5 * BLOCK as u64), vec![data(0, image)])), &[]);
    let before = fs::read(&file).unwrap();
    let stream = states(1, 2, vec![data(0, vec![8; GRAIN]), data(3 * BLOCK as u64, vec![8; GRAIN])]);
    bed.apply(&stream[..stream.len() - 1], &["--manifest", text(&file)]);
    assert!(bed.is_receiving() && fs::read(&file).unwrap() == before);
    // The same once more begins from the state that the manifest is of, whatever the first one wrote.
    let said = accept(&bed, &stream, &[]);
    assert!(!said.contains(NOTE), "{said}");
    let root = |file: &Path| ManifestReader::open(fs::File::open(file).unwrap()).unwrap().verify().unwrap().1.root;
    let whole = bed.dir.path().join("whole");
    fs::write(&whole, digest(&bed.target, &[])).unwrap();
    assert_eq!(root(&file), root(&whole));
}

#[test]
fn a_run_that_goes_on_where_another_was_cut_reads_all() {
    let bed = Bed::new();
    // So large that a stream of it has a CHECKPOINT.
    let mut image: Vec<u8> = (0..70_u32 << 20).map(|n| u8::try_from(n >> 12 & 0x7f).unwrap() + 1).collect();
    let mut nights = Nights(vec![image.clone()]);
    let stream = encoded(&mut nights.between(None, (0, u64::MAX)).unwrap());
    let file = manifest_file(&bed);
    bed.refuse(&stream[..stream.len() / 20 * 19], &["--manifest", text(&file)], 3, "truncated");
    assert!(!file.exists());
    image[1 << 20] ^= 0x80;
    image.truncate((69 << 20) + 5);
    nights.0.push(image.clone());
    let list = nights.list();
    let token = piped(APPLY, &["--common", text(&bed.target)], list.as_bytes()).stdout;
    let token = String::from_utf8(token).unwrap();
    let resumed = encoded(&mut resumed::open(nights, token.trim_end()).unwrap().0);
    // What was there before this run is no state that a manifest could be of, nor is it zero.
    let said = accept(&bed, &resumed, &[]);
    assert!(said.contains(NOTE), "{said}");
    assert!(bed.content() == image && fs::read(&file).unwrap() == described(&image, 2));
}

#[test]
fn a_manifest_of_a_device_is_that_of_the_image_on_it() {
    let bed = Bed::new();
    let [disk, image_file] = ["disk", "image"].map(|name| bed.dir.path().join(name));
    // Larger than the image, and full of what was there before.
    fs::write(&disk, vec![0xee; 3 << 20]).unwrap();
    let Some(device) = Loop::over(&disk) else { return };
    let (file, generations) = (manifest_file(&bed), generations());
    let apply = |stream: &[u8], more: &[&str]| {
        let options = [&["--manifest", text(&file), "--state-dir", text(bed.dir.path())], more].concat();
        let output = common::apply::apply(stream, &options, Path::new(&device.0));
        assert!(output.status.success(), "{}", complaint(&output));
        complaint(&output)
    };
    apply(&whole(&generations[0]), &["--replace"]);
    for pair in generations.windows(2) {
        let said = apply(&since(&pair[0], &pair[1]), &[]);
        assert!(!said.contains(NOTE), "{said}");
        fs::write(&image_file, &pair[1]).unwrap();
        assert!(fs::read(&file).unwrap() == digest(&image_file, &[]));
    }
}

/// From one image to another, or whole, grain by grain.
fn given(old: Option<&[u8]>, new: &[u8], from: u8, to: u8) -> Given {
    let differs = |n: usize, grain: &[u8]| {
        let mut was = old.and_then(|old| old.get(n * GRAIN..)).unwrap_or_default().to_vec();
        was.resize(grain.len(), 0);
        was != grain
    };
    let changed = new.chunks(GRAIN).enumerate().filter(|(n, grain)| differs(*n, grain));
    let changes = changed.map(|(n, grain)| match grain.iter().all(|byte| *byte == 0) {
        true => Change::Zero { offset: (n * GRAIN) as u64, len: grain.len() as u64, may_deallocate: true },
        false => data((n * GRAIN) as u64, grain.to_vec()),
    });
    Given::new(from, to, (old.map_or(0, <[u8]>::len) as u64, new.len() as u64), changes.collect())
}

fn described(image: &[u8], state: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let digested = copy(&mut given(None, image, 0, state), Digester::new(Keeping::new(&mut out, false))).unwrap();
    digested.visitor.finish(digested.state).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn a_kept_manifest_is_that_of_any_chain(images in proptest::collection::vec(any_image(), 2..5)) {
        let bed = Bed::new();
        let mut old: Option<&[u8]> = None;
        for (state, image) in (1..).zip(&images) {
            // By the tool, not in this process: another test's child would hold a copy of the
            // lock from its fork until its exec.
            let said = accept(&bed, &encoded(&mut given(old, image, state - 1, state)), &[]);
            prop_assert!(!said.contains(NOTE), "{said}");
            prop_assert!(&bed.content() == image);
            prop_assert!(fs::read(manifest_file(&bed)).unwrap() == described(image, state), "state {state}");
            old = Some(image);
        }
    }
}
