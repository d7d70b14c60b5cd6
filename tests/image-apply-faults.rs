//! image-apply(1): whatever is cut, damaged, killed or full, no half is held for a state, and the next stream heals it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::apply::{APPLY, Bed, DIFF};
use common::complaint;
use common::streams::{Given, data, encoded, generations, since, whole};
use tempfile::TempDir;

/// Large counts run with SIPHON_FULL=1; otherwise every `step`th.
fn step(sampled: usize) -> usize {
    if std::env::var_os("SIPHON_FULL").is_some() { 1 } else { sampled }
}

#[test]
fn stream_cut_or_flipped_anywhere_is_refused_and_never_held() {
    // ZERO and DATA, in a few hundred bytes.
    let (old, new) = (vec![1; 9000], [vec![0; 8192], vec![3; 60]].concat());
    let bed = Bed::new();
    bed.accept(&whole(&old), &[]);
    let (at_old, record) = (bed.content(), bed.record());
    for (stream, base) in [(whole(&new), None), (since(&old, &new), Some(&at_old))] {
        let reset = || {
            bed.clear();
            if let Some(base) = base {
                // The same inode, so that the record speaks of this file; its times are vouched for.
                fs::write(&bed.target, base).unwrap();
                fs::write(bed.record_file(), with_inode(&record, bed.target.metadata().unwrap().ino())).unwrap();
            }
        };
        let trial = |damaged: &[u8], label: &str| {
            reset();
            let output = bed.apply(damaged, &["--trust"]);
            assert_eq!(output.status.code(), Some(3), "{label}: {}", complaint(&output));
            assert!(output.stdout.is_empty(), "{label}");
            // Untouched, or known to be unfinished.
            let untouched = base.is_none_or(|base| bed.content() == *base) && !bed.is_receiving();
            assert!(untouched || bed.is_receiving(), "{label}");
            assert!(base.is_some() || !bed.record().contains("\"held\""), "{label}");
        };
        let (cuts, flips) = (stream.len(), stream.len() * 8);
        let mut tried = (0, 0);
        for cut in (0..cuts).step_by(step(13)) {
            trial(&stream[..cut], &format!("cut at {cut}"));
            tried.0 += 1;
        }
        for bit in (0..flips).step_by(step(101)) {
            let mut damaged = stream.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            trial(&damaged, &format!("bit {bit}"));
            tried.1 += 1;
        }
        trial(&[stream.as_slice(), b"x"].concat(), "a byte behind the end");
        println!("refused: {} of {cuts} cuts, {} of {flips} flipped bits", tried.0, tried.1);
        // What damage left behind is healed by a whole stream, with no option.
        trial(&stream[..cuts - 1], "the last byte missing");
        bed.accept(&whole(&new), &["--trust"]);
        assert!(bed.content() == new);
    }
}

/// A record, of another file with the same content.
fn with_inode(record: &str, inode: u64) -> String {
    let mut record: serde_json::Value = serde_json::from_str(record).unwrap();
    record["seen"]["file"]["inode"] = inode.into();
    record.to_string()
}

#[test]
fn a_cut_increment_goes_on_from_its_beginning_or_gives_way_to_a_whole_stream() {
    let sizes = (64 << 10, 80 << 10);
    let first = encoded(&mut Given::new(0, 1, (0, 64 << 10), vec![data(0, vec![1; 64 << 10])]));
    let second = encoded(&mut Given::new(1, 2, sizes, vec![data(4096, vec![2; 4096]), data(40960, vec![2; 40960])]));
    let other = encoded(&mut Given::new(1, 3, sizes, vec![data(8192, vec![3; 4096])]));
    let bed = Bed::new();
    bed.accept(&first, &[]);
    bed.refuse(&second[..second.len() - 50], &[], 3, "truncated");
    assert!(bed.is_receiving());
    bed.refuse(&other, &[], 4, "unfinished");
    bed.accept(&second, &[]);
    let mut expected = vec![1; 64 << 10];
    expected.resize(80 << 10, 0);
    expected[4096..8192].fill(2);
    expected[40960..].fill(2);
    assert!(bed.content() == expected);
    // An image file says only at its end where it leads: the same increment again could be another one.
    let bed = Bed::new();
    let generations = generations();
    let increment = since(&generations[0], &generations[1]);
    bed.accept(&whole(&generations[0]), &[]);
    bed.refuse(&increment[..increment.len() - 50], &[], 3, "truncated");
    bed.refuse(&increment, &[], 4, "unfinished");
    bed.accept(&whole(&generations[1]), &[]);
    assert!(bed.content() == generations[1]);
}

#[test]
fn remains_of_a_cut_whole_stream_are_not_left_in_gaps() {
    let bed = Bed::new();
    let full = whole(&vec![0xff; 2 << 20]);
    bed.refuse(&full[..full.len() - 100], &[], 3, "truncated");
    let trimmed = [vec![1; 4096], vec![0; 1 << 20], vec![1; 100]].concat();
    bed.accept(&whole(&trimmed), &[]);
    assert!(bed.content() == trimmed);
}

#[test]
fn killed_at_any_point_the_next_whole_stream_ends_equal() {
    let image: Vec<u8> = (0..3_u32 << 20).map(|at| u8::try_from(at / 4096 % 255).unwrap() + 1).collect();
    let stream = whole(&image);
    let planned = if step(2) == 1 { 40 } else { 8 };
    let mut fired = 0;
    for point in 1..=planned {
        let bed = Bed::new();
        let mut tool = Command::new(APPLY).arg(&bed.target).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stdin = tool.stdin.take().unwrap();
        stdin.write_all(&stream[..stream.len() * point / (planned + 1)]).unwrap();
        let begun = Instant::now();
        while !bed.is_receiving() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        tool.kill().unwrap();
        tool.wait().unwrap();
        fired += usize::from(bed.is_receiving());
        // An image that is part old, part new is no source either.
        let refused = Command::new(DIFF).arg(&bed.target).output().unwrap();
        assert_eq!(refused.status.code(), Some(4), "{}", complaint(&refused));
        assert!(complaint(&refused).contains("[unfinished]"));
        bed.accept(&stream, &[]);
        assert!(bed.content() == image);
    }
    println!("killed while receiving: {fired} of {planned}");
    assert_eq!(fired, planned);
}

#[test]
fn no_room_is_an_error_that_the_record_remembers() {
    let dir = TempDir::new().unwrap();
    let small = dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&small).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: no file system can be mounted here");
        return;
    }
    let bed = Bed { target: small.join("copy.img"), dir };
    let output = bed.apply(&whole(&vec![5; 3 << 20]), &[]);
    let record = fs::read_to_string(small.join("copy.img.siphon")).unwrap_or_default();
    Command::new("umount").arg(&small).status().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
    assert!(complaint(&output).contains("[no-space]"), "{}", complaint(&output));
    assert!(record.contains("\"receiving\"") && !record.contains("\"held\""), "{record}");
}
