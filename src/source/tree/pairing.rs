//! Which directory of the new tree is which one of the old tree.
//!
//! Two directories that are one are walked beside each other: what stands at the same name in both and is the same thing is
//! kept, and is not remembered. What is left is loose. A loose directory that is found on the other side is walked beside it
//! in turn; only when none is found any more, loose directories are listed, a level at a time.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::iter::Peekable;
use std::vec::IntoIter;

use super::loose::Loose;
use super::seen::{Identity, Seen};
use super::side::Side;
use crate::format::{Name, TreePath};
use crate::host::tree::Dir;
use crate::state::Fault;

/// Somebody who knows of directories below which nothing differs.
pub trait Skip {
    /// These two are one directory, at the same path in both trees, and nothing below it differs: it need not be looked at.
    fn is_same_below(&mut self, path: &TreePath, old: &Dir, new: &Dir) -> Result<bool, Fault>;
}

/// Nobody knows.
impl Skip for () {
    fn is_same_below(&mut self, _: &TreePath, _: &Dir, _: &Dir) -> Result<bool, Fault> {
        Ok(false)
    }
}

/// The two trees, and what is known of them so far.
pub(super) struct Pairing<'a> {
    sides: (&'a Side, &'a Side),
    identity: &'a Identity,
    skip: &'a mut dyn Skip,
    /// Directories that were not walked over.
    pub skipped: HashSet<TreePath>,
    pub old: Loose,
    pub new: Loose,
    /// Where directories of the new tree were taken from, and where those of the old tree went.
    pub from: HashMap<TreePath, TreePath>,
    pub to: HashMap<TreePath, TreePath>,
    /// Identities of directories that became loose.
    fresh: Vec<u64>,
}

/// Two directories that are one, open.
struct Pair {
    old: (TreePath, Dir, Peekable<IntoIter<Name>>),
    new: (TreePath, Dir, Peekable<IntoIter<Name>>),
}

