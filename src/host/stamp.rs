//! What shows that a file or device was written or replaced since one looked.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{major, minor};
use serde::{Deserialize, Serialize};

/// What the kernel changes when a file's content changes. The device number is none of it: it may differ after a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    /// Inode number.
    pub inode: u64,
    /// Size in bytes; 0 of a directory, where every file system means something else, and some say it late.
    pub size: u64,
    /// Last change of the content: seconds since 1970, nanoseconds.
    pub mtime: (i64, i64),
    /// Last change of content or attributes, which nobody can set back: seconds since 1970, nanoseconds.
    pub ctime: (i64, i64),
}

impl FileStamp {
    /// The stamp of a file, from a fresh look at it.
    pub fn of(file: &Metadata) -> FileStamp {
        FileStamp {
            inode: file.ino(),
            size: if file.is_dir() { 0 } else { file.len() },
            mtime: (file.mtime(), file.mtime_nsec()),
            ctime: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// Waits until a later write cannot get the time of this stamp.
    fn let_clock_tick(&self) {
        let seconds = u64::try_from(self.ctime.0).unwrap_or(0);
        let nanoseconds = u32::try_from(self.ctime.1).unwrap_or(0);
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        if changed.elapsed().unwrap_or_default() < self.tick() {
            std::thread::sleep(self.tick());
        }
    }

    /// File systems take their times from a clock that ticks every 1 to 10 ms. Some keep only whole seconds of them (ext3, ext4
    /// with inodes of 128 bytes), or every second one (FAT).
    fn tick(&self) -> Duration {
        Duration::from_millis(if self.mtime.1 == 0 && self.ctime.1 == 0 { 2100 } else { 20 })
    }
}

/// What tells a file or directory from another one of the same inode number: file systems number from the same beginning, so
/// that the roots of two disks have one number, and give the number of what was removed to what is made next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Birth {
    /// When it was made: seconds since 1970, nanoseconds. Not every file system knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<(u64, u32)>,
    /// What the kernel calls the file system (`f_fsid`); 0: nothing. Some, such as XFS, take the number of the device.
    file_system: u64,
}

impl Birth {
    /// From a fresh look, and the id of the file system.
    pub fn of(meta: &Metadata, file_system: u64) -> Birth {
        let made = meta.created().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let time = made.map(|time| (time.as_secs(), time.subsec_nanos())).filter(|time| *time != (0, 0));
        Birth { time, file_system }
    }

    /// Nothing speaks against these being of one thing, if their numbers are the same.
    pub fn fits(&self, other: &Birth) -> bool {
        match (self.time, other.time) {
            (Some(time), Some(other)) => time == other,
            _ => self.file_system == other.file_system || self.file_system == 0 || other.file_system == 0,
        }
    }
}

/// How much a block device was written to since it appeared. Not how often: to bring its cache to the medium counts there, too.
/// To a partition also by who wrote to its whole disk, wherever that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteCounters {
    /// Sectors of 512 bytes written and discarded.
    pub sectors: u64,
}

impl WriteCounters {
    /// The counters of the device with this number; `None` where the kernel keeps none, or was told not to count.
    pub fn of(rdev: u64) -> Option<WriteCounters> {
        let folder = PathBuf::from(sysfs(rdev));
        let is_partition = folder.join("partition").exists();
        let disk = if is_partition { folder.canonicalize().ok()?.parent()?.to_owned() } else { folder.clone() };
        if fs::read_to_string(disk.join("queue/iostats")).is_ok_and(|text| text.trim() == "0") {
            return None;
        }
        if is_partition { WriteCounters::of_partition(&folder, &disk) } else { WriteCounters::in_folder(&disk) }
    }

    /// Of the disk less those of its other partitions, of which one may be busy: until nothing is counted while they are added.
    fn of_partition(partition: &Path, disk: &Path) -> Option<WriteCounters> {
        const TRIES: usize = 1000;
        let this = partition.canonicalize().ok()?;
        (0..TRIES).find_map(|_| {
            let before = WriteCounters::in_folder(disk)?;
            let folders = fs::read_dir(disk).ok()?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
            let others = folders.filter(|folder| *folder != this && folder.join("partition").exists());
            let others = others.map(|folder| Some(WriteCounters::in_folder(&folder)?.sectors)).sum::<Option<u64>>()?;
            let after = WriteCounters::in_folder(disk)?;
            (before == after).then_some(WriteCounters { sectors: before.sectors.wrapping_sub(others) })
        })
    }

    fn in_folder(folder: &Path) -> Option<WriteCounters> {
        WriteCounters::parse(&fs::read_to_string(folder.join("stat")).ok()?)
    }

    /// Columns as the kernel's Documentation/block/stat.rst counts them; discards are absent before Linux 4.18.
    fn parse(text: &str) -> Option<WriteCounters> {
        let columns: Vec<u64> = text.split_ascii_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let column = |at: usize| columns.get(at).copied();
        Some(WriteCounters { sectors: column(6)?.wrapping_add(column(13).unwrap_or(0)) })
    }
}

