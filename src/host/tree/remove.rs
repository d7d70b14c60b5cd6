//! Removing a whole subtree, however deep and large, while somebody may go on changing it.

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::pin::Pin;
use super::{Dir, Kind};
use crate::format::Name;
use crate::state::{Class, Fault};

/// So many directories are held open at once. What lies deeper is moved up into the first of them, and is not deep any more.
const HELD: usize = 32;
/// Names that are read at once: a directory of any size takes no more memory than so many.
const BATCH: usize = 4096;
/// How often something may be other than it was just before, until we give up.
const PATIENCE: u32 = 10_000;

impl Dir {
    /// Removes what stands at this name, a directory with all that is in it. Nothing there: done.
    ///
    /// A mount is not gone through; it is an error. Directories that we own and may not enter are opened up (mode 0700) first.
    pub fn remove_all(&self, name: &Name) -> Result<(), Fault> {
        Removal { base: self, levels: Vec::new(), moved: 0, patience: PATIENCE }.run(name)
    }
}

/// An open directory that is being emptied.
struct Level {
    dir: Dir,
    /// Its name in the level above.
    name: Name,
    /// What has been listed and not been looked at.
    names: Vec<Name>,
}

struct Removal<'a> {
    base: &'a Dir,
    levels: Vec<Level>,
    /// For names of directories that were moved up.
    moved: u64,
    patience: u32,
}

impl Removal<'_> {
    fn run(mut self, name: &Name) -> Result<(), Fault> {
        self.take(name)?;
        while let Some(level) = self.levels.last_mut() {
            if level.names.is_empty() {
                level.names = match level.dir.some_names(BATCH) {
                    // Somebody else removed it.
                    Err(fault) if fault.class == Class::NotFound => Vec::new(),
                    names => names?,
                };
            }
            match level.names.pop() {
                Some(name) => self.take(&name)?,
                None => self.leave()?,
            }
        }
        Ok(())
    }

    /// The directory that is being emptied, or the one in which it all began.
    fn here(&self) -> &Dir {
        self.levels.last().map_or(self.base, |level| &level.dir)
    }

    /// Removes an entry, or goes in.
    fn take(&mut self, name: &Name) -> Result<(), Fault> {
        loop {
            let error = match unlinkat(self.here(), name.as_bytes(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // Linux says the first of a directory, POSIX the second.
                Err(error @ (Errno::ISDIR | Errno::PERM)) => error,
                Err(error) => return Err(self.here().failed("removing", Some(name), error)),
            };
            match self.here().pin(name)? {
                None => return Ok(()),
                Some(pin) if pin.meta.kind == Kind::Directory => return self.go_in(name, &pin),
                Some(_) if error == Errno::PERM => return Err(self.here().failed("removing", Some(name), error)),
                // It was a directory a moment ago.
                Some(_) => self.surprised(name)?,
            }
        }
    }

    fn go_in(&mut self, name: &Name, pin: &Pin) -> Result<(), Fault> {
        pin.unlock().map_err(|error| self.here().failed("opening", Some(name), error))?;
        if self.levels.len() >= HELD {
            return self.move_up(name);
        }
        match pin.open_directory() {
            Ok(fd) => self.levels.push(Level { dir: Dir::of(fd), name: name.clone(), names: Vec::new() }),
            // Somebody else removed it.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(self.here().open_failed(name, error)),
        }
        Ok(())
    }

    /// Its new place is listed again before it goes, so nothing need be remembered.
    fn move_up(&mut self, name: &Name) -> Result<(), Fault> {
        loop {
            self.moved = self.moved.wrapping_add(1);
            let (Some(first), Some(new)) = (self.levels.first(), Name::new(format!(".removed-{}", self.moved).as_bytes())) else {
                return Ok(());
            };
            match self.here().try_rename(name, &first.dir, &new) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::EXIST) => self.surprised(name)?,
                Err(error) => return Err(self.here().failed("moving up", Some(name), error)),
            }
        }
    }

    /// Removes the directory that has been emptied.
    fn leave(&mut self) -> Result<(), Fault> {
        let Some(Level { name, .. }) = self.levels.pop() else { return Ok(()) };
        match unlinkat(self.here(), name.as_bytes(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // Somebody put something into it, or something else in its place.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {
                self.surprised(&name)?;
                self.take(&name)
            }
            Err(error) => Err(self.here().failed("removing", Some(&name), error)),
        }
    }

    fn surprised(&mut self, name: &Name) -> Result<(), Fault> {
        self.patience = self.patience.saturating_sub(1);
        if self.patience > 0 {
            return Ok(());
        }
        let place = self.here().spell(name);
        Err(Fault::new(Class::Changed, format!("removing {place}: somebody goes on putting things there")))
    }
}
