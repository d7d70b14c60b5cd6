//! A list of changes, with the content of its files filled in.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::content::{Comparison, Content};
use super::side::{Found, Side};
use crate::flow::{Ending, Source};
use crate::format::{Beginning, Entry, Header, Id, Node, Object, Origin, Tree, TreeChange, TreePath, wire};
use crate::host::limits;
use crate::host::tree::{Dir, Kind, Meta};
use crate::source::Decoder;
use crate::state::{Class, Fault};

/// What a list says, and what the files hold that it names.
pub struct FilledList<R: Read> {
    list: Decoder<R, Tree>,
    header: Header,
    tree: Tree,
    /// Where the trees are; `None`: not said yet.
    sides: Option<Sides>,
    /// What was taken, by its number.
    taken: HashMap<u64, TreePath>,
    /// Directories on the way to the last entry that were said, and which of the old tree they are, if any.
    way: Vec<(TreePath, Option<TreePath>)>,
    file: Option<OpenFile>,
    said: VecDeque<TreeChange>,
}

struct Sides {
    old: Option<Side>,
    new: Side,
}

/// A file that is being read.
struct OpenFile {
    content: Comparison,
    /// To be said as soon as something differs; `None`: it was said.
    entry: Option<Box<Entry>>,
    new: Again,
    old: Option<Again>,
}

/// A file, to be looked at once more when it was read.
struct Again {
    path: TreePath,
    /// The directory that it stands in.
    dir: Dir,
    meta: Meta,
}

impl Again {
    fn unchanged(&self, side: &Side) -> Result<(), Fault> {
        self.path.split().map_or(Ok(()), |(_, name)| side.unchanged(&self.dir, name, &self.path, &self.meta))
    }
}

impl<R: Read> FilledList<R> {
    /// Reads the beginning of a list.
    pub fn open(input: R) -> Result<FilledList<R>, Fault> {
        let beginning = Beginning::read(input, Tree::known_features())?;
        if !beginning.header().has(wire::FEATURE_LIST) {
            return Err(Fault::new(Class::Usage, "this is no list of changes, but a stream that has its content with it")
                .hint("cephfs-changed and `zfs diff` say what changed; tree-apply takes this as it is"));
        }
        let list = Decoder::of(beginning.of()?);
        let mut header = Source::<Tree>::header(&list).clone();
        header.features.retain(|feature| !feature.incompatible || feature.bit != wire::FEATURE_LIST);
        let tree = *list.object();
        limits::many_open_files();
        let (taken, way, said) = (HashMap::new(), Vec::new(), VecDeque::new());
        Ok(FilledList { list, header, tree, sides: None, taken, way, file: None, said })
    }

