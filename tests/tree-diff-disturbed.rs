//! tree-diff-stream(1) while somebody changes what it reads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;
#[path = "common/tree_sent.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod sent;
#[path = "common/trees.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod trees;
mod vectors;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::complaint;
use common::streams::id;
use siphon::format::{Attributes, Entry, Header, Name, Names, Node, Origin, Time, Tree, TreeChange, TreePath, Writer};

use sent::{Act, TOOL, ends, temporary, text, write_at};
use vectors::tree::read;

/// A tree, and one of its files that is larger than a pipe holds, in the middle of which the tool is stopped.
fn disturbed(args: &[&str], act: impl FnOnce(&Path)) -> (Output, Vec<u8>) {
    let (_dir, old, new) = temporary();
    fs::create_dir_all(new.join("d/e")).unwrap();
    fs::write(new.join("d/e/before"), b"1").unwrap();
    fs::write(new.join("d/m"), vec![7; 8 << 20]).unwrap();
    fs::write(new.join("d/n"), b"2").unwrap();
    fs::create_dir(new.join("y")).unwrap();
    fs::write(new.join("y/x"), b"4").unwrap();
    fs::write(new.join("z"), b"3").unwrap();
    if args.contains(&"--base") {
        trees::copy(&new, &old);
        fs::write(old.join("d/m"), b"").unwrap();
        fs::remove_file(old.join("y/x")).unwrap();
    }
    let args = args.iter().map(|arg| if *arg == "OLD" { text(&old) } else { arg }).collect::<Vec<_>>();
    stopped(&[&args[..], &[text(&new)]].concat(), || act(&new))
}

/// Runs the tool, and does something when it has said a little and can say no more until that is done.
fn stopped(args: &[&str], act: impl FnOnce()) -> (Output, Vec<u8>) {
    let mut tool = Command::new(TOOL).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = tool.stdout.take().unwrap();
    let mut stream = vec![0; 4096];
    stdout.read_exact(&mut stream).unwrap();
    act();
    stdout.read_to_end(&mut stream).unwrap();
    (tool.wait_with_output().unwrap(), stream)
}

