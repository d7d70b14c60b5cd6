//! One walk over a tree in the order of paths, and all that is to be said of it; beside it, where there is one, over what it was.

use std::collections::{HashMap, VecDeque};
use std::vec::IntoIter;

use super::census::Census;
use super::content::Comparison;
use super::list::{Looked, looks_as_old};
use super::names::FirstNames;
use super::plan::Planned;
use super::side::{Found, Side};
use super::since::Since;
use crate::format::{Entry, Name, Origin, TreeChange, TreePath};
use crate::host::tree::{Dir, Kind, Meta};
use crate::state::{Fault, TreeRoot};

/// A walk over a tree.
pub(super) struct Walk {
    side: Side,
    since: Option<Since>,
    /// The directories from the root to where we are.
    way: Vec<Frame>,
    has_begun: bool,
    first_names: FirstNames,
    /// `None`: the root is not wanted.
    root: Option<TreeRoot>,
    file: Option<OpenFile>,
    said: VecDeque<TreeChange>,
    pub seen: Sum,
    /// What shows whether the tree stays what it is, where that is wanted.
    pub census: Option<Census>,
    /// Files are read; else nothing is said of their content.
    pub reads: bool,
    /// Names of things that have others, and what those are, where they are wanted.
    pub linked: Option<Vec<(TreePath, Meta)>>,
    /// What is new or looks otherwise, whether or not it is said, where that is wanted.
    pub looked: Option<Vec<Looked>>,
}

/// What was seen of a tree, in sum.
#[derive(Default)]
pub(super) struct Sum {
    /// Bytes of all files.
    pub bytes: u64,
    /// The newest time of modification, in seconds since 1970.
    pub newest: i64,
}

/// An open directory.
struct Frame {
    path: TreePath,
    dir: Dir,
    meta: Meta,
    names: IntoIter<Name>,
    planned: HashMap<Name, Planned>,
    /// What it was; `None`: it is new.
    old: Option<OldFrame>,
}

/// A directory of the old tree that is kept or taken.
pub(super) struct OldFrame {
    pub path: TreePath,
    pub dir: Dir,
}

/// A file whose content is being read.
struct OpenFile {
    name: Name,
    path: TreePath,
    meta: Meta,
    content: Comparison,
    /// Its bytes belong to the root.
    is_hashed: bool,
    say: Say,
}

/// What is to be said of a file whose content is read.
enum Say {
    Nothing,
    /// This, as soon as something differs.
    IfItDiffers(Box<Entry>),
    Differences,
}

/// Where what stands at a name comes from.
pub(super) enum Place {
    New,
    Kept(Found),
    Taken(u64, Found, TreePath),
    Link(TreePath),
    /// Nothing is to be said.
    Silent,
}

impl Walk {
    /// A walk over this tree, whole or since another. Without `root` the tree's root is not computed.
    pub fn new(side: Side, since: Option<Since>, root: bool) -> Walk {
        Walk {
            side,
            since,
            way: Vec::new(),
            has_begun: false,
            first_names: FirstNames::default(),
            root: root.then(TreeRoot::new),
            file: None,
            said: VecDeque::new(),
            seen: Sum::default(),
            census: None,
            reads: true,
            linked: None,
            looked: None,
        }
    }

    /// The next change; `None` at the end.
    pub fn change(&mut self) -> Result<Option<TreeChange>, Fault> {
        if let Some((path, number)) = self.since.as_mut().and_then(|since| since.plan.gone.pop_last()) {
            return Ok(Some(TreeChange::Gone { path, number }));
        }
        loop {
            if let Some(change) = self.said.pop_front() {
                return Ok(Some(change));
            }
            if self.file.is_some() {
                self.read_on()?;
            } else if !self.has_begun {
                self.begin()?;
            } else if !self.next_name()? {
                return Ok(None);
            }
        }
    }

    /// After the last change: the tree, what it was compared with, and the root.
    pub fn finish(&mut self) -> Result<Option<TreeRoot>, Fault> {
        self.side.root_unchanged()?;
        if let Some(since) = &self.since {
            since.unchanged()?;
        }
        Ok(self.root.take())
    }

    /// Somebody could change the tree, and must not.
    pub fn may_change(&self) -> Result<bool, Fault> {
        self.side.may_change()
    }

