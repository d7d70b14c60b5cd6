//! snap-prune(1): nothing is let go that should not be, whatever the input or the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{complaint, piped};
use siphon::format::Id;
use siphon::state::{State, StateList};

const TOOL: &str = env!("CARGO_BIN_EXE_snap-prune");

/// A list of these names, a day apart.
fn list(names: &[&str]) -> Vec<u8> {
    let state = |(n, name): (usize, &&str)| State {
        id: Id::derive("t", &[n.to_string().as_bytes()]),
        seconds: 1_700_000_000 + i64::try_from(n).unwrap() * 86_400,
        bytes: 4096,
        name: name.as_bytes().to_vec(),
    };
    StateList { states: names.iter().enumerate().map(state).collect() }.to_text().into_bytes()
}

/// Nights of November.
fn nights(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("2026-11-{n:02}T0200Z")).collect()
}

fn names(nights: &[String]) -> Vec<&str> {
    nights.iter().map(String::as_str).collect()
}

fn prune(args: &[&str], input: &[u8]) -> Output {
    piped(TOOL, args, input)
}

/// What was printed, by a run that went well.
fn printed(args: &[&str], input: &[u8]) -> String {
    let output = prune(args, input);
    assert!(output.status.success(), "{args:?}: {}", complaint(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// It failed with this exit code and class, and printed nothing that xargs could take.
fn refused(args: &[&str], input: &[u8], code: i32, class: &str) {
    let output = prune(args, input);
    let said = complaint(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(said.contains(&format!("[{class}]")), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?}");
}

#[test]
fn the_last_of_the_nightly_lines_removes_what_it_should() {
    let folder = tempfile::tempdir().unwrap();
    let nights = nights(9);
    let states = [&["made-by-hand"], names(&nights).as_slice()].concat();
    std::fs::write(folder.path().join("list"), list(&states)).unwrap();
    for (base, want) in [("2026-11-02T0200Z", [1, 3, 4, 5, 6].as_slice()), ("", &[1, 2, 3, 4, 5, 6])] {
        let line = "set -eu -o pipefail; cat list | snap-prune --keep-last 3 ${base:+--keep \"$base\"} | xargs -r -I{} echo rbd snap rm rbd/vm1@{}";
        let path = format!("{}:{}", std::path::Path::new(TOOL).parent().unwrap().display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .args(["-c", line])
            .env("base", base)
            .env("PATH", path)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", complaint(&output));
        let want: String = want.iter().map(|n| format!("rbd snap rm rbd/vm1@2026-11-{n:02}T0200Z\n")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), want, "base {base:?}");
    }
}

#[test]
fn a_list_that_is_not_whole_lets_nothing_go() {
    let nights = nights(5);
    let whole = list(&names(&nights));
    for cut in 0..whole.len() {
        refused(&["--keep-last", "1"], &whole[..cut], 3, "list");
    }
    refused(&["--keep-last", "1"], &[whole.as_slice(), b"x"].concat(), 3, "list");
    refused(&["--keep-last", "1"], &list(&[]), 3, "list");
    refused(&["--keep-last", "1", "--json"], &whole[..whole.len() - 1], 3, "list");
}

#[test]
fn no_rule_and_a_senseless_rule_are_usage_errors() {
    let nights = nights(5);
    let input = list(&names(&nights));
    for args in [
        [].as_slice(),
        &["--keep", "2026-11-02T0200Z"],
        &["--at-most", "5"],
        &["--match", ".*"],
        &["--keep-last", "0"],
        &["--keep-last", "-1"],
        &["--keep-daily", "all"],
        &["--keep-within", "0d"],
        &["--keep-within", "7"],
        &["--keep-grid", "24x1h | 30x1m"],
        &["--keep-grid", ""],
        &["--keep-regex", "("],
        &["--keep-last", "1", "--keep", ""],
        &["--keep-last", "1", "--match", "a)|(b"],
        &["--keep-last", "1", "--pace", "5"],
        &["--keep-last", "1", "--dry-run", "--json"],
        &["--keep-last", "1", "2026-11-02T0200Z"],
        &["--keep-regex", "--dry-run"],
    ] {
        refused(args, &input, 2, "usage");
    }
}

#[test]
fn a_base_that_is_not_there_lets_nothing_go() {
    let nights = nights(5);
    let input = list(&names(&nights));
    let token = format!("resume:{},4096={}", Id::derive("t", &[b"0"]), Id::derive("t", &[b"other"]));
    for base in ["2026-11-02T0201Z", "-x", "--dry-run", "made by hand", &token] {
        refused(&["--keep-last", "1", "--keep", base], &input, 4, "not-found");
    }
    let token = format!("resume:{},4096={}", Id::derive("t", &[b"0"]), Id::derive("t", &[b"2"]));
    assert_eq!(printed(&["--keep-last", "1", "--keep", &token], &input), "2026-11-02T0200Z\n2026-11-04T0200Z\n");
}

#[test]
fn names_that_a_pipeline_would_garble_are_kept_and_said() {
    let bad = ["with blank", "line\nfeed", "quo'te", "quo\"te", "back\\slash", "-rf", "a@b", "$(reboot)", "\u{1b}[2J"];
    let input = list(&[bad.as_slice(), &["plain", "z\u{fc}rich", "newest"]].concat());
    let output = prune(&["--match", ".*", "--keep-last", "1"], &input);
    assert_eq!(String::from_utf8(output.stdout.clone()).unwrap(), "plain\nz\u{fc}rich\n");
    let said = complaint(&output);
    assert_eq!(said.lines().filter(|line| line.contains("note:")).count(), bad.len(), "{said}");
    assert!(said.lines().all(|line| line.starts_with("snap-prune: ")) && !said.contains('\u{1b}'), "{said}");
}

#[test]
fn a_dry_run_leaves_the_pipe_empty_and_gives_each_reason() {
    let nights = nights(4);
    let input = list(&[&["by hand"], names(&nights).as_slice()].concat());
    let output = prune(&["--keep-last", "2", "--keep", "2026-11-01T0200Z", "--dry-run", "--pace", "9w"], &input);
    assert!(output.status.success() && output.stdout.is_empty());
    let said = complaint(&output);
    let want = [
        ("keep", "by%20hand", "not ours"),
        ("keep", "2026-11-01T0200Z", "named"),
        ("go", "2026-11-02T0200Z", "no rule keeps it"),
        ("keep", "2026-11-03T0200Z", "last"),
        ("keep", "2026-11-04T0200Z", "the newest, last"),
    ];
    for (line, (says, name, reason)) in said.lines().zip(want) {
        assert!(line.starts_with(says) && line.ends_with(&format!("  {name}  {reason}")) && line.contains("2023-11-"), "{line}");
    }
    assert_eq!(said.lines().count(), want.len(), "{said}");
}

#[test]
fn json_tells_of_every_state() {
    let nights = nights(3);
    let input = list(&[&["by hand"], names(&nights).as_slice()].concat());
    let lines: Vec<serde_json::Value> =
        printed(&["--keep-last", "2", "--json"], &input).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(
        lines[0],
        serde_json::json!({"name": "by%20hand", "seconds": 1_700_000_000, "keep": true, "reasons": ["not ours"]})
    );
    let goes = serde_json::json!({"name": nights[0], "seconds": 1_700_086_400, "keep": false, "reasons": ["no rule keeps it"]});
    assert_eq!(lines[1], goes);
}

#[test]
fn what_goes_is_bounded_by_at_most() {
    let nights = nights(9);
    let input = list(&names(&nights));
    for most in [0, 1, 5, 99] {
        let out = printed(&["--keep-last", "2", "--at-most", &most.to_string()], &input);
        assert_eq!(out.lines().collect::<Vec<_>>(), &names(&nights)[..most.min(7)]);
    }
}

#[test]
fn nothing_of_ours_is_said() {
    let output = prune(&["--keep-last", "1"], &list(&["a", "b"]));
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(complaint(&output).contains("--match"), "{}", complaint(&output));
}

#[test]
fn names_come_at_the_pace_that_was_asked_for() {
    let nights = nights(4);
    let mut child = Command::new(TOOL)
        .args(["--keep-last", "1", "--pace", "1s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&list(&names(&nights))).unwrap();
    let mut came = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| (line.unwrap(), Instant::now()));
    let mut last = came.next().unwrap().1;
    for name in &nights[1..3] {
        let (line, at) = came.next().unwrap();
        assert_eq!(&line, name);
        // The first may have been read a moment after it was printed.
        assert!(at - last > Duration::from_millis(700), "{:?}", at - last);
        last = at;
    }
    assert!(came.next().is_none() && child.wait().unwrap().success());
}

#[test]
fn a_reader_that_dies_ends_it_in_silence() {
    let nights = nights(9);
    let mut child = Command::new(TOOL)
        .args(["--keep-last", "1", "--pace", "1s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&list(&names(&nights))).unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), complaint(&output).as_str()), (Some(1), ""));
}
