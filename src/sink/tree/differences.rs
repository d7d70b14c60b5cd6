//! What could not be set, or was left alone.

use super::keep::Left;
use crate::format::TreePath;
use crate::host::tree::Unset;
use crate::state::{Class, Fault};

/// So many paths are named.
const NAMED: usize = 20;

/// Entries that are not in all as the stream says.
pub(super) struct Differences {
    /// Everything is to be set: then there are none, but errors.
    all: bool,
    /// By this stream, and earlier ones.
    left: Left,
    first: Vec<String>,
    count: u64,
}

impl Differences {
    /// `all`: owners, set-id bits, devices and what is below `trusted.` and `security.` are set, too. `left`: by earlier
    /// streams.
    pub fn new(all: bool, left: Left) -> Differences {
        Differences { all, left, first: Vec::new(), count: 0 }
    }

    /// Everything is to be set.
    pub fn all(&self) -> bool {
        self.all
    }

    /// What this stream left, or those before.
    pub fn left(&self) -> Left {
        self.left
    }

    /// How many entries.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// This of the entry at this path is not as the stream says.
    pub fn take(&mut self, path: &TreePath, unset: Vec<Unset>) -> Result<(), Fault> {
        let Some(worst) = unset.iter().max_by_key(|one| one.error.is_some()) else { return Ok(()) };
        let what = unset.iter().map(Unset::to_string).collect::<Vec<_>>().join(", ");
        if !self.all {
            self.add(path, &what);
            return Ok(());
        }
        let class = if worst.error.is_some() { Class::Permission } else { Class::Unsupported };
        let fault = Fault::new(class, format!("{} cannot be made as the stream says: {what}", shown(path)));
        let fault =
            if what.contains("posix_acl") { fault.hint("a ZFS file system takes ACLs with acltype=posix") } else { fault };
        Err(fault.hint("without --all what cannot be set is left alone, and told in a list"))
    }

    /// The entry at this path is not there.
    pub fn left_out(&mut self, path: &TreePath, what: &str) {
        self.left.missing = true;
        self.add(path, what);
    }

    fn add(&mut self, path: &TreePath, what: &str) {
        (self.left.unset, self.count) = (true, self.count + 1);
        if self.first.len() < NAMED {
            self.first.push(format!("{}: {what}", shown(path)));
        }
    }

    /// Tells the user.
    pub fn tell(&self, note: impl Fn(&str)) {
        if self.count == 0 {
            return;
        }
        note(&format!("not in all as the stream says: {} entries (--all sets what needs rights)", self.count));
        self.first.iter().for_each(|line| note(line));
        match self.count.saturating_sub(self.first.len() as u64) {
            0 => {}
            more => note(&format!("and {more} more")),
        }
    }
}

fn shown(path: &TreePath) -> String {
    if path.names().is_empty() { ".".to_owned() } else { path.to_string() }
}
