//! What shows that a file or device was written or replaced since one looked.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use rustix::fs::{major, minor};
use serde::{Deserialize, Serialize};

/// What the kernel changes when a file's content changes. The device number is none of it: it may differ after a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    /// Inode number.
    pub inode: u64,
    /// Size in bytes.
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
            size: file.len(),
            mtime: (file.mtime(), file.mtime_nsec()),
            ctime: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// Waits until a later write cannot get the time of this stamp: file systems take it from a clock that ticks every 1 to
    /// 10 ms.
    pub fn let_clock_tick(&self) {
        const TICK: Duration = Duration::from_millis(20);
        let seconds = u64::try_from(self.ctime.0).unwrap_or(0);
        let nanoseconds = u32::try_from(self.ctime.1).unwrap_or(0);
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        if changed.elapsed().unwrap_or_default() < TICK {
            std::thread::sleep(TICK);
        }
    }
}

/// How much a block device was written to since it appeared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteCounters {
    /// Writes and discards completed.
    pub requests: u64,
    /// Sectors of 512 bytes written and discarded.
    pub sectors: u64,
}

impl WriteCounters {
    /// The counters of the device with this number; `None` where the kernel keeps none.
    pub fn of(rdev: u64) -> Option<WriteCounters> {
        WriteCounters::parse(&std::fs::read_to_string(format!("{}/stat", sysfs(rdev))).ok()?)
    }

    /// Columns as the kernel's Documentation/block/stat.rst counts them; discards are absent before Linux 4.18.
    fn parse(text: &str) -> Option<WriteCounters> {
        let columns: Vec<u64> = text.split_ascii_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let column = |at: usize| columns.get(at).copied();
        Some(WriteCounters {
            requests: column(4)?.wrapping_add(column(11).unwrap_or(0)),
            sectors: column(6)?.wrapping_add(column(13).unwrap_or(0)),
        })
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
    fn writes_and_discards_count_reads_do_not() {
        let text = "  100 1 2 3  40 5 600 7 0 8 9  10 11 1200 13 14 15\n";
        assert_eq!(WriteCounters::parse(text), Some(WriteCounters { requests: 50, sectors: 1800 }));
        assert_eq!(WriteCounters::parse("1 2 3 4 5 6 7 8 9 10 11"), Some(WriteCounters { requests: 5, sectors: 7 }));
        assert_eq!(WriteCounters::parse(""), None);
    }
}