    fn take(&mut self, change: TreeChange) -> Result<(), Fault> {
        match change {
            TreeChange::Roots { old, new } => {
                let old = old.map(|old| open(&old, self.header.from)).transpose()?;
                self.sides = Some(Sides { old, new: open(&new, self.header.to)? });
            }
            TreeChange::Gone { path, number } => {
                if let Some(number) = number {
                    self.taken.insert(number, path.clone());
                }
                self.said.push_back(TreeChange::Gone { path, number });
            }
            TreeChange::Entry(entry) => self.entry(*entry)?,
            link @ TreeChange::Link { .. } => self.said.push_back(link),
            // A list has none: the reader has seen to that.
            TreeChange::Extent(_) => {}
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<(), Fault> {
        let old_path = self.old_path(&entry);
        if entry.node == Node::Directory {
            self.way.push((entry.path.clone(), old_path.clone()));
        }
        let sides = self.sides.as_ref().ok_or_else(out_of_turn)?;
        let (found, dir) = stands(&sides.new, &entry)?;
        let before = match (&sides.old, &old_path) {
            (Some(old), Some(path)) => Some((old, path, stood(old, path, &entry)?)),
            _ => None,
        };
        if found.meta.kind != Kind::File {
            self.said.push_back(TreeChange::Entry(Box::new(entry)));
            return Ok(());
        }
        let differs = before.as_ref().is_none_or(|(_, _, (old, _))| {
            entry.origin != Origin::Kept || old.meta.size != found.meta.size || old.attributes != found.attributes
        });
        let new = Again { path: entry.path.clone(), dir, meta: found.meta };
        let (old_content, old) = match before {
            Some((side, path, (found, dir))) => {
                let again = Again { path: path.clone(), dir, meta: found.meta };
                (Some(opened(side, path, found)?), Some(again))
            }
            None => (None, None),
        };
        let content = Comparison::new(opened(&sides.new, &entry.path, found)?, old_content);
        let entry = Box::new(entry);
        let entry = if differs {
            self.said.push_back(TreeChange::Entry(entry));
            None
        } else {
            Some(entry)
        };
        self.file = Some(OpenFile { content, entry, new, old });
        Ok(())
    }

    /// Where an entry stood in the old tree; `None`: nowhere.
    fn old_path(&mut self, entry: &Entry) -> Option<TreePath> {
        while self.way.last().is_some_and(|(said, _)| !entry.path.is_below(said)) {
            self.way.pop();
        }
        match entry.origin {
            Origin::New => None,
            Origin::Taken(number) => self.taken.get(&number).cloned(),
            Origin::Kept => match self.way.last() {
                None => Some(entry.path.clone()),
                Some((said, old)) => {
                    let below = entry.path.names().get(said.names().len()..)?;
                    TreePath::new([old.as_ref()?.names(), below].concat())
                }
            },
        }
    }

    fn read_on(&mut self) -> Result<(), Fault> {
        let Some(file) = &mut self.file else { return Ok(()) };
        match file.content.change(None)? {
            Some(extent) => {
                self.said.extend(file.entry.take().map(TreeChange::Entry));
                self.said.push_back(TreeChange::Extent(extent));
            }
            None => {
                if let Some((OpenFile { new, old, .. }, sides)) = self.file.take().zip(self.sides.as_ref()) {
                    new.unchanged(&sides.new)?;
                    old.zip(sides.old.as_ref()).map_or(Ok(()), |(old, side)| old.unchanged(side))?;
                }
            }
        }
        Ok(())
    }
}

/// A tree that a list is of. A snapshot on CephFS has to be the one in the list: another can have its name by now.
fn open(path: &[u8], state: Option<Id>) -> Result<Side, Fault> {
    let path = Path::new(OsStr::from_bytes(path));
    let side = Side::open(path, false, false)?;
    match (side.cephfs_state()?, state) {
        (Some(found), Some(told)) if found != told => {
            Err(Fault::new(Class::Vanished, format!("{} is another snapshot than the one that the list is of", path.display()))
                .hint("it was removed and taken anew: cephfs-changed makes a list of what is there now"))
        }
        _ => Ok(side),
    }
}

/// What stands at an entry's path, which has to be what the list says; and the directory that it stands in.
fn stands(side: &Side, entry: &Entry) -> Result<(Found, Dir), Fault> {
    let (found, dir) = at(side, &entry.path)?.ok_or_else(|| side.changed(&entry.path, "vanished"))?;
    let told = match &entry.node {
        Node::File { size, .. } => Node::File { size: *size, old_size: 0 },
        node => node.clone(),
    };
    let is_as_told = found.node == told && found.attributes == entry.attributes;
    if is_as_told { Ok((found, dir)) } else { Err(side.changed(&entry.path, "changed")) }
}

/// What stood at a path of the old tree, which has to have been as large as the list says.
fn stood(side: &Side, path: &TreePath, entry: &Entry) -> Result<(Found, Dir), Fault> {
    let (found, dir) = at(side, path)?.ok_or_else(|| side.changed(path, "vanished"))?;
    match entry.node {
        Node::File { old_size, .. } if found.meta.kind == Kind::File && found.meta.size != old_size => {
            Err(side.changed(path, "changed"))
        }
        _ => Ok((found, dir)),
    }
}

fn at(side: &Side, path: &TreePath) -> Result<Option<(Found, Dir)>, Fault> {
    let Some((parents, name)) = path.split() else { return Ok(Some((side.root()?, side.open_at(&[])?))) };
    let dir = side.open_at(parents)?;
    let Some(meta) = side.look(&dir, name)? else { return Ok(None) };
    Ok(side.find(&dir, name, meta, true)?.map(|found| (found, dir)))
}

fn opened(side: &Side, path: &TreePath, found: Found) -> Result<Content, Fault> {
    side.content(path, found)?.ok_or_else(|| side.changed(path, "changed"))
}

fn out_of_turn() -> Fault {
    Fault::new(Class::Io, "an entry before the roots of its list")
}

impl<R: Read> Source<Tree> for FilledList<R> {
    fn header(&self) -> &Header {
        &self.header
    }

    fn object(&self) -> &Tree {
        &self.tree
    }

    fn change(&mut self) -> Result<Option<TreeChange>, Fault> {
        loop {
            if let Some(change) = self.said.pop_front() {
                return Ok(Some(change));
            }
            if self.file.is_some() {
                self.read_on()?;
                continue;
            }
            match self.list.change()? {
                Some(change) => self.take(change)?,
                None => return Ok(None),
            }
        }
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        if let Some(Sides { old, new }) = &self.sides {
            new.root_unchanged()?;
            old.as_ref().map_or(Ok(()), Side::root_unchanged)?;
        }
        Ok(Ending { digest: None, ..Source::<Tree>::finish(&mut self.list)? })
    }
}
