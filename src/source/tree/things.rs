//! What is no directory: it may have several names, in both trees.

use std::collections::{BTreeSet, HashMap};

use super::pairing::Pairing;
use super::seen::{Identity, Seen};
use crate::format::TreePath;

/// The loose things of both trees, and which is which.
pub(super) struct Things {
    old: Vec<Thing>,
    new: Vec<Thing>,
    /// For each of the new tree, which one of the old tree it is.
    was: Vec<Option<usize>>,
}

/// Something with its loose names, in order.
struct Thing {
    seen: Seen,
    names: Vec<TreePath>,
}

impl Thing {
    /// How many names it has elsewhere.
    fn unseen(&self) -> u64 {
        self.seen.links.saturating_sub(self.names.len() as u64)
    }
}

/// What becomes of a name.
pub(super) enum Fate {
    /// Of the old tree: it does not stay.
    Gone(TreePath),
    New(TreePath, Seen),
    /// The first name, and the one under which it goes.
    Taken(TreePath, Seen, TreePath),
    /// A name that stays; of several the one under which the thing is spoken of.
    Kept(TreePath, Seen),
    KeptToo(TreePath, Seen),
    /// Another name of what stands there.
    Link(TreePath, Seen, TreePath),
}

impl Things {
    pub fn new(pairing: &Pairing<'_>, identity: &Identity) -> Things {
        let (old, at) = gather(pairing.old.iter());
        let (new, _) = gather(pairing.new.iter());
        let mut is_found = vec![false; old.len()];
        let mut was = vec![None; new.len()];
        if !identity.is_path() {
            let mut by_id: HashMap<_, Vec<usize>> = HashMap::new();
            for (n, thing) in old.iter().enumerate().rev() {
                by_id.entry((thing.seen.id, thing.seen.sort)).or_default().push(n);
            }
            for (thing, was) in new.iter().zip(&mut was) {
                *was = by_id.get_mut(&(thing.seen.id, thing.seen.sort)).and_then(Vec::pop);
                if let Some(found) = was.and_then(|n| is_found.get_mut(n)) {
                    *found = true;
                }
            }
        }
        // By place, what could not be found otherwise: by inode numbers only what has one name in both trees.
        for (thing, was) in new.iter().zip(&mut was).filter(|(_, was)| was.is_none()) {
            let places = thing.names.iter().filter_map(|name| pairing.old_place(name));
            let mut candidates = places.filter_map(|place| at.get(&place).copied());
            *was = candidates.find(|n| {
                let Some((before, false)) = old.get(*n).zip(is_found.get(*n).copied()) else { return false };
                before.seen.sort == thing.seen.sort && (identity.is_path() || before.names.len().max(thing.names.len()) == 1)
            });
            if let Some(found) = was.and_then(|n| is_found.get_mut(n)) {
                *found = true;
            }
        }
        Things { old, new, was }
    }

    /// Whether something has a name in a place that was not looked at, where the other tree has none such: then one of the two
    /// is not known whole, and a name that came may be another name of what stands there.
    pub fn is_torn(&self) -> bool {
        self.new.iter().zip(&self.was).any(|(thing, was)| {
            let before = was.and_then(|n| self.old.get(n));
            thing.unseen() != before.map_or(0, Thing::unseen)
        })
    }

    /// Says of each name what becomes of it.
    pub fn decide(self, pairing: &Pairing<'_>, say: &mut impl FnMut(Fate)) {
        let Things { old, new, was } = self;
        let mut stays = vec![false; old.len()];
        for (thing, was) in new.into_iter().zip(was) {
            match was.and_then(|n| Some((old.get(n)?, stays.get_mut(n)?))) {
                Some((before, stays)) => {
                    *stays = true;
                    decide_same(pairing, before, thing, say);
                }
                None => first_and_links(thing, say, Fate::New),
            }
        }
        for (thing, _) in old.into_iter().zip(stays).filter(|(_, stays)| !stays) {
            thing.names.into_iter().for_each(|name| say(Fate::Gone(name)));
        }
    }
}

/// All loose things of a tree, in the order of their first names, and where each of their names leads.
fn gather<'a>(loose: impl Iterator<Item = (&'a TreePath, &'a Seen)>) -> (Vec<Thing>, HashMap<TreePath, usize>) {
    let (mut things, mut at, mut by_key) = (Vec::<Thing>::new(), HashMap::new(), HashMap::new());
    for (path, seen) in loose.filter(|(_, seen)| !seen.is_directory()) {
        let n = *by_key.entry(seen.key).or_insert(things.len());
        at.insert(path.clone(), n);
        match things.get_mut(n) {
            Some(thing) => thing.names.push(path.clone()),
            None => things.push(Thing { seen: *seen, names: vec![path.clone()] }),
        }
    }
    (things, at)
}

/// A thing of both trees.
fn decide_same(pairing: &Pairing<'_>, before: &Thing, thing: Thing, say: &mut impl FnMut(Fate)) {
    let mut left: BTreeSet<&TreePath> = before.names.iter().collect();
    let seen = thing.seen;
    let (kept, come): (Vec<TreePath>, Vec<TreePath>) =
        thing.names.into_iter().partition(|name| pairing.old_place(name).is_some_and(|place| left.contains(&place)));
    // What can be linked to when the first of the names that come is said.
    let first = come.first();
    let speaks = kept.iter().find(|name| first.is_none_or(|first| can_be_linked(pairing, name, first)));
    let Some(speaks) = speaks.cloned() else {
        // No name stays, or none that is there in time: then all of them come.
        let mut names = [kept, come].concat();
        names.sort_unstable();
        let old = left.pop_first().cloned();
        left.into_iter().for_each(|name| say(Fate::Gone(name.clone())));
        first_and_links(Thing { seen, names }, say, |name, seen| match old {
            Some(old) => Fate::Taken(name, seen, old),
            None => Fate::New(name, seen),
        });
        return;
    };
    for name in kept {
        if let Some(place) = pairing.old_place(&name) {
            left.remove(&place);
        }
        say(if name == speaks { Fate::Kept(name, seen) } else { Fate::KeptToo(name, seen) });
    }
    come.into_iter().for_each(|name| say(Fate::Link(name, seen, speaks.clone())));
    left.into_iter().for_each(|name| say(Fate::Gone(name.clone())));
}

fn first_and_links(thing: Thing, say: &mut impl FnMut(Fate), first: impl FnOnce(TreePath, Seen) -> Fate) {
    let mut names = thing.names.into_iter();
    let Some(name) = names.next() else { return };
    say(first(name.clone(), thing.seen));
    names.for_each(|other| say(Fate::Link(other, thing.seen, name.clone())));
}

/// Whether what stays at `name` stands there when `link` is said: not if a directory on its way is taken and comes back later.
fn can_be_linked(pairing: &Pairing<'_>, name: &TreePath, link: &TreePath) -> bool {
    let mut way = name.names().to_vec();
    while way.pop().is_some() {
        if let Some(here) = TreePath::new(way.clone())
            && pairing.from.contains_key(&here)
        {
            return here < *link;
        }
    }
    true
}
