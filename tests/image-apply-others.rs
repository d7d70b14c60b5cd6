//! image-apply(1) and image-diff-stream(1): what others do to a target or a source is noticed also where the kernel tells little.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::apply::{APPLY, Bed, DIFF, apply};
use common::complaint;
use common::loop_device::Loop;
use common::streams::{since, whole};
use rustix::fs::{FlockOperation, fcntl_lock};
use tempfile::TempDir;

/// A block device over a file of 0xFF, and where records of it go.
struct Disk {
    dir: TempDir,
    backing: PathBuf,
    device: Loop,
}

impl Disk {
    fn new(size: usize, content: &[u8]) -> Option<Disk> {
        let dir = TempDir::new().unwrap();
        let backing = dir.path().join("disk");
        let mut bytes = content.to_vec();
        bytes.resize(size, 0xff);
        fs::write(&backing, bytes).unwrap();
        let device = Loop::over(&backing)?;
        Some(Disk { dir, backing, device })
    }

    fn options(&self) -> [String; 2] {
        ["--state-dir".to_owned(), self.dir.path().join("records").display().to_string()]
    }

    fn apply_to(&self, node: &str, stream: &[u8], more: &[&str]) -> Output {
        let options = self.options();
        let options: Vec<&str> = options.iter().map(String::as_str).chain(more.iter().copied()).collect();
        apply(stream, &options, Path::new(node))
    }

    fn apply(&self, stream: &[u8], more: &[&str]) -> Output {
        self.apply_to(&self.device.0, stream, more)
    }

    fn send(&self) -> Output {
        Command::new(DIFF).args(self.options()).arg(&self.device.0).output().unwrap()
    }

    /// Below /sys.
    fn setting(&self, name: &str) -> PathBuf {
        Path::new("/sys/block").join(Path::new(&self.device.0).file_name().unwrap()).join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever is attached there next is counted again.
        let _ = fs::write(self.setting("queue/iostats"), "1");
    }
}

fn accepted(output: &Output) {
    assert!(output.status.success(), "{}", complaint(output));
}

fn refused(output: &Output, class: &str) {
    let said = complaint(output);
    assert!(output.status.code() == Some(4) && said.contains(&format!("[{class}]")), "{class}: {said}");
}

#[test]
fn what_a_device_grew_by_is_zero_where_an_increment_says_nothing() {
    const OLD: usize = 1 << 20;
    let Some(disk) = Disk::new(OLD, b"") else { return };
    let old = vec![1; OLD];
    accepted(&disk.apply(&whole(&old), &["--replace"]));
    // As lvextend does: what is new holds what others left there.
    OpenOptions::new().append(true).open(&disk.backing).unwrap().write_all(&vec![0xff; OLD]).unwrap();
    assert!(Command::new("losetup").args(["--set-capacity", &disk.device.0]).status().unwrap().success());
    let mut new = old.clone();
    new.resize(2 * OLD, 0);
    new[OLD + 500_000..][..5].fill(2);
    accepted(&disk.apply(&since(&old, &new), &[]));
    let mut content = vec![0; 2 * OLD];
    File::open(&disk.backing).unwrap().read_exact_at(&mut content, 0).unwrap();
    assert!(content == new);
}

#[test]
fn a_device_whose_writes_are_not_counted_proves_nothing() {
    let Some(disk) = Disk::new(1 << 20, b"") else { return };
    let (old, new) = (vec![1; 20_000], vec![2; 20_000]);
    if fs::write(disk.setting("queue/iostats"), "0").is_err() {
        println!("skipped: nothing can be set in /sys here");
        return;
    }
    accepted(&disk.apply(&whole(&old), &["--replace"]));
    let output = disk.apply(&since(&old, &new), &[]);
    refused(&output, "written-since");
    assert!(complaint(&output).contains("nothing proves"), "{}", complaint(&output));
    refused(&disk.send(), "unsupported");
    accepted(&disk.apply(&since(&old, &new), &["--trust"]));
    fs::write(disk.setting("queue/iostats"), "1").unwrap();
    accepted(&disk.send());
}

