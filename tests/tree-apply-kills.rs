//! tree-apply(1), killed at points that are spread evenly over its runs: by the bytes of the stream that it was given, and by
//! its system calls. What is half done is never held for a state, and the next run ends equal.
//!
//! `SIPHON_FULL=1` makes it 200 points of each kind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;
#[path = "common/tree_story.rs"]
mod story;
mod vectors;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::strace;
use common::streams::id;
use common::tree_streams::{APPLY, Bed, is_root};
use siphon::host::record::Record;
use story::{Story, ends_equal, is_full, start};

/// Of whole streams and of increments, half of the points each.
fn points() -> usize {
    if is_full() { 100 } else { 4 }
}

/// Where a run was when it was killed.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// On record as unfinished.
    Receiving,
    /// The commit was done; nobody was told.
    Committed,
}

/// What the next run finds, and that it ends equal.
fn next_run(story: &Story, bed: &Bed, is_whole: bool, label: &str) -> Found {
    if bed.is_receiving() {
        story.heals(bed, is_whole, label);
        return Found::Receiving;
    }
    let record: Record = serde_json::from_str(&bed.record()).unwrap();
    let (stream, goal) = story.of(is_whole);
    assert_eq!(record.held.map(|held| held.id), Some(id(if is_whole { 1 } else { 2 })), "{label}");
    ends_equal(bed, goal, label);
    assert!(bed.accept(stream, &["--all"]).already, "{label}");
    Found::Committed
}

/// It has read all that it was given, and waits for more.
fn waits_for_more(tool: &Child, pipe: &impl std::os::fd::AsFd) -> bool {
    let process = Path::new("/proc").join(tool.id().to_string());
    let call = fs::read_to_string(process.join("syscall")).unwrap_or_default();
    let mut words = call.split_whitespace();
    let is_read = words.next().and_then(|number| number.parse().ok()) == Some(libc::SYS_read);
    let from = words.next().and_then(|number| u32::from_str_radix(number.trim_start_matches("0x"), 16).ok());
    let from = from.and_then(|number| fs::read_link(process.join("fd").join(number.to_string())).ok());
    let is_pipe = from.is_some_and(|name| name.to_string_lossy().starts_with("pipe:"));
    is_read && is_pipe && rustix::io::ioctl_fionread(pipe).unwrap() == 0
}

#[test]
fn killed_behind_any_byte_of_the_stream_it_is_never_held_and_the_next_run_ends_equal() {
    if !is_root() {
        return;
    }
    let (story, points, mut fired) = (Story::new(), points(), 0);
    for is_whole in [true, false] {
        for point in 1..=points {
            let (bed, stream, _) = story.before(is_whole);
            let cut = stream.len() * point / (points + 1);
            let mut tool = start(&bed, Command::new(APPLY));
            let mut stdin = tool.stdin.take().unwrap();
            stdin.write_all(&stream[..cut]).unwrap();
            let began = Instant::now();
            while !waits_for_more(&tool, &stdin) {
                assert!(tool.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60), "byte {cut}");
                std::thread::sleep(Duration::from_micros(200));
            }
            tool.kill().unwrap();
            assert!(tool.wait_with_output().unwrap().stdout.is_empty(), "a receipt for half a tree");
            let found = next_run(&story, &bed, is_whole, &format!("whole: {is_whole}, behind byte {cut}"));
            fired += usize::from(found == Found::Receiving);
        }
    }
    println!("killed while receiving: {fired} of {}, behind bytes of the stream", 2 * points);
    assert_eq!(fired, 2 * points);
}

/// A run below strace(1), and what that wrote. The stream is a file: so the calls are always the same.
fn traced(bed: &Bed, stream: &[u8], options: &[&str]) -> (bool, String) {
    let (trace, input) = (bed.dir.path().join("trace"), bed.dir.path().join("stream"));
    fs::write(&input, stream).unwrap();
    let mut command = strace();
    command.arg("-o").arg(&trace).args(options).arg(APPLY).arg("--all").arg(&bed.target);
    let status = command.stdin(File::open(input).unwrap()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    (status.is_ok_and(|status| status.success()), fs::read_to_string(trace).unwrap_or_default())
}

/// The calls of a run in their order: name, and the whole line.
fn calls(trace: &str) -> Vec<(&str, &str)> {
    trace.lines().filter_map(|line| Some((line.split_whitespace().nth(1)?.split_once('(')?.0, line))).collect()
}

/// So many of a range, evenly; all, if it has no more.
fn evenly(from: usize, to: usize, count: usize) -> Vec<usize> {
    let count = count.min(to - from);
    (0..count).map(|n| from + (to - from) * n / count).collect()
}

#[test]
fn killed_at_any_call_from_its_first_record_to_its_end_the_next_run_ends_equal() {
    if !is_root() {
        return;
    }
    let story = Story::new();
    let (mut found, mut planned, mut kinds) = ([0, 0], [0, 0], BTreeMap::new());
    for is_whole in [true, false] {
        let (bed, stream, _) = story.before(is_whole);
        let (done, trace) = traced(&bed, stream, &[]);
        if !done {
            println!("skipped: no strace, or it may not trace");
            return;
        }
        let calls = calls(&trace);
        let record = |(name, line): &(&str, &str)| name.starts_with("rename") && line.contains("copy.siphon.siphon-new");
        let begun = calls.iter().position(record).unwrap() + 1;
        let commit = calls.iter().rposition(record).unwrap();
        let fed = calls.iter().rposition(|(name, line)| *name == "read" && !line.ends_with("= 0")).unwrap();
        assert!(begun < fed && fed < commit, "{begun} {fed} {commit} of {}", calls.len());
        // The whole run; once more from the last byte of the stream to the commit; and what comes behind it.
        let (end, behind) = if is_full() { (40, 40) } else { (4, 2) };
        let mut at = evenly(begun, commit + 1, points());
        at.extend(evenly(fed + 1, commit + 1, end));
        at.extend(evenly(commit + 1, calls.len(), behind));
        for at in at {
            let name = calls[at].0;
            let when = calls[..=at].iter().filter(|call| call.0 == name).count();
            let (bed, stream, _) = story.before(is_whole);
            let (done, trace) =
                traced(&bed, stream, &["-e", &format!("trace={name}"), "-e", &format!("inject={name}:signal=KILL:when={when}")]);
            let label = format!("whole: {is_whole}, {name} {when}, call {at} of {}", calls.len());
            assert!(!done && trace.contains("killed by SIGKILL"), "{label}");
            planned[usize::from(at > commit)] += 1;
            let is = next_run(&story, &bed, is_whole, &label);
            found[usize::from(is == Found::Committed)] += 1;
            *kinds.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    println!(
        "killed while receiving: {} of {}, behind the commit: {} of {}, at {kinds:?}",
        found[0], planned[0], found[1], planned[1]
    );
    assert_eq!(found, planned);
}
