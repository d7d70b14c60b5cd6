//! The promises of image-apply(1), kept by the real program. Refusals, faults and devices have files of their own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use common::apply::{APPLY, Bed, DIFF};
use common::complaint;
use common::streams::{Given, data, encoded, generations, id, since, whole};
use siphon::state::{State, StateList};

#[test]
fn every_generation_comes_out_equal_and_sparse() {
    let bed = Bed::new();
    let generations = generations();
    bed.accept(&whole(&generations[0]), &[]);
    assert!(bed.content() == generations[0]);
    let meta = bed.target.metadata().unwrap();
    assert!(meta.blocks() * 512 < 700_000, "{} bytes allocated", meta.blocks() * 512);
    for pair in generations.windows(2) {
        let receipt = bed.accept(&since(&pair[0], &pair[1]), &[]);
        assert!(bed.content() == pair[1]);
        assert_eq!(receipt.size, pair[1].len() as u64);
        assert!(!receipt.already && !bed.is_receiving());
    }
}

#[test]
fn a_whole_stream_defines_every_byte_of_what_it_replaces() {
    for image in generations() {
        for before in [vec![0xff; 3_000_000], vec![0xff; 9]] {
            let bed = Bed::new();
            fs::write(&bed.target, before).unwrap();
            bed.refuse(&whole(&image), &[], 4, "foreign");
            bed.accept(&whole(&image), &["--replace"]);
            assert!(bed.content() == image);
        }
    }
}

#[test]
fn a_blank_file_takes_a_whole_stream_without_asking() {
    let bed = Bed::new();
    File::create(&bed.target).unwrap().set_len(1 << 30).unwrap();
    bed.refuse(&since(b"a", b"b"), &[], 4, "wrong-base");
    bed.accept(&whole(b"content"), &[]);
    assert_eq!(bed.content(), b"content");
}

#[test]
fn the_same_stream_twice_writes_nothing_and_says_so() {
    let bed = Bed::new();
    let generations = generations();
    let streams = [whole(&generations[0]), since(&generations[0], &generations[1])];
    for (stream, content) in streams.iter().zip(&generations) {
        assert!(!bed.accept(stream, &[]).already);
        let before = bed.target.metadata().unwrap();
        let receipt = bed.accept(stream, &[]);
        let after = bed.target.metadata().unwrap();
        assert!(receipt.already && bed.content() == *content);
        assert_eq!((before.ctime(), before.ctime_nsec()), (after.ctime(), after.ctime_nsec()));
    }
    // Where the stream says at its beginning where it leads, too.
    let bed = Bed::new();
    let stream = encoded(&mut Given::new(0, 1, (0, 8192), vec![data(0, vec![1; 4096])]));
    assert_eq!([bed.accept(&stream, &[]).already, bed.accept(&stream, &[]).already], [false, true]);
    // Damage is found even where nothing is written.
    bed.refuse(&stream[..stream.len() - 1], &[], 3, "truncated");
    assert_eq!([bed.accept(&stream, &[]).already, bed.is_receiving()], [true, false]);
}