#[test]
fn a_partition_that_is_written_to_through_its_disk_is_noticed() {
    const PARTITION: u64 = 1 << 20;
    // A table of one partition: from sector 2048 on, 2048 sectors.
    let mut table = vec![0; 512];
    table[450] = 0x83;
    table[454..458].copy_from_slice(&2048_u32.to_le_bytes());
    table[458..462].copy_from_slice(&2048_u32.to_le_bytes());
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    let Some(disk) = Disk::new(3 << 20, &table) else { return };
    let scanned = Command::new("partx").args(["--add", &disk.device.0]).status().is_ok_and(|status| status.success());
    let node = format!("{}p1", disk.device.0);
    let begun = Instant::now();
    while scanned && !Path::new(&node).exists() && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    if !Path::new(&node).exists() {
        println!("skipped: no partitions of loop devices here");
        return;
    }
    // As udev names it where it runs.
    let names = Path::new("/dev/disk/by-partuuid");
    let name = names.join(format!("siphon-{}", std::process::id()));
    fs::create_dir_all(names).unwrap();
    symlink(&node, &name).unwrap();
    let [old, new, newest] = [1, 2, 3].map(|byte| vec![byte; 20_000]);
    accepted(&disk.apply_to(&node, &whole(&old), &["--replace"]));
    accepted(&disk.apply_to(&node, &since(&old, &new), &[]));
    let whole_disk = OpenOptions::new().write(true).open(&disk.device.0).unwrap();
    whole_disk.write_all_at(b"!", PARTITION + 100_000).unwrap();
    whole_disk.sync_all().unwrap();
    let output = disk.apply_to(&node, &since(&new, &newest), &[]);
    fs::remove_file(name).unwrap();
    refused(&output, "written-since");
    let _ = Command::new("partx").args(["--delete", &disk.device.0]).status();
}

#[test]
fn a_device_that_a_cut_run_left_is_not_sent_where_its_record_is_found() {
    let Some(disk) = Disk::new(1 << 20, b"") else { return };
    let stream = whole(&vec![1; 20_000]);
    assert_eq!(disk.apply(&stream[..stream.len() - 9], &["--replace"]).status.code(), Some(3));
    refused(&disk.send(), "unfinished");
}

#[test]
fn a_file_system_that_keeps_whole_seconds_hides_no_write() {
    let dir = TempDir::new().unwrap();
    let (disk, place) = (dir.path().join("disk"), dir.path().join("mounted"));
    File::create(&disk).unwrap().set_len(8 << 20).unwrap();
    fs::create_dir(&place).unwrap();
    let mut made = Command::new("mkfs.ext4");
    let made = made.args(["-q", "-I", "128"]).arg(&disk).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    let mounted =
        |()| Command::new("mount").args(["-o", "loop"]).arg(&disk).arg(&place).status().is_ok_and(|done| done.success());
    if !made || !mounted(()) {
        println!("skipped: no file system can be made and mounted here");
        return;
    }
    let target = place.join("copy.img");
    let (old, new) = (vec![1; 20_000], vec![2; 20_000]);
    let first = apply(&whole(&old), &[], &target);
    OpenOptions::new().write(true).open(&target).unwrap().write_all_at(b"!", 5).unwrap();
    let second = apply(&since(&old, &new), &[], &target);
    let _ = Command::new("umount").arg(&place).status();
    accepted(&first);
    refused(&second, "written-since");
}

#[test]
fn an_image_that_a_virtual_machine_has_locked_is_left_alone() {
    let bed = Bed::new();
    let (old, new) = (vec![1; 20_000], vec![2; 20_000]);
    bed.accept(&whole(&old), &[]);
    // As QEMU does: some bytes, shared.
    let machine = File::open(&bed.target).unwrap();
    fcntl_lock(&machine, FlockOperation::NonBlockingLockShared).unwrap();
    let said = bed.refuse(&since(&old, &new), &[], 4, "claimed");
    assert!(said.contains("virtual machine"), "{said}");
    drop(machine);
    bed.accept(&since(&old, &new), &[]);
}

