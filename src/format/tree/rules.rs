//! The rules that the changes of a tree obey, for the reader and the writer alike. Memory: one path, and a bit for each
//! thing that was taken.

use super::{Entry, Node, Origin, TreeChange, TreePath};
use crate::format::extents::Extents;
use crate::format::object::Wrong;
use crate::format::{Change, Damage};

/// What the next change of a tree must keep to.
pub struct Rules {
    grain: u32,
    is_whole: bool,
    is_list: bool,
    /// Of a list: where its trees are was said.
    has_roots: bool,
    /// The last GONE, if no entry was said yet.
    last_gone: Option<TreePath>,
    /// The last entry or link.
    last: Option<TreePath>,
    /// What the entries on the way to `last` are, from the root downwards: for each prefix of its path, if an entry said it.
    way: Vec<Option<Step>>,
    /// The file whose content may follow.
    open: Option<Extents>,
    taken: Numbers,
}

/// What an entry on the way to the last one is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A directory that was made.
    NewDirectory,
    /// A directory with what it held.
    OldDirectory,
    /// Nothing can be in it.
    Leaf,
}

/// Numbers that were given to what was taken, and those that came back.
#[derive(Default)]
struct Numbers {
    given: u64,
    returned: u64,
    /// A bit for each.
    seen: Vec<u64>,
}

impl Rules {
    pub(super) fn new(grain: u32, is_whole: bool, is_list: bool) -> Rules {
        let has_roots = false;
        Rules {
            grain,
            is_whole,
            is_list,
            has_roots,
            last_gone: None,
            last: None,
            way: Vec::new(),
            open: None,
            taken: Numbers::default(),
        }
    }

    pub(super) fn admit(&mut self, change: &TreeChange) -> Result<(), Wrong> {
        if self.has_roots != self.is_list && !matches!(change, TreeChange::Roots { .. }) {
            return Err((Damage::Order, "a list that does not begin with its roots".to_owned()));
        }
        match change {
            TreeChange::Roots { old, .. } => self.roots(old.is_some()),
            TreeChange::Gone { path, number } => self.gone(path, *number),
            TreeChange::Entry(entry) => self.entry(entry),
            TreeChange::Link { path, to } => self.link(path, to),
            TreeChange::Extent(extent) => self.extent(extent),
        }
    }

    /// What is wrong with nothing following.
    pub(super) fn close(&self) -> Result<(), Wrong> {
        if self.has_roots != self.is_list {
            return Err((Damage::Order, "a list without its roots".to_owned()));
        }
        if self.is_whole && self.last.is_none() {
            return Err((Damage::Parent, "a whole tree without its root".to_owned()));
        }
        if self.taken.returned != self.taken.given {
            let missing = self.taken.given.saturating_sub(self.taken.returned);
            return Err((Damage::Totals, format!("{missing} of what was taken did not come back")));
        }
        Ok(())
    }

    fn roots(&mut self, since: bool) -> Result<(), Wrong> {
        if !self.is_list || self.has_roots {
            return Err((Damage::Order, "roots in what is no list, or twice".to_owned()));
        }
        if since == self.is_whole {
            return Err((Damage::Value, "roots of an increment in a whole list, or the other way round".to_owned()));
        }
        self.has_roots = true;
        Ok(())
    }

