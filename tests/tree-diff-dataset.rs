//! tree-diff-stream(1) of ZFS file systems, with a pretend `zfs`: what it prints, and two directories for snapshots.
//! What the real one does is tests/real/zfs_tree.py.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;
#[path = "common/trees.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod trees;
mod vectors;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::complaint;
use siphon::flow::Source;
use siphon::format::{Beginning, Id, Object, Tree};
use siphon::source::Decoder;
use siphon::state::{Mark, StateList, zfs_state};
use tempfile::TempDir;
use trees::{Chance, Wild};
use vectors::tree::{applied, applied_strictly, listing, read};

/// `zfs`: the dataset tank/home, mounted at $STAGE/mount, with the snapshots a (guid 11) and b (guid 12).
const ZFS: &str = r#"#!/bin/bash
echo "zfs $*" >>"$STAGE/log"
case $1 in
  mount) printf 'tank\t\n%-30s  %s\ntank/home2  /x\n' tank/home "$STAGE/mount" ;;
  get)
    [ ! -e "$STAGE/volsize" ] || printf 'tank/home\tvolsize\t1048576\t-\n'
    printf 'tank/home\tguid\t10\t-\n'
    for snapshot in a:11 b:12; do
      [ ! -e "$STAGE/gone.${snapshot%:*}" ] || { rm "$STAGE/gone.${snapshot%:*}"; : >"$STAGE/now-gone"; continue; }
      for line in "guid ${snapshot#*:}" "createtxg ${snapshot#*:}" "creation 100"; do
        printf 'tank/home@%s\t%s\t%s\t-\n' "${snapshot%:*}" "${line% *}" "${line#* }"
      done
      [ ! -e "$STAGE/mark.${snapshot%:*}" ] ||
        printf 'tank/home@%s\tsiphon:mark\t%s\tlocal\n' "${snapshot%:*}" "$(cat "$STAGE/mark.${snapshot%:*}")"
    done ;;
  diff) cat "$STAGE/lines"; [ ! -e "$STAGE/words" ] || cat "$STAGE/words" >&2; exit "$(cat "$STAGE/code" 2>/dev/null || echo 0)" ;;
esac
"#;

struct Stage {
    dir: TempDir,
}

impl Stage {
    fn new() -> Stage {
        let stage = Stage { dir: TempDir::new().unwrap() };
        fs::create_dir_all(stage.path("bin")).unwrap();
        fs::create_dir_all(stage.path("mount/.zfs/snapshot")).unwrap();
        fs::write(stage.path("bin/zfs"), ZFS).unwrap();
        fs::set_permissions(stage.path("bin/zfs"), fs::Permissions::from_mode(0o755)).unwrap();
        stage
    }

    /// With two snapshots that hold the same.
    fn of(make: impl FnOnce(&Path)) -> Stage {
        let stage = Stage::new();
        fs::create_dir(stage.old()).unwrap();
        make(&stage.old());
        trees::copy(&stage.old(), &stage.new_tree());
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn old(&self) -> PathBuf {
        self.path("mount/.zfs/snapshot/a")
    }

    fn new_tree(&self) -> PathBuf {
        self.path("mount/.zfs/snapshot/b")
    }

    /// Lines of which the paths lie below the mount point.
    fn lines(&self, lines: &[(&str, &str, &[&[u8]])]) {
        let mut text = String::new();
        for (letter, kind, paths) in lines {
            write!(text, "{letter}\t{kind}").unwrap();
            for path in *paths {
                // A count of names stands there as it is.
                let spelled = if path.starts_with(b"(") {
                    String::from_utf8_lossy(path).into_owned()
                } else {
                    spell(&[self.path("mount").as_os_str().as_bytes(), path].concat())
                };
                write!(text, "\t{spelled}").unwrap();
            }
            text.push('\n');
        }
        fs::write(self.path("lines"), text).unwrap();
    }

    fn run(&self, args: &[&str]) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_tree-diff-stream"));
        command.args(args).env("STAGE", self.dir.path()).env("PATH", path).stdin(Stdio::null()).output().unwrap()
    }

    fn diff(&self) -> Output {
        self.run(&["--", "zfs", "diff", "-FH", "tank/home@a", "tank/home@b"])
    }

