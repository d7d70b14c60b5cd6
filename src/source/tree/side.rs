//! A tree that is being read, and what stands at a name in it.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::rc::Rc;

use crate::format::{Attributes, Entry, Id, Name, Node, Origin, Pool, Time, TreePath, wire};
use crate::host::holes::trustworthy;
use crate::host::tree::{Dir, Kind, Meta, ceph_inode, file_xattrs};
use crate::state::{Class, Fault, cephfs_state};

use super::content::Content;
use super::listings::Listings;

/// Bytes read at once: what one DATA extent holds at most.
pub(super) const CHUNK: usize = 1 << 20;

/// A tree, held open at its root.
pub(super) struct Side {
    root: Dir,
    /// When, if it is a snapshot on CephFS. Another one can have its name and its inode later.
    taken: Option<Time>,
    path: Rc<Path>,
    /// It may change meanwhile.
    live: bool,
    /// What is mounted in it is left out; else it is refused.
    one_file_system: bool,
    trusts_holes: OnceCell<bool>,
    pool: Pool,
    /// Of a tree that does not change: what its directories hold.
    listings: Option<RefCell<Listings>>,
}

/// Where something stands, for people. Spelled out only when something is to be said of it.
pub(super) struct Shown {
    root: Rc<Path>,
    path: TreePath,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = self.root.display();
        if self.path.names().is_empty() { write!(f, "{root}") } else { write!(f, "{root}/{}", self.path) }
    }
}

/// What stands at a name.
pub(super) struct Found {
    pub meta: Meta,
    pub node: Node,
    pub attributes: Attributes,
    /// Open, where it is a directory.
    pub dir: Option<Dir>,
    /// Open, where it is a file and that was asked for.
    pub file: Option<File>,
}

impl Found {
    /// As a stream says it.
    pub fn entry(&self, path: TreePath, origin: Origin) -> Entry {
        Entry { path, origin, node: self.node.clone(), attributes: self.attributes.clone() }
    }

    /// The same since what it was before.
    pub fn entry_since(&self, path: TreePath, origin: Origin, old: Option<&Found>) -> Entry {
        let mut entry = self.entry(path, origin);
        if let (Node::File { old_size, .. }, Some(old)) = (&mut entry.node, old) {
            *old_size = old.meta.size;
        }
        entry
    }

    /// All but the content tells that it changed.
    pub fn differs(&self, old: &Found) -> bool {
        self.node != old.node || self.attributes != old.attributes
    }
}

impl Side {
    pub fn open(path: &Path, live: bool, one_file_system: bool) -> Result<Side, Fault> {
        let root = Dir::root_to_read(path, false)?;
        let taken = root.snapshot_taken()?;
        Ok(Side {
            root,
            taken,
            path: path.into(),
            live,
            one_file_system,
            trusts_holes: OnceCell::new(),
            pool: Pool::new(CHUNK),
            listings: None,
        })
    }

    /// A snapshot, which does not change: its directories need not be listed twice.
    pub fn snapshot(path: &Path) -> Result<Side, Fault> {
        Ok(Side { listings: Some(RefCell::default()), ..Side::open(path, false, false)? })
    }

    /// Inode and device. A snapshot on CephFS has numbers that do not depend on who shows it.
    pub fn numbers(&self, meta: &Meta) -> (u64, u64) {
        if self.taken.is_some() { (ceph_inode(meta.inode), 0) } else { (meta.inode, meta.device) }
    }

    /// The inode of the root, as CephFS knows it.
    pub fn ceph_root(&self) -> Result<u64, Fault> {
        Ok(ceph_inode(self.root.meta()?.inode))
    }

    /// What identifies it, if it is a snapshot on CephFS.
    pub fn cephfs_state(&self) -> Result<Option<Id>, Fault> {
        let Some((taken, fsid)) = self.taken.zip(self.root.cluster_fsid()?) else { return Ok(None) };
        Ok(Some(cephfs_state(&fsid, self.ceph_root()?, taken)))
    }