#[test]
fn a_tree_that_changes_while_it_is_read_is_refused_and_never_sealed() {
    let acts: Vec<(&str, &str, Act)> = vec![
        ("the file is written to, behind", "changed", |new| write_at(&new.join("d/m"), b"!", 7 << 20)),
        ("the file is written to, before", "changed", |new| write_at(&new.join("d/m"), b"!", 0)),
        ("the file is cut", "changed", |new| OpenOptions::new().write(true).open(new.join("d/m")).unwrap().set_len(9).unwrap()),
        ("the file is replaced", "changed", |new| {
            trees::copy(&new.join("d/m"), &new.join("d/t"));
            fs::rename(new.join("d/t"), new.join("d/m")).unwrap();
        }),
        ("the file vanishes", "vanished", |new| fs::remove_file(new.join("d/m")).unwrap()),
        ("the next file vanishes", "vanished", |new| fs::remove_file(new.join("d/n")).unwrap()),
        ("a file appears beside it", "changed", |new| fs::write(new.join("d/0"), b"0").unwrap()),
        ("a file appears in the root", "changed", |new| fs::write(new.join("0"), b"0").unwrap()),
        ("its directory gets another mode", "changed", |new| {
            fs::set_permissions(new.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
        }),
        ("a file goes from where was not yet read to where was", "changed", |new| {
            fs::rename(new.join("y/x"), new.join("d/e/x")).unwrap();
        }),
        ("the root is replaced", "changed", |new| {
            fs::rename(new, new.with_extension("was")).unwrap();
            trees::copy(&new.with_extension("was"), new);
        }),
    ];
    for args in [&[][..], &["--base", "OLD"]] {
        for (label, class, act) in &acts {
            let (output, stream) = disturbed(args, act);
            assert_eq!(output.status.code(), Some(4), "{label}: {}", complaint(&output));
            assert!(complaint(&output).contains(&format!("[{class}]")), "{label}: {}", complaint(&output));
            assert!(read(&stream).is_err(), "{label}: sealed");
        }
        let (output, _) = disturbed(args, |_| {});
        assert!(output.status.success(), "nothing happened, and it was refused: {}", complaint(&output));
    }
}

#[test]
fn a_base_that_changes_while_it_is_read_is_refused() {
    for (label, act) in [
        ("written to", (|old| fs::write(old.join("z"), b"!").unwrap()) as Act),
        ("touched", |old| fs::set_permissions(old.join("z"), fs::Permissions::from_mode(0o611)).unwrap()),
        ("read before", |old| fs::remove_file(old.join("d/e/before")).unwrap()),
    ] {
        for live in [&[][..], &["--live"]] {
            let args = [live, &["--base", "OLD"]].concat();
            let (output, stream) = disturbed(&args, |new| act(&new.with_file_name("old")));
            assert_eq!(output.status.code(), Some(4), "{label}: {}", complaint(&output));
            assert!(complaint(&output).contains("[changed]"), "{label}: {}", complaint(&output));
            assert!(read(&stream).is_err(), "{label}: sealed");
        }
    }
}

/// A list that says one file, `m`, was written to since the old tree.
fn list(old: &Path, new: &Path, old_size: u64) -> Vec<u8> {
    let names = Names { source: b"home".to_vec(), from: b"old".to_vec(), to: b"new".to_vec() };
    let mut header = Header::new(id(201), Some(id(1)), Some(id(2)), names);
    Tree::mark_as_list(&mut header);
    let is = new.join("m").metadata().unwrap();
    let modified = Time { seconds: is.mtime(), nanoseconds: u32::try_from(is.mtime_nsec()).unwrap() };
    let mode = u16::try_from(is.mode() & 0o7777).unwrap();
    let attributes = Attributes { mode, uid: is.uid(), gid: is.gid(), modified, xattrs: BTreeMap::new() };
    let path = TreePath::new(vec![Name::new(b"m").unwrap()]).unwrap();
    let node = Node::File { size: is.len(), old_size };
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    let mut list = Vec::new();
    let mut writer = Writer::begin(&mut list, &header, &Tree::new()).unwrap();
    writer.change(&TreeChange::Roots { old: Some(bytes(old)), new: bytes(new) }).unwrap();
    writer.change(&TreeChange::Entry(Box::new(Entry { path, origin: Origin::Kept, node, attributes }))).unwrap();
    writer.finish(header.to).unwrap();
    list
}

#[test]
fn a_file_of_a_list_that_changes_while_it_is_read_is_refused() {
    let (dir, old, new) = temporary();
    for tree in [&old, &new] {
        fs::create_dir(tree).unwrap();
    }
    fs::write(old.join("m"), vec![1; 8 << 20]).unwrap();
    fs::write(new.join("m"), vec![2; 8 << 20]).unwrap();
    let told = dir.path().join("list");
    let acts: [(Act, i32); 4] = [
        (|_| {}, 0),
        (|new| write_at(&new.join("m"), b"!", 7 << 20), 4),
        (|new| OpenOptions::new().append(true).open(new.join("m")).unwrap().write_all(b"!").unwrap(), 4),
        (|new| write_at(&new.with_file_name("old").join("m"), b"!", 7 << 20), 4),
    ];
    for (n, (act, exit)) in acts.into_iter().enumerate() {
        fs::write(&told, list(&old, &new, 8 << 20)).unwrap();
        let (output, stream) = stopped(&["--changes", text(&told)], || act(&new));
        assert_eq!(output.status.code(), Some(exit), "{n}: {}", complaint(&output));
        assert_eq!((read(&stream).is_ok(), complaint(&output).contains("[changed]")), (exit == 0, exit != 0), "{n}");
    }
    // The old one is not what the list was made of.
    fs::write(&told, list(&old, &new, 5)).unwrap();
    let output = Command::new(TOOL).args(["--changes", text(&told)]).output().unwrap();
    assert!(output.status.code() == Some(4) && complaint(&output).contains("[changed]"), "{}", complaint(&output));
}

#[test]
fn live_sends_what_changes_but_no_state() {
    let acts: Vec<(&[&str], Act)> = vec![
        (&["--live"], |new| write_at(&new.join("d/m"), b"!", 7 << 20)),
        (&["--live"], |new| OpenOptions::new().write(true).open(new.join("d/m")).unwrap().set_len(9).unwrap()),
        (&["--live"], |new| fs::remove_dir_all(new.join("d")).unwrap()),
        (&["--live"], |new| fs::remove_file(new.join("z")).unwrap()),
        (&["--live", "--base", "OLD"], |new| write_at(&new.join("d/m"), b"!", 7 << 20)),
        (&["--live", "--base", "OLD"], |new| fs::write(new.join("d/o"), b"!").unwrap()),
    ];
    for (args, act) in acts {
        let (output, stream) = disturbed(args, act);
        assert!(output.status.success(), "{}", complaint(&output));
        assert_eq!(ends(&stream).1, None);
    }
}