    /// Looks once more at all of the tree. Each directory was looked at when it was left; but what went from one that was not yet
    /// read to one that was is in neither.
    pub fn stayed(&self) -> Result<(), Fault> {
        self.census.map_or(Ok(()), |before| before.confirm(&self.side))
    }

    /// The tree, and the one it is compared with.
    pub fn sides(&self) -> impl Iterator<Item = &Side> {
        [&self.side].into_iter().chain(self.since.as_ref().map(|since| &since.side))
    }

    pub fn into_side(self) -> Side {
        self.side
    }

    fn begin(&mut self) -> Result<(), Fault> {
        self.has_begun = true;
        let found = self.side.root()?;
        self.census.iter_mut().for_each(|census| census.add(&TreePath::ROOT, &found.meta, self.side.numbers(&found.meta)));
        let place = self.since.as_ref().map(Since::root).transpose()?.map_or(Place::New, Place::Kept);
        self.enter(None, TreePath::ROOT, found, place, true)
    }

    /// Goes on to the next name. False: that was all.
    fn next_name(&mut self) -> Result<bool, Fault> {
        let Some(frame) = self.way.last_mut() else { return Ok(false) };
        let Some(name) = frame.names.next() else {
            self.side.directory_unchanged(&frame.dir, &frame.path, &frame.meta)?;
            self.way.pop();
            return Ok(true);
        };
        let path = self.side.join(&frame.path, &name)?;
        let planned = frame.planned.remove(&name);
        let Some(meta) = self.side.look(&frame.dir, &name)? else {
            return if planned.is_some() { Err(self.side.changed(&path, "vanished")) } else { Ok(true) };
        };
        self.census.iter_mut().for_each(|census| census.add(&path, &meta, self.side.numbers(&meta)));
        if let Some(linked) = self.linked.as_mut().filter(|_| meta.kind != Kind::Directory && meta.links > 1) {
            linked.push((path.clone(), meta));
        }
        let first = self.first_names.of(&path, &meta);
        let place = match &self.since {
            None => first.clone().map_or(Place::New, Place::Link),
            Some(since) => {
                let is_planned = planned.is_some();
                match since.place(&path, &meta, planned, frame.old.as_ref())? {
                    Some(place) => place,
                    None if self.side.is_live() && !is_planned => return Ok(true),
                    None => return Err(self.side.changed(&path, "changed")),
                }
            }
        };
        let is_hashed = self.root.is_some() && first.is_none();
        if let (Some(root), Some(first)) = (&mut self.root, &first) {
            root.link(&path, first);
        }
        if let Place::Link(to) = &place {
            self.said.push_back(TreeChange::Link { path: path.clone(), to: to.clone() });
        }
        let says_content = self.reads && self.since.as_ref().is_none_or(|since| since.has_to_be_read(&place, &meta));
        let is_silent = matches!(place, Place::Link(_) | Place::Silent);
        if is_silent && !is_hashed {
            self.side.unchanged(&frame.dir, &name, &path, &meta)?;
            return Ok(true);
        }
        match self.side.find(&frame.dir, &name, meta, is_hashed || says_content && !is_silent)? {
            Some(found) => self.enter(Some(name), path, found, place, is_hashed)?,
            None if self.since.is_some() => return Err(self.side.changed(&path, "changed")),
            None => {}
        }
        Ok(true)
    }

