//! What concerns a tree as a whole: its root is made, locked, looked at and emptied.

use std::fs::{File, Metadata};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{FlockOperation, StatVfs, StatVfsMountFlags, flock, fstatvfs};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

use super::Dir;
use super::pin::Pin;
use crate::host::device::busy;
use crate::host::stamp::{Birth, Evidence};
use crate::state::Fault;

/// Names that are read at once.
const BATCH: usize = 4096;

impl Dir {
    /// Makes a directory (mode 0700) by the path that the administrator gave, and opens it as the root of a tree.
    pub fn make_root(path: &Path) -> Result<Dir, Fault> {
        let made = std::fs::DirBuilder::new().mode(0o700).create(path);
        made.map_err(|error| Fault::io(format!("making {}", path.display()), &error))?;
        Dir::root(path)
    }

    /// Keeps other runs out as long as this is open: here, or in a program that we began. A `zfs rollback` that outlives us, because
    /// somebody killed us, must not meet the next run.
    pub fn lock(&self) -> Result<(), Fault> {
        match flock(self, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(busy()),
            locked => locked.map_err(|error| self.failed("locking", None, error))?,
        }
        fcntl_setfd(self, FdFlags::empty()).map_err(|error| self.failed("handing on the lock of", None, error))
    }

    /// Nothing is in it.
    pub fn is_empty(&mut self) -> Result<bool, Fault> {
        Ok(self.some_names(1)?.is_empty())
    }

    /// Removes all that is in it.
    pub fn clear(&mut self) -> Result<(), Fault> {
        loop {
            let names = self.some_names(BATCH)?;
            if names.is_empty() {
                return Ok(());
            }
            names.iter().try_for_each(|name| self.remove_all(name))?;
        }
    }

    /// Lets the owner change what is in it, if that is us and the mode forbids it. The mode that there was, if so.
    pub fn unlock(&self) -> Result<Option<u16>, Fault> {
        let before = self.meta()?;
        let pin = Pin { fd: self.same()?, meta: before };
        pin.unlock().map_err(|error| self.failed("unlocking", None, error))?;
        Ok((self.meta()?.mode != before.mode).then_some(before.mode))
    }

    fn same(&self) -> Result<OwnedFd, Fault> {
        self.as_fd().try_clone_to_owned().map_err(|error| Fault::io("keeping the target open", &error))
    }

    /// What shows that names in it, or its attributes, were changed.
    pub fn evidence(&self) -> Result<Evidence, Fault> {
        Ok(Evidence::of(&self.metadata()?))
    }

    /// What tells it from another directory of the same number.
    pub fn birth(&self) -> Result<Birth, Fault> {
        Ok(Birth::of(&self.metadata()?, self.file_system()?.f_fsid))
    }

    /// It is mounted read-only, as snapshots are.
    pub fn is_read_only(&self) -> Result<bool, Fault> {
        Ok(self.file_system()?.f_flag.contains(StatVfsMountFlags::RDONLY))
    }

    fn metadata(&self) -> Result<Metadata, Fault> {
        File::from(self.same()?).metadata().map_err(|error| Fault::io("looking at the target", &error))
    }

    fn file_system(&self) -> Result<StatVfs, Fault> {
        fstatvfs(self).map_err(|error| self.failed("asking for the file system of", None, error))
    }
}
