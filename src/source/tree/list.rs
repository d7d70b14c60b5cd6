//! What changed between two trees, without the content of files: what cephfs-changed says.

use std::path::Path;

use super::Skip;
use super::census::Census;
use super::plan::Plan;
use super::seen::{Identity, TreeIdentity};
use super::side::{Side, is_as_old};
use super::since::{Compared, Since};
use super::walk::Walk;
use crate::format::{Time, TreeChange, TreePath};
use crate::host::limits;
use crate::host::tree::{Meta, ceph_inode};
use crate::state::Fault;

/// When a file that looks as it did may hold something else.
#[derive(Clone, Copy, Debug)]
pub struct Doubt {
    /// Its change time is later than this: whoever sets times to the future, or has a clock that is ahead, leaves them there while
    /// others write.
    pub since: Time,
}

impl Doubt {
    /// Of a file in two snapshots.
    pub fn of(self, old: &Meta, new: &Meta) -> bool {
        !is_as_old(old, new) || new.changed > self.since
    }
}

/// A thing that is new, or looks otherwise than it did.
pub struct Looked {
    /// Where it stands.
    pub path: TreePath,
    /// What it was, perhaps elsewhere; or what stood in its place, if its content was taken for that of the other.
    pub old: Option<Meta>,
    /// What it is.
    pub new: Meta,
}

/// What a walk passed.
pub struct Passed {
    /// The names, in order, of what has several, and what that is.
    pub linked: Vec<(TreePath, Meta)>,
    /// A sum over all of it.
    pub(in crate::source) census: Census,
}

/// It looks as it did, and is the same.
pub(super) fn looks_as_old(old: &Meta, new: &Meta) -> bool {
    is_as_old(old, new) && ceph_inode(old.inode) == ceph_inode(new.inode)
}

/// A walk over two snapshots of one tree, or over one of them.
pub struct TreeList {
    walk: Walk,
}

impl TreeList {
    /// All that is in a tree.
    pub fn whole(new: &Path) -> Result<TreeList, Fault> {
        limits::many_open_files();
        Ok(TreeList::of(Side::open(new, false, false)?, None))
    }

    /// What differs, or may differ, between two snapshots of one directory; `skip` says where nothing does.
    pub fn since(old: &Path, new: &Path, doubt: Doubt, skip: &mut dyn Skip) -> Result<TreeList, Fault> {
        limits::many_open_files();
        let (old, side) = (Side::snapshot(old)?, Side::snapshot(new)?);
        let identity = Identity::new(TreeIdentity::Inode, &old.root()?.meta, &side.root()?.meta);
        let plan = Plan::new(&old, &side, &identity, skip)?;
        let since = Since { side: old, identity, plan, content: Compared::Doubt(doubt), census: None };
        Ok(TreeList::of(side, Some(since)))
    }

    fn of(side: Side, since: Option<Since>) -> TreeList {
        let mut walk = Walk::new(side, since, false);
        (walk.reads, walk.linked, walk.census) = (false, Some(Vec::new()), Some(Census::default()));
        TreeList { walk }
    }

    /// The next change; `None` at the end. None is an extent.
    pub fn change(&mut self) -> Result<Option<TreeChange>, Fault> {
        self.walk.change()
    }

    /// From now on what looks otherwise is remembered, for [`TreeList::looked`].
    pub fn remember_looks(&mut self) {
        self.walk.looked = Some(Vec::new());
    }

    /// What looks otherwise, of what was passed since this was asked last.
    pub fn looked(&mut self) -> Vec<Looked> {
        self.walk.looked.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// After the last change.
    pub fn finish(mut self) -> Result<Passed, Fault> {
        self.walk.finish()?;
        Ok(Passed { linked: self.walk.linked.take().unwrap_or_default(), census: self.walk.census.unwrap_or_default() })
    }

    /// Whether the root of each tree is this directory of CephFS.
    pub fn is_of(&self, inode: u64) -> Result<bool, Fault> {
        self.walk.sides().try_fold(true, |is, side| Ok(is && side.ceph_root()? == inode))
    }
}
