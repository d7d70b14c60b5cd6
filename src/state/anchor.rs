//! Whether lists of changes said all that changed since a state that was known whole.
//!
//! A list says what a thing was before and what it is now. Where each time that is what was said last, and the first of
//! them is what the thing was at the *anchor*, nothing was left out in between. What was changed without being said breaks the chain.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::format::{Id, TreePath};

/// Which thing it is, and how it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Look {
    /// Its inode number, the same as long as it exists.
    pub inode: u64,
    /// A digest of what a look at it tells: another one when it is changed, renamed, or gets or loses a name.
    pub digest: u64,
}

/// What was said of a thing since the anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// What it began from, which has to be in the anchor; it may have taken the place of another thing. `None`: it was said whole.
    pub first: Option<Look>,
    /// How it looked when it was said last.
    pub last: u64,
}

/// A state that was known whole, and what was said since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The state.
    pub state: Id,
    /// What its snapshot was called.
    pub name: Vec<u8>,
    /// A sum over all that was seen of it. What comes into the snapshot later makes another one.
    pub sum: u128,
    /// By inode number.
    pub(super) said: BTreeMap<u64, Said>,
}

impl Anchor {
    /// So many things fit: 14 MB of text.
    pub const LIMIT: usize = 1 << 18;

    /// Nothing was said since.
    pub fn new(state: Id, name: Vec<u8>, sum: u128) -> Anchor {
        Anchor { state, name, sum, said: BTreeMap::new() }
    }

    /// More was said than can be remembered.
    pub fn is_overfull(&self) -> bool {
        self.said.len() > Anchor::LIMIT
    }

    /// A list says that what is now `new` was `old`; without that it says all of it. False: that is not what was said last, so
    /// something was left out in between.
    pub fn say(&mut self, old: Option<Look>, new: Look) -> bool {
        let before = old.and_then(|old| Some((self.said.get(&old.inode)?, old)));
        let fits = before.is_none_or(|(before, old)| before.last == old.digest);
        let first = before.filter(|_| fits).map_or(old, |(before, _)| before.first);
        self.said.insert(new.inode, Said { first, last: new.digest });
        fits
    }
}

/// Compares what was said with what differs between the anchor and the state that was said last.
pub struct Audit<'a> {
    anchor: &'a Anchor,
    /// Looks of the anchor that are not at their path any more.
    went: HashSet<Look>,
    /// Looks that the anchor must have, and by whom.
    wanted: HashMap<Look, TreePath>,
    missed: BTreeSet<TreePath>,
}

