//! tree-apply(1): whatever is in the stream, and whatever was put into the target, nothing outside is touched.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::os::unix::fs::symlink as plant;
use std::path::Path;
use std::process::Command;

use common::complaint;
use common::tree_streams::{Bed, Stream, attributes, file, is_root, symlink};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use siphon::format::{Attributes, Node, Origin};

const KEPT: Origin = Origin::Kept;
const SAME: Node = Node::File { size: 10_000, old_size: 10_000 };

fn base() -> Stream {
    Stream::whole(1)
        .dir("d", Origin::New)
        .file("d/f", &[1; 10_000])
        .dir("d/sub", Origin::New)
        .file("d/sub/f", &[2; 10_000])
        .dir("e", Origin::New)
        .file("e/f", &[3; 10_000])
        .entry("s", Origin::New, symlink("../outside"))
}

fn changed(stream: Stream, at: &str) -> Stream {
    stream.entry(at, KEPT, SAME).data(0, vec![9; 4096])
}

fn since() -> Stream {
    Stream::since(1, 2)
}

fn remove(path: &Path) {
    if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
}

/// Puts a link to what is outside in the place of something.
fn lead_out(bed: &Bed, at: &str, to: &str) {
    let path = bed.target.join(at);
    if path.symlink_metadata().is_ok() {
        remove(&path);
    }
    plant(bed.outside.join(to), path).unwrap();
}

fn node(bed: &Bed, at: &str, kind: FileType) {
    let path = bed.target.join(at);
    remove(&path);
    mknodat(CWD, &path, kind, Mode::from_raw_mode(0o666), makedev(1, 3)).unwrap();
}

type Plant = fn(&Bed);

