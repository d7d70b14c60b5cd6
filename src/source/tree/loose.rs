//! What of a tree does not simply stand where it stood, or has more than one name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::seen::Seen;
use crate::format::TreePath;

/// Names in one of the two trees that have to be decided about.
#[derive(Default)]
pub(super) struct Loose {
    at: BTreeMap<TreePath, Seen>,
    /// Directories among them, by identity.
    directories: HashMap<u64, BTreeSet<TreePath>>,
    /// Directories whose inside was not looked at.
    unlisted: Vec<TreePath>,
}

impl Loose {
    /// Whether this is news.
    pub fn insert(&mut self, path: TreePath, seen: Seen) -> bool {
        if self.at.insert(path.clone(), seen).is_some() {
            return false;
        }
        if seen.is_directory() {
            self.directories.entry(seen.id).or_default().insert(path.clone());
            self.unlisted.push(path);
        }
        true
    }

    /// It stands where it stood.
    pub fn remove(&mut self, path: &TreePath) {
        if let Some(seen) = self.at.remove(path)
            && let Some(paths) = self.directories.get_mut(&seen.id)
        {
            paths.remove(path);
        }
    }

    pub fn get(&self, path: &TreePath) -> Option<&Seen> {
        self.at.get(path)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Seen)> {
        self.at.iter()
    }

    /// The directories of this identity.
    pub fn directories(&self, id: u64) -> impl Iterator<Item = &TreePath> {
        self.directories.get(&id).into_iter().flatten()
    }

    /// Directories that were not asked for before, and are still loose.
    pub fn take_unlisted(&mut self) -> Vec<TreePath> {
        let mut unlisted = std::mem::take(&mut self.unlisted);
        unlisted.retain(|path| self.at.contains_key(path));
        unlisted
    }
}
