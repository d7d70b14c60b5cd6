//! What stands at a path: its kind, its origin and its attributes, and how they look on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TreePath;
use crate::format::fields::{Fields, PutFields};
use crate::format::object::Wrong;
use crate::format::{Damage, wire};

/// What an entry is. Its number on the wire: extent-stream(5), "ENTRY".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A regular file. Its content follows as extents.
    File {
        /// Exact size in bytes.
        size: u64,
        /// Exact size before, of a file that is not new; else 0.
        old_size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, in no particular encoding: at least one byte, none of them NUL.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// The name of a socket.
    Socket,
    /// A device node.
    Device {
        /// A block device; else a character device.
        is_block: bool,
        /// Number of the driver.
        major: u32,
        /// Number of the device.
        minor: u32,
    },
}

/// A point in time as file systems keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Since 1970 UTC; negative: before.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// What an entry has beside its content. All of it is told, also where only some of it changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permissions with the set-id and sticky bits: the lower 12 bits of `st_mode`.
    pub mode: u16,
    /// User id of the owner.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// When its content changed.
    pub modified: Time,
    /// Extended attributes by their full names, POSIX ACLs (`system.posix_acl_access`, `system.posix_acl_default`) among them.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Where what stands at a path comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing stands there: it is made.
    New,
    /// It is there since the from-state, and of the same kind.
    Kept,
    /// It was taken from elsewhere in the from-state, by the GONE of this number, and is of the same kind.
    Taken(u64),
}

/// A statement about what stands at a path in the to-state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub path: TreePath,
    /// Where from.
    pub origin: Origin,
    /// What.
    pub node: Node,
    /// With which attributes.
    pub attributes: Attributes,
}

/// Numbers of [`Node`]s on the wire.
pub mod file_type {
    /// A regular file.
    pub const FILE: u8 = 1;
    /// A directory.
    pub const DIRECTORY: u8 = 2;
    /// A symbolic link.
    pub const SYMLINK: u8 = 3;
    /// A named pipe.
    pub const FIFO: u8 = 4;
    /// The name of a socket.
    pub const SOCKET: u8 = 5;
    /// A character device.
    pub const CHARACTER_DEVICE: u8 = 6;
    /// A block device.
    pub const BLOCK_DEVICE: u8 = 7;
}

impl Node {
    /// Its number on the wire: [`file_type`].
    pub fn file_type(&self) -> u8 {
        match self {
            Node::File { .. } => file_type::FILE,
            Node::Directory => file_type::DIRECTORY,
            Node::Symlink { .. } => file_type::SYMLINK,
            Node::Fifo => file_type::FIFO,
            Node::Socket => file_type::SOCKET,
            Node::Device { is_block: false, .. } => file_type::CHARACTER_DEVICE,
            Node::Device { is_block: true, .. } => file_type::BLOCK_DEVICE,
        }
    }
}

impl Entry {
    /// The payload of ENTRY.
    pub fn encode(&self) -> Vec<u8> {
        let Attributes { mode, uid, gid, modified, xattrs } = &self.attributes;
        let (origin, number) = match self.origin {
            Origin::New => (0, 0),
            Origin::Kept => (1, 0),
            Origin::Taken(number) => (2, number),
        };
        let (size, old_size) = if let Node::File { size, old_size } = self.node { (size, old_size) } else { (0, 0) };
        let (major, minor) = if let Node::Device { major, minor, .. } = self.node { (major, minor) } else { (0, 0) };
        let target = if let Node::Symlink { target } = &self.node { target.as_slice() } else { &[] };
        let path = self.path.encode();
        let mut out = vec![self.node.file_type(), origin];
        out.put_u16(*mode);
        for number in [*uid, *gid, modified.nanoseconds] {
            out.put_u32(number);
        }
        out.put_u64(modified.seconds.cast_unsigned());
        for number in [size, old_size, number] {
            out.put_u64(number);
        }
        for number in [major, minor, len_of(&path), len_of(target)] {
            out.put_u32(number);
        }
        out.extend(path);
        out.extend_from_slice(target);
        for (name, value) in xattrs {
            out.put_u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
            out.put_u32(len_of(value));
            out.extend_from_slice(name);
            out.extend_from_slice(value);
        }
        out
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Entry, Wrong> {
        let short = || (Damage::Length, "ENTRY is shorter than its fields".to_owned());
        let mut fields = Fields(payload);
        let fixed = Fixed::take(&mut fields).ok_or_else(short)?;
        let path = fields.bytes(fixed.path_len).ok_or_else(short)?;
        let target = fields.bytes(fixed.target_len).ok_or_else(short)?;
        let raw_xattrs = split_xattrs(fields)?;
        let path = TreePath::decode(path)?;
        Ok(Entry { path, origin: fixed.origin()?, node: fixed.node(target)?, attributes: fixed.attributes(&raw_xattrs)? })
    }
}

/// The fields of ENTRY before its path, as they are on the wire.
struct Fixed {
    file_type: u8,
    origin: u8,
    mode: u16,
    uid: u32,
    gid: u32,
    nanoseconds: u32,
    seconds: u64,
    size: u64,
    old_size: u64,
    number: u64,
    major: u32,
    minor: u32,
    path_len: usize,
    target_len: usize,
}

impl Fixed {
    fn take(fields: &mut Fields<'_>) -> Option<Fixed> {
        let [file_type, origin] = fields.array()?;
        Some(Fixed {
            file_type,
            origin,
            mode: fields.u16()?,
            uid: fields.u32()?,
            gid: fields.u32()?,
            nanoseconds: fields.u32()?,
            seconds: fields.u64()?,
            size: fields.u64()?,
            old_size: fields.u64()?,
            number: fields.u64()?,
            major: fields.u32()?,
            minor: fields.u32()?,
            path_len: usize::try_from(fields.u32()?).ok()?,
            target_len: usize::try_from(fields.u32()?).ok()?,
        })
    }