/// What a file or block device looked like at some moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// A regular file, or a directory.
    File(FileStamp),
    /// A block device. Its counters begin anew with the machine, and with the device.
    Device {
        /// The kernel's random id of this run of the machine.
        boot: Option<String>,
        /// The kernel's number for this very disk or attachment; none is used twice.
        disk: Option<u64>,
        /// What was written to it since.
        writes: Option<WriteCounters>,
    },
}

/// What two looks at one thing say about the time between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Nobody wrote.
    Untouched,
    /// Somebody wrote, or it is another thing.
    Written,
    /// The kernel forgot what it knew.
    Unknown,
}

impl Evidence {
    /// A fresh look.
    pub fn of(meta: &Metadata) -> Evidence {
        if !meta.file_type().is_block_device() {
            return Evidence::File(FileStamp::of(meta));
        }
        let text = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let folder = sysfs(meta.rdev());
        // A partition has none of its own; its disk's stands one folder above.
        let disk = text(&format!("{folder}/diskseq")).or_else(|| text(&format!("{folder}/../diskseq")));
        Evidence::Device {
            boot: text("/proc/sys/kernel/random/boot_id"),
            disk: disk.and_then(|number| number.parse().ok()),
            writes: WriteCounters::of(meta.rdev()),
        }
    }

    /// Waits until what anybody writes from now on shows.
    pub fn let_clock_tick(&self) {
        match self {
            Evidence::File(stamp) => stamp.let_clock_tick(),
            Evidence::Device { .. } => {}
        }
    }

    /// The kernel tells what is written.
    pub fn is_counted(&self) -> bool {
        match self {
            Evidence::File(_) => true,
            Evidence::Device { writes, .. } => writes.is_some(),
        }
    }

    /// The same, where more was written since an earlier look than the kernel counted: nothing can be concluded from its
    /// counters. So it is with the paths of NVMe before Linux 6.3, which count instead of the device that they lead to.
    #[must_use]
    pub fn after_writing(self, before: &Evidence) -> Evidence {
        match self {
            Evidence::Device { boot, disk, .. } if self.between(before) == Between::Untouched => {
                Evidence::Device { boot, disk, writes: None }
            }
            Evidence::Device { .. } | Evidence::File(_) => self,
        }
    }

    /// What this earlier look and a later one say.
    pub fn between(&self, later: &Evidence) -> Between {
        match (self, later) {
            (Evidence::File(before), Evidence::File(after)) if before == after => Between::Untouched,
            (
                Evidence::Device { boot: Some(boot), disk: Some(disk), writes: Some(writes) },
                Evidence::Device { boot: Some(boot_after), disk: Some(disk_after), writes: Some(writes_after) },
            ) => match (boot == boot_after && disk == disk_after, writes == writes_after) {
                (true, true) => Between::Untouched,
                (true, false) => Between::Written,
                (false, _) => Between::Unknown,
            },
            (Evidence::Device { .. }, Evidence::Device { .. }) => Between::Unknown,
            _ => Between::Written,
        }
    }
}

/// The folder in which the kernel speaks of a block device.
pub fn sysfs(rdev: u64) -> String {
    format!("/sys/dev/block/{}:{}", major(rdev), minor(rdev))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_prove_nothing_over_a_restart() {
        let look = |boot: &str, disk, sectors| Evidence::Device {
            boot: Some(boot.to_owned()),
            disk,
            writes: Some(WriteCounters { sectors }),
        };
        let before = look("a", Some(1), 5);
        assert_eq!(before.between(&before), Between::Untouched);
        assert_eq!(before.between(&look("a", Some(1), 6)), Between::Written);
        for later in [look("b", Some(1), 5), look("a", Some(2), 5), look("a", None, 5)] {
            assert_eq!(before.between(&later), Between::Unknown);
        }
        let blind = Evidence::Device { boot: None, disk: None, writes: None };
        assert_eq!(blind.between(&blind), Between::Unknown);
    }

    #[test]
    fn a_directory_is_told_by_when_or_where_it_was_made() {
        let made = |time, file_system| Birth { time: Some((time, 7)), file_system };
        let somewhere = |file_system| Birth { time: None, file_system };
        assert!(made(1, 5).fits(&made(1, 6)), "XFS after a restart");
        assert!(!made(1, 5).fits(&made(2, 5)));
        assert!(somewhere(5).fits(&somewhere(5)) && !somewhere(5).fits(&somewhere(6)));
        assert!(somewhere(0).fits(&somewhere(6)) && Birth::default().fits(&made(1, 5)));
    }

    #[test]
    fn writes_and_discards_count_reads_do_not() {
        let text = "  100 1 2 3  40 5 600 7 0 8 9  10 11 1200 13 14 15\n";
        assert_eq!(WriteCounters::parse(text), Some(WriteCounters { sectors: 1800 }));
        assert_eq!(WriteCounters::parse("1 2 3 4 5 6 7 8 9 10 11"), Some(WriteCounters { sectors: 7 }));
        assert_eq!(WriteCounters::parse(""), None);
    }
}
