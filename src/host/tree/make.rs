//! Making, renaming and removing entries: each a name in a held directory.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, fsync, linkat, makedev, mkdirat, mknodat, renameat, renameat_with, symlinkat,
    syncfs, unlinkat,
};
use rustix::io::Errno;

use super::dir::{failed, spell};
use super::pin::open_below;
use super::{Dir, Kind, meta};
use crate::format::{Name, Node};
use crate::state::{Class, Fault};

/// What is being made is its owner's alone; attributes come later.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIRECTORY_MODE: Mode = Mode::RWXU;

impl Dir {
    /// Makes a regular file that was not there (mode 0600), for reading and writing.
    pub fn make_file(&self, name: &Name) -> Result<File, Fault> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let made = open_below(self, name.as_bytes(), flags, FILE_MODE, false);
        made.map(File::from).map_err(|error| self.open_failed(name, error))
    }

    /// Opens a regular file that is there, for reading and writing, as it is. Where we own it but its mode forbids that, it
    /// becomes its owner's first: attributes are to be set afterwards.
    pub fn open_to_write(&self, name: &Name) -> Result<File, Fault> {
        let pin = self.pin_file(name)?;
        let opened = pin.unlock().and_then(|()| pin.open_file(OFlags::RDWR));
        opened.map_err(|error| self.open_failed(name, error))
    }

    /// Opens a directory that is there, to change what is in it. Where we own it but its mode forbids that, its owner may do
    /// everything first: attributes are to be set afterwards.
    pub fn open_to_change(&self, name: &Name) -> Result<Dir, Fault> {
        let pin = self.pin_kind(name, Kind::Directory, "directory")?;
        let opened = pin.unlock().and_then(|()| pin.open_directory());
        opened.map(Dir::of).map_err(|error| self.open_failed(name, error))
    }

    /// Makes a directory that was not there (mode 0700), and opens it. What somebody puts in its place before that is opened if
    /// it is a directory, and else an error.
    pub fn make_dir(&self, name: &Name) -> Result<Dir, Fault> {
        mkdirat(self, name.as_bytes(), DIRECTORY_MODE).map_err(|error| self.failed("making", Some(name), error))?;
        self.open(name)
    }

    /// Makes a symbolic link. Nobody looks where it points.
    pub fn make_symlink(&self, name: &Name, target: &[u8]) -> Result<(), Fault> {
        symlinkat(target, self, name.as_bytes()).map_err(|error| self.failed("making", Some(name), error))
    }

    /// Makes a named pipe, the name of a socket, or a device node (mode 0600). Other kinds have calls of their own.
    pub fn make_node(&self, name: &Name, node: &Node) -> Result<(), Fault> {
        let (kind, number) = match *node {
            Node::Fifo => (FileType::Fifo, 0),
            Node::Socket => (FileType::Socket, 0),
            Node::Device { is_block: true, major, minor } => (FileType::BlockDevice, makedev(major, minor)),
            Node::Device { is_block: false, major, minor } => (FileType::CharacterDevice, makedev(major, minor)),
            Node::File { .. } | Node::Directory | Node::Symlink { .. } => {
                return Err(Fault::new(
                    Class::Unsupported,
                    format!("{} is of a kind that mknod does not make", self.spell(name)),
                ));
            }
        };
        mknodat(self, name.as_bytes(), kind, FILE_MODE, number).map_err(|error| self.failed("making", Some(name), error))
    }

    /// Gives an entry, which is no directory, one more name. A symbolic link is linked itself.
    pub fn link(&self, name: &Name, to: &Dir, new: &Name) -> Result<(), Fault> {
        let linked = linkat(self, name.as_bytes(), to, new.as_bytes(), AtFlags::empty());
        linked.map_err(|error| self.failed_to(to, "linking", (name, new), error))
    }

    /// Moves an entry to a name that is free.
    ///
    /// ZFS before 2.2 and FUSE file systems do not know `RENAME_NOREPLACE`. There we look first: what somebody else puts there
    /// in between is replaced, which is in the same held directory.
    pub fn rename(&self, name: &Name, to: &Dir, new: &Name) -> Result<(), Fault> {
        self.try_rename(name, to, new).map_err(|error| self.failed_to(to, "renaming", (name, new), error))
    }

    pub(super) fn try_rename(&self, name: &Name, to: &Dir, new: &Name) -> Result<(), Errno> {
        match renameat_with(self, name.as_bytes(), to, new.as_bytes(), RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => match meta::ask(to, new.as_bytes()) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => renameat(self, name.as_bytes(), to, new.as_bytes()),
                Err(error) => Err(error),
            },
            renamed => renamed,
        }
    }

    /// Removes a name of what is no directory.
    pub fn remove(&self, name: &Name) -> Result<(), Fault> {
        unlinkat(self, name.as_bytes(), AtFlags::empty()).map_err(|error| self.failed("removing", Some(name), error))
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: &Name) -> Result<(), Fault> {
        unlinkat(self, name.as_bytes(), AtFlags::REMOVEDIR).map_err(|error| self.failed("removing", Some(name), error))
    }

    /// Makes the names in this directory durable.
    pub fn sync(&self) -> Result<(), Fault> {
        fsync(self).map_err(|error| self.failed("making durable", None, error))
    }

    /// Makes everything on this directory's file system durable.
    pub fn sync_file_system(&self) -> Result<(), Fault> {
        syncfs(self).map_err(|error| self.failed("making durable the file system of", None, error))
    }

    fn failed_to(&self, to: &Dir, doing: &str, (name, new): (&Name, &Name), error: Errno) -> Fault {
        let reason = io::Error::from(error);
        match error {
            // Which of the two, or why they lie on different file systems, no call says.
            Errno::XDEV => Fault::new(Class::Mounted, format!("{doing} {}: {reason}", self.spell(name))),
            error => failed(&format!("{doing} {} to {}", self.spell(name), spell(to.as_fd(), Some(new))), error),
        }
    }
}
