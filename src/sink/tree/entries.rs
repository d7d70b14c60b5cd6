//! The writer of entries: makes true below a root what a stream says. It knows no record and no state.

use super::aside::{self, Aside};
use super::differences::Differences;
use super::file::Unfinished;
use super::way::Way;
use crate::format::{Change, Digest, Entry, Name, Time, TreePath};
use crate::host::tree::{Dir, Kind, SNAPSHOTS};
use crate::state::{Class, Fault};

/// How far an earlier run of the very same stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// There was none: what a stream begins from is there, and nothing else.
    Nothing,
    /// It was broken off while it took away what is gone.
    Going,
    /// All that is gone was carried out.
    Placing,
}

/// What is written, and where.
pub(super) struct Entries {
    pub(super) way: Way,
    pub(super) aside: Aside,
    pub(super) file: Option<Unfinished>,
    pub(super) differences: Differences,
    /// What ZFS keeps in the root.
    control: Option<Name>,
    /// CephFS has `.snap` in every directory.
    is_cephfs: bool,
    before: Before,
    done: u64,
}

/// The target is not what the stream begins from.
pub(super) fn wrong_base(what: impl Into<String>) -> Fault {
    Fault::new(Class::WrongBase, what)
        .hint("somebody changed the target, or it was never that: send the whole tree with --replace")
}

/// Something is missing that it must have.
pub(super) fn not_there(path: &TreePath) -> Fault {
    wrong_base(format!("{path} is not there"))
}

impl Entries {
    /// Below this root.
    pub fn new(root: Dir, before: Before, differences: Differences) -> Result<Entries, Fault> {
        let aside = Aside::open(&root, before != Before::Nothing)?;
        let (control, is_served, is_cephfs) = (root.control()?, root.is_served()?, root.cluster_fsid()?.is_some());
        Ok(Entries { way: Way::new(root, is_served), aside, file: None, differences, control, is_cephfs, before, done: 0 })
    }

    /// Refuses a root that holds what would be in our way.
    pub fn check(root: &Dir) -> Result<(), Fault> {
        Aside::open(root, false).map(drop)
    }

    /// Lets go of everything. Entries and links that were carried out, and what is not as the stream says.
    pub fn finish(self) -> (u64, Differences) {
        (self.done, self.differences)
    }

