//! What tests share.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::process::Output;

pub mod apply;
pub mod loop_device;
pub mod streams;

/// What a tool said on standard error.
pub fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
