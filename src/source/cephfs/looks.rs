//! Looks at many paths of a tree, to see which of the things that stood there were changed.

use std::collections::HashSet;
use std::panic::resume_unwind;
use std::thread;

use super::look::look;
use crate::format::{Name, Time, TreePath};
use crate::host::tree::{Dir, Meta};
use crate::state::{Class, Fault, Linked, Look};

/// Looks at a time. Each waits for the MDS, which answers many as fast as one.
const AT_A_TIME: usize = 8;

/// Those of these things that do not look as they did, or were changed later than `since`: a change after a time in the future
/// may leave it there. Each is looked at by one of its names, which tells how it looks by all of them.
pub(super) fn changed(linked: &[Linked], since: Time, new: &Dir) -> Result<HashSet<Look>, Fault> {
    let mut seen = HashSet::new();
    let things: Vec<&Linked> = linked.iter().filter(|linked| seen.insert(linked.look)).collect();
    // Neighbours stay together: they have most of the way in common.
    let share = things.len().div_ceil(AT_A_TIME).max(1);
    thread::scope(|scope| {
        let parts = things.chunks(share).map(|part| scope.spawn(move || changed_of(part, since, new)));
        let mut all = HashSet::new();
        for part in parts.collect::<Vec<_>>() {
            all.extend(part.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok(all)
    })
}

/// What still stands at these names, whatever it looks like now: it is the same thing.
pub(super) fn standing<'a>(linked: impl Iterator<Item = &'a Linked>, new: &Dir) -> Result<Vec<Linked>, Fault> {
    let mut looks = Looks::new(new)?;
    let mut standing = Vec::new();
    for Linked { path, look: before } in linked {
        let now = looks.at(path)?.map(|meta| look(&meta)).filter(|now| now.inode == before.inode);
        standing.extend(now.map(|look| Linked { path: path.clone(), look }));
    }
    Ok(standing)
}

fn changed_of(things: &[&Linked], since: Time, new: &Dir) -> Result<Vec<Look>, Fault> {
    let (mut looks, mut changed) = (Looks::new(new)?, Vec::new());
    for Linked { path, look: before } in things {
        if !looks.at(path)?.is_some_and(|meta| look(&meta) == *before && meta.changed <= since) {
            changed.push(*before);
        }
    }
    Ok(changed)
}

/// Looks at many paths of a tree. What the way to the next one has in common with that to the last is not gone again: a client of
/// CephFS asks the MDS for each step in a snapshot, every time.
struct Looks {
    root: Dir,
    /// The directories on the way to the last path.
    way: Vec<(Name, Dir)>,
}

impl Looks {
    fn new(root: &Dir) -> Result<Looks, Fault> {
        Ok(Looks { root: root.again()?, way: Vec::new() })
    }

    fn at(&mut self, path: &TreePath) -> Result<Option<Meta>, Fault> {
        let Some((parents, name)) = path.split() else { return self.root.meta().map(Some) };
        let common = self.way.iter().zip(parents).take_while(|((a, _), b)| a == *b).count();
        self.way.truncate(common);
        for parent in parents.iter().skip(common) {
            match self.here().open(parent) {
                Err(fault) if matches!(fault.class, Class::NotFound | Class::Changed) => return Ok(None),
                opened => self.way.push((parent.clone(), opened?)),
            }
        }
        self.here().look(name)
    }

    fn here(&self) -> &Dir {
        self.way.last().map_or(&self.root, |(_, dir)| dir)
    }
}

#[cfg(test)]
pub(super) fn at(root: &Dir, path: &TreePath) -> Result<Option<Meta>, Fault> {
    Looks::new(root)?.at(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_changed_is_found_among_many_by_whichever_name() {
        let place = tempfile::tempdir().unwrap();
        let mut linked = Vec::new();
        let root = Dir::root(place.path()).unwrap();
        for n in 0..AT_A_TIME * 3 + 1 {
            let names = [format!("d{n}/deep/file"), format!("link{n}")];
            fs::create_dir_all(place.path().join(&names[0]).parent().unwrap()).unwrap();
            fs::write(place.path().join(&names[0]), n.to_string()).unwrap();
            fs::hard_link(place.path().join(&names[0]), place.path().join(&names[1])).unwrap();
            for name in names {
                let path = TreePath::new(name.split('/').map(|name| Name::new(name.as_bytes()).unwrap()).collect()).unwrap();
                linked.push(Linked { look: look(&at(&root, &path).unwrap().unwrap()), path });
            }
        }
        linked.sort_unstable();
        let never = Time { seconds: i64::MAX, nanoseconds: 0 };
        assert_eq!(changed(&linked, never, &root).unwrap(), HashSet::new());
        assert_eq!(changed(&[], never, &root).unwrap(), HashSet::new());
        let mut expected = HashSet::new();
        for n in [0, AT_A_TIME, AT_A_TIME * 3] {
            fs::write(place.path().join(format!("link{n}")), "other content").unwrap();
            let is_one = |linked: &&Linked| linked.path.to_string() == format!("link{n}");
            expected.insert(linked.iter().find(is_one).unwrap().look);
        }
        assert_eq!(changed(&linked, never, &root).unwrap(), expected);
    }
    #[test]
    fn what_still_stands_is_the_same_thing_however_it_looks() {
        let place = tempfile::tempdir().unwrap();
        let root = Dir::root(place.path()).unwrap();
        let names = ["changed", "gone", "replaced", "same"];
        let path = |name: &str| TreePath::new(vec![Name::new(name.as_bytes()).unwrap()]).unwrap();
        names.iter().for_each(|name| fs::write(place.path().join(name), "1").unwrap());
        let linked = names.map(|name| Linked { look: look(&at(&root, &path(name)).unwrap().unwrap()), path: path(name) });
        fs::write(place.path().join("changed"), "other content").unwrap();
        fs::rename(place.path().join("gone"), place.path().join("replaced")).unwrap();
        let found = standing(linked.iter(), &root).unwrap();
        assert_eq!(found.iter().map(|linked| linked.path.to_string()).collect::<Vec<_>>(), ["changed", "same"]);
        assert!(found[0].look.inode == linked[0].look.inode && found[0].look != linked[0].look);
        assert_eq!(found[1], linked[3]);
    }
}