impl<'a> Audit<'a> {
    /// Nothing was found yet.
    pub fn new(anchor: &'a Anchor) -> Audit<'a> {
        Audit { anchor, went: HashSet::new(), wanted: HashMap::new(), missed: BTreeSet::new() }
    }

    /// What stood at this path of the anchor, and what stands there now.
    pub fn compare(&mut self, path: &TreePath, was: Option<Look>, is: Option<Look>) {
        if was == is {
            return;
        }
        if let Some(was) = was {
            self.wanted.remove(&was);
            self.went.insert(was);
        }
        let Some(is) = is else { return };
        let wanted = match self.anchor.said.get(&is.inode) {
            // Nothing was said of it: then it is as it was, and only what it is in was moved.
            None => Some(is),
            Some(said) if said.last == is.digest => said.first,
            Some(_) => {
                self.missed.insert(path.clone());
                None
            }
        };
        if let Some(wanted) = wanted.filter(|wanted| !self.went.contains(wanted)) {
            self.wanted.insert(wanted, path.clone());
        }
    }

    /// After the last path: what was changed, and no list said so.
    pub fn missed(self) -> BTreeSet<TreePath> {
        let mut missed = self.missed;
        missed.extend(self.wanted.into_values());
        missed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::Name;

    fn path(name: u8) -> TreePath {
        TreePath::new(vec![Name::new(&[b'a' + name]).unwrap()]).unwrap()
    }

    fn look(inode: u64, digest: u64) -> Look {
        Look { inode, digest }
    }

    fn anchor() -> Anchor {
        Anchor::new(Id::derive("t", &[]), b"mon".to_vec(), 0)
    }

    fn missed(anchor: &Anchor, was: &[Option<Look>], is: &[Option<Look>]) -> Vec<TreePath> {
        let mut audit = Audit::new(anchor);
        for (n, (was, is)) in was.iter().zip(is).enumerate() {
            audit.compare(&path(n.try_into().unwrap()), *was, *is);
        }
        audit.missed().into_iter().collect()
    }

    #[test]
    fn what_was_changed_and_not_said_is_found() {
        let found = |said: &[(Option<Look>, Look)], was, is| {
            let mut anchor = anchor();
            for (old, new) in said {
                anchor.say(*old, *new);
            }
            !missed(&anchor, &[was], &[is]).is_empty()
        };
        let (one, two, three, other) = (look(1, 1), look(1, 2), look(1, 3), look(2, 9));
        // Not said at all: changed, come.
        assert!(found(&[], Some(one), Some(two)));
        assert!(found(&[], None, Some(two)));
        // Said, but not all of it: after that, before it, in another thing's place.
        assert!(found(&[(Some(one), two)], Some(one), Some(three)));
        assert!(found(&[(Some(two), three)], Some(one), Some(three)));
        assert!(found(&[(Some(two), other)], Some(one), Some(other)));
        // It came, and only what was done to it later was said.
        assert!(found(&[(Some(one), two)], None, Some(two)));
        // All was said; also that it is new, whatever it was before.
        assert!(!found(&[(Some(one), two)], Some(one), Some(two)));
        assert!(!found(&[(Some(one), two), (Some(two), three)], Some(one), Some(three)));
        assert!(!found(&[(Some(one), two), (Some(two), other)], Some(one), Some(other)));
        assert!(!found(&[(None, two)], Some(one), Some(two)));
        // Changed back, and gone: nothing is left of it.
        assert!(!found(&[(Some(one), two), (Some(two), one)], Some(one), Some(one)));
        assert!(!found(&[(Some(one), two)], Some(one), None));
    }

    #[test]
    fn what_does_not_fit_what_was_said_last_is_found_at_once_and_again_later() {
        let mut anchor = anchor();
        assert!(anchor.say(Some(look(1, 1)), look(1, 2)));
        assert!(anchor.say(Some(look(1, 2)), look(1, 3)));
        assert!(!anchor.say(Some(look(1, 4)), look(1, 5)));
        assert!(anchor.say(Some(look(1, 5)), look(1, 6)));
        assert_eq!(missed(&anchor, &[Some(look(1, 1))], &[Some(look(1, 6))]), [path(0)]);
        assert!(anchor.say(None, look(1, 7)));
        assert_eq!(missed(&anchor, &[Some(look(1, 1))], &[Some(look(1, 7))]), []);
    }

    #[test]
    fn what_stands_elsewhere_as_it_was_is_no_miss() {
        // Two names of one thing, in a directory that was moved: in either order.
        let (a, b) = (look(1, 1), look(2, 2));
        let (was, is) = ([Some(a), Some(a), None, None], [None, None, Some(a), Some(a)]);
        assert_eq!(missed(&anchor(), &was, &is), []);
        assert_eq!(missed(&anchor(), &is, &was), []);
        assert_eq!(missed(&anchor(), &[Some(a), Some(b)], &[Some(b), Some(a)]), []);
        // One of them was not there.
        assert_eq!(missed(&anchor(), &[Some(a), None], &[None, Some(b)]), [path(1)]);
    }

    /// What is done to one of some files in a night.
    #[derive(Clone, Debug)]
    enum Deed {
        Change(u8),
        /// Another thing takes its place, and is said as what it was.
        Replace(u8),
        Swap(u8, u8),
        Remove(u8),
        Make(u8),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let at = 0..6_u8;
        prop_oneof![
            at.clone().prop_map(Deed::Change),
            at.clone().prop_map(Deed::Replace),
            (at.clone(), at.clone()).prop_map(|(a, b)| Deed::Swap(a, b)),
            at.clone().prop_map(Deed::Remove),
            at.prop_map(Deed::Make),
        ]
    }

    proptest! {
        /// Beside a model that remembers of each thing whether something was left out since it was whole.
        #[test]
        fn exactly_what_a_target_has_wrong_is_found(nights in prop::collection::vec(prop::collection::vec((deed(), any::<bool>()), 0..4), 1..7)) {
            let mut anchor = anchor();
            let mut next = 100;
            let mut fresh = || { next += 1; next };
            let was: Vec<_> = (0..6).map(|n| (n < 4).then(|| look(n, n))).collect();
            // What stands at each name, and whether the target has it wrong.
            let mut is: Vec<Option<(Look, bool)>> = was.iter().map(|look| look.map(|look| (look, false))).collect();
            for night in nights {
                for (deed, is_said) in night {
                    let mut put = |at: u8, old: Option<(Look, bool)>, new: Look, is: &mut Vec<Option<(Look, bool)>>| {
                        let wrong = old.is_some_and(|(_, wrong)| wrong) || !is_said;
                        if is_said {
                            anchor.say(old.map(|(old, _)| old), new);
                        }
                        is[usize::from(at)] = Some((new, wrong));
                    };
                    match deed {
                        Deed::Change(at) => if let Some(old) = is[usize::from(at)] {
                            put(at, Some(old), look(old.0.inode, fresh()), &mut is);
                        },
                        Deed::Replace(at) => if let Some(old) = is[usize::from(at)] {
                            put(at, Some(old), look(fresh(), fresh()), &mut is);
                        },
                        Deed::Swap(a, b) => if let (true, Some(one), Some(two)) = (a != b, is[usize::from(a)], is[usize::from(b)]) {
                            put(b, Some(one), look(one.0.inode, fresh()), &mut is);
                            put(a, Some(two), look(two.0.inode, fresh()), &mut is);
                        },
                        Deed::Remove(at) => is[usize::from(at)] = None,
                        Deed::Make(at) => if is[usize::from(at)].is_none() {
                            put(at, None, look(fresh(), fresh()), &mut is);
                        },
                    }
                }
            }
            let looks: Vec<_> = is.iter().map(|is| is.map(|(look, _)| look)).collect();
            let wrong = is.iter().enumerate().filter(|(_, is)| is.is_some_and(|(_, wrong)| wrong));
            let wrong: Vec<_> = wrong.map(|(n, _)| path(n.try_into().unwrap())).collect();
            prop_assert_eq!(missed(&anchor, &was, &looks), wrong);
        }
    }
}
