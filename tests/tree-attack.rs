//! Somebody who may write inside a tree swaps directories and files for links to outside, as fast as the kernel lets him, while
//! we work there. Nothing outside is touched, nor even opened. The same work by paths loses to the same attacker.
//!
//! `SIPHON_FULL=1` makes more rounds of what takes long.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::outside::Outside;
use rustix::fs::{Mode, OFlags, RenameFlags, XattrFlags, open, renameat_with, setxattr};
use siphon::format::{Attributes, Name, Node, Time};
use siphon::host::tree::{Dir, Kind};
use siphon::state::{Class, Fault};

/// A tree, what lies outside of it, and the links from the one to the other that the attacker has put there.
struct Arena {
    place: tempfile::TempDir,
    outside: Outside,
}

/// Names in the tree that the attacker swaps with one another, by their directory: held by him, so that he swaps them there
/// whatever its name is at the moment.
const SWAPS: [(&str, &str, &str); 3] = [("", "a", "a-link"), ("a", "sub", "sub-link"), ("a", "file", "file-link")];

impl Arena {
    fn new() -> Arena {
        let place = tempfile::tempdir().unwrap();
        let make = |path: &str| fs::create_dir_all(place.path().join(path)).unwrap();
        let write = |path: &str| fs::write(place.path().join(path), "original").unwrap();
        ["tree/a/sub", "outside/sub", "outside/empty"].iter().for_each(|path| make(path));
        ["tree/a/file", "tree/a/sub/file", "outside/file", "outside/sub/file", "outside/new"].iter().for_each(|path| write(path));
        for (link, target) in
            [("tree/a-link", "outside"), ("tree/a/sub-link", "outside/sub"), ("tree/a/file-link", "outside/file")]
        {
            symlink(place.path().join(target), place.path().join(link)).unwrap();
        }
        let outside = Outside::watch(&place.path().join("outside"));
        Arena { place, outside }
    }

    fn tree(&self) -> PathBuf {
        self.place.path().join("tree")
    }

    /// Swaps until `work` has ended; its result, and how often.
    fn under_attack<T>(&self, work: impl FnOnce() -> T) -> (T, u64) {
        let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
        let directory = |path: &str| open(self.tree().join(path), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let swapped: Vec<_> = SWAPS.iter().map(|(path, one, other)| (directory(path), *one, *other)).collect();
        let done = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for (directory, one, other) in &swapped {
                        let done = renameat_with(directory, *one, directory, *other, RenameFlags::EXCHANGE);
                        swaps.fetch_add(u64::from(done.is_ok()), Ordering::Relaxed);
                    }
                }
            });
            let _stop_also_in_a_panic = Stop(&stop);
            work()
        });
        (done, swaps.into_inner())
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How long a round waits for the attacker to put the directory back: on a busy machine he may get no time to.
const PATIENCE: Duration = Duration::from_secs(60);

fn in_time<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        match attempt() {
            None if began.elapsed() < PATIENCE => std::thread::yield_now(),
            done => return done,
        }
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// How often each operation was done, and of which class its refusals were.
#[derive(Default)]
struct Tally {
    done: u64,
    refused: BTreeMap<&'static str, u64>,
    swaps_met: u64,
    /// Rounds that went into the directory.
    inside: u64,
}

impl Tally {
    /// Counts, and goes on whatever it was.
    fn of<T>(&mut self, result: Result<T, Fault>) -> Option<T> {
        match result {
            Ok(value) => {
                self.done += 1;
                Some(value)
            }
            Err(fault) => {
                assert!(!matches!(fault.class, Class::Unsupported | Class::Permission | Class::Mounted), "{fault}");
                *self.refused.entry(fault.class.word()).or_default() += 1;
                self.swaps_met += u64::from(fault.class == Class::Changed);
                None
            }
        }
    }
}

fn wanted() -> Attributes {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (uid, gid) = if uid == 0 { (1234, 1234) } else { (uid, gid) };
    let xattrs = [(b"user.siphon".to_vec(), b"1".to_vec())].into();
    Attributes { mode: 0o751, uid, gid, modified: Time { seconds: 1, nanoseconds: 2 }, xattrs }
}

