//! A directory on CephFS, its snapshots, and what identifies them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::format::{Id, Name, Time};
use crate::host::tree::{Dir, SNAPSHOTS, ceph_inode};
use crate::state::{Class, Fault, State, StateList, cephfs_source, cephfs_state};

/// A directory on CephFS.
pub struct Place {
    /// As it was given.
    pub path: PathBuf,
    /// Where its snapshots are.
    snapshots: Dir,
    /// Its inode, the same in every snapshot and by every client.
    inode: u64,
    /// The cluster's fsid.
    fsid: String,
}

/// A snapshot of a directory.
pub struct Snapshot {
    /// What it is called where it was taken.
    pub name: Vec<u8>,
    /// What it is called here: that, or `_NAME_INODE` where it was taken of a directory above.
    entry: Name,
    /// When it was taken, by the clock of the client that took it.
    pub taken: Time,
    /// The directory as it was then.
    pub dir: Dir,
}

impl Place {
    /// Opens a directory that must be on CephFS.
    pub fn open(path: &Path) -> Result<Place, Fault> {
        let dir = Dir::root(path)?;
        let Some(fsid) = dir.cluster_fsid()? else {
            return Err(Fault::new(Class::Unsupported, format!("{} is not on CephFS", path.display()))
                .hint("tree-diff-stream --base sends what differs between any two directories"));
        };
        let snapshots = name(SNAPSHOTS).and_then(|name| dir.open(&name))?;
        Ok(Place { path: path.to_owned(), snapshots, inode: ceph_inode(dir.meta()?.inode), fsid })
    }

    /// Its inode, the same in every snapshot and by every client.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// What identifies the directory.
    pub fn source(&self) -> Id {
        cephfs_source(&self.fsid, self.inode)
    }

    /// What identifies a snapshot of it.
    pub fn state(&self, snapshot: &Snapshot) -> Id {
        cephfs_state(&self.fsid, self.inode, snapshot.taken)
    }

    /// Where the tree of a snapshot can be read.
    pub fn path_of(&self, snapshot: &Snapshot) -> PathBuf {
        self.path.join(std::ffi::OsStr::from_bytes(SNAPSHOTS)).join(std::ffi::OsStr::from_bytes(snapshot.entry.as_bytes()))
    }

    /// The snapshot of this name, which was taken of this directory or of one above it.
    pub fn snapshot(&mut self, wanted: &[u8]) -> Result<Snapshot, Fault> {
        let mut named: Vec<Snapshot> = self.snapshots()?.into_iter().filter(|snapshot| snapshot.is(wanted)).collect();
        let shown = wanted.escape_ascii();
        match (named.pop(), named.len()) {
            (Some(only), 0) => Ok(only),
            (Some(_), more) => Err(Fault::new(
                Class::Usage,
                format!("{} snapshots of this directory and of those above are called {shown}", more + 1),
            )
            .hint("name it as `ls DIR/.snap` does: _NAME_INODE is one of a directory above")),
            (None, _) => Err(Fault::new(Class::NotFound, format!("no snapshot {shown}"))
                .hint(format!("`ls {}/.snap` lists them", self.path.display()))),
        }
    }

    /// All snapshots, oldest first.
    pub fn snapshots(&mut self) -> Result<Vec<Snapshot>, Fault> {
        let mut found = Vec::new();
        for entry in self.snapshots.names()? {
            let dir = match self.snapshots.open(&entry) {
                // Removed while we looked.
                Err(fault) if fault.class == Class::NotFound => continue,
                dir => dir?,
            };
            if let Some(taken) = dir.snapshot_taken()? {
                found.push(Snapshot { name: as_taken(entry.as_bytes()).to_vec(), entry, taken, dir });
            }
        }
        found.sort_by_key(|snapshot| snapshot.taken);
        Ok(found)
    }

    /// The snapshots as a state list.
    pub fn states(&mut self) -> Result<StateList, Fault> {
        let snapshots = self.snapshots()?;
        let state = |snapshot: &Snapshot| State {
            id: self.state(snapshot),
            seconds: snapshot.taken.seconds,
            // What it holds is not known without a walk: rbytes of a snapshot is wrong at times.
            bytes: 0,
            name: snapshot.entry.as_bytes().to_vec(),
        };
        Ok(StateList { states: snapshots.iter().map(state).collect() })
    }