    fn refuses(&self, output: &Output, code: i32, class: &str) -> String {
        let said = complaint(output);
        assert!(output.status.code() == Some(code) && said.contains(&format!("[{class}]")), "{said}");
        if !output.stdout.is_empty() {
            read(&output.stdout).unwrap_err();
        }
        said
    }

    /// What a tree becomes by a stream from a to b.
    fn reached(&self, stream: &[u8]) -> String {
        let before = self.run(&["--dataset", "tank/home@a"]);
        assert!(before.status.success(), "{}", complaint(&before));
        let old = applied(vectors::tree::Things::new(), read(&before.stdout).unwrap());
        assert_eq!(listing(&old), trees::listing(&self.old()));
        listing(&applied_strictly(old, read(stream).unwrap()))
    }

    fn follows(&self, output: &Output) {
        assert!(output.status.success(), "{}", complaint(output));
        assert_eq!(self.reached(&output.stdout), trees::listing(&self.new_tree()));
    }
}

fn spell(path: &[u8]) -> String {
    let escaped = |byte: &u8| match byte {
        0..=0x20 | b'\\' | 0x7f.. => format!("\\{byte:04o}"),
        plain => char::from(*plain).to_string(),
    };
    path.iter().map(escaped).collect()
}

fn ends(stream: &[u8]) -> (Option<Id>, Option<Id>) {
    let reader = Beginning::read(stream, Tree::known_features()).unwrap().of().unwrap();
    let mut source: Decoder<_, Tree> = Decoder::of(reader);
    while source.change().unwrap().is_some() {}
    (source.header().from, source.finish().unwrap().to)
}

fn append(path: &Path, bytes: &[u8]) {
    std::io::Write::write_all(&mut OpenOptions::new().append(true).open(path).unwrap(), bytes).unwrap();
}