    /// Refuses a path that is not the stream's to name.
    fn check_path(&self, path: &TreePath) -> Result<(), Fault> {
        aside::check(path)?;
        // To make a directory in it, or to remove one, would be to take or remove a snapshot.
        if self.is_cephfs && path.names().iter().any(|name| name.as_bytes() == SNAPSHOTS) {
            let what = "the stream has an entry .snap, and there CephFS keeps the snapshots of a directory";
            return Err(Fault::new(Class::Exists, what).hint("rename it at the source"));
        }
        match (path.names().first(), &self.control) {
            (Some(first), Some(control)) if first == control => {
                let what = "the stream has an entry .zfs in its root, and there ZFS keeps the snapshots of the target";
                Err(Fault::new(Class::Exists, what).hint("rename it at the source, or receive into a directory below"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn again(&self) -> bool {
        self.before != Before::Nothing
    }

    /// Removes what is gone, or keeps it aside.
    pub fn gone(&mut self, path: &TreePath, number: Option<u64>) -> Result<(), Fault> {
        self.check_path(path)?;
        self.aside.say(path, number);
        if self.before == Before::Placing {
            return Ok(());
        }
        let Some((parent, name)) = path.split() else { return Err(not_there(path)) };
        if let Some(number) = number
            && self.again()
            && self.aside.holds(number)?
        {
            return Ok(());
        }
        let is_there = self.way.enter(parent, &mut self.differences)? && self.way.here().look(name)?.is_some();
        match number {
            _ if is_there => {
                self.way.unlock()?;
                self.take_away(name, number)
            }
            // A run before this one removed it.
            None if self.again() => Ok(()),
            // A device, which was left out. If it is none, its ENTRY will find that out.
            _ if !self.differences.all() => Ok(()),
            _ => Err(not_there(path)),
        }
    }

    fn take_away(&mut self, name: &Name, number: Option<u64>) -> Result<(), Fault> {
        let Some(number) = number else { return self.way.here().remove_all(name) };
        let called = self.aside.called(number)?;
        let aside = self.aside.make(self.way.root())?;
        moved(self.way.here(), name, aside, &called)
    }

    /// There is no more that is gone: makes it durable. What all of it was.
    pub fn all_gone(&mut self) -> Result<Digest, Fault> {
        self.way.leave_all(&mut self.differences)?;
        if self.before == Before::Going {
            self.aside.check_all()?;
        }
        if !self.aside.is_empty() && self.before != Before::Placing {
            self.sync()?;
        }
        Ok(self.aside.plan())
    }

    /// Makes stand what is to stand at a path.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), Fault> {
        self.check_path(&entry.path)?;
        self.close()?;
        self.done += 1;
        let Some((parent, name)) = entry.path.split() else {
            self.way.unlock()?;
            return self.way.want(entry.attributes.clone());
        };
        self.enter(parent, &entry.path)?;
        self.place(name, entry)
    }

    /// Gives what stands somewhere another name.
    pub fn link(&mut self, path: &TreePath, to: &TreePath) -> Result<(), Fault> {
        self.check_path(path)?;
        self.check_path(to)?;
        self.close()?;
        self.done += 1;
        let (Some((parent, name)), Some((to_parent, to_name))) = (path.split(), to.split()) else { return Err(not_there(to)) };
        self.enter(parent, path)?;
        self.way.unlock()?;
        if self.again() {
            self.free(name)?;
        }
        let mut other = Way::new(self.way.root().again()?, self.way.one_by_one());
        let found = other.enter(to_parent, &mut self.differences)?;
        match if found { other.here().look(to_name)? } else { None } {
            Some(meta) if meta.kind != Kind::Directory => {
                other.here().link(to_name, self.way.here(), name).map_err(|fault| occupied(fault, path))?;
            }
            Some(_) => return Err(wrong_base(format!("{to} is a directory, which has one name only"))),
            None if self.differences.all() || !found || !self.differences.left().missing => return Err(not_there(to)),
            // Directories are never left out, so it stood in one that is there.
            None => self.differences.left_out(path, "another name of what was left out"),
        }
        other.leave_all(&mut self.differences)
    }

    /// Content of the file that the last ENTRY is about.
    pub fn extent(&mut self, extent: &Change) -> Result<(), Fault> {
        match &mut self.file {
            Some(file) => file.extent(self.way.here(), extent),
            None => Ok(()),
        }
    }

    /// There is no more: everything becomes what it is to be. `modified`: the root's time, if the stream does not speak of it.
    pub fn settle(&mut self, modified: Time) -> Result<(), Fault> {
        self.close()?;
        self.way.leave_all(&mut self.differences)?;
        self.aside.remove(self.way.root())?;
        self.way.leave_root(modified, &mut self.differences)
    }

    /// Makes everything so far durable.
    pub fn sync(&self) -> Result<(), Fault> {
        if self.way.one_by_one() {
            self.aside.sync()?;
            self.way.root().sync()?;
        }
        self.way.root().sync_file_system()
    }

    fn close(&mut self) -> Result<(), Fault> {
        match self.file.take() {
            Some(file) => file.finish(self.way.here(), &mut self.differences, self.way.one_by_one()),
            None => Ok(()),
        }
    }

    fn enter(&mut self, names: &[Name], path: &TreePath) -> Result<(), Fault> {
        match self.way.enter(names, &mut self.differences)? {
            true => Ok(()),
            false => Err(wrong_base(format!("{path} is to stand in a directory that is not there"))),
        }
    }
}

/// Moves an entry. To move a directory elsewhere, one must be allowed to write to it.
pub(super) fn moved(from: &Dir, name: &Name, to: &Dir, new: &Name) -> Result<(), Fault> {
    match from.rename(name, to, new) {
        Err(fault) if fault.class == Class::Permission => {
            if from.look(name)?.is_none_or(|meta| meta.kind != Kind::Directory) {
                return Err(fault);
            }
            from.open_to_change(name)?;
            from.rename(name, to, new)
        }
        moved => moved,
    }
}

/// Where nothing is to stand, something does.
pub(super) fn occupied(fault: Fault, path: &TreePath) -> Fault {
    if fault.class == Class::Exists { wrong_base(format!("something stands at {path} already")) } else { fault }
}
