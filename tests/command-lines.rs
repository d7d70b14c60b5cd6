//! What the command line of every tool promises: no word is passed over, nothing is lost in silence, and nobody who does not
//! listen ends the work.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::apply::{APPLY, Bed, DIFF};
use common::streams::{Given, encoded, generations, since, whole};
use common::tree_streams::Stream;
use common::{complaint, piped};

const CHANGED: &str = env!("CARGO_BIN_EXE_cephfs-changed");
const CONVERT: &str = env!("CARGO_BIN_EXE_extent-convert");
const DIGEST: &str = env!("CARGO_BIN_EXE_extent-digest");
const INSPECT: &str = env!("CARGO_BIN_EXE_extent-inspect");
const MERGE: &str = env!("CARGO_BIN_EXE_extent-merge");
const TREE: &str = env!("CARGO_BIN_EXE_tree-apply");
const ZVOL: &str = env!("CARGO_BIN_EXE_zvol-apply");

fn refused(output: &Output, code: i32, class: &str) {
    let said = complaint(output);
    assert!(output.status.code() == Some(code) && said.contains(&format!("[{class}]")), "expected {code} [{class}]: {said}");
}

#[test]
fn an_option_that_has_no_use_beside_the_others_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    let target = target.to_str().unwrap();
    let (image, tree) = (whole(b"x"), Stream::whole(1).end());
    for (tool, words, stream) in [
        (TREE, &["--mark"][..], &tree),
        (TREE, &["--no-hold"], &tree),
        (TREE, &["--rollback"], &tree),
        (TREE, &["--writable"], &tree),
        (TREE, &["-o", "a=b"], &tree),
        (ZVOL, &["--mark"], &image),
        (ZVOL, &["--no-hold"], &image),
        (ZVOL, &["--rollback"], &image),
        (ZVOL, &["--shrink"], &image),
        (ZVOL, &["-b", "8K"], &image),
        (ZVOL, &["-o", "a=b"], &image),
    ] {
        refused(&piped(tool, &[words, &[target]].concat(), stream), 2, "usage");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{tool} {words:?}");
    }
    for words in [
        &["--to", "raw", "--size", "8M"][..],
        &["--to", "raw", "--snap", "x"],
        &["--to", "raw", "--states", "x"],
        &["--from", "raw", "--size", "1", "--snap", "x"],
        &["--from", "rbd-diff-v1", "--size", "1"],
    ] {
        refused(&piped(CONVERT, words, &image), 2, "usage");
    }
}

#[test]
fn a_full_disk_of_logs_ends_no_run() {
    let log = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let run = |tool: &str, words: &[&str], stream: &[u8]| {
        let mut child = Command::new(tool).args(words).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(stream);
        child.wait().unwrap().code()
    };
    let (bed, generations) = (Bed::new(), generations());
    let manifest = bed.dir.path().join("manifest");
    let words = ["--manifest", manifest.to_str().unwrap(), bed.target.to_str().unwrap()];
    assert_eq!(run(APPLY, &words, &whole(&generations[0])), Some(0));
    // All is read anew, which is said.
    fs::remove_file(&manifest).unwrap();
    assert_eq!(run(APPLY, &words, &since(&generations[0], &generations[1])), Some(0));
    assert!(bed.content() == generations[1] && manifest.exists());
    // And the codes are what they are.
    assert_eq!(run(DIGEST, &["--expect", &"0".repeat(64)], &whole(b"x")), Some(5));
    assert_eq!(run(INSPECT, &["no-such-file"], b""), Some(4));
    assert_eq!(run(APPLY, &[words[2]], &since(b"x", b"y")), Some(4));
    assert_eq!(run(APPLY, &["--no-such-option"], b""), Some(2));
}

/// Through a shell, which can close what a parent has open.
fn shell(line: &str) -> Output {
    Command::new("sh").args(["-c", line]).output().unwrap()
}

