//! tree-apply(1) and tree-diff-stream(1) beside somebody who may write inside the tree, and swaps its directories and files for
//! links to outside as fast as the kernel lets him. Nothing outside is touched, nor even opened.
//!
//! `SIPHON_FULL=1` makes it 5,000 runs of each. `SIPHON_ATTACK_CONTROL=1` is for a build that follows links
//! (tests/mutants/tree-links-followed.patch): the attacker's wins are counted, and have to be many.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use common::chance::Chance;
use common::complaint;
use common::outside::{Listing, Outside};
use common::tree_streams::{APPLY, Stream, attributes};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, open, openat, renameat_with, statat, symlinkat};
use rustix::process::geteuid;
use siphon::format::{Attributes, Node, Origin};
use tempfile::TempDir;

const DIFF: &str = env!("CARGO_BIN_EXE_tree-diff-stream");
const SIZE: usize = 10_000;
const SAME: Node = Node::File { size: SIZE as u64, old_size: SIZE as u64 };
const DIRS: [&str; 3] = ["d0", "d1", "d2"];
/// What he swaps in each of them.
const INSIDE: [&str; 4] = ["e", "f", "pipe", "sub"];
/// Stands in every file outside, and in nothing else.
const SECRET: &[u8] = b"what lies outside is nobody's business ";

fn is_control() -> bool {
    std::env::var_os("SIPHON_ATTACK_CONTROL").is_some()
}

fn planned() -> u64 {
    if std::env::var_os("SIPHON_FULL").is_some() { 5000 } else { 50 }
}

/// Three directories, alike.
fn base() -> Vec<u8> {
    let fill = |stream: Stream, dir: &&str| {
        let file = |stream: Stream, name: &str| stream.file(&format!("{dir}/{name}"), &[1; SIZE]);
        let stream = ["e", "f", "g", "h"].into_iter().fold(stream.dir(dir, Origin::New), file);
        stream
            .entry(&format!("{dir}/pipe"), Origin::New, Node::Fifo)
            .dir(&format!("{dir}/sub"), Origin::New)
            .file(&format!("{dir}/sub/f"), &[1; SIZE])
    };
    DIRS.iter().fold(Stream::whole(1), fill).end()
}

/// In each of them something of every kind happens.
fn since() -> Vec<u8> {
    let kept = Origin::Kept;
    let stream =
        DIRS.iter().rev().fold(Stream::since(1, 2), |stream, dir| stream.taken(&format!("{dir}/h")).gone(&format!("{dir}/g")));
    let change = |(stream, number): (Stream, u64), dir: &&str| {
        let at = |name: &str| format!("{dir}/{name}");
        let other = Attributes { mode: 0o751, ..attributes(0o751) };
        let stream = stream
            .with(dir, kept, Node::Directory, other.clone())
            .with(&at("e"), kept, SAME, other)
            .entry(&at("f"), kept, SAME)
            .data(0, vec![2; SIZE])
            .entry(&at("i"), Origin::Taken(number), SAME)
            .link(&at("l"), &at("f"))
            .file(&at("new"), &[3; 100])
            .entry(&at("pipe"), kept, Node::Fifo)
            .entry(&at("pipe2"), Origin::New, Node::Fifo)
            .dir(&at("sub"), kept)
            .entry(&at("sub/f"), kept, SAME)
            .data(4096, vec![2; 4096]);
        (stream, number - 1)
    };
    DIRS.iter().fold((stream.dir("", kept), DIRS.len() as u64), change).0.end()
}

/// A target, what lies outside of it, and him.
struct Arena {
    place: TempDir,
    outside: Outside,
    before: Listing,
    chance: Chance,
    swaps: u64,
    /// How runs ended.
    ends: BTreeMap<String, u64>,
    refused: u64,
    /// Runs in which something outside was opened or changed; and those in which it was changed, or left the place.
    opened: u64,
    wins: u64,
}