impl<'a> Pairing<'a> {
    pub fn new(old: &'a Side, new: &'a Side, identity: &'a Identity, skip: &'a mut dyn Skip) -> Result<Pairing<'a>, Fault> {
        let (from, to) = (HashMap::new(), HashMap::new());
        let (sides, fresh) = ((old, new), Vec::new());
        let (skipped, loose) = (HashSet::new(), Loose::default);
        let mut pairing = Pairing { sides, identity, skip, skipped, old: loose(), new: loose(), from, to, fresh };
        pairing.walk(TreePath::ROOT, TreePath::ROOT)?;
        loop {
            while let Some((old, new)) = pairing.found() {
                pairing.from.insert(new.clone(), old.clone());
                pairing.to.insert(old.clone(), new.clone());
                pairing.walk(old, new)?;
            }
            if !pairing.list_a_level()? {
                break;
            }
        }
        if !identity.is_path() {
            pairing.keep_by_place()?;
        }
        Ok(pairing)
    }

    /// Which directory of the old tree stood here; `None`: the one that stands here is new.
    pub fn old_directory(&self, new: &[Name]) -> Option<TreePath> {
        let mut way = Vec::with_capacity(new.len());
        let mut old = Some(TreePath::ROOT);
        for name in new {
            way.push(name.clone());
            let here = TreePath::new(way.clone())?;
            old = match self.from.get(&here) {
                // Also into a directory that is new.
                Some(from) => Some(from.clone()),
                None if self.new.get(&here).is_some() => None,
                None => old.and_then(|old| old.join(name.clone())),
            };
        }
        old
    }

    /// What stood in the same directory under the same name.
    pub fn old_place(&self, new: &TreePath) -> Option<TreePath> {
        let (parents, name) = new.split()?;
        self.old_directory(parents)?.join(name.clone())
    }

    /// A loose directory of the old tree that is one of the new tree.
    fn found(&mut self) -> Option<(TreePath, TreePath)> {
        if self.identity.is_path() {
            return None;
        }
        while let Some(id) = self.fresh.pop() {
            let old = self.old.directories(id).find(|path| !self.to.contains_key(*path));
            let new = self.new.directories(id).find(|path| !self.from.contains_key(*path));
            if let (Some(old), Some(new)) = (old, new) {
                let pair = (old.clone(), new.clone());
                // Numbers should not be there twice; if they are, there may be another.
                self.fresh.push(id);
                return Some(pair);
            }
        }
        None
    }

    /// Walks over two directories that are one, and those in them that are one, too.
    fn walk(&mut self, old: TreePath, new: TreePath) -> Result<(), Fault> {
        let dirs = (self.sides.0.open_at(old.names())?, self.sides.1.open_at(new.names())?);
        let mut way = vec![Pair::new(self.sides, (old, dirs.0), (new, dirs.1))?];
        while let Some(pair) = way.last_mut() {
            let Some((name, in_old, in_new)) = pair.next() else {
                way.pop();
                continue;
            };
            let old = if in_old { Seen::of_old(self.sides.0, &pair.old.1, &name)? } else { None };
            let new = if in_new { Seen::of_new(self.sides.1, &pair.new.1, &name, self.identity)? } else { None };
            let paths = (self.sides.0.join(&pair.old.0, &name)?, self.sides.1.join(&pair.new.0, &name)?);
            if self.decide((&paths.0, old), (&paths.1, new)) {
                let dirs = (pair.old.1.open(&name)?, pair.new.1.open(&name)?);
                if paths.0 == paths.1 && self.skip.is_same_below(&paths.1, &dirs.0, &dirs.1)? {
                    self.skipped.insert(paths.1);
                } else {
                    way.push(Pair::new(self.sides, (paths.0, dirs.0), (paths.1, dirs.1))?);
                }
            }
        }
        Ok(())
    }

    /// Decides about one name in both. Whether it is a directory that stands where it stood, and has to be walked over.
    fn decide(&mut self, (old_path, old): (&TreePath, Option<Seen>), (new_path, new): (&TreePath, Option<Seen>)) -> bool {
        let (Some(was), Some(is)) = (old, new) else {
            if let Some(was) = old {
                self.loosen_old(old_path, was);
            }
            if let Some(is) = new {
                self.loosen_new(new_path, is);
            }
            return false;
        };
        if self.from.get(new_path) == Some(old_path) {
            // Taken out of a directory and put back into it, as it seemed before the directory itself was found.
            self.from.remove(new_path);
            self.to.remove(old_path);
            self.keep(old_path, new_path);
            return false;
        }
        let is_elsewhere = self.from.contains_key(new_path) || self.to.contains_key(old_path);
        let is_same = was.sort == is.sort && (self.identity.is_path() || was.id == is.id) && !is_elsewhere;
        if is_same && (is.is_directory() || was.links.max(is.links) < 2) {
            self.keep(old_path, new_path);
            return is.is_directory();
        }
        self.loosen_old(old_path, was);
        self.loosen_new(new_path, is);
        false
    }

    fn keep(&mut self, old: &TreePath, new: &TreePath) {
        self.old.remove(old);
        self.new.remove(new);
    }

    fn loosen_old(&mut self, path: &TreePath, seen: Seen) {
        if self.old.insert(path.clone(), seen) && seen.is_directory() {
            self.fresh.push(seen.id);
        }
    }

    fn loosen_new(&mut self, path: &TreePath, seen: Seen) {
        if self.new.insert(path.clone(), seen) && seen.is_directory() {
            self.fresh.push(seen.id);
        }
    }

    /// Lists what is in directories that were not found on the other side. Whether there were any.
    fn list_a_level(&mut self) -> Result<bool, Fault> {
        let (old, new) = (self.old.take_unlisted(), self.new.take_unlisted());
        let mut listed = false;
        for path in old.into_iter().filter(|path| !self.to.contains_key(path)).collect::<Vec<_>>() {
            listed = true;
            let mut dir = self.sides.0.open_at(path.names())?;
            for name in dir.names()? {
                if let Some(seen) = Seen::of_old(self.sides.0, &dir, &name)?.filter(|seen| self.matters(seen)) {
                    self.loosen_old(&self.sides.0.join(&path, &name)?, seen);
                }
            }
        }
        for path in new.into_iter().filter(|path| !self.from.contains_key(path)).collect::<Vec<_>>() {
            listed = true;
            let mut dir = self.sides.1.open_at(path.names())?;
            for name in self.sides.1.list(&path, &mut dir)? {
                if let Some(seen) = Seen::of_new(self.sides.1, &dir, &name, self.identity)?.filter(|seen| self.matters(seen)) {
                    self.loosen_new(&self.sides.1.join(&path, &name)?, seen);
                }
            }
        }
        Ok(listed)
    }

    /// It could be found again. By path nothing is, but for other names.
    fn matters(&self, seen: &Seen) -> bool {
        !self.identity.is_path() || seen.is_directory() || seen.links > 1
    }

    /// A directory that is nowhere any more, and one that was nowhere before and stands in its place: one that was made anew.
    fn keep_by_place(&mut self) -> Result<(), Fault> {
        let new: Vec<TreePath> = self.new.iter().filter(|(_, seen)| seen.is_directory()).map(|(path, _)| path.clone()).collect();
        // In order: a directory comes before what is in it.
        for path in new {
            let is_loose = self.new.get(&path).is_some() && !self.from.contains_key(&path);
            let Some(place) = self.old_place(&path).filter(|_| is_loose) else { continue };
            if self.old.get(&place).is_some_and(Seen::is_directory) && !self.to.contains_key(&place) {
                self.keep(&place, &path);
                self.walk(place, path)?;
            }
        }
        Ok(())
    }
}

impl Pair {
    fn new(
        sides: (&Side, &Side),
        (old, mut old_dir): (TreePath, Dir),
        (new, mut new_dir): (TreePath, Dir),
    ) -> Result<Pair, Fault> {
        let (old_names, new_names) = (sides.0.list(&old, &mut old_dir)?, sides.1.list(&new, &mut new_dir)?);
        let peekable = |names: Vec<Name>| names.into_iter().peekable();
        Ok(Pair { old: (old, old_dir, peekable(old_names)), new: (new, new_dir, peekable(new_names)) })
    }

    /// The next name, and in which of them it is.
    fn next(&mut self) -> Option<(Name, bool, bool)> {
        let order = match (self.old.2.peek(), self.new.2.peek()) {
            (Some(old), Some(new)) => old.cmp(new),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let (in_old, in_new) = (order.is_le(), order.is_ge());
        let old = if in_old { self.old.2.next() } else { None };
        let new = if in_new { self.new.2.next() } else { None };
        Some((old.or(new)?, in_old, in_new))
    }
}