/// What is called so, what is put into the target by hand, what is said then, and with which class that is refused; none: it is
/// done, inside.
fn cases() -> Vec<(&'static str, Plant, Stream, &'static str)> {
    let d_out: Plant = |bed| lead_out(bed, "d", "");
    let sub_out: Plant = |bed| lead_out(bed, "d/sub", "");
    let f_out: Plant = |bed| lead_out(bed, "d/f", "f");
    let nothing: Plant = |_| {};
    vec![
        ("content behind a link", d_out, changed(since(), "d/f"), "wrong-base"),
        ("content behind a link far down", sub_out, changed(since(), "d/sub/f"), "wrong-base"),
        ("attributes behind a link", d_out, since().entry("d/f", KEPT, SAME), "wrong-base"),
        ("gone behind a link", d_out, since().gone("d/f").dir("d", KEPT), "wrong-base"),
        ("gone far behind a link", sub_out, since().gone("d/sub/f"), "wrong-base"),
        ("taken behind a link", d_out, since().taken("d/f").dir("", KEPT).entry("x", Origin::Taken(1), SAME), "wrong-base"),
        (
            "taken far behind a link",
            sub_out,
            since().taken("d/sub/f").dir("", KEPT).entry("x", Origin::Taken(1), SAME),
            "wrong-base",
        ),
        ("new behind a link", d_out, since().dir("d", KEPT).file("d/x", b"x"), "wrong-base"),
        ("a link made behind a link", sub_out, since().dir("d/sub", KEPT).link("d/sub/x", "d/f"), "wrong-base"),
        ("a link to behind a link", d_out, since().dir("", KEPT).link("x", "d/f"), "wrong-base"),
        ("a link to far behind a link", sub_out, since().dir("", KEPT).link("x", "d/sub/f"), "wrong-base"),
        ("a directory that is a link", d_out, since().with("d", KEPT, Node::Directory, attributes(0o777)), "wrong-base"),
        ("content of a link", f_out, changed(since(), "d/f"), "wrong-base"),
        ("attributes of a link", f_out, since().with("d/f", KEPT, SAME, attributes(0o777)), "wrong-base"),
        ("new where a link is", |bed| lead_out(bed, "d/new", "made"), since().dir("d", KEPT).file("d/new", b"x"), "wrong-base"),
        (
            "a new directory where a link is",
            |bed| lead_out(bed, "d/new", ""),
            since().dir("d", KEPT).dir("d/new", Origin::New).file("d/new/x", b"x"),
            "wrong-base",
        ),
        (
            "a new link where a link is",
            |bed| lead_out(bed, "d/new", "made"),
            since().dir("d", KEPT).link("d/new", "e/f"),
            "wrong-base",
        ),
        (
            "taken to where a link is",
            |bed| lead_out(bed, "d/new", "made"),
            since().taken("e/f").dir("d", KEPT).entry("d/new", Origin::Taken(1), SAME).dir("e", KEPT),
            "wrong-base",
        ),
        (
            "taken what became a link",
            d_out,
            since().taken("d").dir("", KEPT).dir("x", Origin::Taken(1)).file("x/y", b"y"),
            "wrong-base",
        ),
        ("a pipe where a file was", |bed| node(bed, "d/f", FileType::Fifo), changed(since(), "d/f"), "wrong-base"),
        ("a device where a file was", |bed| node(bed, "d/f", FileType::CharacterDevice), changed(since(), "d/f"), "wrong-base"),
        ("a pipe where a directory was", |bed| node(bed, "d/sub", FileType::Fifo), changed(since(), "d/sub/f"), "wrong-base"),
        ("a file of another size", |bed| fs::write(bed.target.join("d/f"), "x").unwrap(), changed(since(), "d/f"), "wrong-base"),
        ("a link gone", d_out, since().gone("d").dir("", KEPT), ""),
        ("a directory gone that leads out", |bed| lead_out(bed, "d/x", ""), since().gone("d").dir("", KEPT), ""),
        (
            "a link that is kept",
            nothing,
            since().with("s", KEPT, symlink("../outside"), Attributes { uid: 77, ..attributes(0o777) }),
            "",
        ),
        ("a link taken", nothing, since().taken("s").dir("", KEPT).entry("t", Origin::Taken(1), symlink("../outside")), ""),
        ("another name of a link", nothing, since().dir("", KEPT).link("t", "s"), ""),
        ("a link that points elsewhere", nothing, since().entry("s", KEPT, symlink("../outside/etc")), ""),
        ("all replaced", d_out, Stream::whole(5), ""),
        ("our name as an entry", nothing, since().dir("", KEPT).dir(".siphon-taken", Origin::New), "exists"),
        ("our name as a directory on the way", nothing, since().entry(".siphon-taken/x", KEPT, Node::Fifo), "exists"),
        ("our name gone", nothing, since().gone(".siphon-taken").dir("", KEPT), "exists"),
        (
            "our name taken",
            nothing,
            since().taken(".siphon-taken/1").dir("", KEPT).entry("x", Origin::Taken(1), Node::Fifo),
            "exists",
        ),
        ("our name as a link", nothing, since().dir("", KEPT).link(".siphon-taken", "e/f"), "exists"),
        ("our name behind a link", nothing, since().dir("", KEPT).link("x", ".siphon-taken/1"), "exists"),
        ("our name in a whole tree", nothing, Stream::whole(5).file(".siphon-taken", b"x"), "exists"),
        (
            "our name leads out",
            |bed| lead_out(bed, ".siphon-taken", ""),
            since().taken("e/f").dir("", KEPT).dir("e", KEPT).entry("x", Origin::Taken(1), SAME),
            "exists",
        ),
    ]
}

#[test]
fn nothing_outside_is_touched() {
    if !is_root() {
        return;
    }
    let cases = cases();
    for (label, plant, stream, class) in &cases {
        let bed = Bed::new();
        bed.accept(&base().end(), &["--all"]);
        plant(&bed);
        let before = bed.beside();
        let output = bed.apply(&stream.end(), &["--all", "--trust", "--replace"]);
        let said = complaint(&output);
        assert_eq!(bed.beside(), before, "{label}: {said}");
        match *class {
            "" => assert!(output.status.success(), "{label}: {said}"),
            class => {
                assert_eq!(output.status.code(), Some(4), "{label}: {said}");
                assert!(said.contains(&format!("[{class}]")), "{label}: {said}");
                assert!(output.stdout.is_empty() && !bed.record().is_empty(), "{label}");
            }
        }
    }
    println!("{} ways out tried", cases.len());
}