/// One round of every operation below the root.
fn round(root: &Dir, outside: &Path, n: u64, tally: &mut Tally) {
    let (wanted, privileged) = (wanted(), true);
    tally.of(root.set_attributes(&name("a"), &wanted, privileged));
    // Half of the time it is a link; the round is about what comes then.
    let Some(mut a) = in_time(|| tally.of(root.open_to_change(&name("a")))) else { return };
    tally.inside += 1;
    let new = name(&format!("new-{n}"));
    if let Some(mut file) = tally.of(a.make_file(&new)) {
        file.write_all(b"ours").unwrap();
        tally.of(siphon::host::tree::set_file_attributes(&file, &wanted, privileged));
    }
    tally.of(a.set_attributes(&new, &wanted, privileged));
    if let Some(mut file) = tally.of(a.open_to_write(&name("file"))) {
        file.write_all(b"ours").unwrap();
    }
    tally.of(a.open_file(&name("file")));
    tally.of(a.set_attributes(&name("file"), &wanted, privileged));
    tally.of(a.xattrs(&name("file")));
    if let Some(sub) = tally.of(a.open_to_change(&name("sub"))) {
        tally.of(a.link(&new, &sub, &name("linked")));
        tally.of(sub.rename(&name("linked"), &a, &name("renamed")));
        tally.of(a.remove(&name("renamed")));
        tally.of(sub.make_dir(&name("inner")).and_then(|inner| inner.make_file(&name("file"))));
        tally.of(sub.make_symlink(&name("s"), b"..").and_then(|()| sub.remove(&name("s"))));
        tally.of(sub.make_node(&name("fifo"), &Node::Fifo).and_then(|()| sub.remove(&name("fifo"))));
        tally.of(sub.remove_all(&name("inner")));
    }
    tally.of(a.set_attributes(&name("sub"), &wanted, privileged));
    tally.of(a.remove(&new));
    tally.of(a.names());
    if n.is_multiple_of(4) {
        tally.of(a.remove_all(&name("sub")));
        restore(&a, "sub", "sub-link", outside);
    }
}

/// Makes what a removal took, the directory or the link, under the name that is free: as long as it is, nothing is swapped.
fn restore(directory: &Dir, one: &str, link: &str, target: &Path) {
    let kind = |text: &str| directory.look(&name(text)).unwrap().map(|meta| meta.kind);
    match (kind(one), kind(link)) {
        (Some(_), Some(_)) => {}
        (None, Some(Kind::Directory)) => directory.make_symlink(&name(one), target.as_os_str().as_bytes()).unwrap(),
        // It may be swapped before it has been opened: then it is there under the other name.
        (None, _) => drop(directory.make_dir(&name(one))),
        (_, None) => panic!("the attacker lost his link"),
    }
}

#[test]
fn nothing_outside_is_touched_by_work_under_attack() {
    let planned = 5000;
    let arena = Arena::new();
    let root = Dir::root(&arena.tree()).unwrap();
    let outside = arena.place.path().join("outside/sub");
    let before = arena.outside.listing();
    let (began, mut tally, mut fired) = (Instant::now(), Tally::default(), 0);
    let ((), swaps) = arena.under_attack(|| {
        for n in 0..planned {
            round(&root, &outside, n, &mut tally);
            fired += 1;
        }
    });
    let (touched, _) = arena.outside.events();
    let Tally { done, refused, swaps_met, inside } = tally;
    println!("{fired} rounds of {planned} in {:?}: {swaps} swaps, {done} operations done, refused: {refused:?}", began.elapsed());
    assert_eq!((fired, inside), (planned, planned));
    assert_eq!(touched, 0, "times that something outside was touched or opened");
    assert_eq!(arena.outside.listing(), before);
    assert!(swaps_met >= planned / 10, "the attacker was there: {swaps_met}");
    assert!(done >= 10 * planned, "and was not all that happened: {done}");
}

