//! tree-apply(1): whatever is cut or killed, no half is held for a state, and the same stream again ends right.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;
#[path = "common/tree_story.rs"]
mod story;
mod vectors;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use common::chance::Chance;
use common::strace;
use common::streams::id;
use common::tree_streams::{APPLY, Bed, Stream, is_root};
use siphon::format::{Node, Origin};
use siphon::state::{State, StateList};
use story::{Story, ends_equal, is_full, start};

/// Runs the tool, feeds it, and kills it a moment after it began to receive; false: it had ended.
fn killed(bed: &Bed, stream: &[u8], moment: Duration) -> bool {
    let mut tool = start(bed, Command::new(APPLY));
    let mut stdin = tool.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || _ = stdin.write_all(stream));
        let begun = Instant::now();
        while !bed.is_receiving() && begun.elapsed() < Duration::from_secs(20) && tool.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(moment);
        tool.kill().unwrap();
        let output = tool.wait_with_output().unwrap();
        assert!(output.stdout.is_empty() || !bed.is_receiving(), "a receipt for half a tree");
    });
    bed.is_receiving()
}

#[test]
fn killed_at_any_point_the_same_stream_again_ends_equal() {
    if !is_root() {
        return;
    }
    let mut chance = Chance::new();
    let story = Story::new();
    let other = Stream::since(1, 3).dir("", Origin::Kept).end();
    let usual = [false, true].map(|is_whole| {
        let (bed, stream, goal) = story.before(is_whole);
        let begun = Instant::now();
        bed.accept(stream, &["--all"]);
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap();
        ends_equal(&bed, goal, "nothing happens");
        took
    });
    let planned = if is_full() { 200 } else { 20 };
    let (mut fired, mut tried, mut again) = (0, 0, 0);
    while fired < planned && tried < planned * 6 {
        tried += 1;
        let is_whole = tried % 4 == 0;
        let (bed, stream, _) = story.before(is_whole);
        let most = usual[usize::from(is_whole)];
        if !killed(&bed, stream, Duration::from_micros(chance.below(most))) {
            continue;
        }
        fired += 1;
        if !is_whole && chance.below(4) == 0 {
            bed.refuse(&other, &["--all"], 4, "unfinished");
        }
        let mut ended = false;
        while !ended && chance.below(3) == 0 {
            ended = !killed(&bed, stream, Duration::from_micros(chance.below(most)));
            again += usize::from(!ended);
        }
        if !ended {
            story.heals(&bed, is_whole, &format!("kill {fired}"));
        }
    }
    println!("killed while receiving: {fired} of {planned} ({tried} tried, and {again} times more than once)");
    assert_eq!(fired, planned);
}

/// Calls that change something, each of which is killed at its beginning.
const CALLS: &str = "?openat2,?mkdirat,?symlinkat,?mknodat,?linkat,?renameat2,?unlinkat,?pwrite64,?ftruncate,?fchmodat,?fchmodat2,\
    ?fchownat,?utimensat,?fsync,?syncfs,?rename,?fallocate";

/// A run below strace(1), if that is installed.
fn traced(bed: &Bed, stream: &[u8], options: &[&str]) -> Option<std::process::Output> {
    strace().arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().ok().filter(ExitStatus::success)?;
    let trace = bed.dir.path().join("trace");
    let mut program = strace();
    program.arg("-o").arg(&trace).args(options).arg(APPLY);
    let mut tool = start(bed, program);
    let mut stdin = tool.stdin.take().unwrap();
    Some(std::thread::scope(|scope| {
        scope.spawn(move || _ = stdin.write_all(stream));
        tool.wait_with_output().unwrap()
    }))
}

