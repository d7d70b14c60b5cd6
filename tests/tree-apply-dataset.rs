//! tree-apply(1) onto ZFS file systems, with a pretend `zfs` over a tmpfs: what it asks ZFS for.
//! What the real one does is tests/real/tree_dataset.py.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::complaint;
use common::streams::id;
use common::tree_streams::{APPLY, Stream, is_root};
use siphon::format::{Digest, Origin};
use siphon::state::{Mark, Run};
use tempfile::TempDir;

/// `zfs`: the dataset tank/home (guid 10). Properties that were set lie in $STAGE/set, records of snapshots in $STAGE/snapshots.
const ZFS: &str = r#"#!/bin/bash
shopt -s nullglob
case "$*" in
  mount) cat "$STAGE/mounts" ;;
  get*value\ available*) echo 1000000000 ;;
  get*value\ written@*) echo 0 ;;
  get*)
    printf 'tank/home\t%s\t%s\t-\n' guid 10 atime off logicalreferenced 0 written 0
    for file in "$STAGE"/set/*; do printf 'tank/home\t%s\t%s\tlocal\n' "${file##*/}" "$(cat "$file")"; done
    guid=10
    for file in "$STAGE"/snapshots/*; do
      guid=$((guid + 1)) name=tank/home@${file##*/}
      printf "$name"'\t%s\t%s\t-\n' guid $guid createtxg $guid creation 100 userrefs 1
      record=$(cat "$file")
      printf "$name"'\t%s\t%s\tlocal\n' "${record%%=*}" "${record#*=}"
    done ;;
  set*) words=${*:2:$#-2}; echo "${words#*=}" >"$STAGE/set/${words%%=*}" ;;
  inherit*) rm -f "$STAGE/set/$2" ;;
  snapshot*siphon-check-*) echo "$3" >"$STAGE/snapshots/${4#*@}" ;;
  snapshot*)
    : >"$STAGE/at-snapshot"
    while [ -e "$STAGE/gate" ]; do sleep 0.02; done
    echo "$3" >"$STAGE/snapshots/${4#*@}" ;;
  destroy*) rm "$STAGE/snapshots/${2#*@}" ;;
esac
"#;

/// A dataset that holds the first state, with a file in it, and a directory.
struct Stage {
    dir: TempDir,
}

impl Stage {
    fn new() -> Stage {
        Stage::of(false)
    }

