//! What makes a thing this one.

use std::collections::HashMap;

use crate::format::Name;
use crate::host::tree::{Dir, Kind, Meta};
use crate::state::Fault;

use super::side::Side;

/// Inode numbers of a snapshot and of its directory agree in these bits on CephFS; ceph-fuse has the snapshot in the others.
const INODE: u64 = (1 << 48) - 1;

/// What tells that a thing of the new tree is one of the old tree.
///
/// Whatever it says, an increment leads to the new tree: it decides only what is sent as moved or kept.
#[derive(Clone, Debug, Default)]
pub enum TreeIdentity {
    /// Inode numbers, if the two trees are snapshots of one file system by the numbers of their roots; else paths.
    #[default]
    Guess,
    /// The lower 48 bits of inode numbers.
    Inode,
    /// The path, for all that is of the same kind.
    Path,
    /// Inode numbers, those of the new tree by this table.
    Table(HashMap<u64, u64>),
}

/// [`TreeIdentity`] without the guess.
pub(super) enum Identity {
    Path,
    Inode,
    Table(HashMap<u64, u64>),
}

impl Identity {
    pub fn new(wanted: TreeIdentity, old: &Meta, new: &Meta) -> Identity {
        let of_one_file_system = old.inode & INODE == new.inode & INODE && !old.is_same(new);
        match wanted {
            TreeIdentity::Guess if of_one_file_system => Identity::Inode,
            TreeIdentity::Guess | TreeIdentity::Path => Identity::Path,
            TreeIdentity::Inode => Identity::Inode,
            TreeIdentity::Table(table) => Identity::Table(table),
        }
    }

    pub fn is_path(&self) -> bool {
        matches!(self, Identity::Path)
    }

    /// Both are snapshots of one thing of one file system.
    pub fn same_inode(&self, old: &Meta, new: &Meta) -> bool {
        matches!(self, Identity::Inode) && old.inode & INODE == new.inode & INODE
    }

    fn of_new(&self, inode: u64) -> u64 {
        match self {
            Identity::Path | Identity::Inode => inode & INODE,
            Identity::Table(table) => table.get(&inode).copied().unwrap_or(inode | INODE << 16),
        }
    }
}

/// A thing that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Which one it is in its tree: device and inode.
    pub key: (u64, u64),
    /// Which one it is in both.
    pub id: u64,
    pub sort: Sort,
    pub links: u64,
}

/// What a thing cannot change while it stays this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sort {
    pub kind: Kind,
    /// A device's numbers, or a digest of where a symbolic link points: neither can be set.
    detail: u64,
}

impl Seen {
    pub fn is_directory(&self) -> bool {
        self.sort.kind == Kind::Directory
    }

    /// What stands at a name of the old tree. `None`: it is left out, or there no more.
    pub fn of_old(side: &Side, dir: &Dir, name: &Name) -> Result<Option<Seen>, Fault> {
        Seen::of(side, dir, name, |inode| inode & INODE)
    }

    /// The same for the new tree.
    pub fn of_new(side: &Side, dir: &Dir, name: &Name, identity: &Identity) -> Result<Option<Seen>, Fault> {
        Seen::of(side, dir, name, |inode| identity.of_new(inode))
    }

    fn of(side: &Side, dir: &Dir, name: &Name, id: impl Fn(u64) -> u64) -> Result<Option<Seen>, Fault> {
        let Some(meta) = side.look(dir, name)? else { return Ok(None) };
        let detail = match meta.kind {
            Kind::Symlink => digest(&dir.read_link(name)?),
            Kind::CharacterDevice | Kind::BlockDevice => u64::from(meta.major) << 32 | u64::from(meta.minor),
            Kind::File | Kind::Directory | Kind::Fifo | Kind::Socket => 0,
        };
        let sort = Sort { kind: meta.kind, detail };
        Ok(Some(Seen { key: (meta.device, meta.inode), id: id(meta.inode), sort, links: meta.links }))
    }
}

fn digest(target: &[u8]) -> u64 {
    let mut first = [0; 8];
    blake3::Hasher::new().update(target).finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}