impl Arena {
    fn new() -> Arena {
        // In memory, if there is such a place: nothing waits for a disk then.
        let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let outside = make_outside(place.path());
        let before = outside.listing();
        Arena { place, outside, before, chance: Chance::new(), swaps: 0, ends: BTreeMap::new(), refused: 0, opened: 0, wins: 0 }
    }

    fn target(&self) -> PathBuf {
        self.place.path().join("copy")
    }

    fn apply(&self) -> Command {
        let mut command = Command::new(APPLY);
        // Whoever may do everything could do the most harm.
        let all: &[&str] = if geteuid().is_root() { &["--all"] } else { &[] };
        command.args(all).args(["--trust", "--replace"]).arg(self.target());
        command
    }

    /// The target as the increment needs it, and his links.
    fn prepare(&self) {
        // Or the stream might lead to where it is.
        let _ = fs::remove_file(self.place.path().join("copy.siphon"));
        let output = fed(self.apply(), &base(), |_| {});
        assert!(output.status.success(), "{}", complaint(&output));
        for dir in DIRS {
            let (at, out) = (self.target().join(dir), self.place.path().join("outside"));
            symlink(&out, self.target().join(format!("{dir}-link"))).unwrap();
            INSIDE.iter().for_each(|name| symlink(out.join(name), at.join(format!("{name}-link"))).unwrap());
        }
    }

    /// A run, beside which he swaps until it has ended. Aimed: the tool is held up a little before each call that opens
    /// something, as on a busy machine, and he sees it there.
    fn under_attack(&mut self, is_aimed: bool, command: Command, input: &[u8]) -> Output {
        let (stop, victim) = (AtomicBool::new(false), AtomicU32::new(0));
        let mut attacker = Attacker::of(self.place.path(), Chance::with(self.chance.below(u64::MAX)));
        let (output, swaps) = std::thread::scope(|scope| {
            let attacker = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    if is_aimed { attacker.aim(victim.load(Ordering::Relaxed)) } else { attacker.strike() }
                }
                attacker.swaps
            });
            let command = if is_aimed { held_up(&command) } else { command };
            let output = fed(command, input, |child| victim.store(child.id(), Ordering::Relaxed));
            stop.store(true, Ordering::Relaxed);
            (output, attacker.join().unwrap())
        });
        self.swaps += swaps;
        output
    }

    /// What has come of a run.
    fn judge(&mut self, is_aimed: bool, kind: &str, output: &Output, has_leaked: bool) {
        let said = complaint(output);
        let end = match output.status.code() {
            Some(0) => "done".to_owned(),
            Some(code) => format!("{code} {}", class(&said)),
            None => "a signal".to_owned(),
        };
        let is_known = KNOWN.contains(&end.as_str());
        let (events, changes) = self.outside.events();
        let is_changed = changes > 0 || self.outside.listing() != self.before;
        let (aimed, won) = (if is_aimed { ", aimed" } else { "" }, if is_changed || has_leaked { ", he won" } else { "" });
        *self.ends.entry(format!("{kind}{aimed}: {end}{won}")).or_default() += 1;
        self.refused += u64::from(!output.status.success());
        if is_control() {
            self.opened += u64::from(events > 0);
            self.wins += u64::from(!won.is_empty());
            if events > 0 || is_changed {
                // What he has won is made good.
                fs::remove_dir_all(self.place.path().join("outside")).unwrap();
                self.outside = make_outside(self.place.path());
                self.before = self.outside.listing();
            }
            return;
        }
        assert!(is_known, "{}: {said}", output.status);
        assert!(!is_changed, "something outside was changed: {said}");
        assert_eq!(events, 0, "times that something outside was opened: {said}");
        assert!(!has_leaked, "what stands outside is in the stream: {said}");
    }

    /// Nothing happened outside; and he was there.
    fn end(&self, began: Instant, fired: u64) {
        let planned = planned();
        let Arena { swaps, ends, refused, opened, wins, .. } = self;
        println!("{fired} runs of {planned} in {:.1?}, {swaps} swaps; they ended: {ends:?}", began.elapsed());
        assert_eq!(fired, planned);
        if is_control() {
            println!("the attacker won {wins} of {fired} runs; in {opened} of them something outside was opened or changed");
            assert!(wins * 50 >= fired, "{wins} of {fired}");
            return;
        }
        let names: Vec<_> = fs::read_dir(self.place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| ["copy", "copy.siphon", "outside"].iter().any(|ours| name == ours)), "{names:?}");
        assert!(*swaps >= 10 * fired && refused * 10 >= fired, "he was there: {swaps} swaps, {refused} refused");
    }
}

