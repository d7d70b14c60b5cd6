//! image-apply(1): what does not fit the target is refused, and why.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::apply::{Bed, apply};
use common::complaint;
use common::streams::{generations, since, whole};

#[test]
fn what_does_not_fit_is_refused_and_touches_nothing() {
    let bed = Bed::new();
    let generations = generations();
    bed.refuse(&since(&generations[0], &generations[1]), &[], 4, "wrong-base");
    assert!(!bed.target.exists() && !bed.record_file().exists());
    bed.accept(&whole(&generations[0]), &[]);
    bed.refuse(&since(&generations[1], &generations[2]), &[], 4, "wrong-base");
    bed.refuse(&whole(&generations[1]), &[], 4, "has-states");
    bed.refuse(b"no stream at all, but long enough to look at", &[], 3, "not-a-stream");
    bed.refuse(b"", &[], 3, "empty");
    assert!(bed.content() == generations[0]);
    bed.accept(&since(&generations[0], &generations[1]), &[]);
    for target in ["/dev/null", "/tmp"] {
        let output = apply(&whole(b"x"), &["--replace"], Path::new(target));
        assert_eq!(output.status.code(), Some(4), "{target}: {}", complaint(&output));
    }
}

#[test]
fn what_others_did_to_the_target_is_noticed() {
    let (old, new) = (vec![1; 20_000], vec![2; 20_000]);
    type Act = fn(&Path);
    let acts: [(&str, &str, Act); 6] = [
        ("written", "written-since", |path| OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"!", 5).unwrap()),
        ("written, time set back", "written-since", |path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            let time = file.metadata().unwrap().modified().unwrap();
            file.write_all_at(b"!", 5).unwrap();
            file.set_modified(time).unwrap();
        }),
        ("truncated", "written-since", |path| OpenOptions::new().write(true).open(path).unwrap().set_len(9).unwrap()),
        ("emptied", "written-since", |path| OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap()),
        ("replaced", "foreign", |path| {
            fs::copy(path, path.with_extension("2")).unwrap();
            fs::rename(path.with_extension("2"), path).unwrap();
        }),
        ("record damaged", "list", |path| fs::write(path.with_extension("img.siphon"), "{").unwrap()),
    ];
    for (label, class, act) in acts {
        let bed = Bed::new();
        bed.accept(&whole(&old), &[]);
        act(&bed.target);
        let code = if class == "list" { 3 } else { 4 };
        let said = bed.refuse(&since(&old, &new), &[], code, class);
        assert!(said.contains("hint:"), "{label}: {said}");
        if code == 4 {
            bed.accept(&whole(&new), &["--replace"]);
            assert!(bed.content() == new, "{label}");
        }
    }
    // Removed with its record left behind: a new target.
    let bed = Bed::new();
    bed.accept(&whole(&old), &[]);
    fs::remove_file(&bed.target).unwrap();
    bed.refuse(&since(&old, &new), &[], 4, "wrong-base");
    bed.accept(&whole(&new), &[]);
}

#[test]
fn another_file_of_the_same_number_is_not_the_one_that_a_cut_run_was_in() {
    let bed = Bed::new();
    let stream = whole(&[1; 200_000]);
    bed.refuse(&stream[..stream.len() / 2], &[], 3, "truncated");
    // As if the file had been removed, and what was made next had got its number.
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(bed.record_file()).unwrap()).unwrap();
    let real = record["receiving"]["birth"]["time"][0].take();
    assert!(real.is_u64(), "this file system does not say when a file was made");
    for (made, is_ours) in [(1.into(), false), (real, true)] {
        record["receiving"]["birth"]["time"][0] = made;
        fs::write(bed.record_file(), record.to_string()).unwrap();
        if is_ours {
            bed.accept(&stream, &[]);
        } else {
            fs::write(&bed.target, b"theirs").unwrap();
            bed.refuse(&stream, &[], 4, "foreign");
            assert!(bed.content() == b"theirs");
        }
    }
}

#[test]
fn the_user_may_know_that_nobody_wrote() {
    let (old, new) = (vec![1; 20_000], vec![2; 20_000]);
    let bed = Bed::new();
    bed.accept(&whole(&old), &[]);
    // A copy restored from elsewhere: another inode, other times, the same content.
    fs::copy(&bed.target, bed.dir.path().join("restored")).unwrap();
    fs::rename(bed.dir.path().join("restored"), &bed.target).unwrap();
    bed.refuse(&since(&old, &new), &[], 4, "foreign");
    bed.accept(&since(&old, &new), &["--trust"]);
    assert!(bed.content() == new);
    // The size gives it the lie.
    OpenOptions::new().write(true).open(&bed.target).unwrap().set_len(9).unwrap();
    bed.refuse(&since(&new, &old), &["--trust"], 4, "written-since");
}

#[test]
fn one_run_at_a_time() {
    let bed = Bed::new();
    bed.accept(&whole(b"one"), &[]);
    let holder = File::open(&bed.target).unwrap();
    rustix::fs::flock(&holder, rustix::fs::FlockOperation::LockExclusive).unwrap();
    bed.refuse(&since(b"one", b"two"), &[], 6, "busy");
    drop(holder);
    bed.accept(&since(b"one", b"two"), &[]);
}
