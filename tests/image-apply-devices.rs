//! image-apply(1) onto block devices: loop devices, where this system lets a test make them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::apply::{DIFF, apply};
use common::complaint;
use common::loop_device::Loop;
use common::streams::{generations, since, whole};
use siphon::sink::image::STATE_DIR;
use tempfile::TempDir;

/// A block device of this size full of 0xFF, and where records of it go.
fn device(size: u64) -> Option<(TempDir, PathBuf, Loop)> {
    let dir = TempDir::new().unwrap();
    let backing = dir.path().join("disk");
    fs::write(&backing, vec![0xff; usize::try_from(size).unwrap()]).unwrap();
    let device = Loop::over(&backing)?;
    Some((dir, backing, device))
}

#[test]
fn a_device_holds_the_exact_image_and_zeros_behind_it() {
    let Some((dir, backing, device)) = device(3 << 20) else { return };
    let records = dir.path().join("records");
    let records = records.to_str().unwrap();
    let run = |stream: &[u8], more: &[&str]| apply(stream, &[&["--state-dir", records], more].concat(), Path::new(&device.0));
    let holds = |image: &[u8]| {
        let mut expected = image.to_vec();
        expected.resize(3 << 20, 0);
        let mut content = vec![0; 3 << 20];
        // Past the page cache of the device, whatever lies in it.
        let file = File::open(&backing).unwrap();
        file.read_exact_at(&mut content, 0).unwrap();
        content == expected
    };
    let generations = generations();
    let output = run(&whole(&generations[0]), &[]);
    assert!(complaint(&output).contains("[foreign]"), "{}", complaint(&output));
    let output = run(&whole(&generations[0]), &["--replace"]);
    assert!(output.status.success(), "{}", complaint(&output));
    assert!(holds(&generations[0]));
    for pair in generations.windows(2) {
        let output = run(&since(&pair[0], &pair[1]), &[]);
        assert!(output.status.success(), "{}", complaint(&output));
        assert!(holds(&pair[1]));
    }
    let last = generations.last().unwrap();
    // A cut increment that grew, and then a whole stream: nothing of the remains stays.
    let grown = since(last, &vec![6; 2_500_001]);
    assert_eq!(run(&grown[..grown.len() - 9], &[]).status.code(), Some(3));
    let output = run(&whole(&generations[1]), &[]);
    assert!(output.status.success() && holds(&generations[1]), "{}", complaint(&output));
    let output = run(&whole(&vec![1; (3 << 20) + 1]), &["--replace"]);
    assert!(complaint(&output).contains("[too-small]"), "{}", complaint(&output));
    assert!(holds(&generations[1]));
    // A plain writer is noticed.
    OpenOptions::new().write(true).open(&device.0).unwrap().write_all_at(b"!", 5).unwrap();
    Command::new("sync").status().unwrap();
    let output = run(&since(&generations[1], &generations[2]), &[]);
    assert!(complaint(&output).contains("[written-since]"), "{}", complaint(&output));
}

#[test]
fn a_device_that_was_attached_anew_proves_nothing() {
    let Some((dir, backing, device)) = device(1 << 20) else { return };
    let records = dir.path().join("records");
    let options = ["--state-dir", records.to_str().unwrap()];
    let (old, new) = (vec![1; 20_000], vec![2; 20_000]);
    let output = apply(&whole(&old), &[&options[..], &["--replace"]].concat(), Path::new(&device.0));
    assert!(output.status.success(), "{}", complaint(&output));
    drop(device);
    let Some(device) = Loop::over(&backing) else { return };
    let output = apply(&since(&old, &new), &options, Path::new(&device.0));
    let said = complaint(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("nothing proves") && said.contains("--trust"), "{said}");
    let output = apply(&since(&old, &new), &[&options[..], &["--trust"]].concat(), Path::new(&device.0));
    assert!(output.status.success(), "{}", complaint(&output));
    // The file below the device is not the way to it.
    let output = apply(&whole(&old), &["--replace"], &backing);
    assert!(complaint(&output).contains("[claimed]"), "{}", complaint(&output));
}

#[test]
fn a_mounted_device_is_refused() {
    let Some((dir, _, device)) = device(4 << 20) else { return };
    let place = dir.path().join("mounted");
    fs::create_dir(&place).unwrap();
    let made = Command::new("mkfs.ext2").args(["-q", &device.0]).status().is_ok_and(|status| status.success());
    if !made || !Command::new("mount").arg(&device.0).arg(&place).status().unwrap().success() {
        println!("skipped: no file system can be made and mounted here");
        return;
    }
    let output = apply(&whole(b"x"), &["--replace"], Path::new(&device.0));
    let read = Command::new(DIFF).arg(&device.0).output().unwrap();
    Command::new("umount").arg(&place).status().unwrap();
    for output in [output, read] {
        assert_eq!(output.status.code(), Some(4), "{}", complaint(&output));
        assert!(complaint(&output).contains("[mounted]"), "{}", complaint(&output));
    }
}

#[test]
fn a_device_that_a_cut_run_left_is_not_sent() {
    let Some((dir, _, device)) = device(3 << 20) else { return };
    let stream = whole(&generations()[0]);
    // Its record is where all records of devices are.
    let cut = apply(&stream[..stream.len() - 9], &["--replace"], Path::new(&device.0));
    let sent = Command::new(DIFF).arg(&device.0).output().unwrap();
    let ours = dir.path().file_name().unwrap().to_string_lossy().into_owned();
    for record in fs::read_dir(STATE_DIR).unwrap().flatten() {
        if record.file_name().to_string_lossy().contains(&ours) {
            fs::remove_file(record.path()).unwrap();
        }
    }
    assert_eq!(cut.status.code(), Some(3), "{}", complaint(&cut));
    assert!(sent.status.code() == Some(4) && complaint(&sent).contains("[unfinished]"), "{}", complaint(&sent));
}

#[test]
fn what_waits_in_the_page_cache_of_a_device_that_is_read_is_noticed() {
    let Some((_dir, _, device)) = device(16 << 20) else { return };
    let mut tool = Command::new(DIFF).arg(&device.0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = tool.stdout.take().unwrap();
    let mut stream = vec![0; 4096];
    stdout.read_exact(&mut stream).unwrap();
    // As a virtual machine does, which claims nothing, and writes when it likes.
    let other = OpenOptions::new().write(true).open(&device.0).unwrap();
    other.write_all_at(b"!", 8192).unwrap();
    stdout.read_to_end(&mut stream).unwrap();
    let output = tool.wait_with_output().unwrap();
    assert!(output.status.code() == Some(4) && complaint(&output).contains("[changed]"), "{}", complaint(&output));
}
