//! The tree that another is compared with.

use super::census::Census;
use super::content::Content;
use super::list::Doubt;
use super::plan::{Plan, Planned, What};
use super::seen::Identity;
use super::side::{Found, Side, is_as_old};
use super::walk::{OldFrame, Place};
use crate::format::{Name, Time, TreePath};
use crate::host::tree::{Dir, Kind, Meta};
use crate::state::Fault;

/// The old tree, and what is planned to be said since.
pub(super) struct Since {
    pub side: Side,
    pub identity: Identity,
    pub plan: Plan,
    pub content: Compared,
    /// What it was when its state was learned. `None`: a snapshot, which does not change.
    pub census: Option<Census>,
}

/// How it is found out whether a file's content differs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Compared {
    /// By reading it.
    Bytes,
    /// The same, but the same inode, size and times mean the same content; with a time, of what was changed before that.
    BytesUnlessAsOld(Option<Time>),
    /// It is not read: what may differ is said.
    Doubt(Doubt),
}

impl Since {
    pub fn root(&self) -> Result<Found, Fault> {
        self.side.root()
    }

    /// Where what stands at a path of the new tree comes from, in a directory that is new or was `old`. `None`: not as planned.
    pub fn place(
        &self,
        path: &TreePath,
        meta: &Meta,
        planned: Option<Planned>,
        old: Option<&OldFrame>,
    ) -> Result<Option<Place>, Fault> {
        let Some((_, name)) = path.split() else { return Ok(None) };
        let Some(planned) = planned else {
            // Of what has more names than one all are planned.
            let is_alone = meta.kind == Kind::Directory || meta.links < 2;
            return match old {
                _ if !is_alone => Ok(None),
                None => Ok(Some(Place::New)),
                Some(old) if self.plan.left.get(&old.path).is_some_and(|left| left.contains(name)) => Ok(None),
                Some(old) => Ok(self.old(&old.dir, name, meta)?.map(Place::Kept)),
            };
        };
        if !planned.fits(meta) {
            return Ok(None);
        }
        Ok(match (planned.what, old) {
            (What::New, _) => Some(Place::New),
            (What::Link { to }, _) => Some(Place::Link(to)),
            (What::KeptToo, _) => Some(Place::Silent),
            (What::Kept, Some(old)) => self.old(&old.dir, name, meta)?.map(Place::Kept),
            (What::Kept, None) => None,
            (What::Taken { number, old }, _) => {
                let Some((parents, name)) = old.split() else { return Ok(None) };
                let found = self.old(&self.side.open_at(parents)?, name, meta)?;
                found.map(|found| Place::Taken(number, found, old))
            }
        })
    }

    /// What stood at a name, if that is of the kind which stands there now.
    fn old(&self, dir: &Dir, name: &Name, new: &Meta) -> Result<Option<Found>, Fault> {
        // Nothing there: the new tree has a name that it did not have.
        let Some(old) = dir.look(name)?.filter(|old| old.kind == new.kind) else { return Ok(None) };
        self.side.find(dir, name, old, !self.is_trusted(&old, new))
    }

    /// Its content need not be compared.
    fn is_trusted(&self, old: &Meta, new: &Meta) -> bool {
        match self.content {
            Compared::Bytes => false,
            Compared::BytesUnlessAsOld(before) => {
                self.identity.same_inode(old, new) && is_as_old(old, new) && before.is_none_or(|before| old.changed < before)
            }
            Compared::Doubt(_) => true,
        }
    }

    /// Nothing is read here, and the content of this file may differ.
    pub fn is_doubtful(&self, old: &Meta, new: &Meta) -> bool {
        matches!(self.content, Compared::Doubt(doubt) if new.kind == Kind::File && doubt.of(old, new))
    }

    /// What is said of this place depends on a file's content.
    pub fn has_to_be_read(&self, place: &Place, new: &Meta) -> bool {
        match place {
            Place::New => true,
            Place::Kept(old) | Place::Taken(_, old, _) => !self.is_trusted(&old.meta, new),
            Place::Link(_) | Place::Silent => false,
        }
    }

    /// A name of a directory that is not planned to go, and is not there any more.
    pub fn unexplained(&self, old: &OldFrame, names: &[Name]) -> Result<Option<Name>, Fault> {
        let left = self.plan.left.get(&old.path);
        let mut listing = old.dir.again()?;
        for name in self.side.list_again(&old.path, &mut listing)? {
            let is_explained = names.binary_search(&name).is_ok() || left.is_some_and(|left| left.contains(&name));
            // What is mounted there is left out of both.
            if !is_explained && self.side.look(&old.dir, &name)?.is_some() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// The content that a file had.
    pub fn content(&self, path: &TreePath, old: Found) -> Result<Option<Content>, Fault> {
        self.side.content(path, old)
    }

    /// Looks once more whether it is what it was.
    pub fn unchanged(&self) -> Result<(), Fault> {
        self.side.root_unchanged()?;
        self.census.map_or(Ok(()), |before| before.confirm(&self.side))
    }
}
