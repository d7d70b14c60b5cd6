//! Increments of tree-diff-stream(1): whatever was changed, they lead to the new tree, and say no more than that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;
#[path = "common/tree_sent.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod sent;
#[path = "common/trees.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod trees;
mod vectors;

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use common::complaint;
use sent::{Act, TOOL, check, differ, ends, numbers, said, since, temporary, text, tree, write_at};
use siphon::source::TreeIdentity;
use tempfile::TempDir;
use trees::{Chance, Wild};
use vectors::tree::{applied_strictly, listing, read};

/// What is said by inode numbers, and by paths.
type Said<'a> = (&'a [&'a str], &'a [&'a str]);

/// The times of all directories as they are in the other tree.
fn same_times(old: &Path, new: &Path) {
    for (names, path) in trees::walk(new) {
        let other = names.iter().fold(old.to_owned(), |path, name| path.join(name));
        if let Ok(meta) = fs::symlink_metadata(other)
            && meta.is_dir()
            && path.is_dir()
        {
            trees::set_time(&path, meta.mtime(), meta.mtime_nsec());
        }
    }
}

#[test]
fn an_increment_says_what_changed_and_no_more() {
    let both = |what: &'static [&'static str]| (what, what);
    let cases: Vec<(&str, Act, Said)> = vec![
        ("nothing", |_| {}, both(&[])),
        (
            "a block of a file",
            |new| write_at(&new.join("d/big"), b"x", 100_000),
            both(&["kept d/big 200000..200000", "data 98304 4096"]),
        ),
        (
            "a file that grew",
            |new| OpenOptions::new().append(true).open(new.join("a")).unwrap().write_all(b"more").unwrap(),
            both(&["kept a 1..5", "data 0 5"]),
        ),
        (
            "a file that was cut",
            |new| OpenOptions::new().write(true).open(new.join("d/big")).unwrap().set_len(5000).unwrap(),
            both(&["kept d/big 200000..5000"]),
        ),
        ("zeros", |new| write_at(&new.join("d/big"), &[0; 8192], 4096), both(&["kept d/big 200000..200000", "zero 4096 8192"])),
        ("a mode", |new| fs::set_permissions(new.join("d"), fs::Permissions::from_mode(0o711)).unwrap(), both(&["kept d"])),
        ("a time", |new| trees::set_time(&new.join("l"), 5, 6), both(&["kept l"])),
        ("an attribute", |new| trees::set_xattr(&new.join("a"), "user.x", b"y"), both(&["kept a 1..1"])),
        ("a new file", |new| fs::write(new.join("d/n"), b"12").unwrap(), both(&["kept d", "new d/n 0..2", "data 0 2"])),
        ("a file that went", |new| fs::remove_file(new.join("a")).unwrap(), both(&["gone a", "kept ."])),
        ("a directory that went", |new| fs::remove_dir_all(new.join("d")).unwrap(), both(&["gone d", "kept ."])),
        (
            "a rename",
            |new| fs::rename(new.join("a"), new.join("d/n")).unwrap(),
            (&["gone a 1", "kept .", "kept d", "taken 1 d/n 1..1"], &["gone a", "kept .", "kept d", "new d/n 0..1", "data 0 1"]),
        ),
        (
            "a directory that was renamed",
            |new| fs::rename(new.join("d/e"), new.join("n")).unwrap(),
            (
                &["gone d/e 1", "kept .", "kept d", "taken 1 n"],
                &["gone d/e", "kept .", "kept d", "new n", "new n/x 0..1", "data 0 1"],
            ),
        ),
        (
            "two that were swapped",
            |new| {
                fs::rename(new.join("a"), new.join("t")).unwrap();
                fs::rename(new.join("b"), new.join("a")).unwrap();
                fs::rename(new.join("t"), new.join("b")).unwrap();
                trees::set_time(&new.join("a"), 7, 7);
                trees::set_time(&new.join("b"), 7, 7);
            },
            (
                &["gone b 1", "gone a 2", "kept .", "taken 1 a 1..1", "taken 2 b 1..1"],
                &["kept a 1..1", "data 0 1", "kept b 1..1", "data 0 1"],
            ),
        ),
        (
            "a directory into what was in it",
            |new| {
                fs::rename(new.join("d/e"), new.join("n")).unwrap();
                fs::rename(new.join("d"), new.join("n/d")).unwrap();
            },
            (
                &["gone d/e 1", "gone d 2", "kept .", "taken 1 n", "taken 2 n/d"],
                &["gone d", "kept .", "new n", "new n/d", "new n/d/big 0..200000", "data 0 200000", "new n/x 0..1", "data 0 1"],
            ),
        ),
        (
            "a file moved out of a directory that went",
            |new| {
                fs::rename(new.join("d/e/x"), new.join("x")).unwrap();
                fs::remove_dir_all(new.join("d")).unwrap();
            },
            (&["gone d/e/x 1", "gone d", "kept .", "taken 1 x 1..1"], &["gone d", "kept .", "new x 0..1", "data 0 1"]),
        ),
        (
            "a directory moved into one that is new",
            |new| {
                fs::create_dir(new.join("n")).unwrap();
                fs::rename(new.join("d"), new.join("n/d")).unwrap();
            },
            (
                &["gone d 1", "kept .", "new n", "taken 1 n/d"],
                &[
                    "gone d",
                    "kept .",
                    "new n",
                    "new n/d",
                    "new n/d/big 0..200000",
                    "data 0 200000",
                    "new n/d/e",
                    "new n/d/e/x 0..1",
                    "data 0 1",
                ],
            ),
        ),
        (
            "another kind",
            |new| {
                fs::remove_file(new.join("a")).unwrap();
                fs::create_dir(new.join("a")).unwrap();
            },
            both(&["gone a", "kept .", "new a"]),
        ),
        (
            "a link to somewhere else",
            |new| {
                fs::remove_file(new.join("l")).unwrap();
                symlink("elsewhere", new.join("l")).unwrap();
            },
            both(&["gone l", "kept .", "new l"]),
        ),
        (
            "a file written anew under its name",
            |new| {
                trees::copy(&new.join("a"), &new.join("t"));
                write_at(&new.join("t"), b"A", 0);
                fs::rename(new.join("t"), new.join("a")).unwrap();
            },
            both(&["kept a 1..1", "data 0 1"]),
        ),
        (
            "a directory made anew around what was in it",
            |new| {
                fs::create_dir(new.join("t")).unwrap();
                for name in ["big", "e"] {
                    fs::rename(new.join("d").join(name), new.join("t").join(name)).unwrap();
                }
                fs::remove_dir(new.join("d")).unwrap();
                fs::rename(new.join("t"), new.join("d")).unwrap();
            },
            both(&[]),
        ),
        ("one more name", |new| fs::hard_link(new.join("a"), new.join("0")).unwrap(), both(&["kept .", "link 0 to a"])),
        ("one name less", |new| fs::remove_file(new.join("h1")).unwrap(), both(&["gone h1", "kept ."])),
        (
            "a name of several that is another file now",
            |new| {
                trees::copy(&new.join("h1"), &new.join("t"));
                fs::rename(new.join("t"), new.join("h1")).unwrap();
            },
            // By paths the first name stays what it was.
            (&["gone h1", "kept .", "new h1 0..1", "data 0 1"], &["gone h2", "kept .", "new h2 0..1", "data 0 1"]),
        ),
        (
            "another name of several",
            |new| fs::rename(new.join("h1"), new.join("d/h3")).unwrap(),
            both(&["gone h1", "kept .", "kept d", "link d/h3 to h2"]),
        ),
        (
            "all names of several",
            |new| {
                fs::rename(new.join("h1"), new.join("i1")).unwrap();
                fs::rename(new.join("h2"), new.join("i2")).unwrap();
            },
            (
                &["gone h2", "gone h1 1", "kept .", "taken 1 i1 1..1", "link i2 to i1"],
                &["gone h2", "gone h1", "kept .", "new i1 0..1", "data 0 1", "link i2 to i1"],
            ),
        ),
        ("content of what has several names", |new| write_at(&new.join("h2"), b"!", 0), both(&["kept h1 1..1", "data 0 1"])),
    ];
    for (label, act, (by_inode, by_path)) in cases {
        let (_dir, old, new) = temporary();
        fs::create_dir_all(old.join("d/e")).unwrap();
        fs::write(old.join("d/big"), vec![7; 200_000]).unwrap();
        for name in ["a", "b", "h1", "d/e/x"] {
            fs::write(old.join(name), &name[name.len() - 1..]).unwrap();
        }
        fs::hard_link(old.join("h1"), old.join("h2")).unwrap();
        symlink("a", old.join("l")).unwrap();
        trees::copy(&old, &new);
        let numbers = numbers(&old, &new);
        act(&new);
        same_times(&old, &new);
        // As if times told nothing: only what has to be said is said.
        for (identity, wanted) in [(numbers, by_inode), (TreeIdentity::Path, by_path)] {
            let how = format!("{label}, {}", if matches!(identity, TreeIdentity::Path) { "by path" } else { "by inode" });
            let [.., increment] = check(&old, &new, identity);
            let found: Vec<String> = said(&increment);
            assert_eq!(found, wanted, "{how}");
        }
    }
}

/// So many lives of a tree.
fn lives(label: &str, sample: usize, full: usize, identity: impl Fn(&mut Chance, &Path, &Path) -> TreeIdentity) {
    let lives = if std::env::var_os("SIPHON_FULL").is_some() { full } else { sample };
    let seed = std::env::var("SIPHON_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("{label}: {lives} of {full} lives, seed {seed}");
    let (mut taken, mut links) = (0, 0);
    for life in 0..lives {
        let mut chance = Chance(seed + (life as u64) * 1_000_003);
        let (_dir, old, new) = temporary();
        let things = 5 + chance.below(40);
        Wild { root: old.clone(), chance: &mut chance, log: Vec::new() }.grow(things);
        for _ in 0..chance.below(20) {
            Wild { root: old.clone(), chance: &mut chance, log: Vec::new() }.step();
        }
        // In some lives times tell nothing.
        let is_timeless = chance.one_in(2);
        let stop_time = |dir: &Path| trees::walk(dir).iter().rev().for_each(|(_, path)| trees::set_time(path, 1, 0));
        if is_timeless {
            stop_time(&old);
        }
        trees::copy(&old, &new);
        let identity = identity(&mut chance, &old, &new);
        let steps = 5 + chance.below(56);
        let mut wild = Wild { root: new.clone(), chance: &mut chance, log: Vec::new() };
        (0..steps).for_each(|_| wild.step());
        let log = wild.log.join("\n");
        if is_timeless {
            stop_time(&new);
        }
        // Where something panics, this life can be lived again.
        let result = std::panic::catch_unwind(|| check(&old, &new, identity.clone()));
        let [.., increment] = result.unwrap_or_else(|_| panic!("{label}, life {life}, seed {seed}:\n{log}"));
        let changes = said(&increment);
        taken += changes.iter().filter(|line| line.starts_with("taken")).count();
        links += changes.iter().filter(|line| line.starts_with("link")).count();
        let again = since(&old, &new, identity);
        assert!(increment == again, "{label}, life {life}, seed {seed}: other bytes");
    }
    println!("{label}: {taken} taken, {links} links");
}

#[test]
fn any_change_is_followed_by_path() {
    lives("by path", 60, 2000, |_, _, _| TreeIdentity::Path);
}

#[test]
fn any_change_is_followed_by_inode() {
    lives("by inode", 60, 2000, |_, old, new| numbers(old, new));
}

#[test]
fn an_increment_is_right_whatever_inode_numbers_say() {
    lives("by wrong numbers", 40, 1000, |chance, old, new| {
        let TreeIdentity::Table(right) = numbers(old, new) else { panic!() };
        let mut all: Vec<u64> = right.values().copied().collect();
        all.sort_unstable();
        if chance.one_in(2) {
            all.truncate(4);
        }
        // Some numbers are those of others, and some are there more than once.
        let wrong: HashMap<u64, u64> =
            right.iter().map(|(new, old)| (*new, if chance.one_in(3) { all[chance.below(all.len())] } else { *old })).collect();
        TreeIdentity::Table(wrong)
    });
}

#[test]
fn snapshots_of_one_file_system_are_told_by_their_roots() {
    let dir = TempDir::new().unwrap();
    // Two images of one file system; a file of the second is written to behind the file system's back, so that no time tells.
    let script = r#"set -e; cd "$1"; mkdir a b; truncate -s 64M a.img; mkfs.ext4 -q a.img; mount -o loop a.img a
        mkdir -p a/d/e; head -c 300000 /dev/zero | tr '\0' x >a/d/e/f; ln a/d/e/f a/g; echo 1 >a/moved; yes "one marker" | head -c 9000 >a/behind
        umount a; sed 's/one marker/two marker/' a.img >b.img; mount -o loop b.img b || exit 77; mount -o loop,ro a.img a
        mv b/d/e b/e; mv b/moved b/d/there; printf y | dd of=b/e/f bs=1 seek=100000 conv=notrunc status=none
        "$2" a >whole; "$2" b >after; "$2" --base a b >increment; "$2" --trust-times --base a b >trusted; cp -a a c; "$2" --base c b >copy"#;
    let output = Command::new("unshare").args(["-m", "sh", "-c", script, "sh", text(dir.path()), TOOL]).output().unwrap();
    let stream = |name| fs::read(dir.path().join(name)).unwrap_or_default();
    if stream("after").is_empty() && rustix::process::geteuid().is_root() && complaint(&output).contains("tree-diff-stream") {
        panic!("{}", complaint(&output));
    }
    if stream("after").is_empty() {
        println!("skipped: no file system can be made here: {}", complaint(&output));
        return;
    }
    assert!(output.status.success(), "{}", complaint(&output));
    let moved = ["gone moved 1", "gone d/e 2", "kept ."];
    let rest = ["kept d", "taken 1 d/there 2..2", "taken 2 e", "kept e/f 300000..300000", "data 98304 4096"];
    assert_eq!(said(&stream("increment")), [&moved[..], &["kept behind 9000..9000", "data 0 9000"], &rest].concat());
    assert_eq!(said(&stream("trusted")), [&moved[..], &rest].concat());
    assert_eq!(ends(&stream("increment")), (ends(&stream("whole")).1, ends(&stream("after")).1));
    assert_eq!(ends(&stream("trusted")), (ends(&stream("whole")).1, None));
    for name in ["increment", "copy"] {
        let reached = listing(&applied_strictly(tree(&stream("whole")), read(&stream(name)).unwrap()));
        assert_eq!(differ(&reached, &listing(&tree(&stream("after")))), None, "{name}");
    }
    assert!(said(&stream("copy")).iter().all(|line| !line.starts_with("taken")), "a copy has other inodes");
}