    /// Somebody could change it, and must not.
    pub fn may_change(&self) -> Result<bool, Fault> {
        Ok(!self.live && self.taken.is_none() && !self.root.is_read_only()?)
    }

    pub fn is_live(&self) -> bool {
        self.live
    }

    /// The root itself.
    pub fn root(&self) -> Result<Found, Fault> {
        self.directory(self.root.again()?)
    }

    /// The directory at this path.
    pub fn open_at(&self, names: &[Name]) -> Result<Dir, Fault> {
        let Some((first, rest)) = names.split_first() else { return self.root.again() };
        rest.iter().try_fold(self.root.open(first)?, |dir, name| dir.open(name))
    }

    /// What stands at a name that was listed. `None`: it is left out, or is there no more and may change.
    pub fn look(&self, dir: &Dir, name: &Name) -> Result<Option<Meta>, Fault> {
        match dir.look(name)? {
            Some(meta) if !meta.is_mount => Ok(Some(meta)),
            Some(_) if self.one_file_system => Ok(None),
            // Says where.
            Some(_) => Err(dir
                .open(name)
                .err()
                .filter(|fault| fault.class == Class::Mounted)
                .unwrap_or_else(|| mounted(name))
                .hint("--one-file-system leaves out what is mounted in the tree")),
            None if self.live => Ok(None),
            None => Err(changed(&dir.spell(name), "vanished")),
        }
    }

    /// All of what stands at a name. `open`: a file's content will be read. `None`: it changed meanwhile, and may.
    pub fn find(&self, dir: &Dir, name: &Name, meta: Meta, open: bool) -> Result<Option<Found>, Fault> {
        match self.read(dir, name, meta, open) {
            Ok(found) if self.live || is_untouched(&found.meta, &meta) => Ok(Some(found)),
            Ok(_) => Err(changed(&dir.spell(name), "changed")),
            Err(fault) if self.live && matches!(fault.class, Class::NotFound | Class::Vanished | Class::Changed) => Ok(None),
            Err(fault) if fault.class == Class::NotFound => Err(changed(&dir.spell(name), "vanished")),
            Err(fault) => Err(fault),
        }
    }

    fn read(&self, dir: &Dir, name: &Name, meta: Meta, open: bool) -> Result<Found, Fault> {
        match meta.kind {
            Kind::Directory => self.directory(dir.open(name)?),
            Kind::File if open => {
                let (file, meta) = dir.open_file(name)?;
                let attributes = meta.attributes(file_xattrs(&file)?);
                Ok(Found { meta, node: meta.node(None), attributes, dir: None, file: Some(file) })
            }
            kind => {
                let target = (kind == Kind::Symlink).then(|| dir.read_link(name)).transpose()?;
                let attributes = meta.attributes(dir.xattrs(name)?);
                Ok(Found { meta, node: meta.node(target), attributes, dir: None, file: None })
            }
        }
    }

    fn directory(&self, dir: Dir) -> Result<Found, Fault> {
        let meta = dir.meta()?;
        Ok(Found { meta, node: Node::Directory, attributes: meta.attributes(dir.own_xattrs()?), dir: Some(dir), file: None })
    }

    /// The names in a directory, on a first walk over the tree.
    pub fn list(&self, path: &TreePath, dir: &mut Dir) -> Result<Vec<Name>, Fault> {
        let names = dir.names()?;
        if let Some(listings) = &self.listings {
            listings.borrow_mut().keep(path, &names);
        }
        Ok(names)
    }

    /// The same on the second.
    pub fn list_again(&self, path: &TreePath, dir: &mut Dir) -> Result<Vec<Name>, Fault> {
        let kept = self.listings.as_ref().and_then(|listings| listings.borrow_mut().take(path));
        kept.map_or_else(|| dir.names(), Ok)
    }