    fn origin(&self) -> Result<Origin, Wrong> {
        match (self.origin, self.number) {
            (0, 0) => Ok(Origin::New),
            (1, 0) => Ok(Origin::Kept),
            (2, 1..) => Ok(Origin::Taken(self.number)),
            (origin, number) => value(format!("an origin of kind {origin} with the number {number}")),
        }
    }

    fn node(&self, target: &[u8]) -> Result<Node, Wrong> {
        let is = |kind: u8| self.file_type == kind;
        if !is(file_type::SYMLINK) && !target.is_empty() || !is(file_type::FILE) && (self.size, self.old_size) != (0, 0) {
            return value(format!("an entry of type {} has what only another type has", self.file_type));
        }
        let is_device = is(file_type::CHARACTER_DEVICE) || is(file_type::BLOCK_DEVICE);
        if !is_device && (self.major, self.minor) != (0, 0) {
            return value("an entry that is no device has the numbers of one".to_owned());
        }
        if self.size.max(self.old_size) > wire::LIMIT_IMAGE {
            return value("the size of a file is beyond 2^63 - 1 bytes".to_owned());
        }
        if self.origin == 0 && self.old_size != 0 {
            return value("a new file has an old size".to_owned());
        }
        match self.file_type {
            file_type::FILE => Ok(Node::File { size: self.size, old_size: self.old_size }),
            file_type::DIRECTORY => Ok(Node::Directory),
            file_type::SYMLINK if (1..=wire::LIMIT_LINK).contains(&target.len()) && !target.contains(&0) => {
                Ok(Node::Symlink { target: target.to_vec() })
            }
            file_type::SYMLINK => value("where a symbolic link points is empty, too long, or holds NUL".to_owned()),
            file_type::FIFO => Ok(Node::Fifo),
            file_type::SOCKET => Ok(Node::Socket),
            file_type::CHARACTER_DEVICE | file_type::BLOCK_DEVICE => {
                let (is_block, major, minor) = (is(file_type::BLOCK_DEVICE), self.major, self.minor);
                Ok(Node::Device { is_block, major, minor })
            }
            unknown => value(format!("an entry of an unknown type, {unknown}")),
        }
    }

    fn attributes(&self, raw_xattrs: &[RawXattr<'_>]) -> Result<Attributes, Wrong> {
        if self.mode > wire::LIMIT_MODE {
            return value(format!("a mode of {:#o} has more than the 12 bits of permissions", self.mode));
        }
        if self.nanoseconds >= wire::LIMIT_NANOSECONDS {
            return value(format!("{} nanoseconds are a second or more", self.nanoseconds));
        }
        let mut xattrs = BTreeMap::new();
        for (name, content) in raw_xattrs {
            let allowed = (1..=wire::LIMIT_COMPONENT).contains(&name.len()) && !name.contains(&0);
            if !allowed || content.len() > wire::LIMIT_XATTR {
                return value(format!("the extended attribute \"{}\" is beyond the limits", name.escape_ascii()));
            }
            if xattrs.last_key_value().is_some_and(|(last, _): (&Vec<u8>, &Vec<u8>)| last.as_slice() >= *name) {
                return value("extended attributes do not ascend by their names".to_owned());
            }
            xattrs.insert(name.to_vec(), content.to_vec());
        }
        let modified = Time { seconds: self.seconds.cast_signed(), nanoseconds: self.nanoseconds };
        Ok(Attributes { mode: self.mode, uid: self.uid, gid: self.gid, modified, xattrs })
    }
}

/// Name and value.
type RawXattr<'a> = (&'a [u8], &'a [u8]);

fn split_xattrs(mut fields: Fields<'_>) -> Result<Vec<RawXattr<'_>>, Wrong> {
    let mut found = Vec::new();
    while !fields.0.is_empty() {
        let one = (|| {
            let (name_len, value_len) = (fields.u16()?, fields.u32()?);
            Some((fields.bytes(name_len.into())?, fields.bytes(usize::try_from(value_len).ok()?)?))
        })();
        found.push(one.ok_or_else(|| (Damage::Length, "the extended attributes do not end where they should".to_owned()))?);
    }
    Ok(found)
}

fn value<T>(what: String) -> Result<T, Wrong> {
    Err((Damage::Value, what))
}

/// Lengths of what has passed its limits, all of them far below 4 GiB.
pub(super) fn len_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
