//! tree-apply(1) on a disk that gets full: an error, never a state; and with room the same stream ends right.
//!
//! `SIPHON_FULL=1` takes 30 sizes of room on each file system.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;
#[path = "common/tree_story.rs"]
mod story;
mod vectors;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use common::loop_device::Loop;
use common::tree_streams::{Bed, is_root};
use rustix::fs::{FallocateFlags, fallocate, statvfs, syncfs};
use story::{Story, ends_equal, is_full};

/// A small file system at this place.
struct Small {
    place: String,
    /// Under an ext4: dropped behind the mount.
    _disk: Option<(Loop, tempfile::TempDir)>,
}

impl Small {
    fn over(place: &Path, size: &str) -> Option<Small> {
        Small::mounted(place, &["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "none"], None)
    }

    fn ext4(place: &Path, size_mib: u64) -> Option<Small> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk");
        File::create(&file).unwrap().set_len(size_mib << 20).unwrap();
        assert!(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&file).status().is_ok_and(|status| status.success()));
        let disk = Loop::over(&file)?;
        let node = disk.0.clone();
        Small::mounted(place, &["-t", "ext4", &node], Some((disk, folder)))
    }

    fn mounted(place: &Path, what: &[&str], disk: Option<(Loop, tempfile::TempDir)>) -> Option<Small> {
        let place = place.display().to_string();
        let mounted = Command::new("mount").args(what).arg(&place).status();
        let done = mounted.is_ok_and(|status| status.success());
        if !done {
            println!("skipped: no file system can be mounted here");
        }
        done.then_some(Small { place, _disk: disk })
    }

    fn grow(&self) {
        assert!(Command::new("mount").args(["-o", "remount,size=64m", &self.place]).status().unwrap().success());
    }

    /// Bytes that are free, everything written.
    fn free(&self) -> u64 {
        syncfs(File::open(&self.place).unwrap()).unwrap();
        let is = statvfs(&self.place).unwrap();
        is.f_bavail * is.f_frsize
    }

    fn ballast(&self) -> std::path::PathBuf {
        Path::new(&self.place).join("ballast")
    }

    /// Takes all room but this.
    fn leave(&self, room: u64) {
        let file = File::create(self.ballast()).unwrap();
        // By and by: a file needs some for itself, too.
        for part in [2, 4, 8, 16, 32, 64].into_iter().chain([1; 20]) {
            let (have, more) = (file.metadata().unwrap().len(), self.free().saturating_sub(room) / part);
            let _ = fallocate(&file, FallocateFlags::empty(), have, more.max(1));
        }
        let is = self.free();
        assert!(is < room + (64 << 10), "{is} are left, and not {room}");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.place).status();
    }
}

#[test]
fn no_room_is_an_error_and_with_room_the_same_stream_ends_right() {
    if !is_root() {
        return;
    }
    let story = Story::new();
    // The evening takes about 3 MiB, the night half a MiB more.
    for (is_whole, size) in [(true, "1m"), (false, "3m")] {
        let bed = Bed::new();
        fs::create_dir(&bed.target).unwrap();
        let Some(small) = Small::over(&bed.target, size) else { return };
        let stream = if is_whole { &story.first } else { &story.second };
        if !is_whole {
            small.grow();
            bed.accept(&story.first, &["--all"]);
            let used = Command::new("df").args(["--output=used", "-k"]).arg(&bed.target).output().unwrap();
            let used: u64 = String::from_utf8(used.stdout).unwrap().lines().nth(1).unwrap().trim().parse().unwrap();
            let tight = format!("remount,size={}k", used + 8);
            assert!(Command::new("mount").args(["-o", &tight, &small.place]).status().unwrap().success());
        }
        let said = bed.refuse(stream, &["--all"], 1, "no-space");
        println!("{}", said.trim());
        assert!(bed.is_receiving());
        bed.refuse(stream, &["--all"], 1, "no-space");
        small.grow();
        story.heals(&bed, is_whole, "with room");
        drop(small);
    }
}

/// Target and record lie on one disk, which has room for a part of what is to come.
fn full(label: &str, disk: impl Fn(&Path) -> Option<Small>) {
    let (story, points) = (Story::new(), if is_full() { 15 } else { 3 });
    let (mut fired, mut untouched, mut planned) = (0, 0, 0);
    for is_whole in [true, false] {
        let prepared = || {
            let bed = Bed::new();
            let small = disk(bed.dir.path())?;
            if !is_whole {
                bed.accept(&story.first, &["--all"]);
            }
            Some((bed, small))
        };
        let (stream, goal) = story.of(is_whole);
        let Some((bed, small)) = prepared() else { return };
        let before = small.free();
        bed.accept(stream, &["--all"]);
        let needed = before - small.free();
        drop(small);
        for point in 0..points {
            let (bed, small) = prepared().unwrap();
            planned += 1;
            let was = bed.record();
            small.leave(needed * point / points);
            bed.refuse(stream, &["--all"], 1, "no-space");
            let is_begun = bed.is_receiving();
            if is_begun {
                bed.refuse(stream, &["--all"], 1, "no-space");
                assert!(bed.is_receiving());
            } else {
                assert_eq!(bed.record(), was, "nothing was begun");
            }
            fs::remove_file(small.ballast()).unwrap();
            let label = format!("{label}, whole: {is_whole}, room for {point} of {points} parts of {needed} bytes");
            if is_begun {
                story.heals(&bed, is_whole, &label);
                fired += 1;
            } else {
                bed.accept(stream, &["--all"]);
                ends_equal(&bed, goal, &label);
                untouched += 1;
            }
            drop(small);
        }
    }
    println!("{label}: full while receiving: {fired} of {planned}; no room for a record, and nothing touched: {untouched}");
    assert!(fired * 3 >= planned * 2 && fired + untouched == planned);
}

#[test]
fn full_at_any_point_it_is_never_held_and_with_room_the_same_stream_ends_right() {
    if is_root() {
        full("tmpfs", |place| Small::over(place, "64m"));
        full("ext4", |place| Small::ext4(place, 32));
    }
}
