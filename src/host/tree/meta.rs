//! What the file system says of an entry.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxAttributes, StatxFlags, StatxTimestamp, makedev, statx};
use rustix::io::Errno;

use super::Xattrs;
use crate::format::{Attributes, Node, Time};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// The name of a socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
}

/// What statx(2) says of an entry, which was not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Permissions with the set-id and sticky bits: the lower 12 bits of `st_mode`.
    pub mode: u16,
    /// User id of the owner.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Size in bytes. Of directories every file system means something else.
    pub size: u64,
    /// Names that it has, `st_nlink`.
    pub links: u64,
    /// Inode number.
    pub inode: u64,
    /// Number of the device that it is on. On CephFS a snapshot's differs from its directory's.
    pub device: u64,
    /// When its content changed, `st_mtime`.
    pub modified: Time,
    /// When it or its attributes changed, `st_ctime`.
    pub changed: Time,
    /// Of a device node: number of the driver.
    pub major: u32,
    /// Of a device node: number of the device.
    pub minor: u32,
    /// Room that it takes, in blocks of 512 bytes.
    pub blocks: u64,
    /// Something is mounted here, and this is what is said of that. (Known since Linux 5.8; before: false.)
    pub is_mount: bool,
}

impl Meta {
    /// The same entry, as far as numbers say. They are used again once an entry is gone.
    pub fn is_same(&self, other: &Meta) -> bool {
        (self.inode, self.device, self.kind) == (other.inode, other.device, other.kind)
    }

    /// The attributes as a stream says them.
    pub fn attributes(&self, xattrs: Xattrs) -> Attributes {
        Attributes { mode: self.mode, uid: self.uid, gid: self.gid, modified: self.modified, xattrs }
    }

    /// The kind as a stream says it. A symbolic link needs its target; no other kind has one. The old size of a file is 0.
    pub fn node(&self, target: Option<Vec<u8>>) -> Node {
        let device = |is_block| Node::Device { is_block, major: self.major, minor: self.minor };
        match self.kind {
            Kind::File => Node::File { size: self.size, old_size: 0 },
            Kind::Directory => Node::Directory,
            Kind::Symlink => Node::Symlink { target: target.unwrap_or_default() },
            Kind::Fifo => Node::Fifo,
            Kind::Socket => Node::Socket,
            Kind::CharacterDevice => device(false),
            Kind::BlockDevice => device(true),
        }
    }
}

/// What stands at a name in the directory; with an empty name: the open or held thing itself. Nothing is followed or mounted.
pub(super) fn ask(directory: impl AsFd, name: &[u8]) -> Result<Meta, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let flags = if name.is_empty() { flags | AtFlags::EMPTY_PATH } else { flags };
    read(&statx(directory, name, flags, StatxFlags::BASIC_STATS)?)
}

fn read(found: &Statx) -> Result<Meta, Errno> {
    let kind = match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharacterDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Unknown => return Err(Errno::OPNOTSUPP),
    };
    Ok(Meta {
        kind,
        mode: found.stx_mode & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
        size: found.stx_size,
        links: found.stx_nlink.into(),
        inode: found.stx_ino,
        device: makedev(found.stx_dev_major, found.stx_dev_minor),
        modified: time(&found.stx_mtime),
        changed: time(&found.stx_ctime),
        major: found.stx_rdev_major,
        minor: found.stx_rdev_minor,
        blocks: found.stx_blocks,
        is_mount: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    })
}

fn time(stamp: &StatxTimestamp) -> Time {
    Time { seconds: stamp.tv_sec, nanoseconds: stamp.tv_nsec }
}