/// The tree as a whole goes again and again, while the attacker swaps it for a link to outside.
#[test]
fn nothing_outside_is_removed_with_a_tree_under_attack() {
    let planned = if std::env::var_os("SIPHON_FULL").is_some() { 1000 } else { 200 };
    let arena = Arena::new();
    let root = Dir::root(&arena.tree()).unwrap();
    let before = arena.outside.listing();
    let (mut fired, mut removed, mut tally) = (0, 0, Tally::default());
    for n in 0..planned {
        let ((), swaps) = arena.under_attack(|| {
            for deep in 0..n % 50 {
                tally.of(root.open(&name("a")).and_then(|a| a.make_dir(&name(&format!("d{deep}")))));
            }
            removed += u64::from(tally.of(root.remove_all(&name("a"))).is_some());
        });
        fired += u64::from(swaps > 0);
        for entry in fs::read_dir(arena.tree()).unwrap() {
            let path = entry.unwrap().path();
            let removed = if path.is_symlink() { fs::remove_file(&path) } else { fs::remove_dir_all(&path) };
            removed.unwrap();
        }
        rebuild(&arena);
    }
    println!("{fired} of {planned} under attack, {removed} removed, refused: {:?}", tally.refused);
    assert_eq!(arena.outside.events().0, 0, "times that something outside was touched or opened");
    assert_eq!(arena.outside.listing(), before);
    assert!(removed >= planned / 2, "{removed}");
}

/// The tree as it was in the beginning, in the directory that we hold.
fn rebuild(arena: &Arena) {
    let path = |below: &str| arena.tree().join(below);
    fs::create_dir_all(path("a/sub")).unwrap();
    fs::write(path("a/file"), "original").unwrap();
    for (link, target) in [("a-link", "outside"), ("a/sub-link", "outside/sub"), ("a/file-link", "outside/file")] {
        symlink(arena.place.path().join(target), path(link)).unwrap();
    }
}

/// The same work by paths: careful, it looks first whether the directory is one.
fn round_by_paths(tree: &Path, n: u64) {
    let wanted = wanted();
    let a = tree.join("a");
    let found = in_time(|| fs::symlink_metadata(&a).ok().filter(|meta| meta.is_dir()));
    found.expect("the directory is back at times");
    let new = a.join(OsString::from(format!("new-{n}")));
    let (sub, file) = (a.join("sub"), a.join("file"));
    let _ = File::create_new(&new).and_then(|mut file| file.write_all(b"ours"));
    let _ = fs::set_permissions(&new, PermissionsExt::from_mode(0o751));
    let _ = std::os::unix::fs::chown(&new, Some(wanted.uid), Some(wanted.gid));
    let _ = setxattr(&new, "user.siphon", b"1", XattrFlags::empty());
    if fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file()) {
        let _ = File::options().write(true).open(&file).and_then(|mut file| file.write_all(b"ours"));
    }
    if fs::symlink_metadata(&sub).is_ok_and(|meta| meta.is_dir()) {
        let _ = fs::hard_link(&new, sub.join("linked"));
        let _ = fs::rename(sub.join("linked"), a.join("renamed"));
        let _ = fs::create_dir(sub.join("inner"));
        let _ = fs::remove_dir_all(sub.join("inner"));
    }
    let _ = fs::remove_file(a.join("renamed"));
    let _ = fs::remove_file(&new);
}

#[test]
fn the_same_work_by_paths_loses_to_the_same_attacker() {
    let (most, needed) = (100_000, 100);
    let arena = Arena::new();
    let before = arena.outside.listing();
    let ((fired, touched), swaps) = arena.under_attack(|| {
        let (mut fired, mut touched) = (0_u64, 0_u64);
        while fired < most && touched < needed {
            round_by_paths(&arena.tree(), fired);
            touched += u64::from(arena.outside.events().1 > 0);
            fired += 1;
        }
        (fired, touched)
    });
    println!("{fired} rounds by paths, {swaps} swaps: {touched} of them changed something outside");
    assert!(touched >= needed, "{touched} of {fired}");
    assert_ne!(arena.outside.listing(), before, "the listing shows it");
}