    /// Looks once more whether this snapshot is there and the same.
    pub fn confirm(&self, snapshot: &Snapshot) -> Result<(), Fault> {
        let gone = || {
            Fault::new(
                Class::Vanished,
                format!("snapshot {} was removed while it was read", snapshot.entry.as_bytes().escape_ascii()),
            )
        };
        match self.snapshots.open(&snapshot.entry) {
            Err(fault) if fault.class == Class::NotFound => Err(gone()),
            Err(fault) => Err(fault),
            Ok(dir) if dir.snapshot_taken()? == Some(snapshot.taken) => Ok(()),
            Ok(_) => Err(gone()),
        }
    }
}

impl Snapshot {
    /// What it is called here.
    pub fn entry_name(&self) -> &[u8] {
        self.entry.as_bytes()
    }

    fn is(&self, wanted: &[u8]) -> bool {
        self.name == wanted || self.entry.as_bytes() == wanted
    }
}

/// `NAME` of `_NAME_INODE`, as which a snapshot of a directory above is shown; else all of it.
fn as_taken(entry: &[u8]) -> &[u8] {
    let inner = || {
        let rest = entry.strip_prefix(b"_")?;
        let end = rest.iter().rposition(|byte| *byte == b'_')?;
        let (name, inode) = (rest.get(..end)?, rest.get(end + 1..)?);
        (!name.is_empty() && !inode.is_empty() && inode.iter().all(u8::is_ascii_digit)).then_some(name)
    };
    inner().unwrap_or(entry)
}

fn name(bytes: &[u8]) -> Result<Name, Fault> {
    Name::new(bytes).ok_or_else(|| Fault::new(Class::Usage, format!("{} is no name", bytes.escape_ascii())))
}

/// `DIR@SNAP`, or `DIR/.snap/SNAP`: the directory and the snapshot.
pub fn split(given: &Path) -> Option<(PathBuf, Vec<u8>)> {
    let bytes = given.as_os_str().as_bytes();
    let (dir, snapshot) = match bytes.windows(7).rposition(|window| window == b"/.snap/") {
        Some(at) => (bytes.get(..at)?, bytes.get(at + 7..)?),
        None => {
            let at = bytes.iter().rposition(|byte| *byte == b'@')?;
            (bytes.get(..at)?, bytes.get(at + 1..)?)
        }
    };
    let snapshot = snapshot.strip_suffix(b"/").unwrap_or(snapshot);
    let is_one = !snapshot.is_empty() && !snapshot.contains(&b'/') && !dir.is_empty();
    is_one.then(|| (PathBuf::from(std::ffi::OsStr::from_bytes(dir)), snapshot.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_in_two_ways() {
        let told = |given: &str| {
            split(Path::new(given)).map(|(dir, snapshot)| (dir.display().to_string(), String::from_utf8(snapshot).unwrap()))
        };
        let home = |snapshot: &str| Some(("/mnt/home".to_owned(), snapshot.to_owned()));
        assert_eq!(told("/mnt/home@mon"), home("mon"));
        assert_eq!(told("/mnt/home/.snap/mon"), home("mon"));
        assert_eq!(told("/mnt/home/.snap/mon/"), home("mon"));
        assert_eq!(told("/mnt/a@b/home@mon"), Some(("/mnt/a@b/home".to_owned(), "mon".to_owned())));
        assert_eq!(told("/mnt/home/.snap/mon@2"), home("mon@2"));
        for bad in ["/mnt/home", "/mnt/home@", "@mon", "/mnt/home@mon/tue", "/mnt/home/.snap/mon/sub", "/mnt/home/.snap/"] {
            assert_eq!(told(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_snapshot_of_a_directory_above_goes_by_its_own_name() {
        assert_eq!(as_taken(b"_mon_1099511627776"), b"mon");
        assert_eq!(as_taken(b"_a_b_12"), b"a_b");
        for own in ["mon", "_mon", "_mon_x", "__12", "_mon_"] {
            assert_eq!(as_taken(own.as_bytes()), own.as_bytes());
        }
    }
}