/// The same below strace(1), in the same process.
fn held_up(command: &Command) -> Command {
    let mut held_up = Command::new("strace");
    held_up.args(["-D", "-qq", "-o", "/dev/null", "-e", "trace=openat,openat2", "-e", "inject=openat,openat2:delay_enter=200"]);
    held_up.arg(command.get_program()).args(command.get_args());
    held_up
}

fn can_hold_up() -> bool {
    let can = held_up(&Command::new("true")).status().is_ok_and(|status| status.success());
    if !can {
        println!("skipped: no strace, or it may not trace: he swaps blindly in all runs");
    }
    can
}

/// Runs a tool with this on its standard input.
fn fed(mut command: Command, input: &[u8], begun: impl FnOnce(&Child)) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    begun(&child);
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // One that refuses at once reads no more.
        scope.spawn(move || _ = stdin.write_all(input));
        child.wait_with_output().unwrap()
    })
}

/// How a run beside him may end. (Times that he changes while they are set are unsupported.)
const KNOWN: [&str; 6] = ["done", "4 changed", "4 wrong-base", "4 exists", "4 not-found", "4 unsupported"];

/// The word in brackets.
fn class(said: &str) -> &str {
    let line = said.lines().find(|line| line.contains(": error: ")).unwrap_or_default();
    line.rsplit_once('[').and_then(|(_, word)| word.strip_suffix(']')).unwrap_or("no class")
}