    /// `unset`: the stream that brought the mark left something as it was.
    fn of(unset: bool) -> Stage {
        let stage = Stage { dir: TempDir::new().unwrap() };
        for name in ["bin", "set", "snapshots", "home", "elsewhere"] {
            fs::create_dir(stage.path(name)).unwrap();
        }
        for (name, text) in [("zfs", ZFS), ("zpool", "#!/bin/sh\n")] {
            fs::write(stage.path("bin").join(name), text).unwrap();
            fs::set_permissions(stage.path("bin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let name = "mon".to_owned();
        let (source, state, digest) = (id(201), id(1), Digest([1; 32]));
        let mark: Mark = Mark { home: 10, source, state, aliases: Vec::new(), size: 0, digest, root: None, unset, name };
        fs::write(stage.path("snapshots/mon"), format!("siphon:mark={}", mark.to_text())).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Mounts it, and says so.
    fn mounted(&self) -> Option<Mount> {
        let mount = Mount::new(&["-t", "tmpfs", "tank/home"], &self.path("home"))?;
        fs::create_dir(self.path("home/plain")).unwrap();
        self.lists(&["home"]);
        Some(mount)
    }

    /// What `zfs mount` prints.
    fn lists(&self, places: &[&str]) {
        let lines = places.iter().map(|place| format!("tank/home                       {}\n", self.path(place).display()));
        fs::write(self.path("mounts"), lines.collect::<String>()).unwrap();
    }

    fn apply(&self, stream: &Stream, options: &[&str]) -> Output {
        self.command(stream, options).output().unwrap()
    }

    fn command(&self, stream: &Stream, options: &[&str]) -> Command {
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        fs::write(self.path("stream"), stream.end()).unwrap();
        let mut command = Command::new(APPLY);
        command.args(options).args(["--mark", "--dataset", "tank/home"]).env("STAGE", self.dir.path()).env("PATH", path);
        command.stdin(Stdio::from(fs::File::open(self.path("stream")).unwrap()));
        command
    }

    fn property(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path("set").join(name)).ok().map(|value| value.trim().to_owned())
    }
}

struct Mount(PathBuf);

impl Mount {
    fn new(what: &[&str], place: &Path) -> Option<Mount> {
        let done = Command::new("mount").args(what).arg(place).status().is_ok_and(|status| status.success());
        if !done {
            println!("skipped: nothing can be mounted here");
        }
        done.then(|| Mount(place.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn increment() -> Stream {
    Stream::since(1, 2).dir("", Origin::Kept).file("new", b"x")
}

#[test]
fn a_run_that_is_given_up_is_over_where_no_other_begins() {
    if !is_root() {
        return;
    }
    for (options, readonly) in [(&[][..], "on"), (&["--writable"][..], "off")] {
        let stage = Stage::new();
        let Some(_mount) = stage.mounted() else { return };
        // A run for the second state was killed. What comes leads to the first one.
        let run: Run = Run { home: 10, newest_mark: Some(11), stream: id(9), from: Some(id(1)), to: Some(id(2)), check: None };
        fs::write(stage.path("set/siphon:receiving"), run.to_text()).unwrap();
        fs::write(stage.path("set/readonly"), "off").unwrap();
        let output = stage.apply(&Stream::whole(1), options);
        let said = complaint(&output);
        assert!(output.status.success() && said.contains("giving up an unfinished run"), "{said}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("\"already\":true"));
        // Otherwise what somebody writes now would be given up as a part of that run.
        assert_eq!(stage.property("siphon:receiving"), None);
        assert_eq!(stage.property("readonly").as_deref(), Some(readonly));
    }
}

#[test]
fn what_was_left_unset_is_in_the_mark_and_told() {
    if !is_root() {
        return;
    }
    for (before, options, after) in
        [(true, &["--all"][..], true), (false, &["--all"][..], false), (false, &[][..], true), (true, &[][..], true)]
    {
        let stage = Stage::of(before);
        let Some(_mount) = stage.mounted() else { return };
        let output = stage.apply(&increment(), options);
        assert!(output.status.success(), "{}", complaint(&output));
        let told = complaint(&output).contains("what runs without --all left unset stays so");
        assert_eq!(told, before && !options.is_empty(), "{before} {options:?}");
        let snapshots = fs::read_dir(stage.path("snapshots")).unwrap().map(|entry| entry.unwrap().path());
        let records = snapshots.filter(|path| !path.ends_with("mon")).map(|path| fs::read_to_string(path).unwrap());
        let marks: Vec<Mark> = records.filter_map(|text| Mark::parse(text.trim().split_once('=').unwrap().1)).collect();
        assert_eq!(marks.iter().map(|mark| (mark.state, mark.unset)).collect::<Vec<_>>(), [(id(2), after)]);
    }
}

#[test]
fn a_directory_of_it_that_is_mounted_elsewhere_is_not_taken_for_it() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    let Some(mount) = stage.mounted() else { return };
    let plain = stage.path("home/plain");
    let Some(_part) = Mount::new(&["--bind", plain.to_str().unwrap()], &stage.path("elsewhere")) else { return };
    stage.lists(&["elsewhere", "home"]);
    let output = stage.apply(&increment(), &[]);
    assert!(output.status.success(), "{}", complaint(&output));
    assert!(stage.path("home/new").exists() && !stage.path("elsewhere/new").exists());
    // Where it is all that is mounted, there is nothing to write to.
    drop(mount);
    stage.lists(&["elsewhere"]);
    fs::remove_file(stage.path("snapshots/s2")).unwrap();
    let output = stage.apply(&increment(), &[]);
    let said = complaint(&output);
    assert!(output.status.code() == Some(4) && said.contains("[not-found]"), "{said}");
    assert_eq!(fs::read_dir(stage.path("elsewhere")).unwrap().count(), 0);
    assert_eq!(stage.property("siphon:receiving"), None);
}

#[test]
fn what_zfs_still_does_for_a_run_that_was_killed_keeps_the_next_one_out() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    let Some(_mount) = stage.mounted() else { return };
    fs::write(stage.path("gate"), "").unwrap();
    let mut killed = stage.command(&increment(), &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(|| stage.path("at-snapshot").exists());
    killed.kill().unwrap();
    killed.wait().unwrap();
    let output = stage.apply(&increment(), &[]);
    assert!(!output.status.success() && complaint(&output).contains("[busy]"), "{}", complaint(&output));
    fs::remove_file(stage.path("gate")).unwrap();
    wait_until(|| stage.path("snapshots/s2").exists());
    wait_until(|| stage.apply(&increment(), &[]).status.success());
}

fn wait_until(mut what: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if what() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("waited in vain");
}