#[test]
fn states_are_those_of_the_snapshots() {
    let stage = Stage::of(|old| fs::write(old.join("f"), "1").unwrap());
    let states = |stage: &Stage| {
        let output = stage.run(&["--states", "--dataset", "tank/home"]);
        let list = StateList::parse(output.stdout.as_slice()).unwrap();
        list.states.into_iter().map(|state| (state.id, String::from_utf8(state.name).unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(states(&stage), [(zfs_state(11), "a".to_owned()), (zfs_state(12), "b".to_owned())]);
    append(&stage.new_tree().join("f"), b"2");
    let whole = stage.run(&["--dataset", "tank/home@b"]).stdout;
    assert_eq!(ends(&whole), (None, Some(zfs_state(12))));
    let increment = stage.run(&["--from", "a", "--dataset", "tank/home@b"]);
    assert_eq!(ends(&increment.stdout), (Some(zfs_state(11)), Some(zfs_state(12))));
    stage.follows(&increment);
    // What was received goes on as what it was received as.
    let received = Id::derive("t", &[b"other"]);
    let mark: Mark = Mark {
        home: 10,
        source: Id::derive("t", &[b"source"]),
        state: received,
        aliases: Vec::new(),
        size: 0,
        digest: siphon::format::Digest([1; 32]),
        root: None,
        unset: false,
        name: "a".to_owned(),
    };
    fs::write(stage.path("mark.a"), mark.to_text()).unwrap();
    assert_eq!(states(&stage), [(zfs_state(11), "@a".to_owned()), (received, "a".to_owned()), (zfs_state(12), "b".to_owned())]);
    for (from, id) in [("a", received), ("@a", zfs_state(11))] {
        assert_eq!(ends(&stage.run(&["--from", from, "--dataset", "tank/home@b"]).stdout).0, Some(id));
    }
}

#[test]
fn lines_lead_to_what_changed() {
    let stage = Stage::of(|old| {
        for dir in ["d/deep", "quiet/x", "gone/in", "moved/in"] {
            fs::create_dir_all(old.join(dir)).unwrap();
        }
        for file in ["d/deep/f", "d/removed", "quiet/x/q", "gone/in/f", "moved/in/f"] {
            fs::write(old.join(file), file).unwrap();
        }
    });
    let new = stage.new_tree();
    append(&new.join("d/deep/f"), b"more");
    fs::remove_file(new.join("d/removed")).unwrap();
    fs::remove_dir_all(new.join("gone")).unwrap();
    fs::rename(new.join("moved"), new.join("d/here")).unwrap();
    fs::create_dir_all(new.join("fresh/in")).unwrap();
    fs::write(new.join("fresh/in/ \n\t\\\u{ff}"), "new").unwrap();
    trees::set_xattr(&new.join("d/here/in/f"), "user.a", b"1");
    stage.lines(&[
        ("M", "/", &[b"/"]),
        ("M", "F", &[b"/d/deep/f"]),
        ("M", "/", &[b"/d"]),
        ("-", "F", &[b"/d/removed"]),
        ("-", "/", &[b"/gone"]),
        ("-", "/", &[b"/gone/in"]),
        ("-", "F", &[b"/gone/in/f"]),
        ("R", "/", &[b"/moved", b"/d/here"]),
        ("R", "F", &[b"/moved/in/f", b"/d/here/in/f"]),
        ("+", "F", &[b"/d/here/in/f/<xattrdir>/user.a"]),
        ("+", "/", &[b"/fresh"]),
        ("+", "/", &[b"/fresh/in"]),
        ("+", "F", &["/fresh/in/ \n\t\\\u{ff}".as_bytes()]),
        ("M", "F", &[b"(on_delete_queue)"]),
    ]);
    // It speaks of what has no name any more, and begins with a bracket: so it has the mount point before it by hand.
    let lines = fs::read_to_string(stage.path("lines")).unwrap();
    let lines = lines.replace("\t(on_delete_queue)", &format!("\t{}(on_delete_queue)", stage.path("mount").display()));
    fs::write(stage.path("lines"), lines).unwrap();
    let output = stage.diff();
    stage.follows(&output);
    assert_eq!(ends(&output.stdout), (Some(zfs_state(11)), Some(zfs_state(12))));
    assert_eq!(complaint(&output), "");
    // Another command that prints such lines; and none, which walks over all.
    let lines = stage.path("lines");
    let same = stage.run(&["--from", "a", "--dataset", "tank/home@b", "--", "cat", lines.to_str().unwrap()]);
    assert_eq!(same.stdout, output.stdout);
    stage.follows(&stage.run(&["--from", "a", "--dataset", "tank/home@b"]));
    // A file that was changed and has no line: believed where no other line leads, and not by a walk over all.
    append(&new.join("quiet/x/q"), b"more");
    let missed = stage.diff();
    assert!(missed.status.success());
    assert_ne!(stage.reached(&missed.stdout), trees::listing(&new), "nothing was left out: what is this test about?");
    stage.follows(&stage.run(&["--from", "a", "--dataset", "tank/home@b"]));
}

#[test]
fn a_new_name_of_what_no_line_leads_to_is_a_link_all_the_same() {
    let stage = Stage::of(|old| {
        for dir in ["one", "two"] {
            fs::create_dir(old.join(dir)).unwrap();
        }
        fs::write(old.join("one/f"), "content").unwrap();
    });
    let new = stage.new_tree();
    fs::hard_link(new.join("one/f"), new.join("two/g")).unwrap();
    // The directory in which the file has its first name is not told.
    stage.lines(&[("M", "/", &[b"/two"]), ("+", "F", &[b"/two/g"])]);
    let output = stage.diff();
    stage.follows(&output);
    assert!(complaint(&output).contains("walking over all"), "{}", complaint(&output));
    // Told, nothing has to be walked over.
    stage.lines(&[("M", "/", &[b"/two"]), ("M", "F", &[b"/one/f", b"(+1)"])]);
    let output = stage.diff();
    stage.follows(&output);
    assert_eq!(complaint(&output), "");
}

#[test]
fn lines_with_words_beside_them_are_not_believed() {
    let stage = Stage::of(|old| {
        fs::create_dir(old.join("d")).unwrap();
        fs::write(old.join("d/f"), "1").unwrap();
    });
    append(&stage.new_tree().join("d/f"), b"2");
    stage.lines(&[]);
    // More of them than a pipe holds.
    fs::write(stage.path("words"), "Unable to determine path or stats for object 7 in tank/home@a\n".repeat(5000)).unwrap();
    let output = stage.diff();
    stage.follows(&output);
    let said = complaint(&output);
    assert!(said.contains("object 7") && said.contains("walking over all"), "{said}");
    // With another exit code there is no stream.
    fs::write(stage.path("code"), "1").unwrap();
    let output = stage.diff();
    assert!(output.stdout.is_empty());
    assert!(stage.refuses(&output, 1, "io").contains("object 7"));
}

#[test]
fn lines_of_something_else_are_refused() {
    let stage = Stage::of(|old| fs::write(old.join("f"), "1").unwrap());
    fs::write(stage.new_tree().join("g"), "1").unwrap();
    for lines in [
        &[("+", "F", &[&b"/nothing"[..]][..])][..],
        &[("+", "F", &[b"/g"]), ("-", "F", &[b"/g"])],
        &[("+", "F", &[b"/no/such/directory"])],
        &[("M", "F", &[b"/g"])],
        &[("R", "F", &[b"/f", b"/h"])],
        &[("M", "F", &[b"/f/below"])],
        &[("M", "F", &[b"-elsewhere/f"])],
        &[("M", "F", &[b"/../f"])],
        &[("M", "F", &[b"/f", b"/g"])],
    ] {
        stage.lines(lines);
        stage.refuses(&stage.diff(), 3, "foreign-stream");
    }
    stage.lines(&[("+", "F", &[b"/g"])]);
    let text = fs::read_to_string(stage.path("lines")).unwrap();
    for bad in [text.trim_end(), &text.replace("/g", "/g h"), &text.replace('+', "X"), "garbage\n", &"x".repeat(1 << 20)] {
        fs::write(stage.path("lines"), bad).unwrap();
        stage.refuses(&stage.diff(), 3, "foreign-stream");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let stage = Stage::of(|old| fs::write(old.join("f"), "1").unwrap());
    stage.lines(&[]);
    for (args, code, class) in [
        (&["--", "zfs", "diff", "-FH", "tank/home@a", "tank/home"][..], 2, "usage"),
        (&["--", "zfs", "diff", "-FH", "tank/home@a", "tank/other@b"], 2, "usage"),
        (&["--", "zfs", "diff", "-FH", "tank/home@a"], 2, "usage"),
        (&["--", "zfs", "send", "tank/home@a", "tank/home@b"], 2, "usage"),
        (&["--", "cat", "lines"], 2, "usage"),
        (&["--dataset", "tank/home@b", "--", "cat", "lines"], 2, "usage"),
        (&["--dataset", "tank/home"], 2, "usage"),
        (&["--states", "--dataset", "tank/home@b"], 2, "usage"),
        (&["--states"], 2, "usage"),
        (&["--from", "nothing", "--dataset", "tank/home@b"], 4, "not-found"),
        (&["--dataset", "tank/home@nothing"], 4, "not-found"),
        (&["--from", "b", "--dataset", "tank/home@a"], 4, "wrong-base"),
        (&["--from", "a", "--dataset", "tank/home@b", "--", "no-such-program"], 2, "usage"),
    ] {
        let output = stage.run(args);
        assert!(output.stdout.is_empty(), "{args:?}");
        stage.refuses(&output, code, class);
    }
    let short = stage.run(&["--", "zfs", "diff", "-FH", "tank/home@a", "@b"]);
    assert!(short.status.success(), "{}", complaint(&short));
    fs::write(stage.path("volsize"), "").unwrap();
    stage.refuses(&stage.run(&["--dataset", "tank/home@b"]), 4, "unsupported");
    for args in [&["--from", "a", "/tmp"][..], &["--dataset", "tank/home@b", "/tmp"], &["--dataset", "tank/home@b", "--live"]] {
        assert_eq!(stage.run(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_snapshot_that_is_removed_meanwhile_is_no_end() {
    let stage = Stage::of(|old| fs::write(old.join("f"), "1").unwrap());
    // The first look finds it, and the next does not.
    let slow = format!("touch {}; cat /dev/null", stage.path("gone.a").display());
    let output = stage.run(&["--from", "a", "--dataset", "tank/home@b", "--", "sh", "-c", &slow]);
    assert!(!output.stdout.is_empty() && stage.path("now-gone").exists());
    stage.refuses(&output, 4, "vanished");
}

/// What stands at each path, without whose other name it is.
fn look(root: &Path) -> BTreeMap<Vec<OsString>, (String, u64, bool)> {
    let lines = trees::listing(root);
    let each = trees::walk(root).into_iter().zip(lines.lines()).map(|((names, path), line)| {
        let meta = fs::symlink_metadata(&path).unwrap();
        let inside: Vec<_> = if meta.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        } else {
            Vec::new()
        };
        let rest = line.splitn(3, ' ').nth(2).unwrap();
        (names, (format!("{rest} {inside:?}"), if meta.is_dir() { 1 } else { meta.nlink() }, meta.is_dir()))
    });
    each.collect()
}

#[test]
fn any_change_is_followed_by_its_lines() {
    let (sample, full) = (60_u64, 2000);
    let lives = if std::env::var_os("SIPHON_FULL").is_some() { full } else { sample };
    let seed = std::env::var("SIPHON_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("by lines: {lives} of {full} lives, seed {seed}");
    let (mut noted, mut lacking) = (0_u64, 0_u64);
    for life in 0..lives {
        let mut chance = Chance(seed + life * 1_000_003);
        let stage = Stage::new();
        let things = 5 + chance.below(40);
        Wild { root: stage.old(), chance: &mut chance, log: Vec::new() }.grow(things);
        trees::copy(&stage.old(), &stage.new_tree());
        let steps = 1 + chance.below(12);
        let mut wild = Wild { root: stage.new_tree(), chance: &mut chance, log: Vec::new() };
        (0..steps).for_each(|_| wild.step());
        let log = wild.log.join("\n");
        let (old, new) = (look(&stage.old()), look(&stage.new_tree()));
        let mut lines: Vec<(&str, String)> = Vec::new();
        let mut changed = HashSet::new();
        let key = |names: &[OsString]| {
            let path = names.iter().fold(stage.new_tree(), |path, name| path.join(name));
            fs::symlink_metadata(path).unwrap().ino()
        };
        let parent_is_there =
            |names: &[OsString], tree: &BTreeMap<Vec<OsString>, _>| tree.contains_key(&names[..names.len() - 1]);
        for (names, was) in &old {
            let letter = match new.get(names) {
                Some(is) if is == was => continue,
                // Of a file that was changed zfs diff tells one name.
                Some(is) if is.2 == was.2 && (is.2 || changed.insert(key(names))) => "M",
                Some(is) if is.2 == was.2 => continue,
                // What is in a directory that is gone, or came, need not be told; nor which of them it is.
                _ if parent_is_there(names, &new) => "-",
                _ => continue,
            };
            lines.push((letter, spelled(&stage, names)));
        }
        for (names, is) in &new {
            if old.get(names).is_none_or(|was| was.2 != is.2) && parent_is_there(names, &old) {
                lines.push(("+", spelled(&stage, names)));
            }
        }
        let write = |lines: &[(&str, String)]| {
            let text: String = lines.iter().map(|(letter, path)| format!("{letter}\tF\t{path}\n")).collect();
            fs::write(stage.path("lines"), text).unwrap();
        };
        write(&lines);
        let output = stage.diff();
        let result = std::panic::catch_unwind(|| stage.follows(&output));
        result
            .unwrap_or_else(|_| panic!("life {life}, seed {seed}:\n{log}\n{}", fs::read_to_string(stage.path("lines")).unwrap()));
        noted += u64::from(!output.stderr.is_empty());
        // Lines are needed: without some of them something is missed at times.
        lines.truncate(lines.len() / 2);
        write(&lines);
        let output = stage.diff();
        let is_right = || stage.reached(&output.stdout) == trees::listing(&stage.new_tree());
        lacking += u64::from(!output.status.success() || !std::panic::catch_unwind(is_right).unwrap_or(false));
    }
    println!("by lines: {noted} walked over all; with half of the lines {lacking} of {lives} are not right");
    assert!(lacking > 0);
}

fn spelled(stage: &Stage, names: &[OsString]) -> String {
    let path = names.iter().fold(stage.path("mount"), |path, name| path.join(name));
    spell(path.as_os_str().as_bytes())
}