#[test]
fn what_is_planted_into_a_broken_run_does_not_lead_out() {
    if !is_root() {
        return;
    }
    let stream = since()
        .taken("e")
        .taken("d/f")
        .dir("", KEPT)
        .dir("d", KEPT)
        .entry("d/g", Origin::Taken(2), SAME)
        .dir("h", Origin::Taken(1))
        .file("new", &[4; 5000])
        .end();
    let plants: [(&str, Plant); 4] = [
        ("our directory leads out", |bed| lead_out(bed, ".siphon-taken", "")),
        ("what is new is a link", |bed| lead_out(bed, "new", "f")),
        ("the directory is a link", |bed| lead_out(bed, "d", "")),
        ("what was taken is a link", |bed| {
            for entry in fs::read_dir(bed.target.join(".siphon-taken")).into_iter().flatten() {
                let path = entry.unwrap().path();
                remove(&path);
                plant(&bed.outside, path).unwrap();
            }
        }),
    ];
    // Broken off while things are taken, and while they are placed.
    for share in [30, 45, 60, 75, 90] {
        for (label, plant) in plants {
            let bed = Bed::new();
            bed.accept(&base().end(), &["--all"]);
            bed.refuse(&stream[..stream.len() * share / 100], &["--all"], 3, "truncated");
            plant(&bed);
            let before = bed.beside();
            let output = bed.apply(&stream, &["--all"]);
            assert_eq!(bed.beside(), before, "{label} at {share} %: {}", complaint(&output));
        }
    }
}

struct Mount(String);

impl Mount {
    fn over(bed: &Bed, at: &str) -> Option<Mount> {
        let place = bed.target.join(at).display().to_string();
        let mounted = Command::new("mount").arg("--bind").arg(&bed.outside).arg(&place).status();
        let done = mounted.is_ok_and(|status| status.success());
        if !done {
            println!("skipped: nothing can be mounted here");
        }
        done.then_some(Mount(place))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn nothing_that_is_mounted_below_is_touched() {
    if !is_root() {
        return;
    }
    let tries = [
        changed(since(), "d/f"),
        changed(since(), "d/sub/f"),
        since().gone("d/f").dir("d", KEPT),
        since().gone("d").dir("", KEPT),
        since().taken("d").dir("", KEPT).dir("x", Origin::Taken(1)),
        since().dir("d", KEPT).file("d/x", b"x"),
        since().with("d", KEPT, Node::Directory, attributes(0o777)),
        since().dir("", KEPT).link("x", "d/f"),
        Stream::whole(5).file("x", b"y"),
    ];
    for stream in tries {
        let bed = Bed::new();
        bed.accept(&base().end(), &["--all"]);
        let Some(mount) = Mount::over(&bed, "d") else { return };
        let before = bed.beside();
        let output = bed.apply(&stream.end(), &["--all", "--trust", "--replace"]);
        assert_eq!(bed.beside(), before, "{}", complaint(&output));
        assert!(!output.status.success(), "it is in the way");
        drop(mount);
    }
}

#[test]
fn a_whole_stream_makes_nothing_outside_however_it_is_laid_out() {
    let bed = Bed::new();
    let stream = Stream::whole(1)
        .entry("a", Origin::New, symlink("../outside"))
        .entry("b", Origin::New, symlink("/"))
        .link("c", "a")
        .entry("d", Origin::New, file(0))
        .end();
    let before = bed.beside();
    bed.accept(&stream, &[]);
    assert_eq!(bed.beside(), before);
}
