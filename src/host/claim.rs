//! Who uses a block device, when the kernel says that it is busy.

use std::fs::File;
use std::path::Path;

use rustix::fs::{Mode, OFlags, major, minor};
use rustix::io::Errno;

use super::stamp::sysfs;
use crate::state::{Class, Fault};

/// Opens a block device that nobody else has claimed, and claims it as long as it is open.
///
/// A mount, device mapper, md and other tools of this kind claim; a plain open by somebody else does not, and cannot be
/// excluded. `access` says how it is opened besides.
pub fn open_unclaimed(path: &Path, rdev: u64, access: OFlags) -> Result<File, Fault> {
    match rustix::fs::open(path, access | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(File::from(fd)),
        Err(Errno::BUSY) => Err(busy(rdev)),
        Err(error) => Err(Fault::io("opening the device", &error.into())),
    }
}

/// Why a device of this number is busy, as far as one can see.
fn busy(rdev: u64) -> Fault {
    if let Some(place) = mounted_at(rdev) {
        return Fault::new(Class::Mounted, format!("the device is mounted at {place}"));
    }
    match holders(rdev).as_slice() {
        [] => Fault::new(Class::Claimed, "the device is in use: a part of it is mounted, or another program has claimed it"),
        holders => Fault::new(Class::Claimed, format!("the device is in use by {}", holders.join(", "))),
    }
}

fn mounted_at(rdev: u64) -> Option<String> {
    let number = format!("{}:{}", major(rdev), minor(rdev));
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().find_map(|line| {
        let mut words = line.split(' ').skip(2);
        (words.next() == Some(&number)).then(|| words.nth(1).map(str::to_owned)).flatten()
    })
}

/// The devices of device mapper or md that lie on this one.
fn holders(rdev: u64) -> Vec<String> {
    let entries = std::fs::read_dir(format!("{}/holders", sysfs(rdev)));
    entries.into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