    fn gone(&mut self, path: &TreePath, number: Option<u64>) -> Result<(), Wrong> {
        if self.is_whole || self.last.is_some() {
            return Err((Damage::Order, "GONE in a whole stream, or behind an entry".to_owned()));
        }
        if path.names().is_empty() {
            return Err((Damage::Path, "the root cannot be gone".to_owned()));
        }
        if self.last_gone.as_ref().is_some_and(|last| last <= path) {
            return Err((Damage::PathOrder, format!("\"{path}\" is gone behind what it should stand before")));
        }
        if let Some(number) = number {
            self.taken.give(number)?;
        }
        self.last_gone = Some(path.clone());
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Wrong> {
        let Entry { path, origin, node, .. } = entry;
        if self.is_whole && *origin != Origin::New {
            return Err((Damage::Value, format!("\"{path}\" is not new in a whole stream")));
        }
        if path.names().is_empty() && (*node != Node::Directory || !self.is_whole && *origin != Origin::Kept) {
            return Err((Damage::Value, "the root is no directory, or not the one that is there".to_owned()));
        }
        self.place(path, *origin == Origin::Kept)?;
        if let Origin::Taken(number) = origin {
            self.taken.give_back(*number)?;
        }
        let step = match (node, origin) {
            (Node::Directory, Origin::New) => Step::NewDirectory,
            (Node::Directory, Origin::Kept | Origin::Taken(_)) => Step::OldDirectory,
            (Node::File { .. } | Node::Symlink { .. } | Node::Fifo | Node::Socket | Node::Device { .. }, _) => Step::Leaf,
        };
        self.stand(path, step);
        if let Node::File { size, .. } = node {
            self.open = Some(Extents::new(*size, self.grain));
        }
        Ok(())
    }

    fn link(&mut self, path: &TreePath, to: &TreePath) -> Result<(), Wrong> {
        if path.names().is_empty() || to.names().is_empty() || path == to {
            return Err((Damage::Path, "a link from or to the root, or to itself".to_owned()));
        }
        self.place(path, false)?;
        // What stands behind it in a whole stream is not there yet.
        if self.is_whole && to > path {
            return Err((Damage::Parent, format!("\"{path}\" is a link to \"{to}\", which was not said yet")));
        }
        self.stand(path, Step::Leaf);
        Ok(())
    }

    fn extent(&mut self, extent: &Change) -> Result<(), Wrong> {
        match &mut self.open {
            Some(extents) if !self.is_list => extents.admit(extent),
            Some(_) => Err((Damage::Order, "content in a list of changes".to_owned())),
            None => Err((Damage::Order, "content that belongs to no file".to_owned())),
        }
    }

    /// Whether something can stand here now.
    fn place(&self, path: &TreePath, kept: bool) -> Result<(), Wrong> {
        match &self.last {
            Some(last) if last >= path => {
                return Err((Damage::PathOrder, format!("\"{path}\" stands behind \"{last}\"")));
            }
            Some(_) => {}
            None if self.is_whole && !path.names().is_empty() => {
                return Err((Damage::Parent, "a whole tree that does not begin with its root".to_owned()));
            }
            None => {}
        }
        let Some((parents, _)) = path.split() else { return Ok(()) };
        let common = self.common(parents.len(), path);
        let nearest = self.way.get(..=common).unwrap_or(&self.way).iter().rposition(Option::is_some);
        let step = nearest.and_then(|at| self.way.get(at).copied().flatten());
        let parent_was_said = nearest == Some(parents.len());
        let allowed = match step {
            Some(Step::Leaf) => false,
            // All that is in it was said as new, or taken.
            Some(Step::NewDirectory) => parent_was_said && !kept,
            Some(Step::OldDirectory) => parent_was_said || kept,
            None => kept,
        };
        if allowed { Ok(()) } else { Err((Damage::Parent, format!("\"{path}\" stands in no directory that can hold it"))) }
    }

    /// How many names, at most `most`, this path has in common with the last one.
    fn common(&self, most: usize, path: &TreePath) -> usize {
        let last = self.last.as_ref().map(TreePath::names).unwrap_or_default();
        last.iter().zip(path.names()).take(most).take_while(|(a, b)| a == b).count()
    }

    /// It stands here from now on.
    fn stand(&mut self, path: &TreePath, step: Step) {
        let depth = path.names().len();
        let common = self.common(depth, path);
        if self.last.is_some() {
            self.way.truncate(common.saturating_add(1));
        }
        self.way.resize(depth, None);
        self.way.push(Some(step));
        self.last = Some(path.clone());
        self.open = None;
    }
}

impl Numbers {
    fn give(&mut self, number: u64) -> Result<(), Wrong> {
        if Some(number) != self.given.checked_add(1) {
            return Err((
                Damage::Value,
                format!("something is taken as number {number} where {} is due", self.given.saturating_add(1)),
            ));
        }
        self.given = number;
        Ok(())
    }

    fn give_back(&mut self, number: u64) -> Result<(), Wrong> {
        let wrong = || (Damage::Value, format!("what was taken as number {number} was never taken, or came back before"));
        let at = number.checked_sub(1).filter(|_| number <= self.given).ok_or_else(wrong)?;
        let (word, bit) = (usize::try_from(at / 64).map_err(|_| wrong())?, 1_u64 << (at % 64));
        if self.seen.len() <= word {
            self.seen.resize(word.saturating_add(1), 0);
        }
        match self.seen.get_mut(word) {
            Some(seen) if *seen & bit == 0 => *seen |= bit,
            Some(_) | None => return Err(wrong()),
        }
        self.returned = self.returned.saturating_add(1);
        Ok(())
    }
}
