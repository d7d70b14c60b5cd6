//! A directory that is held open, and what is read in it by one name.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    CWD, Mode, OFlags, PROC_SUPER_MAGIC, RawDir, ResolveFlags, SeekFrom, openat2, readlink, readlinkat, seek, statfs,
};
use rustix::io::Errno;

use super::pin::{Pin, by_number, open_directory};
use super::xattrs::{self, At};
use super::{Kind, Meta, Xattrs, meta};
use crate::format::Name;
use crate::state::{Class, Fault};

/// Bytes of names that the kernel hands out at once.
const LISTING: usize = 64 << 10;

/// An open directory. All below it is reached by one name at a time: see the [module](super).
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// Mounts may be gone through.
    crossing: bool,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// Opens the root of a tree by the path that the administrator gave. Links in it are followed; from here on none is, and no
    /// mount either.
    pub fn root(path: &Path) -> Result<Dir, Fault> {
        Dir::root_to_read(path, false)
    }

    /// The same for reading only. `crossing`: what is mounted below belongs to the tree, as snapshots do below `.zfs/snapshot`.
    pub fn root_to_read(path: &Path, crossing: bool) -> Result<Dir, Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // openat2 already here: where it is missing, nothing begins.
        let opened = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::empty());
        let fd = opened.map_err(|error| open_failed(&format!("opening {}", path.display()), error))?;
        let is_proc = statfs("/proc/self/fd").is_ok_and(|found| i128::from(found.f_type) == i128::from(PROC_SUPER_MAGIC));
        if !is_proc {
            return Err(Fault::new(Class::Unsupported, "/proc is not mounted: entries cannot be held safely without it"));
        }
        Ok(Dir { fd, crossing })
    }

    pub(super) fn of(fd: OwnedFd) -> Dir {
        Dir { fd, crossing: false }
    }

    /// Opens the same directory once more: for another thread, which then lists it for itself.
    pub fn again(&self) -> Result<Dir, Fault> {
        let opened = open_directory(&self.fd, b".", self.crossing);
        let fd = opened.map_err(|error| open_failed(&format!("opening {}", spell(self.as_fd(), None)), error))?;
        Ok(Dir { fd, crossing: self.crossing })
    }

    /// Opens a directory in this one. Refused: a symbolic link, a mount (unless they are gone through), anything else.
    pub fn open(&self, name: &Name) -> Result<Dir, Fault> {
        let fd = open_directory(&self.fd, name.as_bytes(), self.crossing).map_err(|error| self.open_failed(name, error))?;
        Ok(Dir { fd, crossing: self.crossing })
    }

    /// The names in it, by their bytes. What cannot be a name in a stream is an error: it would be left out in silence.
    pub fn names(&mut self) -> Result<Vec<Name>, Fault> {
        let mut names = self.some_names(usize::MAX)?;
        names.sort_unstable();
        // Where entries come and go meanwhile, some file systems list one twice.
        names.dedup();
        Ok(names)
    }

    /// At most about so many names, from the beginning, as they come.
    pub(super) fn some_names(&mut self, most: usize) -> Result<Vec<Name>, Fault> {
        let failed = |error| self.failed("listing", None, error);
        seek(&self.fd, SeekFrom::Start(0)).map_err(failed)?;
        let mut buffer = Vec::with_capacity(LISTING);
        let mut entries = RawDir::new(&self.fd, buffer.spare_capacity_mut());
        let mut names = Vec::new();
        while names.len() < most
            && let Some(entry) = entries.next()
        {
            match entry {
                Ok(entry) if self.is_control(entry.file_name().to_bytes(), entry.ino()) => {}
                Ok(entry) => names.extend(self.readable(entry.file_name())?),
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(names)
    }

    fn readable(&self, name: &CStr) -> Result<Option<Name>, Fault> {
        let bytes = name.to_bytes();
        if bytes == b"." || bytes == b".." {
            return Ok(None);
        }
        Name::new(bytes).map(Some).ok_or_else(|| {
            let shown = bytes.escape_ascii();
            Fault::new(Class::Unsupported, format!("{} holds \"{shown}\", which is no name", spell(self.as_fd(), None)))
        })
    }

    /// What stands at this name; `None`: nothing.
    pub fn look(&self, name: &Name) -> Result<Option<Meta>, Fault> {
        match meta::ask(&self.fd, name.as_bytes()) {
            Err(Errno::NOENT) => Ok(None),
            found => found.map(Some).map_err(|error| self.failed("looking at", Some(name), error)),
        }
    }

    /// What this directory itself is.
    pub fn meta(&self) -> Result<Meta, Fault> {
        meta::ask(&self.fd, b"").map_err(|error| self.failed("looking at", None, error))
    }

    /// Where a symbolic link points.
    pub fn read_link(&self, name: &Name) -> Result<Vec<u8>, Fault> {
        let target = readlinkat(&self.fd, name.as_bytes(), Vec::new());
        target.map(std::ffi::CString::into_bytes).map_err(|error| match error {
            Errno::INVAL => swapped(&self.spell(name), "symbolic link"),
            error => self.failed("reading the link", Some(name), error),
        })
    }

    /// Opens a regular file for reading, and what it is. Its access time stays, where that is allowed.
    pub fn open_file(&self, name: &Name) -> Result<(File, Meta), Fault> {
        let pin = self.pin_file(name)?;
        let file = match pin.open_file(OFlags::RDONLY | OFlags::NOATIME) {
            Err(Errno::PERM) => pin.open_file(OFlags::RDONLY),
            opened => opened,
        };
        Ok((file.map_err(|error| self.open_failed(name, error))?, pin.meta))
    }

    /// Extended attributes of an entry: [`is_carried`](super::is_carried) says which.
    pub fn xattrs(&self, name: &Name) -> Result<Xattrs, Fault> {
        let path = [by_number(self.as_fd()).as_slice(), b"/", name.as_bytes()].concat();
        xattrs::read(At::Entry(&path)).map_err(|error| self.failed("reading extended attributes of", Some(name), error))
    }

    /// Extended attributes of this directory itself.
    pub fn own_xattrs(&self) -> Result<Xattrs, Fault> {
        let read = xattrs::read(At::Open(self.as_fd()));
        read.map_err(|error| self.failed("reading extended attributes of", None, error))
    }

    /// Holds what stands at this name.
    pub(super) fn pin(&self, name: &Name) -> Result<Option<Pin>, Fault> {
        match Pin::take(&self.fd, name, self.crossing) {
            Err(Errno::NOENT) => Ok(None),
            taken => taken.map(Some).map_err(|error| self.open_failed(name, error)),
        }
    }

    pub(super) fn pin_kind(&self, name: &Name, kind: Kind, called: &str) -> Result<Pin, Fault> {
        match self.pin(name)? {
            None => Err(self.open_failed(name, Errno::NOENT)),
            Some(pin) if pin.meta.kind == kind => Ok(pin),
            Some(_) => Err(swapped(&self.spell(name), called)),
        }
    }

    pub(super) fn pin_file(&self, name: &Name) -> Result<Pin, Fault> {
        self.pin_kind(name, Kind::File, "regular file")
    }

    /// Where a name in it stands at this moment: for people.
    pub fn spell(&self, name: &Name) -> String {
        spell(self.as_fd(), Some(name))
    }

    pub(super) fn failed(&self, doing: &str, name: Option<&Name>, error: Errno) -> Fault {
        failed(&format!("{doing} {}", spell(self.as_fd(), name)), error)
    }

    pub(super) fn open_failed(&self, name: &Name, error: Errno) -> Fault {
        let path = self.spell(name);
        match error {
            Errno::LOOP | Errno::NOTDIR => swapped(&path, "directory"),
            Errno::XDEV => Fault::new(Class::Mounted, format!("something is mounted at {path}, and mounts are not gone through")),
            error => open_failed(&format!("opening {path}"), error),
        }
    }
}

/// Extended attributes of an open file, whatever its name is now.
pub fn file_xattrs(file: &File) -> Result<Xattrs, Fault> {
    let read = xattrs::read(At::Open(file.as_fd()));
    read.map_err(|error| failed(&format!("reading extended attributes of {}", spell(file.as_fd(), None)), error))
}

/// Where an open directory, or a name in it, stands at this moment: for people. Asked for only when something failed.
pub(super) fn spell(fd: BorrowedFd<'_>, name: Option<&Name>) -> String {
    let place = readlink(by_number(fd).as_slice(), Vec::new()).map(std::ffi::CString::into_bytes);
    let mut path = place.unwrap_or_else(|_| b"...".to_vec());
    if let Some(name) = name {
        path.extend_from_slice(if path.ends_with(b"/") { b"" } else { b"/" });
        path.extend_from_slice(name.as_bytes());
    }
    path.escape_ascii().to_string()
}

/// A failed call on an entry.
pub(super) fn failed(tried: &str, error: Errno) -> Fault {
    match error {
        Errno::EXIST => Fault::new(Class::Exists, format!("{tried}: there is something of that name already")),
        error => Fault::io(tried, &error.into()),
    }
}

fn open_failed(tried: &str, error: Errno) -> Fault {
    match error {
        Errno::NOSYS => Fault::new(Class::Unsupported, format!("{tried}: this system has no openat2(2)")).hint(
            "Linux 5.6 or newer is needed, and a container that lets the call through: nothing else keeps a tree's writers in",
        ),
        error => failed(tried, error),
    }
}

fn swapped(path: &str, kind: &str) -> Fault {
    Fault::new(Class::Changed, format!("{path} is no {kind}, or is one no more"))
}