#[test]
fn a_file_that_is_given_another_size_in_mid_run_is_not_held() {
    let bed = Bed::new();
    let image: Vec<u8> = (0..6_000_000_u32).map(|n| n.to_le_bytes()[1] ^ n.to_le_bytes()[2]).collect();
    let stream = whole(&image);
    let mut tool = Command::new(APPLY).arg(&bed.target).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = tool.stdin.take().unwrap();
    stdin.write_all(&stream[..stream.len() / 2]).unwrap();
    while !bed.target.metadata().is_ok_and(|meta| meta.len() == 6_000_000) {
        std::thread::sleep(Duration::from_millis(10));
    }
    OpenOptions::new().write(true).open(&bed.target).unwrap().set_len(7_000_000).unwrap();
    stdin.write_all(&stream[stream.len() / 2..]).unwrap();
    drop(stdin);
    refused(&tool.wait_with_output().unwrap(), "changed");
    assert!(bed.is_receiving());
    bed.accept(&stream, &[]);
    assert!(bed.content() == image);
}

#[test]
fn a_record_of_a_cut_run_speaks_of_the_file_that_was_written_and_no_other() {
    let bed = Bed::new();
    let stream = whole(&vec![1; 20_000]);
    assert_eq!(bed.apply(&stream[..stream.len() - 9], &[]).status.code(), Some(3));
    let send = || Command::new(DIFF).arg(&bed.target).output().unwrap();
    refused(&send(), "unfinished");
    // A file that was made anew can get the number of the old one.
    let mut record: serde_json::Value = serde_json::from_str(&bed.record()).unwrap();
    let time = &mut record["receiving"]["birth"]["time"][0];
    if time.is_null() {
        println!("skipped: this file system does not know when files were made");
        return;
    }
    *time = serde_json::json!(5);
    fs::write(bed.record_file(), record.to_string()).unwrap();
    accepted(&send());
    fs::write(bed.record_file(), "{").unwrap();
    let output = send();
    assert!(output.status.code() == Some(3) && complaint(&output).contains("[list]"), "{}", complaint(&output));
}

#[test]
fn links_in_the_place_of_temporary_files_are_not_written_through() {
    let bed = Bed::new();
    let victim = bed.dir.path().join("victim");
    fs::write(&victim, "kept").unwrap();
    for name in [".copy.img.siphon.siphon-new", ".manifest.siphon-new"] {
        symlink(&victim, bed.dir.path().join(name)).unwrap();
    }
    let manifest = bed.dir.path().join("manifest");
    bed.accept(&whole(&vec![1; 20_000]), &["--manifest", manifest.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
    assert!(!manifest.is_symlink() && !bed.record_file().is_symlink());
}

#[test]
fn a_manifest_does_not_take_the_place_of_the_record() {
    let bed = Bed::new();
    let (sub, link, alias) = (bed.dir.path().join("sub"), bed.dir.path().join("link"), bed.dir.path().join("alias"));
    fs::create_dir(&sub).unwrap();
    symlink("copy.img", &link).unwrap();
    symlink(bed.dir.path(), &alias).unwrap();
    // Neither is there yet, and no name is written as the other.
    for taken in [bed.target.clone(), bed.record_file(), sub.join("../copy.img"), link, alias.join("copy.img")] {
        bed.refuse(&whole(b"x"), &["--manifest", taken.to_str().unwrap()], 2, "usage");
    }
    // Nor does what is written first: names that others could have are not taken.
    let manifest = bed.dir.path().join("copy");
    let target = bed.dir.path().join("copy.new");
    let image = vec![1; 20_000];
    accepted(&apply(&whole(&image), &["--manifest", manifest.to_str().unwrap()], &target));
    assert!(fs::read(&target).unwrap() == image);
}
