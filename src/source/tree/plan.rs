//! What has to be said of names, before any of it is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::pairing::{Pairing, Skip};
use super::seen::{Identity, Seen};
use super::side::Side;
use super::things::{Fate, Things};
use crate::format::{Name, TreePath};
use crate::host::tree::Meta;
use crate::state::Fault;

/// How the names of the old tree become those of the new one.
#[derive(Default)]
pub(super) struct Plan {
    /// What stands at a path no more; a number: it is taken.
    pub gone: BTreeMap<TreePath, Option<u64>>,
    /// Names of which that is so, also where it is not said, by the directory of the old tree.
    pub left: HashMap<TreePath, BTreeSet<Name>>,
    /// What is to be said of names, by the directory of the new tree. Of the others: in a directory that is new they are new,
    /// else they are kept.
    pub names: HashMap<TreePath, HashMap<Name, Planned>>,
    /// Directories below which nothing differs.
    pub skipped: HashSet<TreePath>,
    /// Names in them, or outside of the trees, may be other names of what is planned here.
    pub is_torn: bool,
}

/// What is to be said of a name.
pub(super) struct Planned {
    /// What stood there when that was found out.
    pub seen: Seen,
    pub what: What,
}

impl Planned {
    /// What stands there is still the same.
    pub fn fits(&self, meta: &Meta) -> bool {
        self.seen.key == (meta.device, meta.inode) && self.seen.sort.kind == meta.kind
    }
}

pub(super) enum What {
    New,
    /// It stood at this path of the old tree.
    Taken {
        number: u64,
        old: TreePath,
    },
    /// It is kept, and has other names.
    Kept,
    /// Another name of what is kept, and kept as well.
    KeptToo,
    /// Another name of what stands at this path.
    Link {
        to: TreePath,
    },
}

impl Plan {
    pub fn new(old: &Side, new: &Side, identity: &Identity, skip: &mut dyn Skip) -> Result<Plan, Fault> {
        let mut pairing = Pairing::new(old, new, identity, skip)?;
        let mut plan = Plan { skipped: std::mem::take(&mut pairing.skipped), ..Plan::default() };
        let mut taken = BTreeMap::new();
        plan.directories(&pairing, &mut taken);
        let things = Things::new(&pairing, identity);
        plan.is_torn = things.is_torn();
        things.decide(&pairing, &mut |fate| plan.put(&pairing, fate, &mut taken));
        plan.say_gone(&pairing, &taken);
        Ok(plan)
    }

    /// Whether a name in this directory comes, goes or is replaced.
    pub fn touches(&self, old: Option<&TreePath>, new: &TreePath) -> bool {
        let comes = |planned: &Planned| !matches!(planned.what, What::Kept | What::KeptToo);
        self.names.get(new).is_some_and(|names| names.values().any(comes)) || old.is_some_and(|old| self.left.contains_key(old))
    }

    fn directories(&mut self, pairing: &Pairing<'_>, taken: &mut BTreeMap<TreePath, TreePath>) {
        for (path, _) in pairing.old.iter().filter(|(_, seen)| seen.is_directory()) {
            self.leaves(path);
            if let Some(to) = pairing.to.get(path) {
                taken.insert(path.clone(), to.clone());
            }
        }
        for (path, seen) in pairing.new.iter().filter(|(_, seen)| seen.is_directory()) {
            match pairing.from.get(path) {
                Some(old) => self.says(path, *seen, What::Taken { number: 0, old: old.clone() }),
                None => self.says_new(pairing, path, *seen),
            }
        }
    }

    fn put(&mut self, pairing: &Pairing<'_>, fate: Fate, taken: &mut BTreeMap<TreePath, TreePath>) {
        match fate {
            Fate::Gone(path) => self.leaves(&path),
            Fate::New(path, seen) => self.says_new(pairing, &path, seen),
            Fate::Kept(path, seen) => self.says(&path, seen, What::Kept),
            Fate::KeptToo(path, seen) => self.says(&path, seen, What::KeptToo),
            Fate::Link(path, seen, to) => self.says(&path, seen, What::Link { to }),
            Fate::Taken(path, seen, old) => {
                self.leaves(&old);
                taken.insert(old.clone(), path.clone());
                self.says(&path, seen, What::Taken { number: 0, old });
            }
        }
    }

    fn leaves(&mut self, path: &TreePath) {
        if let Some((directory, name)) = parent(path) {
            self.left.entry(directory).or_default().insert(name);
        }
    }

    fn says(&mut self, path: &TreePath, seen: Seen, what: What) {
        if let Some((directory, name)) = parent(path) {
            self.names.entry(directory).or_default().insert(name, Planned { seen, what });
        }
    }

    /// In a new directory it goes without saying, unless it has other names.
    fn says_new(&mut self, pairing: &Pairing<'_>, path: &TreePath, seen: Seen) {
        if !seen.is_directory() && seen.links > 1 || pairing.old_place(path).is_some() {
            self.says(path, seen, What::New);
        }
    }

    /// What is in a directory that is gone is not said, unless it is taken. Numbers ascend in the order in which it is said.
    fn say_gone(&mut self, pairing: &Pairing<'_>, taken: &BTreeMap<TreePath, TreePath>) {
        for (directory, names) in &self.left {
            let is_said = directory_is_there(pairing, directory);
            for path in names.iter().filter_map(|name| directory.join(name.clone())) {
                if is_said || taken.contains_key(&path) {
                    self.gone.insert(path, None);
                }
            }
        }
        let mut last = 0;
        for (path, said) in self.gone.iter_mut().rev() {
            let Some((directory, name)) = taken.get(path).and_then(parent) else { continue };
            last += 1;
            *said = Some(last);
            let planned = self.names.get_mut(&directory).and_then(|names| names.get_mut(&name));
            if let Some(Planned { what: What::Taken { number, .. }, .. }) = planned {
                *number = last;
            }
        }
    }
}

/// Whether a directory of the old tree is in the new one, too, or in one that is not gone.
fn directory_is_there(pairing: &Pairing<'_>, directory: &TreePath) -> bool {
    let mut way = directory.names().to_vec();
    while let Some(path) = TreePath::new(way.clone()).filter(|path| !path.names().is_empty()) {
        if pairing.to.contains_key(&path) {
            return true;
        }
        if pairing.old.get(&path).is_some() {
            return false;
        }
        way.pop();
    }
    true
}

fn parent(path: &TreePath) -> Option<(TreePath, Name)> {
    let (parents, name) = path.split()?;
    Some((TreePath::new(parents.to_vec())?, name.clone()))
}
