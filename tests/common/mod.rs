//! What tests share.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

pub mod apply;
pub mod chance;
pub mod loop_device;
pub mod nights;
pub mod outside;
pub mod streams;
pub mod tree_nights;
pub mod tree_streams;

/// Runs a tool with this on its standard input.
pub fn piped(program: &str, args: &[&str], input: &[u8]) -> Output {
    let mut child =
        Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // One that refuses at once reads no more.
        scope.spawn(move || _ = stdin.write_all(input));
        child.wait_with_output().unwrap()
    })
}

/// strace(1), which follows all threads. It and its tool take turns at every call: on one processor that takes a quarter of the
/// time that it takes where each turn wakes another one of a virtual machine.
pub fn strace() -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &rustix::thread::sched_getcpu().to_string(), "strace", "-f", "-qq"]);
    command
}

/// What a tool said on standard error.
pub fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