/// It looks as the directories of the tree do.
fn make_outside(place: &Path) -> Outside {
    let outside = place.join("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    let secret: Vec<u8> = SECRET.iter().copied().cycle().take(SIZE).collect();
    ["e", "f", "g", "h", "pipe", "sub/f"].iter().for_each(|name| fs::write(outside.join(name), &secret).unwrap());
    Outside::watch(&outside)
}

struct Attacker {
    root: OwnedFd,
    /// What he swaps for what, and where the link leads: nothing is to be thought of between two swaps.
    names: Vec<(CString, CString, PathBuf)>,
    chance: Chance,
    swaps: u64,
}

impl Attacker {
    fn of(place: &Path, chance: Chance) -> Attacker {
        let root = open(place.join("copy"), DIRECTORY, Mode::empty()).unwrap();
        let text = |text: String| CString::new(text).unwrap();
        let outside = |name: &&str| if name.starts_with('d') { place.join("outside") } else { place.join("outside").join(name) };
        let names = DIRS.iter().chain(&INSIDE);
        let names = names.map(|name| (text((*name).to_owned()), text(format!("{name}-link")), outside(name))).collect();
        Attacker { root, names, chance, swaps: 0 }
    }

    /// The directory of this name, wherever it is.
    fn directory(&self, dir: usize) -> Option<OwnedFd> {
        let (name, link, _) = &self.names[dir];
        let opened = openat(&self.root, name, DIRECTORY, Mode::empty());
        opened.or_else(|_| openat(&self.root, link, DIRECTORY, Mode::empty())).ok()
    }

    /// One name: the link comes, often only for the shortest time that there is, and goes.
    fn strike(&mut self) {
        let mut any = |of: usize| usize::try_from(self.chance.below(of as u64)).unwrap();
        let (dir, what) = (any(DIRS.len()), any(INSIDE.len() + 2));
        let is_inside = what < INSIDE.len();
        let inside = if is_inside { self.directory(dir) } else { None };
        let name = if is_inside { DIRS.len() + what } else { dir };
        self.swap(inside.as_ref(), name);
        self.pause(20);
        self.swap(inside.as_ref(), name);
    }

    /// All names at once, at some of the moments when the tool is about to open something in a directory.
    fn aim(&mut self, victim: u32) {
        let call = || fs::read_to_string(format!("/proc/{victim}/syscall")).unwrap_or_default();
        let is_opening = |call: &str| {
            let mut words = call.split_whitespace();
            let number = words.next().and_then(|number| number.parse().ok());
            [libc::SYS_openat, libc::SYS_openat2].map(Some).contains(&number) && words.next() != Some("0xffffff9c")
        };
        let seen = call();
        if !is_opening(&seen) {
            return std::thread::yield_now();
        }
        let is_time = self.chance.below(8) == 0;
        let inside: Vec<_> = (0..DIRS.len()).map(|dir| self.directory(dir)).collect();
        let mut swap_all = || {
            for dir in inside.iter().flatten() {
                (0..INSIDE.len()).for_each(|what| self.swap(Some(dir), DIRS.len() + what));
            }
            (0..DIRS.len()).for_each(|dir| self.swap(None, dir));
        };
        if is_time {
            swap_all();
        }
        while call() == seen {
            std::thread::yield_now();
        }
        if is_time {
            swap_all();
        }
    }

    /// Swaps a name and its link; one without a link gets it.
    fn swap(&mut self, directory: Option<&OwnedFd>, name: usize) {
        let directory = directory.unwrap_or(&self.root);
        let (name, link, outside) = &self.names[name];
        let exchange = || renameat_with(directory, name, directory, link, RenameFlags::EXCHANGE).is_ok();
        let is_there = || statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if exchange() || is_there() && symlinkat(outside, directory, link).is_ok() && exchange() {
            self.swaps += 1;
        }
    }

    fn pause(&mut self, most: u64) {
        (0..self.chance.below(most)).for_each(|_| std::hint::spin_loop());
    }
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

#[test]
fn tree_apply_touches_nothing_outside_beside_a_live_attacker() {
    let (began, mut arena, mut fired) = (Instant::now(), Arena::new(), 0);
    let streams = [base(), since()];
    fs::create_dir(arena.target()).unwrap();
    let can_aim = can_hold_up();
    while fired < planned() {
        let is_since = fired % 2 == 1;
        if is_since {
            arena.prepare();
        }
        let is_aimed = can_aim && fired % 4 >= 2;
        let output = arena.under_attack(is_aimed, arena.apply(), &streams[usize::from(is_since)]);
        arena.judge(is_aimed, if is_since { "increment" } else { "whole" }, &output, false);
        fired += 1;
    }
    arena.end(began, fired);
}

#[test]
fn tree_diff_stream_reads_nothing_outside_beside_a_live_attacker() {
    let (began, mut arena, mut fired) = (Instant::now(), Arena::new(), 0);
    arena.prepare();
    let can_aim = can_hold_up();
    while fired < planned() {
        let (target, mut command) = (arena.target(), Command::new(DIFF));
        match fired % 3 {
            0 => command.arg("--live"),
            1 => command.args(["--live", "--base"]).arg(&target),
            _ => &mut command,
        };
        command.arg(&target);
        let is_aimed = can_aim && fired % 2 == 1;
        let output = arena.under_attack(is_aimed, command, b"");
        let has_leaked = output.stdout.windows(SECRET.len()).any(|bytes| bytes == SECRET);
        arena.judge(is_aimed, ["live", "live since", "still"][usize::try_from(fired % 3).unwrap()], &output, has_leaked);
        fired += 1;
    }
    arena.end(began, fired);
}
