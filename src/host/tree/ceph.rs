//! What CephFS says of a directory beside what every file system says: virtual attributes, which no list shows.

use std::os::fd::AsFd;

use rustix::fs::getxattr;
use rustix::io::Errno;

use super::Dir;
use super::pin::by_number;
use crate::format::Time;
use crate::state::{Class, Fault};

/// Longest value that is asked for: an fsid has 36 bytes, a time at most 31.
const LONGEST: usize = 128;

/// The directory in which CephFS shows a directory's snapshots, takes them and removes them. No list shows it.
pub const SNAPSHOTS: &[u8] = b".snap";

/// Inode numbers of CephFS have 48 bits. ceph-fuse puts a number of its own for each snapshot above them.
const INODE: u64 = (1 << 48) - 1;

/// The number by which CephFS knows an inode, whichever client shows it, in whichever snapshot.
pub fn ceph_inode(shown: u64) -> u64 {
    shown & INODE
}

impl Dir {
    /// The largest change time of anything below (`ceph.dir.rctime`), as the MDS knows it at this moment: for some seconds after
    /// a change it may be the one before. Without `mds_snap_rstat` a snapshot shows that of the live directory.
    pub fn rctime(&self) -> Result<Time, Fault> {
        let value = self
            .ceph_attribute("ceph.dir.rctime")?
            .ok_or_else(|| Fault::new(Class::Unsupported, "this directory has no ceph.dir.rctime: it is not on CephFS"))?;
        self.time("ceph.dir.rctime", &value)
    }

    /// When the snapshot was taken that this directory is in (`ceph.snap.btime`), by the clock of the client that took
    /// it. `None`: in none.
    pub fn snapshot_taken(&self) -> Result<Option<Time>, Fault> {
        self.ceph_attribute("ceph.snap.btime")?.map(|value| self.time("ceph.snap.btime", &value)).transpose()
    }

    /// The cluster's fsid, as text (`ceph.cluster_fsid`). `None`: this is no CephFS, or its client is older than 2020.
    pub fn cluster_fsid(&self) -> Result<Option<String>, Fault> {
        self.ceph_attribute("ceph.cluster_fsid")
    }

    fn ceph_attribute(&self, name: &str) -> Result<Option<String>, Fault> {
        let mut value = [0; LONGEST];
        match getxattr(by_number(self.as_fd()).as_slice(), name, &mut value) {
            Ok(len) => Ok(Some(String::from_utf8_lossy(value.get(..len).unwrap_or_default()).into_owned())),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(self.failed(&format!("asking for {name} of"), None, error)),
        }
    }

    fn time(&self, name: &str, value: &str) -> Result<Time, Fault> {
        parsed(value).ok_or_else(|| Fault::new(Class::Io, format!("{name} is {value:?}, which is no time")))
    }
}

/// `SECONDS.NANOSECONDS`, the latter with nine digits. Kernels before 5.3 put `09` before as many as there were (a slip in
/// their format); where that makes nine, too, it cannot be told, and the time is less than 0.1 s wrong.
fn parsed(text: &str) -> Option<Time> {
    let (seconds, nanoseconds) = text.split_once('.')?;
    let nanoseconds = if nanoseconds.len() == 9 { nanoseconds } else { nanoseconds.strip_prefix("09")? };
    let nanoseconds = nanoseconds.parse().ok().filter(|nanoseconds| *nanoseconds < 1_000_000_000)?;
    Some(Time { seconds: seconds.parse().ok()?, nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_every_client_are_read() {
        let time = |seconds, nanoseconds| Some(Time { seconds, nanoseconds });
        assert_eq!(parsed("1795349796.624273415"), time(1_795_349_796, 624_273_415));
        assert_eq!(parsed("1795349796.000000007"), time(1_795_349_796, 7));
        assert_eq!(parsed("0.000000000"), time(0, 0));
        assert_eq!(parsed("1795349796.09624273415"), time(1_795_349_796, 624_273_415));
        assert_eq!(parsed("1795349796.097"), time(1_795_349_796, 7));
        for bad in ["", "1", "1.", ".5", "1.1000000000", "a.b", "1.-1"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_inode_is_the_same_in_every_snapshot() {
        // As ceph-fuse 16.2.15 showed one directory: live, and in two snapshots.
        for shown in [1_099_511_627_776, 564_049_465_049_088, 845_524_441_759_744] {
            assert_eq!(ceph_inode(shown), 1_099_511_627_776);
        }
    }
}
