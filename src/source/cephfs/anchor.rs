//! A walk over the anchor and the state that was said last: whether lists in between said all that changed.

use std::collections::BTreeSet;
use std::vec::IntoIter;

use super::look::look;
use crate::format::{Name, TreePath};
use crate::host::tree::{Dir, Kind, Meta, ceph_inode};
use crate::source::tree::Census;
use crate::state::{Anchor, Audit, Class, Fault};

/// What was changed between them, and no list said so; and the sum over the anchor, as it is now.
pub(super) fn audit(anchor: &Anchor, was: &Dir, is: &Dir) -> Result<(BTreeSet<TreePath>, Census), Fault> {
    let (mut audit, mut census) = (Audit::new(anchor), Census::default());
    walk(was, Some(is), &mut |path, was, is| {
        was.iter().for_each(|was| add(&mut census, path, was));
        audit.compare(path, was.as_ref().map(look), is.as_ref().map(look));
    })?;
    Ok((audit.missed(), census))
}

/// The sum over a snapshot, as it is now.
pub(super) fn census(dir: &Dir) -> Result<Census, Fault> {
    let mut census = Census::default();
    walk(dir, None, &mut |path, was, _| was.iter().for_each(|was| add(&mut census, path, was)))?;
    Ok(census)
}

fn add(census: &mut Census, path: &TreePath, meta: &Meta) {
    census.add(path, meta, (ceph_inode(meta.inode), 0));
}

/// A directory in one of them, or at the same path in both.
struct Frame {
    path: TreePath,
    was: Option<Dir>,
    is: Option<Dir>,
    names: IntoIter<Name>,
}

/// Takes a path, what stands there in the one tree and what in the other.
type Pass<'a> = dyn FnMut(&TreePath, Option<Meta>, Option<Meta>) + 'a;

/// Passes all that stands at a path of the one tree or of the other.
fn walk(was: &Dir, is: Option<&Dir>, pass: &mut Pass<'_>) -> Result<(), Fault> {
    pass(&TreePath::ROOT, Some(was.meta()?), is.map(Dir::meta).transpose()?);
    let mut way = vec![Frame::new(TreePath::ROOT, Some(was.again()?), is.map(Dir::again).transpose()?)?];
    while let Some(frame) = way.last_mut() {
        let Some(name) = frame.names.next() else {
            way.pop();
            continue;
        };
        let find = |dir: &Option<Dir>| dir.as_ref().map_or(Ok(None), |dir| dir.look(&name));
        let (was, is) = (find(&frame.was)?, find(&frame.is)?);
        let path = frame.path.join(name.clone()).ok_or_else(|| {
            Fault::new(Class::Unsupported, format!("{}/{} is too long", frame.path, name.as_bytes().escape_ascii()))
        })?;
        pass(&path, was, is);
        let open = |dir: &Option<Dir>, meta: Option<Meta>| match (dir, meta.map(|meta| meta.kind)) {
            (Some(dir), Some(Kind::Directory)) => dir.open(&name).map(Some),
            _ => Ok(None),
        };
        let (was, is) = (open(&frame.was, was)?, open(&frame.is, is)?);
        if was.is_some() || is.is_some() {
            way.push(Frame::new(path, was, is)?);
        }
    }
    Ok(())
}

impl Frame {
    fn new(path: TreePath, mut was: Option<Dir>, mut is: Option<Dir>) -> Result<Frame, Fault> {
        let mut names = was.as_mut().map_or(Ok(Vec::new()), Dir::names)?;
        names.extend(is.as_mut().map_or(Ok(Vec::new()), Dir::names)?);
        names.sort_unstable();
        names.dedup();
        Ok(Frame { path, was, is, names: names.into_iter() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::format::Id;

    /// A tree in which directories and files have three levels.
    fn tree(root: &Path) {
        for name in ["a", "a/b", "a/b/c", "x"] {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("f"), name).unwrap();
        }
    }

    fn path(text: &str) -> TreePath {
        TreePath::new(text.split('/').map(|name| Name::new(name.as_bytes()).unwrap()).collect()).unwrap()
    }

    fn meta(root: &Dir, path: &TreePath) -> Meta {
        let Some((parents, name)) = path.split() else { return root.meta().unwrap() };
        let dir = parents.iter().fold(root.again().unwrap(), |dir, name| dir.open(name).unwrap());
        dir.look(name).unwrap().unwrap()
    }

    fn missed(anchor: &Anchor, was: &Dir, is: &Dir) -> BTreeSet<TreePath> {
        audit(anchor, was, is).unwrap().0
    }

    #[test]
    fn what_is_not_said_is_found_at_every_level() {
        let (old, new) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        tree(old.path());
        tree(new.path());
        let (was, is) = (Dir::root(old.path()).unwrap(), Dir::root(new.path()).unwrap());
        let paths = ["a", "a/b", "a/b/c", "a/b/c/f", "a/b/f", "a/f", "x", "x/f"].map(path);
        for unsaid in &paths {
            let mut anchor = Anchor::new(Id::derive("t", &[]), b"mon".to_vec(), 0);
            for said in [TreePath::ROOT].iter().chain(&paths).filter(|said| *said != unsaid) {
                anchor.say(Some(look(&meta(&was, said))), look(&meta(&is, said)));
            }
            assert_eq!(missed(&anchor, &was, &is), BTreeSet::from([unsaid.clone()]));
        }
    }

    #[test]
    fn what_is_as_it_was_need_not_be_said_also_where_a_directory_was_moved() {
        let root = TempDir::new().unwrap();
        tree(root.path());
        let whole = Dir::root(root.path()).unwrap();
        let anchor = Anchor::new(Id::derive("t", &[]), b"mon".to_vec(), 0);
        assert_eq!(missed(&anchor, &whole, &whole), BTreeSet::new());
        // A tree that is also in the other, elsewhere; and the other, of which only the root is nowhere.
        let inner = whole.open(&Name::new(b"a").unwrap()).unwrap();
        assert_eq!(missed(&anchor, &whole, &inner), BTreeSet::new());
        assert!(missed(&anchor, &inner, &whole).contains(&path("x/f")));
    }

    #[test]
    fn what_comes_into_the_anchor_later_changes_its_sum() {
        let root = TempDir::new().unwrap();
        tree(root.path());
        let dir = Dir::root(root.path()).unwrap();
        let anchor = Anchor::new(Id::derive("t", &[]), b"mon".to_vec(), 0);
        let sum = census(&dir).unwrap();
        assert_eq!((census(&dir).unwrap(), audit(&anchor, &dir, &dir).unwrap().1), (sum, sum));
        fs::write(root.path().join("a/b/c/f"), "late").unwrap();
        let late = census(&dir).unwrap();
        assert_ne!(late, sum);
        assert_eq!(audit(&anchor, &dir, &dir).unwrap().1, late);
    }
}
