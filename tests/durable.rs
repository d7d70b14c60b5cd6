//! What a failing disk says is believed the first time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::process::Stdio;

use common::strace;
use common::streams::whole;
use tempfile::TempDir;

/// The first of these calls on the target fails, and no other.
fn one_call_fails(calls: &str, doing: &str) {
    let traced = |words: &[&str]| {
        let mut command = strace();
        command.args(["-o", "/dev/null"]).args(words).stdin(Stdio::null());
        command
    };
    if !traced(&["true"]).status().is_ok_and(|status| status.success()) {
        println!("skipped: strace is not installed or may not trace");
        return;
    }
    let dir = TempDir::new().unwrap();
    let [stream, target] = ["stream", "copy"].map(|name| dir.path().join(name));
    fs::write(&stream, whole(&vec![7; 1 << 20])).unwrap();
    fs::write(&target, "").unwrap();
    let output = traced(&["-e", &format!("trace={calls}"), "-P"])
        .arg(&target)
        .args(["-e", &format!("inject={calls}:error=EIO:when=1"), env!("CARGO_BIN_EXE_image-apply")])
        .arg(&target)
        .stdin(fs::File::open(&stream).unwrap())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains(doing), "{complaint}");
    let record = fs::read_to_string(dir.path().join("copy.siphon")).unwrap();
    assert!(record.contains("\"receiving\"") && !record.contains("\"held\""), "{record}");
}

/// Linux reports a lost write once: a second fsync(2) would succeed and lie.
#[test]
fn an_error_of_fsync_is_final() {
    one_call_fails("fsync,fdatasync", "making it durable");
}

#[test]
fn an_error_of_a_write_is_final() {
    one_call_fails("pwrite64,pwritev", "writing");
}