#[test]
fn killed_at_a_call_of_each_kind_the_same_stream_again_ends_equal() {
    if !is_root() {
        return;
    }
    let story = Story::new();
    let calls: String = CALLS.split_whitespace().collect();
    let (bed, stream, _) = story.before(false);
    let all = traced(&bed, stream, &["-e", &format!("trace={calls}")]).filter(|output| output.status.success());
    if all.is_none() {
        println!("skipped: no strace, or it may not trace");
        return;
    }
    let trace = fs::read_to_string(bed.dir.path().join("trace")).unwrap();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for call in trace.lines().filter_map(|line| line.split_whitespace().nth(1)?.split('(').next()) {
        *counts.entry(call).or_default() += 1;
    }
    let points = if is_full() { 24 } else { 4 };
    let (mut fired, mut planned) = (0, 0);
    for (call, count) in counts.iter().filter(|(call, _)| calls.split(',').any(|known| known.strip_prefix('?') == Some(**call))) {
        let mut at: Vec<u64> = (0..points).map(|n| 1 + (count - 1) * n / (points - 1)).collect();
        at.dedup();
        for when in at {
            planned += 1;
            let (bed, stream, _) = story.before(false);
            let inject = format!("inject={call}:signal=KILL:when={when}");
            traced(&bed, stream, &["-e", &format!("trace={call}"), "-e", &inject]).unwrap();
            if bed.is_receiving() {
                fired += 1;
                story.heals(&bed, false, &format!("{call} {when}"));
            }
        }
    }
    println!("killed while receiving: {fired} of {planned}, at {} kinds of calls: {counts:?}", counts.len());
    assert!(fired * 10 >= planned * 7, "{fired} of {planned}");
}

#[test]
fn cut_anywhere_the_same_stream_again_ends_equal() {
    if !is_root() {
        return;
    }
    let story = Story::new();
    let cuts = if is_full() { 120 } else { 6 };
    let mut fired = 0;
    for cut in 1..=cuts {
        let (bed, stream, _) = story.before(false);
        bed.refuse(&stream[..stream.len() * cut / (cuts + 1)], &["--all"], 3, "truncated");
        if bed.is_receiving() {
            story.heals(&bed, false, &format!("cut {cut}"));
            fired += 1;
        }
    }
    println!("cut while receiving: {fired} of {cuts}");
    assert_eq!(fired, cuts);
}

#[test]
fn a_broken_run_is_not_gone_on_with_in_another_way() {
    let bed = Bed::new();
    let kept = Origin::Kept;
    let size = Node::File { size: 6000, old_size: 6000 };
    bed.accept(&Stream::whole(1).file("a", &[1; 6000]).file("b", &[2; 6000]).end(), &[]);
    // Both lead to the same state, by other ways.
    let swapped = Stream::since(1, 2).taken("b").taken("a").dir("", kept).entry("a", Origin::Taken(1), size.clone()).entry(
        "b",
        Origin::Taken(2),
        size.clone(),
    );
    let written =
        Stream::since(1, 2).entry("a", kept, size.clone()).data(0, vec![2; 6000]).entry("b", kept, size).data(0, vec![1; 6000]);
    let fresh = Stream::since(1, 2).gone("b").gone("a").dir("", kept).file("a", &[2; 6000]).file("b", &[1; 6000]);
    let swapped = swapped.end();
    bed.refuse(&swapped[..swapped.len() - 100], &[], 3, "truncated");
    for other in [written, fresh] {
        bed.refuse(&other.end(), &[], 4, "unfinished");
    }
    bed.accept(&swapped, &[]);
    assert_eq!(fs::read(bed.target.join("a")).unwrap(), vec![2; 6000]);
    assert_eq!(fs::read(bed.target.join("b")).unwrap(), vec![1; 6000]);
}

