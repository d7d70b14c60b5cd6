//! Whether a tree stayed what it was, from its names, numbers and times alone.

use super::side::Side;
use crate::format::{Name, TreePath};
use crate::host::tree::{Dir, Kind, Meta};
use crate::state::Fault;

/// A sum over all that stands in a tree, in whatever order. Two of them are equal as long as nobody changes anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::source) struct Census(pub u128);

impl Census {
    /// `inode` and `device` identify the thing: as long as it is looked at so.
    pub fn add(&mut self, path: &TreePath, meta: &Meta, (inode, device): (u64, u64)) {
        let mut hash = blake3::Hasher::new();
        hash.update(&path.joined());
        let times = [meta.modified, meta.changed];
        for number in times.iter().flat_map(|time| [time.seconds.cast_unsigned(), u64::from(time.nanoseconds)]) {
            hash.update(&number.to_le_bytes());
        }
        for number in [inode, device, u64::from(meta.mode)] {
            hash.update(&number.to_le_bytes());
        }
        let mut sum = [0; 16];
        hash.finalize_xof().fill(&mut sum);
        self.0 = self.0.wrapping_add(u128::from_le_bytes(sum));
    }

    /// Refuses a tree of which it is not the sum any more.
    pub(super) fn confirm(self, side: &Side) -> Result<(), Fault> {
        if Census::of(side)? == self { Ok(()) } else { Err(side.changed(&TreePath::ROOT, "changed")) }
    }

    /// Of a whole tree, by walking it.
    pub(super) fn of(side: &Side) -> Result<Census, Fault> {
        let mut census = Census::default();
        let root = side.root()?.meta;
        census.add(&TreePath::ROOT, &root, side.numbers(&root));
        let mut way = vec![listed(TreePath::ROOT, side.open_at(&[])?)?];
        while let Some((path, dir, names)) = way.last_mut() {
            let Some(name) = names.next() else {
                way.pop();
                continue;
            };
            let Some(meta) = side.look(dir, &name)? else { continue };
            let at = side.join(path, &name)?;
            census.add(&at, &meta, side.numbers(&meta));
            if meta.kind == Kind::Directory {
                let inside = listed(at, dir.open(&name)?)?;
                way.push(inside);
            }
        }
        Ok(census)
    }
}

/// An open directory, and the names in it that were not looked at yet.
type Listed = (TreePath, Dir, std::vec::IntoIter<Name>);

fn listed(path: TreePath, mut dir: Dir) -> Result<Listed, Fault> {
    let names = dir.names()?.into_iter();
    Ok((path, dir, names))
}
