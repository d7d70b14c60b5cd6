//! Things with more than one name, on a walk over a tree.

use std::collections::HashMap;

use crate::format::TreePath;
use crate::host::tree::{Kind, Meta};

/// The first name of each thing that has others which were not seen yet.
#[derive(Default)]
pub(super) struct FirstNames(HashMap<(u64, u64), (TreePath, u64)>);

impl FirstNames {
    /// This stands at this path, which comes behind all before: the first name of the same thing, if this is another.
    pub fn of(&mut self, path: &TreePath, meta: &Meta) -> Option<TreePath> {
        if meta.kind == Kind::Directory || meta.links < 2 {
            return None;
        }
        let key = (meta.device, meta.inode);
        let Some((first, left)) = self.0.get_mut(&key) else {
            self.0.insert(key, (path.clone(), meta.links - 1));
            return None;
        };
        let first = first.clone();
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.0.remove(&key);
        }
        Some(first)
    }
}