#[test]
fn what_only_a_broken_run_has_taken_is_not_thrown_away() {
    let kept = Origin::Kept;
    let size = Node::File { size: 6000, old_size: 6000 };
    let first = Stream::whole(1).file("a", &[1; 6000]).file("b", &[2; 6000]).end();
    let swapped = Stream::since(1, 2).taken("b").taken("a").dir("", kept);
    let swapped = swapped.entry("a", Origin::Taken(1), size.clone()).entry("b", Origin::Taken(2), size.clone()).end();
    // To the same state, and they do not speak of b.
    let other = Stream::since(1, 2).taken("a").dir("", kept).entry("c", Origin::Taken(1), size.clone()).end();
    let silent = Stream::since(1, 2).entry("a", kept, size).data(0, vec![3; 4096]).end();
    for (stream, goes_on) in [(&other, false), (&silent, true)] {
        let bed = Bed::new();
        bed.accept(&first, &[]);
        let is_taken = |cut: &usize| {
            assert!(!bed.apply(&swapped[..*cut], &[]).status.success());
            bed.target.join(".siphon-taken").exists()
        };
        // Cut while it takes away: what it was going to take is not on record.
        (0..swapped.len()).step_by(8).find(is_taken).unwrap();
        assert!(!bed.target.join("b").exists() && bed.target.join("a").exists() && !bed.record().contains("plan"));
        bed.refuse(stream, &[], 4, "unfinished");
        bed.accept(if goes_on { &swapped } else { &first }, &[]);
        let [a, b] = ["a", "b"].map(|name| fs::read(bed.target.join(name)).unwrap()[0]);
        assert_eq!((a, b), if goes_on { (2, 1) } else { (1, 2) });
        assert!(!bed.target.join(".siphon-taken").exists());
    }
    // What others put there is not thrown away either.
    let bed = Bed::new();
    bed.accept(&first, &[]);
    bed.refuse(&swapped[..swapped.len() - 100], &[], 3, "truncated");
    fs::write(bed.target.join(".siphon-taken/theirs"), "x").unwrap();
    bed.refuse(&swapped, &[], 4, "foreign");
    assert!(bed.is_receiving() && bed.target.join(".siphon-taken/theirs").exists());
}

#[test]
fn what_is_emptied_after_a_broken_run_begins_anew() {
    let first = Stream::whole(1).file("a", &[1; 6000]).dir("d", Origin::New).file("d/f", b"x").end();
    let empty = Stream::whole(1).end();
    // It speaks of names in the root alone.
    let second = Stream::since(1, 2).dir("", Origin::Kept).file("b", &[2; 6000]).end();
    let states = [1, 2].map(|n| State { id: id(n), seconds: 0, bytes: 0, name: format!("s{n}").into_bytes() });
    let states = StateList { states: states.into() }.to_text();
    for (before, is_cut_at_once) in [(&first, false), (&empty, false), (&empty, true)] {
        let bed = Bed::new();
        bed.accept(before, &[]);
        let common = || String::from_utf8(bed.apply(states.as_bytes(), &["--common"]).stdout).unwrap();
        if is_cut_at_once {
            let begins = |len: &usize| !bed.apply(&second[..*len], &[]).status.success() && bed.is_receiving();
            (0..second.len()).step_by(8).find(begins).unwrap();
        } else {
            bed.refuse(&second[..second.len() - 100], &[], 3, "truncated");
            assert_eq!(common(), "s1\n", "the same run may go on");
            fs::remove_file(bed.target.join("b")).unwrap();
            if before == &first {
                fs::remove_file(bed.target.join("a")).unwrap();
                fs::remove_dir_all(bed.target.join("d")).unwrap();
            }
        }
        // Also where the state before was empty: what --common leads to heals it.
        assert!(bed.is_receiving() && fs::read_dir(&bed.target).unwrap().next().is_none());
        bed.refuse(&second, &[], 4, "wrong-base");
        bed.refuse(&second, &["--trust"], 4, "wrong-base");
        assert_eq!(common(), "");
        bed.accept(&Stream::whole(2).file("b", &[2; 6000]).end(), &[]);
        assert_eq!(fs::read(bed.target.join("b")).unwrap(), [2; 6000]);
    }
}

#[test]
fn a_whole_stream_goes_over_any_unfinished_run() {
    let bed = Bed::new();
    let story = Story::new();
    bed.accept(&story.first, &["--all"]);
    bed.refuse(&story.second[..story.second.len() / 2], &["--all"], 3, "truncated");
    bed.accept(&story.first, &["--all"]);
    assert!(bed.listing() == story.at_first);
    bed.refuse(&Stream::whole(3).file("x", &[1; 9000]).end()[..6000], &["--all", "--replace"], 3, "truncated");
    assert!(!bed.record().contains("\"held\""));
    bed.accept(&story.first, &["--all"]);
    assert!(bed.listing() == story.at_first);
}