    /// Where a name in a directory of the tree leads.
    pub fn join(&self, path: &TreePath, name: &Name) -> Result<TreePath, Fault> {
        path.join(name.clone()).ok_or_else(|| {
            let shown = format!("{}/{}", self.shown(path), name.as_bytes().escape_ascii());
            let most = (wire::LIMIT_DEPTH, wire::LIMIT_PATH);
            Fault::new(Class::Unsupported, format!("{shown} is deeper than {} names or longer than {} bytes", most.0, most.1))
        })
    }

    /// Refuses what no frame can hold.
    pub fn fits(&self, path: &TreePath, found: &Found) -> Result<(), Fault> {
        let xattrs = found.attributes.xattrs.iter().map(|(name, value)| name.len() + value.len() + 6);
        let names = path.names().iter().map(|name| name.as_bytes().len() + 1);
        let most = wire::DEFAULT_MAX_PAYLOAD as usize;
        if xattrs.sum::<usize>() + names.sum::<usize>() + 64 + wire::LIMIT_LINK <= most {
            return Ok(());
        }
        Err(Fault::new(Class::Unsupported, format!("{} has more extended attributes than a stream can carry", self.shown(path))))
    }

    /// The content of a file that was found open.
    pub fn content(&self, path: &TreePath, found: Found) -> Result<Option<Content>, Fault> {
        let Some(file) = found.file else { return Ok(None) };
        let trusted = match self.trusts_holes.get() {
            Some(trusted) => *trusted,
            None => {
                let answer = trustworthy(&file).map_err(|error| Fault::io(self.shown(path), &error))?;
                *self.trusts_holes.get_or_init(|| answer)
            }
        };
        Ok(Some(Content::new(file, &found.meta, self.shown(path), trusted, self.live, self.pool.clone())))
    }

    /// Looks once more at what was read.
    pub fn unchanged(&self, dir: &Dir, name: &Name, path: &TreePath, before: &Meta) -> Result<(), Fault> {
        match dir.look(name)? {
            _ if self.live => Ok(()),
            Some(now) if is_untouched(&now, before) => Ok(()),
            Some(_) => Err(self.changed(path, "changed")),
            None => Err(self.changed(path, "vanished")),
        }
    }

    /// The same for a directory that is left.
    pub fn directory_unchanged(&self, dir: &Dir, path: &TreePath, before: &Meta) -> Result<(), Fault> {
        let is_same = self.live || is_untouched(&dir.meta()?, before);
        if is_same { Ok(()) } else { Err(self.changed(path, "changed")) }
    }

    /// The tree's own name still stands for it.
    pub fn root_unchanged(&self) -> Result<(), Fault> {
        let again = Dir::root_to_read(&self.path, false)?;
        let is_same = again.meta()?.is_same(&self.root.meta()?) && again.snapshot_taken()? == self.taken;
        if self.live || is_same { Ok(()) } else { Err(self.changed(&TreePath::ROOT, "changed")) }
    }

    pub fn changed(&self, path: &TreePath, how: &str) -> Fault {
        changed(&self.shown(path).to_string(), how)
    }

    fn shown(&self, path: &TreePath) -> Shown {
        Shown { root: self.path.clone(), path: path.clone() }
    }
}

fn changed(shown: &str, how: &str) -> Fault {
    let class = if how == "vanished" { Class::Vanished } else { Class::Changed };
    Fault::new(class, format!("{shown} {how} while it was read"))
        .hint("send a snapshot, or a tree that nobody writes to")
        .hint("--live sends it as it is; what comes out has no state to go on from")
}

fn mounted(name: &Name) -> Fault {
    Fault::new(Class::Mounted, format!("something is mounted at {}", name.as_bytes().escape_ascii()))
}

/// Two looks at one name found one thing that nobody had changed. (The room that it takes may change later, and of directories
/// some file systems call something else their size.)
pub(super) fn is_untouched(a: &Meta, b: &Meta) -> bool {
    a.is_same(b) && is_as_old(a, b)
}

/// The same size and times.
pub(super) fn is_as_old(a: &Meta, b: &Meta) -> bool {
    (a.kind == Kind::Directory || a.size == b.size) && (a.modified, a.changed) == (b.modified, b.changed)
}