#[test]
fn a_dry_run_verifies_and_changes_nothing() {
    let bed = Bed::new();
    let said = |stream: &[u8]| {
        let output = bed.apply(stream, &["--dry-run"]);
        assert!(output.status.success(), "{}", complaint(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said(&whole(b"one")).contains("would create"));
    assert!(!bed.target.exists() && !bed.record_file().exists());
    bed.accept(&whole(b"one"), &[]);
    let before = bed.record();
    assert!(said(&since(b"one", b"two")).contains("would apply"));
    let stream = since(b"one", b"two");
    bed.refuse(&stream[..stream.len() - 1], &["--dry-run"], 3, "truncated");
    bed.refuse(&since(b"two", b"three"), &["--dry-run"], 4, "wrong-base");
    assert_eq!((bed.content().as_slice(), bed.record()), (&b"one"[..], before));
}

#[test]
fn what_has_no_state_leaves_no_state() {
    let bed = Bed::new();
    let image = bed.dir.path().join("live.img");
    fs::write(&image, b"live").unwrap();
    let stream = Command::new(DIFF).arg("--live").arg(&image).output().unwrap().stdout;
    assert_eq!(bed.accept(&stream, &[]).to, None);
    assert_eq!(bed.content(), b"live");
    assert!(!bed.record_file().exists());
    bed.refuse(&whole(b"next"), &[], 4, "foreign");
}

/// `image-apply --common` with these states offered: what it prints, or its exit code.
fn newest_common(bed: &Bed, offered: &[u8]) -> Result<String, Option<i32>> {
    let state = |n: &u8| State { id: id(*n), seconds: 0, bytes: 0, name: format!("s{n}").into_bytes() };
    let list = StateList { states: offered.iter().map(state).collect() };
    let output = bed.apply(list.to_text().as_bytes(), &["--common"]);
    if output.status.success() { Ok(String::from_utf8(output.stdout).unwrap()) } else { Err(output.status.code()) }
}

#[test]
fn common_finds_the_base_of_the_next_increment() {
    let bed = Bed::new();
    let stream = |from, to| {
        let old_size = if from == 0 { 0 } else { 8192 };
        encoded(&mut Given::new(from, to, (old_size, 8192), vec![data(0, vec![to; 4096])]))
    };
    assert_eq!(newest_common(&bed, &[1, 2]), Ok(String::new()));
    bed.accept(&stream(0, 1), &[]);
    assert_eq!(newest_common(&bed, &[1, 2]), Ok("s1\n".to_owned()));
    assert_eq!(newest_common(&bed, &[2, 3]), Err(Some(4)));
    let next = stream(1, 2);
    bed.refuse(&next[..next.len() - 9], &[], 3, "truncated");
    assert_eq!(newest_common(&bed, &[1, 2]), Ok("s1\n".to_owned()), "the same run once more");
    assert_eq!(newest_common(&bed, &[1, 2, 3]), Ok(String::new()), "only a whole stream can heal it");
    bed.accept(&stream(0, 3), &[]);
    assert_eq!(newest_common(&bed, &[1, 2, 3]), Ok("s3\n".to_owned()));
    fs::write(&bed.target, "by hand").unwrap();
    fs::remove_file(bed.record_file()).unwrap();
    assert_eq!(newest_common(&bed, &[1]), Err(Some(4)));
}

#[test]
fn a_base_on_record_is_not_read_to_learn_its_state() {
    let bed = Bed::new();
    let generations = generations();
    bed.accept(&whole(&generations[0]), &[]);
    let new = bed.dir.path().join("new.img");
    fs::write(&new, &generations[1]).unwrap();
    let stream = |target: &Path| {
        let output = Command::new(DIFF).arg("--base").arg(target).arg(&new).output().unwrap();
        assert!(output.status.success(), "{}", complaint(&output));
        output.stdout
    };
    let by_record = stream(&bed.target);
    // A record with another id, to see that it is what counts as long as it fits …
    let record = bed.record();
    let forged = record.replace(&root_of(&generations[0]), &id(77).to_string());
    assert_ne!(forged, record);
    fs::write(bed.record_file(), &forged).unwrap();
    assert!(stream(&bed.target) != by_record);
    // … and no longer.
    OpenOptions::new().write(true).open(&bed.target).unwrap().write_all_at(&generations[0][..1], 0).unwrap();
    assert!(stream(&bed.target) == by_record);
}

fn root_of(content: &[u8]) -> String {
    let mut root = siphon::state::ContentRoot::new(content.len() as u64);
    root.data(&siphon::format::Data::new(0, content.to_vec()));
    siphon::state::file_state(root.finish()).to_string()
}

#[test]
fn help_has_examples() {
    let help = Command::new(APPLY).arg("--help").output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"));
}