#[test]
fn what_nobody_takes_is_not_lost_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::write(at("image"), vec![7; 100_000]).unwrap();
    fs::write(at("stream"), whole(&vec![7; 100_000])).unwrap();
    let (image, stream, receipt) = (at("image"), at("stream"), at("receipt"));
    for line in [
        format!("{DIFF} --receipt {receipt} {image} >&-"),
        format!("{MERGE} --receipt {receipt} {stream} >&-"),
        format!("{DIGEST} --root {stream} >&-"),
        format!("{DIGEST} {stream} >&-"),
        format!("{INSPECT} {stream} >&-"),
    ] {
        let output = shell(&line);
        assert!(!output.status.success() && !Path::new(&receipt).exists(), "{line}: {}", complaint(&output));
    }
    // Who throws it away knows that.
    assert!(shell(&format!("{DIFF} --receipt {receipt} {image} >/dev/null")).status.success());
    for line in [format!("{MERGE} --completions bash >/dev/full"), format!("{MERGE} --help >/dev/full")] {
        let output = shell(&line);
        assert_eq!(output.status.code(), Some(1), "{line}: {}", complaint(&output));
    }
}

#[test]
fn names_of_others_are_shown_and_do_nothing() {
    let mut source = Given::new(1, 2, (4096, 4096), vec![]);
    source.header.names.to = b"\x1b[2J\nimage-apply: ok".to_vec();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let (first, second) = (file("first", &whole(b"x")), file("second", &encoded(&mut source)));
    let output = piped(MERGE, &[&first, &second], b"");
    refused(&output, 4, "wrong-base");
    assert!(!complaint(&output).contains('\x1b') && !complaint(&output).contains("\nimage-apply"), "{}", complaint(&output));
    source.header.names.from = b"\x1b[2J".to_vec();
    let diff = piped(CONVERT, &["--to", "rbd-diff-v1"], &encoded(&mut source)).stdout;
    let output = piped(CONVERT, &["--from", "rbd-diff-v1"], &diff);
    refused(&output, 4, "not-found");
    assert!(!complaint(&output).contains('\x1b'), "{}", complaint(&output));
}

#[test]
fn a_size_that_takes_weeks_is_refused_at_once() {
    let mut huge = Given::new(1, 2, (0, i64::MAX as u64), vec![]);
    huge.header.from = None;
    refused(&piped(DIGEST, &["--root"], &encoded(&mut huge)), 4, "unsupported");
    refused(&piped(CONVERT, &["--from", "raw", "--size", "8388608T"], b""), 2, "usage");
    let size = u64::MAX.to_le_bytes();
    refused(&piped(CONVERT, &["--from", "rbd-diff-v1"], &[b"rbd diff v1\ns", &size[..], b"e"].concat()), 3, "foreign-stream");
}

#[test]
fn a_manifest_is_known_however_slowly_it_comes() {
    let image = vec![7; 100_000];
    let manifest = piped(DIGEST, &[], &whole(&image)).stdout;
    let mut tool = Command::new(DIGEST).arg("--root").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = tool.stdin.take().unwrap();
    stdin.write_all(&manifest[..8]).unwrap();
    sleep(Duration::from_millis(200));
    stdin.write_all(&manifest[8..]).unwrap();
    drop(stdin);
    let output = tool.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout == piped(DIGEST, &["--root"], &whole(&image)).stdout);
}

#[test]
fn a_memory_takes_the_place_of_no_other_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image");
    fs::write(&file, vec![7; 100_000]).unwrap();
    refused(&piped(CHANGED, &["--memory", file.to_str().unwrap(), "--needs"], b""), 4, "exists");
    // One that was cut, or is of another version, is lost, and costs a walk.
    for bytes in [&b""[..], b"siphon-cephfs-memory\t1\nstate"] {
        fs::write(&file, bytes).unwrap();
        let output = piped(CHANGED, &["--memory", file.to_str().unwrap(), "--needs"], b"");
        assert!(output.status.success() && output.stdout.is_empty(), "{}", complaint(&output));
    }
}
