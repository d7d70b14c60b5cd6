//! The promises of tree-diff-stream(1), kept by the real program and by the library.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;
#[path = "common/tree_sent.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod sent;
#[path = "common/trees.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod trees;
mod vectors;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::complaint;
use sent::{TOOL, differ, ends, everything, numbers, run, said, sent, since, temporary, text, tree};
use siphon::source::{TreeFiles, TreeIdentity, TreeOptions};
use siphon::state::{Class, StateList};
use tempfile::TempDir;
use vectors::tree::{listing, read};

#[test]
fn all_that_a_tree_holds_is_sent() {
    let (_dir, old, new) = temporary();
    everything(&old);
    let stream = sent(&[text(&old)]);
    assert_eq!(differ(&listing(&tree(&stream)), &trees::listing(&old)), None);
    // Holes and zeros take no room.
    assert!(stream.len() < 3_100_000, "{} bytes", stream.len());
    // The same again, and wherever it lies: a copy has other inode numbers.
    assert!(stream == sent(&[text(&old)]));
    fs::create_dir(&new).unwrap();
    trees::copy(&old, &new.join("old"));
    assert!(stream == sent(&[text(&new.join("old"))]), "a copy is another tree");
    let increment = sent(&["--base", text(&old), text(&new.join("old"))]);
    assert_eq!(said(&increment), [] as [&str; 0]);
    assert_eq!(ends(&increment), (ends(&stream).1, ends(&stream).1));
}

/// The second reader, if it can run here.
fn second_reader(args: &[&Path]) -> Option<Output> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    let python =
        cache.map(|cache| cache.join("siphon-venv/bin/python3")).filter(|python| python.exists()).unwrap_or("python3".into());
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader.py");
    if !Command::new(&python).args(["-c", "import blake3"]).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: no python module blake3; scripts/setup installs it");
        return None;
    }
    Some(Command::new(python).arg(reader).args(args).output().unwrap())
}

#[test]
fn a_reader_made_by_the_page_alone_sees_the_same_trees_and_the_same_states() {
    let (dir, old, new) = temporary();
    everything(&old);
    trees::copy(&old, &new);
    let numbers = numbers(&old, &new);
    fs::rename(new.join("dir/deeper"), new.join("moved")).unwrap();
    fs::rename(new.join("dir"), new.join("moved/dir")).unwrap();
    fs::remove_file(new.join("file")).unwrap();
    OpenOptions::new().write(true).open(new.join("large")).unwrap().write_all_at(b"other", 1_000_000).unwrap();
    fs::hard_link(new.join("zzz"), new.join("aaa")).unwrap();
    let (whole, increment) = (dir.path().join("whole"), dir.path().join("increment"));
    fs::write(&whole, sent(&[text(&old)])).unwrap();
    for identity in [TreeIdentity::Path, numbers] {
        fs::write(&increment, since(&old, &new, identity)).unwrap();
        for (args, wanted) in [(vec![&*whole], &old), (vec![&*whole, &*increment], &new)] {
            let args: Vec<&Path> = [&[Path::new("--tree")][..], &args].concat();
            let Some(output) = second_reader(&args) else { return };
            assert!(output.status.success(), "{}", complaint(&output));
            assert_eq!(differ(&String::from_utf8(output.stdout).unwrap(), &trees::listing(wanted)), None);
        }
    }
    let output = second_reader(&[&increment]).unwrap();
    assert!(output.stdout.starts_with(b"ok "), "{}", output.stdout.escape_ascii());
}

#[test]
fn deep_and_wide_trees_are_sent() {
    let (_dir, old, new) = temporary();
    let mut deep = old.clone();
    for _ in 0..400 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), b"here").unwrap();
    let wide = old.join("wide");
    fs::create_dir(&wide).unwrap();
    for n in 0..20_000 {
        fs::write(wide.join(format!("name {n}")), if n % 1000 == 0 { "content" } else { "" }).unwrap();
    }
    let stream = sent(&[text(&old)]);
    assert_eq!(differ(&listing(&tree(&stream)), &trees::listing(&old)), None);
    trees::copy(&old, &new);
    assert_eq!(said(&sent(&["--base", text(&old), text(&new)])), [] as [&str; 0]);
    fs::write(new.join("wide/name 777"), "other").unwrap();
    fs::remove_dir_all(new.join("wide/../d/d")).unwrap();
    trees::set_time(&new.join("wide"), 5, 5);
    let increment = sent(&["--base", text(&old), text(&new)]);
    assert_eq!(said(&increment), ["gone d/d", "kept d", "kept wide", "kept wide/name 777 0..5", "data 0 5"]);
}

