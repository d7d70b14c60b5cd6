//! The directories that are open: from the root to where the stream is.

use super::differences::Differences;
use crate::format::{Attributes, Name, Time, TreePath};
use crate::host::tree::{Dir, Kind, Unset};
use crate::state::{Class, Fault};

/// What directories on one path may have in extended attributes, in bytes: what is told of them waits in memory.
const XATTRS: usize = 32 << 20;

/// A path of open directories. What a directory is to be in the end it becomes when the way leaves it: until then its times
/// change, and its owner must be able to write.
pub(super) struct Way {
    /// Each directory is made durable by itself when it is left.
    one_by_one: bool,
    root: Level,
    below: Vec<(Name, Level)>,
}

struct Level {
    dir: Dir,
    /// What its own ENTRY said.
    wanted: Option<Attributes>,
    /// Its mode, before it was made writable for us.
    locked: Option<u16>,
    /// Names in it can be changed.
    is_open: bool,
}

impl Level {
    fn of(dir: Dir) -> Level {
        Level { dir, wanted: None, locked: None, is_open: false }
    }

    /// Gives it its attributes, or those it had. What could not be set.
    fn leave(self, all: bool, one_by_one: bool) -> Result<Vec<Unset>, Fault> {
        let is_changed = self.is_open || self.wanted.is_some();
        let unset = match (self.wanted, self.locked) {
            (Some(wanted), _) => self.dir.set_own_attributes(&wanted, all),
            (None, Some(mode)) => reset(&self.dir, mode, self.dir.meta()?.modified),
            (None, None) => Ok(Vec::new()),
        }?;
        if one_by_one && is_changed {
            self.dir.sync()?;
        }
        Ok(unset)
    }
}

/// Gives a directory the mode and time that it had.
fn reset(dir: &Dir, mode: u16, modified: Time) -> Result<Vec<Unset>, Fault> {
    let is = dir.meta()?.attributes(dir.own_xattrs()?);
    dir.set_own_attributes(&Attributes { mode, modified, ..is }, false)
}

impl Way {
    /// The way that is only the root.
    pub fn new(root: Dir, one_by_one: bool) -> Way {
        Way { one_by_one, root: Level::of(root), below: Vec::new() }
    }

    /// What is done is made durable by itself.
    pub fn one_by_one(&self) -> bool {
        self.one_by_one
    }

    /// The root.
    pub fn root(&self) -> &Dir {
        &self.root.dir
    }

    /// Where it leads.
    pub fn here(&self) -> &Dir {
        &self.last().dir
    }

    fn last(&self) -> &Level {
        self.below.last().map_or(&self.root, |(_, level)| level)
    }

    fn last_mut(&mut self) -> &mut Level {
        self.below.last_mut().map_or(&mut self.root, |(_, level)| level)
    }

    /// Leads to the directory of these names; false: one of them is not there, or is no directory.
    pub fn enter(&mut self, names: &[Name], differences: &mut Differences) -> Result<bool, Fault> {
        let common = self.below.iter().zip(names).take_while(|((a, _), b)| a == *b).count();
        self.leave_to(common, differences)?;
        for name in names.iter().skip(common) {
            if !self.step(name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Goes on into a directory that is there; false: none is.
    pub fn step(&mut self, name: &Name) -> Result<bool, Fault> {
        let here = self.here();
        let Some(before) = here.look(name)?.filter(|meta| meta.kind == Kind::Directory) else { return Ok(false) };
        let mut level = match here.open(name) {
            Err(fault) if fault.class == Class::Permission => Level::of(here.open_to_change(name)?),
            opened => Level::of(opened?),
        };
        level.locked = (level.dir.meta()?.mode != before.mode).then_some(before.mode);
        self.below.push((name.clone(), level));
        Ok(true)
    }

    /// Goes on into a directory that was just made.
    pub fn step_into(&mut self, name: &Name, dir: Dir) {
        self.below.push((name.clone(), Level { is_open: true, ..Level::of(dir) }));
    }

    /// Names are about to change here.
    pub fn unlock(&mut self) -> Result<(), Fault> {
        let level = self.last_mut();
        if !level.is_open {
            level.locked = level.locked.or(level.dir.unlock()?);
            level.is_open = true;
        }
        Ok(())
    }

    /// What this directory is to be when it is left.
    pub fn want(&mut self, attributes: Attributes) -> Result<(), Fault> {
        self.last_mut().wanted = Some(attributes);
        let wanted = self.below.iter().filter_map(|(_, level)| level.wanted.as_ref());
        let len: usize = wanted.flat_map(|wanted| &wanted.xattrs).map(|(name, value)| name.len() + value.len()).sum();
        match len > XATTRS {
            true => Err(Fault::new(Class::Unsupported, "the directories on one path have over 32 MiB of extended attributes")),
            false => Ok(()),
        }
    }

    /// Leaves everything but the root.
    pub fn leave_all(&mut self, differences: &mut Differences) -> Result<(), Fault> {
        self.leave_to(0, differences)
    }

    fn leave_to(&mut self, depth: usize, differences: &mut Differences) -> Result<(), Fault> {
        while self.below.len() > depth
            && let Some((name, level)) = self.below.pop()
        {
            let unset = level.leave(differences.all(), self.one_by_one)?;
            if !unset.is_empty() {
                let path = self.below.iter().map(|(name, _)| name).chain([&name]).cloned().collect();
                differences.take(&TreePath::new(path).unwrap_or_default(), unset)?;
            }
        }
        Ok(())
    }

    /// Leaves the root, which was last changed at this time as far as the stream does not speak of it.
    pub fn leave_root(&mut self, modified: Time, differences: &mut Differences) -> Result<(), Fault> {
        let Level { dir, wanted, locked, .. } = &self.root;
        let unset = match wanted {
            Some(wanted) => dir.set_own_attributes(wanted, differences.all())?,
            None => reset(dir, locked.unwrap_or(dir.meta()?.mode), modified)?,
        };
        // Even where nothing in it was changed: a copy of the file system from before, or one that was rolled back, looks otherwise.
        dir.touch()?;
        differences.take(&TreePath::ROOT, unset)
    }
}