    /// Something stands here.
    fn enter(&mut self, name: Option<Name>, path: TreePath, found: Found, place: Place, is_hashed: bool) -> Result<(), Fault> {
        self.side.fits(&path, &found)?;
        self.seen.newest = self.seen.newest.max(found.meta.modified.seconds);
        if is_hashed && let Some(root) = &mut self.root {
            root.entry(&found.entry(path.clone(), Origin::New));
        }
        let (origin, old, old_path) = match place {
            Place::New => (Some(Origin::New), None, None),
            Place::Kept(old) => (Some(Origin::Kept), Some(old), self.old_path(name.as_ref())),
            Place::Taken(number, old, path) => (Some(Origin::Taken(number)), Some(old), Some(path)),
            Place::Link(_) | Place::Silent => (None, None, None),
        };
        let is_other = old.as_ref().is_none_or(|old| !looks_as_old(&old.meta, &found.meta));
        if let Some(looked) = self.looked.as_mut().filter(|_| origin.is_some() && is_other) {
            looked.push(Looked { path: path.clone(), old: old.as_ref().map(|old| old.meta), new: found.meta });
        }
        let touched =
            found.dir.is_some() && self.since.as_ref().is_some_and(|since| since.plan.touches(old_path.as_ref(), &path));
        let entry = origin.map(|origin| found.entry_since(path.clone(), origin, old.as_ref()));
        let is_said = match (&entry, &old) {
            (Some(Entry { origin: Origin::Kept, .. }), Some(old)) => {
                touched
                    || found.differs(old)
                    || self.since.as_ref().is_some_and(|since| since.is_doubtful(&old.meta, &found.meta))
            }
            (entry, _) => entry.is_some(),
        };
        let say = match entry {
            Some(entry) if is_said => {
                self.said.push_back(TreeChange::Entry(Box::new(entry)));
                Say::Differences
            }
            Some(entry) => Say::IfItDiffers(Box::new(entry)),
            None => Say::Nothing,
        };
        match (found.meta.kind, name) {
            (Kind::Directory, _) => {
                let old_dir = old.and_then(|old| old.dir).zip(old_path).map(|(dir, path)| OldFrame { path, dir });
                self.go_in(path, found, old_dir)
            }
            (Kind::File, Some(name)) => self.open_file(name, path, found, old, is_hashed, say),
            (_, Some(name)) => self.unchanged(&name, &path, &found.meta),
            (_, None) => Ok(()),
        }
    }

    fn old_path(&self, name: Option<&Name>) -> Option<TreePath> {
        let Some(name) = name else { return Some(TreePath::ROOT) };
        self.way.last()?.old.as_ref()?.path.join(name.clone())
    }

    fn go_in(&mut self, path: TreePath, found: Found, old: Option<OldFrame>) -> Result<(), Fault> {
        let Some(mut dir) = found.dir else { return Ok(()) };
        if self.since.as_ref().is_some_and(|since| since.plan.skipped.contains(&path)) {
            return Ok(());
        }
        let names = self.side.list_again(&path, &mut dir)?;
        let planned = match &mut self.since {
            None => HashMap::new(),
            Some(since) => {
                if let Some(old) = &old
                    && let Some(name) = since.unexplained(old, &names)?
                    && !self.side.is_live()
                {
                    return Err(self.side.changed(&self.side.join(&path, &name)?, "vanished"));
                }
                since.plan.names.remove(&path).unwrap_or_default()
            }
        };
        self.way.push(Frame { path, dir, meta: found.meta, names: names.into_iter(), planned, old });
        Ok(())
    }

    fn open_file(
        &mut self,
        name: Name,
        path: TreePath,
        found: Found,
        old: Option<Found>,
        is_hashed: bool,
        say: Say,
    ) -> Result<(), Fault> {
        let meta = found.meta;
        self.seen.bytes = self.seen.bytes.saturating_add(if is_hashed || self.since.is_none() { meta.size } else { 0 });
        let Some(new) = self.side.content(&path, found)? else { return self.unchanged(&name, &path, &meta) };
        let old = match (&self.since, old) {
            (Some(since), Some(old)) => since.content(&path, old)?,
            _ => None,
        };
        self.file = Some(OpenFile { name, path, meta, content: Comparison::new(new, old), is_hashed, say });
        Ok(())
    }

    /// Reads on in the open file.
    fn read_on(&mut self) -> Result<(), Fault> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let root = if file.is_hashed { self.root.as_mut() } else { None };
        match file.content.change(root)? {
            Some(extent) => match std::mem::replace(&mut file.say, Say::Differences) {
                Say::Nothing => file.say = Say::Nothing,
                Say::IfItDiffers(entry) => self.said.extend([TreeChange::Entry(entry), TreeChange::Extent(extent)]),
                Say::Differences => self.said.push_back(TreeChange::Extent(extent)),
            },
            None => {
                if let Some(OpenFile { name, path, meta, .. }) = self.file.take() {
                    self.unchanged(&name, &path, &meta)?;
                }
            }
        }
        Ok(())
    }

    fn unchanged(&self, name: &Name, path: &TreePath, meta: &Meta) -> Result<(), Fault> {
        self.way.last().map_or(Ok(()), |frame| self.side.unchanged(&frame.dir, name, path, meta))
    }
}