#[test]
fn a_tree_that_is_too_deep_is_refused() {
    let dir = TempDir::new().unwrap();
    let output = Command::new("python3")
        .args(["-c", "import os\nfor n in range(1030):\n os.mkdir('d')\n os.chdir('d')"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", complaint(&output));
    let output = run(&[text(dir.path())]);
    assert_eq!(output.status.code(), Some(4), "{}", complaint(&output));
    assert!(complaint(&output).contains("[unsupported]"), "{}", complaint(&output));
    // remove_dir_all of the standard library goes as deep as it likes.
    fs::remove_dir_all(dir.path().join("d")).unwrap();
}

#[test]
fn what_is_no_directory_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let (file, missing) = (dir.path().join("file"), dir.path().join("missing"));
    for (args, code) in [
        (vec![text(&file)], 1),
        (vec![text(&missing)], 4),
        (vec!["--base", text(&missing), text(dir.path())], 4),
        (vec![], 2),
        (vec!["--trust-times", text(dir.path())], 2),
        (vec!["--states", text(dir.path()), text(dir.path())], 2),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", complaint(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_may_not_be_read_is_an_error_that_names_it() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become somebody else");
        return;
    }
    for (path, is_dir) in [("d/secret", true), ("d/secret", false)] {
        let dir = TempDir::new().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (tree, tool) = (dir.path().join("tree"), dir.path().join("tool"));
        fs::copy(TOOL, &tool).unwrap();
        fs::create_dir_all(tree.join("d")).unwrap();
        if is_dir {
            fs::create_dir(tree.join(path)).unwrap()
        } else {
            fs::write(tree.join(path), b"x").unwrap()
        }
        let run = || {
            let ids = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
            Command::new("setpriv").args(ids).arg(&tool).arg(&tree).stdin(Stdio::null()).output()
        };
        let Ok(output) = run() else {
            println!("skipped: no setpriv(1)");
            return;
        };
        assert!(output.status.success(), "{}", complaint(&output));
        fs::set_permissions(tree.join(path), fs::Permissions::from_mode(0o000)).unwrap();
        let output = run().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
        let complaint = complaint(&output);
        assert!(complaint.contains("[permission]") && complaint.contains("d/secret"), "{complaint}");
        assert!(read(&output.stdout).is_err(), "sealed");
    }
}

#[test]
fn a_mount_in_the_tree_is_refused_or_left_out() {
    let (_dir, old, new) = temporary();
    fs::create_dir_all(old.join("d/mounted")).unwrap();
    fs::write(old.join("d/file"), b"1").unwrap();
    let script = r#"mount -t tmpfs none "$1/d/mounted" && mount --bind "$1/d/file" "$1/d/file" && touch "$1/d/mounted/inside" || exit 77
        shift; exec "$@""#;
    let run = |args: &[&str]| {
        Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh", text(&old), TOOL])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let refused = run(&[text(&old)]);
    if refused.status.code() == Some(77) || complaint(&refused).starts_with("unshare") {
        println!("skipped: nothing can be mounted here: {}", complaint(&refused));
        return;
    }
    assert_eq!(refused.status.code(), Some(4), "{}", complaint(&refused));
    assert!(
        complaint(&refused).contains("[mounted]") && complaint(&refused).contains("--one-file-system"),
        "{}",
        complaint(&refused)
    );
    let output = run(&["--one-file-system", text(&old)]);
    assert!(output.status.success(), "{}", complaint(&output));
    assert_eq!(said(&output.stdout), ["new .", "new d"]);
    trees::copy(&old, &new);
    let output = run(&["--one-file-system", "--base", text(&old), text(&new)]);
    assert!(output.status.success(), "{}", complaint(&output));
    assert_eq!(said(&output.stdout), ["kept d", "new d/file 0..1", "data 0 1", "new d/mounted"]);
}

#[test]
fn the_one_state_of_a_tree_is_listed() {
    let dir = TempDir::new().unwrap();
    let tree = dir.path().join("tree");
    everything(&tree);
    let list = StateList::parse(sent(&["--states", text(&tree)]).as_slice()).unwrap();
    let [state] = list.states.as_slice() else { panic!("{list:?}") };
    assert_eq!((Some(state.id), state.name.as_slice()), (ends(&sent(&[text(&tree)])).1, &b"tree"[..]));
    let sizes = trees::walk(&tree).into_iter().map(|(_, path)| path.symlink_metadata().unwrap());
    let mut files: Vec<(u64, u64, i64)> =
        sizes.map(|meta| (meta.ino(), if meta.is_file() { meta.len() } else { 0 }, meta.mtime())).collect();
    files.sort_unstable();
    files.dedup();
    assert_eq!(state.bytes, files.iter().map(|(_, size, _)| size).sum::<u64>());
    assert_eq!(Some(state.seconds), files.iter().map(|(_, _, seconds)| *seconds).max());
}

#[test]
fn a_receipt_says_what_was_sent() {
    let (dir, old, new) = temporary();
    everything(&old);
    trees::copy(&old, &new);
    fs::write(new.join("file"), b"other").unwrap();
    let file = dir.path().join("receipt");
    let stream = sent(&["--receipt", text(&file), "--base", text(&old), text(&new)]);
    let receipt = siphon::state::Receipt::parse(fs::File::open(&file).unwrap()).unwrap();
    let (from, to) = ends(&stream);
    assert_eq!((receipt.from, receipt.to), (from.map(|id| id.to_string()), to.map(|id| id.to_string())));
    assert_eq!((receipt.data_bytes, receipt.zero_bytes, receipt.tool.as_str()), (5, 0, "tree-diff-stream"));
}

#[test]
fn a_reader_that_goes_away_is_met_with_silence_and_failure() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), vec![7; 8 << 20]).unwrap();
    let mut tool = Command::new(TOOL).arg(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(tool.stdout.take());
    let output = tool.wait_with_output().unwrap();
    assert_eq!((output.status.code(), complaint(&output).as_str()), (Some(1), ""));
}

#[test]
fn a_class_is_that_of_the_library() {
    let (_dir, old, new) = temporary();
    fs::create_dir(&old).unwrap();
    let fault = TreeFiles::since(&old, &new, TreeOptions::default(), || {}).err().unwrap();
    assert_eq!(fault.class, Class::NotFound);
}
