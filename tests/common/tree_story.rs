//! A target, a stream that makes it and one that changes it, and what both lead to: for runs that are broken off.
//!
//! Not a part of `common`, because it needs the vectors' model of trees beside it.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::process::{Child, Command, Stdio};

use siphon::host::record::Record;

use super::common::streams::id;
use super::common::tree_nights::{evening, night};
use super::common::tree_streams::Bed;
use super::vectors::tree::listing_after;

/// Large counts run with SIPHON_FULL=1.
pub fn is_full() -> bool {
    std::env::var_os("SIPHON_FULL").is_some()
}

/// Starts the tool, below another program or not.
pub fn start(bed: &Bed, mut command: Command) -> Child {
    command.arg("--all").arg(&bed.target);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A target in its first state, and what the second leads to.
pub struct Story {
    pub first: Vec<u8>,
    pub second: Vec<u8>,
    pub at_first: String,
    pub at_second: String,
}

impl Story {
    pub fn new() -> Story {
        let (first, second) = (evening().end(), night().end());
        let (at_first, at_second) = (listing_after(&[&first]), listing_after(&[&first, &second]));
        Story { first, second, at_first, at_second }
    }

    /// A target before a run of the first, whole stream or of the second; the stream and where it leads.
    pub fn before(&self, is_whole: bool) -> (Bed, &[u8], &str) {
        let bed = Bed::in_memory();
        if !is_whole {
            bed.accept(&self.first, &["--all"]);
        }
        let (stream, goal) = self.of(is_whole);
        (bed, stream, goal)
    }

    /// The stream, and where it leads.
    pub fn of(&self, is_whole: bool) -> (&[u8], &str) {
        if is_whole { (&self.first, &self.at_first) } else { (&self.second, &self.at_second) }
    }

    /// It says that it is unfinished, and the same stream again makes it right.
    pub fn heals(&self, bed: &Bed, is_whole: bool, label: &str) {
        let record: Record = serde_json::from_str(&bed.record()).unwrap();
        assert!(record.receiving.is_some(), "{label}");
        let held = (!is_whole).then_some(id(1));
        assert_eq!(record.held.map(|held| held.id), held, "{label}: what was held before is still said, and nothing else");
        let (stream, goal) = self.of(is_whole);
        bed.accept(stream, &["--all"]);
        ends_equal(bed, goal, label);
    }
}

/// The target is what the model of trees makes of the streams.
pub fn ends_equal(bed: &Bed, goal: &str, label: &str) {
    let is = bed.listing();
    assert!(is == goal, "{label}:\n{}", difference(&is, goal));
}

fn difference(is: &str, wanted: &str) -> String {
    let lines = |a: &str, b: &str, sign: &str| {
        let other: Vec<&str> = b.lines().collect();
        a.lines().filter(|line| !other.contains(line)).map(|line| format!("{sign}{line}\n")).collect::<String>()
    };
    lines(is, wanted, "+") + &lines(wanted, is, "-")
}
