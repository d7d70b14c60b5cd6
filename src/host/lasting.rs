//! Names of block devices that last: over reboots, and not longer than the thing itself.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::stamp::sysfs;

/// The lasting name of the block device with this number; `None` where it has none.
///
/// Of device mapper (LVM) its uuid; of a partition the partition's uuid; of a disk its world-wide name; of a loop device the
/// file behind it, by inode and path.
pub fn lasting_name(rdev: u64) -> Option<String> {
    let folder = sysfs(rdev);
    let text = |file: &str| {
        let text = fs::read_to_string(format!("{folder}/{file}")).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    if let Some(uuid) = text("dm/uuid") {
        return Some(format!("dm-{uuid}"));
    }
    if let Some(file) = text("loop/backing_file") {
        let inode = fs::metadata(&file).ok()?.ino();
        return Some(format!("loop-{inode}-{}-{file}", text("loop/offset").unwrap_or_default()));
    }
    if Path::new(&format!("{folder}/partition")).exists() {
        return link_to(rdev, "/dev/disk/by-partuuid").map(|uuid| format!("partuuid-{uuid}"));
    }
    text("wwid").or_else(|| text("device/wwid")).map(|wwid| format!("wwid-{wwid}"))
}

/// The name of the link in this directory that leads to the device.
fn link_to(rdev: u64, directory: &str) -> Option<String> {
    let mut links = fs::read_dir(directory).ok()?.flatten();
    let leads_there = |link: &fs::DirEntry| {
        fs::metadata(link.path()).is_ok_and(|meta| meta.file_type().is_block_device() && meta.rdev() == rdev)
    };
    links.find(leads_there).map(|link| link.file_name().to_string_lossy().into_owned())
}

/// Whether a loop device stands on this file. What it is given must be free of links.
pub fn loop_over(file: &Path) -> Option<String> {
    let entries = fs::read_dir("/sys/block").ok()?.flatten();
    let stands_there = |device: &fs::DirEntry| {
        fs::read_to_string(device.path().join("loop/backing_file")).is_ok_and(|behind| Path::new(behind.trim_end()) == file)
    };
    entries.into_iter().find(stands_there).map(|device| device.file_name().to_string_lossy().into_owned())
}
