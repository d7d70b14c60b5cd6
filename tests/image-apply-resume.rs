//! A transfer onto a file or device that was cut goes on where it stopped.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test that cannot go on fails")]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::apply::{APPLY, Bed, apply};
use common::loop_device::Loop;
use common::nights::Nights;
use common::streams::{Given, data, encoded, id};
use common::{complaint, piped};
use siphon::source::resumed::{self, History};
use tempfile::TempDir;

const SIZE: usize = 100 << 20;

/// Three nights of an image so large that a stream of it has a CHECKPOINT, with every fifth MiB zeros.
fn nights() -> Vec<Vec<u8>> {
    let mut image = vec![0; SIZE];
    let mibs = image.chunks_mut(1 << 20).enumerate().filter(|(n, _)| n % 5 != 4);
    mibs.for_each(|(n, mib)| mib.chunks_mut(4096).for_each(|grain| grain.fill(n as u8 + 1)));
    let mut nights = vec![image.clone()];
    for night in 2..4_u8 {
        image.chunks_mut(1 << 20).step_by(3).for_each(|mib| mib[usize::from(night) << 12..][..8192].fill(night));
        image.chunks_mut(7 << 20).for_each(|mibs| mibs[..4096].fill(0));
        image.resize(SIZE + usize::from(night) * 512, night);
        nights.push(image.clone());
    }
    nights
}

/// The stream that leads to the newest night: whole, or from where the token says.
fn stream(nights: &[Vec<u8>], token: Option<&str>) -> Vec<u8> {
    let history = Nights(nights.to_vec());
    let mut source = match token {
        Some(token) => resumed::open(history, token).unwrap().0,
        None => history.between(None, (0, u64::MAX)).unwrap(),
    };
    encoded(&mut source)
}

/// What the target answers to the states that there are.
fn common(nights: &[Vec<u8>], target: &Path, options: &[&str]) -> String {
    let list = Nights(nights.to_vec()).list();
    let output = piped(APPLY, &[options, &["--common", target.to_str().unwrap()]].concat(), list.as_bytes());
    assert!(output.status.success(), "{}", complaint(&output));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn a_cut_transfer_goes_on_the_next_night_and_sends_little_twice() {
    let (bed, nights) = (Bed::new(), nights());
    let whole = stream(&nights[..1], None);
    let mut sent = 0;
    // Cut on the first night behind a CHECKPOINT, on the second where little was changed; done on the third.
    for (night, keep) in [(1, whole.len() * 9 / 10), (2, 20 << 10), (3, usize::MAX)] {
        let token = common(&nights[..night], &bed.target, &[]);
        assert_eq!(token.starts_with("resume:"), night > 1, "{token}");
        let stream = stream(&nights[..night], (night > 1).then_some(&token));
        sent += stream.len().min(keep);
        if keep < stream.len() {
            let said = bed.refuse(&stream[..keep], &[], 3, "truncated");
            assert!(said.contains("what has arrived is kept"), "{said}");
        } else {
            bed.accept(&stream, &[]);
        }
    }
    assert!(bed.content() == nights[2] && !bed.is_receiving());
    assert_eq!(common(&nights, &bed.target, &[]), "s3");
    assert!(sent < whole.len() * 125 / 100, "{sent} bytes were sent, {} of them had to be", whole.len());
}

#[test]
fn a_target_that_was_touched_since_does_not_go_on() {
    let (bed, nights) = (Bed::new(), nights());
    let whole = stream(&nights[..1], None);
    bed.refuse(&whole[..whole.len() * 9 / 10], &[], 3, "truncated");
    let token = common(&nights[..2], &bed.target, &[]);
    assert!(token.starts_with("resume:"), "{token}");
    OpenOptions::new().write(true).open(&bed.target).unwrap().write_all_at(b"by hand", 5000).unwrap();
    assert_eq!(common(&nights[..2], &bed.target, &[]), "", "it is begun anew");
    bed.refuse(&stream(&nights[..2], Some(&token)), &[], 4, "unfinished");
    bed.accept(&stream(&nights[..2], None), &[]);
    assert!(bed.content() == nights[1]);
}

#[test]
fn an_increment_is_not_begun_again_over_what_others_wrote() {
    let (bed, nights) = (Bed::new(), nights());
    let size = nights[0].len() as u64;
    let mib = |at: u64| data(at << 20, vec![9; 1 << 20]);
    // All but one MiB.
    let changes = (0..SIZE as u64 >> 20).filter(|at| *at != 50).map(mib).collect();
    let increment = encoded(&mut Given::new(1, 2, (size, size), changes));
    bed.accept(&stream(&nights[..1], None), &[]);
    bed.refuse(&increment[..increment.len() * 9 / 10], &[], 3, "truncated");
    assert!(bed.record().contains("checkpoint"), "{}", bed.record());
    OpenOptions::new().write(true).open(&bed.target).unwrap().write_all_at(b"by hand", 50 << 20).unwrap();
    bed.refuse(&increment, &[], 4, "unfinished");
    bed.accept(&stream(&nights[..2], None), &[]);
    assert!(bed.content() == nights[1]);
}

#[test]
fn what_is_gone_at_the_source_is_not_gone_on_from() {
    let (bed, nights) = (Bed::new(), nights());
    let whole = stream(&nights[..1], None);
    bed.refuse(&whole[..whole.len() * 9 / 10], &[], 3, "truncated");
    let token = common(&nights[..2], &bed.target, &[]);
    // The source has lost its first night since it was asked.
    let lost = token.replace(&id(1).to_string(), &id(9).to_string());
    let (mut anew, note) = resumed::open(Nights(nights[..2].to_vec()), &lost).unwrap();
    assert!(note.contains("begun anew"), "{note}");
    bed.accept(&encoded(&mut anew), &[]);
    assert!(bed.content() == nights[1]);
}

#[test]
fn a_device_that_goes_on_keeps_nothing_of_what_it_held_before() {
    let dir = TempDir::new().unwrap();
    let backing = dir.path().join("disk");
    fs::write(&backing, vec![0xff; SIZE + (1 << 20)]).unwrap();
    let Some(device) = Loop::over(&backing) else { return };
    let (records, target) = (dir.path().join("records"), Path::new(&device.0));
    let options = ["--state-dir", records.to_str().unwrap()];
    let nights = nights();
    let whole = stream(&nights[..1], None);
    let output = apply(&whole[..whole.len() * 9 / 10], &[&options[..], &["--replace"]].concat(), target);
    assert_eq!(output.status.code(), Some(3), "{}", complaint(&output));
    for (night, cut) in [(2, true), (3, false)] {
        let token = common(&nights[..night], target, &options);
        let stream = stream(&nights[..night], Some(&token));
        let output = apply(&stream[..if cut { 100 << 10 } else { stream.len() }], &options, target);
        assert_eq!(output.status.success(), !cut, "{}", complaint(&output));
    }
    let mut content = fs::read(&backing).unwrap();
    assert!(content.split_off(nights[2].len()).iter().all(|byte| *byte == 0) && content == nights[2]);
}
