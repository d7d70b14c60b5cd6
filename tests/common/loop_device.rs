//! A loop device over a file, detached at the end. For tests that run as root.

use std::path::Path;
use std::process::Command;

/// Its node, such as `/dev/loop3`.
pub struct Loop(pub String);

impl Loop {
    /// `None`, said aloud: no loop device can be made here.
    pub fn over(file: &Path) -> Option<Loop> {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output().ok();
        let node = output
            .filter(|output| output.status.success())
            .map(|output| Loop(String::from_utf8_lossy(&output.stdout).trim().to_owned()));
        if node.is_none() {
            println!("skipped: no loop device can be made here");
        }
        node
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}
