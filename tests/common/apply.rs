//! image-apply(1) run on a target, and what it said.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use siphon::state::Receipt;
use tempfile::TempDir;

use super::complaint;

pub const APPLY: &str = env!("CARGO_BIN_EXE_image-apply");
pub const DIFF: &str = env!("CARGO_BIN_EXE_image-diff-stream");

/// A target that does not exist yet, in a directory of its own.
pub struct Bed {
    pub dir: TempDir,
    pub target: PathBuf,
}

impl Bed {
    pub fn new() -> Bed {
        let dir = TempDir::new().unwrap();
        let target = dir.path().join("copy.img");
        Bed { dir, target }
    }

    pub fn record_file(&self) -> PathBuf {
        self.dir.path().join("copy.img.siphon")
    }

    pub fn record(&self) -> String {
        fs::read_to_string(self.record_file()).unwrap_or_default()
    }

    pub fn is_receiving(&self) -> bool {
        self.record().contains("\"receiving\"")
    }

    pub fn apply(&self, stream: &[u8], options: &[&str]) -> Output {
        apply(stream, options, &self.target)
    }

    /// Applies a stream that must be accepted, and gives the receipt.
    pub fn accept(&self, stream: &[u8], options: &[&str]) -> Receipt {
        let output = self.apply(stream, options);
        assert!(output.status.success(), "{}", complaint(&output));
        Receipt::parse(output.stdout.as_slice()).unwrap()
    }

    /// Applies a stream that must be refused with this exit code and class.
    pub fn refuse(&self, stream: &[u8], options: &[&str], code: i32, class: &str) -> String {
        let output = self.apply(stream, options);
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(&format!("[{class}]")), "{class}: {said}");
        assert!(output.stdout.is_empty());
        said
    }

    pub fn content(&self) -> Vec<u8> {
        fs::read(&self.target).unwrap()
    }

    /// A fresh bed again.
    pub fn clear(&self) {
        for file in [&self.target, &self.record_file()] {
            let _ = fs::remove_file(file);
        }
    }
}

/// Runs it with a stream on standard input.
pub fn apply(stream: &[u8], options: &[&str], target: &Path) -> Output {
    let mut command = Command::new(APPLY);
    command.args(options).arg(target).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tool = command.spawn().unwrap();
    // A refusal closes the pipe early.
    let _ = tool.stdin.take().unwrap().write_all(stream);
    tool.wait_with_output().unwrap()
}
