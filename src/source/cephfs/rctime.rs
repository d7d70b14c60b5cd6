//! What rctime tells: below which directories nothing was changed. And what it does not.

use std::collections::{BTreeSet, HashSet};

use super::look::look;
use super::looks;
use crate::format::{Time, TreePath};
use crate::host::tree::Dir;
use crate::source::tree::Skip;
use crate::state::{Fault, Linked};

/// Directories of which rctime says that nothing below was changed since some time.
///
/// It counts a file below its first name only: what has others is looked at, whatever rctime says. By one of its names, which
/// tells how it looks by all of them; a name that comes or goes moves the rctime of its directory.
pub(super) struct Rctime {
    /// A directory with a later rctime was changed.
    since: Time,
    /// Directories on the way to something with several names that was changed.
    visited: HashSet<TreePath>,
    /// They are left out; else it is only remembered which they are.
    pub believed: bool,
    /// The directories, without those below them.
    pub quiet: BTreeSet<TreePath>,
}

impl Rctime {
    /// `linked`: names, in order, of what had several in the old tree.
    pub fn new(since: Time, believed: bool, linked: &[Linked], new: &Dir) -> Result<Rctime, Fault> {
        let changed = looks::changed(linked, since, new)?;
        let mut visited = HashSet::new();
        for Linked { path, .. } in linked.iter().filter(|linked| changed.contains(&linked.look)) {
            let mut way = path.names().to_vec();
            while way.pop().is_some() {
                visited.extend(TreePath::new(way.clone()));
            }
        }
        Ok(Rctime { since, visited, believed, quiet: BTreeSet::new() })
    }

    /// The directory in or below which this path lies, and of which rctime said that nothing was changed.
    pub fn quiet_above(&self, path: &TreePath) -> Option<&TreePath> {
        (0..path.names().len()).find_map(|depth| self.quiet.get(&TreePath::new(path.names().get(..depth)?.to_vec())?))
    }
}

impl Skip for Rctime {
    fn is_same_below(&mut self, path: &TreePath, old: &Dir, new: &Dir) -> Result<bool, Fault> {
        if self.visited.contains(path) || !self.believed && self.quiet_above(path).is_some() {
            return Ok(false);
        }
        // A name in it came or went, whatever rctime says.
        if look(&old.meta()?) != look(&new.meta()?) {
            return Ok(false);
        }
        if new.rctime()? > self.since {
            return Ok(false);
        }
        self.quiet.insert(path.clone());
        Ok(self.believed)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::format::Name;

    const NEVER: Time = Time { seconds: i64::MAX, nanoseconds: 0 };

    fn path(text: &str) -> TreePath {
        TreePath::new(text.split_terminator('/').map(|name| Name::new(name.as_bytes()).unwrap()).collect()).unwrap()
    }

    #[test]
    fn what_has_several_names_is_looked_at_by_one_and_visited_by_all() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir_all(at("a/deep")).unwrap();
        fs::create_dir(at("b")).unwrap();
        fs::write(at("a/deep/one"), "1").unwrap();
        fs::hard_link(at("a/deep/one"), at("b/two")).unwrap();
        fs::write(at("b/alone"), "1").unwrap();
        fs::hard_link(at("b/alone"), at("b/other")).unwrap();
        let root = Dir::root(place.path()).unwrap();
        let names = ["a/deep/one", "b/alone", "b/other", "b/two"].map(path);
        let linked = names.map(|path| Linked { look: look(&looks::at(&root, &path).unwrap().unwrap()), path });
        let visited = |since| Rctime::new(since, true, &linked, &root).unwrap().visited;
        let all = HashSet::from(["", "a", "a/deep", "b"].map(path));
        assert_eq!(visited(NEVER), HashSet::new());
        assert_eq!(visited(Time::default()), all, "a change time that is later than the old snapshot proves nothing");
        fs::write(at("b/two"), "other content").unwrap();
        assert_eq!(visited(NEVER), all);
        fs::remove_file(at("b/two")).unwrap();
        fs::remove_dir_all(at("a")).unwrap();
        assert_eq!(visited(NEVER), all, "the name that would be looked at is gone");
    }
}
