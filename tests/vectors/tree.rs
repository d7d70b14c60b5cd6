//! Trees in memory: what a tree's vector leads to (README.md).

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::rc::Rc;

use siphon::format::{
    Attributes, Beginning, Change, Damage, Entry, Node, Object, Origin, ReadError, Reader, Tree, TreeChange, TreePath,
};

use super::load_with;

/// What has one or more names.
#[derive(Clone)]
pub struct Thing {
    node: Node,
    attributes: Attributes,
    content: Vec<u8>,
}

/// Things by their paths.
pub type Things = BTreeMap<TreePath, Rc<RefCell<Thing>>>;

/// Reads a stream to its end; all that it says.
pub fn read(stream: &[u8]) -> Result<Vec<TreeChange>, Damage> {
    let damage = |error| match error {
        ReadError::Damaged(damaged) => damaged.class,
        ReadError::Io(error) => panic!("{error}"),
    };
    let mut reader: Reader<&[u8], Tree> =
        Beginning::read(stream, Tree::known_features()).map_err(damage)?.of().map_err(damage)?;
    let mut changes = Vec::new();
    while let Some(change) = reader.change().map_err(damage)? {
        changes.push(change);
    }
    Ok(changes)
}

/// What a vector leads to: BLAKE3 of the listing; `None`: it is only read.
pub fn judge(name: &str) -> Result<Option<String>, Damage> {
    let (vector, base) = load_with(name);
    let changes = read(&vector.stream)?;
    if vector.result.is_none() {
        return Ok(None);
    }
    let before = base.map_or_else(Things::new, |base| after(&base));
    Ok(Some(blake3::hash(listing(&applied(before, changes)).as_bytes()).to_string()))
}

/// The listing that some streams lead to, one after another.
pub fn listing_after(streams: &[&[u8]]) -> String {
    listing(&streams.iter().fold(Things::new(), |things, stream| applied(things, read(stream).unwrap())))
}

fn after(name: &str) -> Things {
    let (vector, base) = load_with(name);
    applied(base.map_or_else(Things::new, |base| after(&base)), read(&vector.stream).unwrap())
}

fn below(things: &Things, path: &TreePath) -> Vec<TreePath> {
    things.keys().filter(|at| *at == path || at.is_below(path)).cloned().collect()
}

/// The tree after these changes.
pub fn applied(things: Things, changes: Vec<TreeChange>) -> Things {
    applied_to(things, changes).0
}

/// The same of an increment in canonical form: each directory that is touched, and so has another time on a file system, must
/// have an entry that puts it right.
pub fn applied_strictly(things: Things, changes: Vec<TreeChange>) -> Things {
    let (things, touched) = applied_to(things, changes.clone());
    let entries: Vec<_> = changes
        .iter()
        .filter_map(|change| if let TreeChange::Entry(entry) = change { Some(&entry.path) } else { None })
        .collect();
    for (path, thing) in &things {
        let is_touched = touched.iter().any(|other| Rc::ptr_eq(other, thing));
        assert!(!is_touched || entries.contains(&path), "{path} is touched and has no entry");
    }
    things
}

fn parent(path: &TreePath) -> Option<TreePath> {
    TreePath::new(path.split()?.0.to_vec())
}

fn applied_to(mut things: Things, changes: Vec<TreeChange>) -> (Things, Vec<Rc<RefCell<Thing>>>) {
    let mut touched = Vec::new();
    let mut touch = |things: &Things, path: &TreePath| {
        let Some(parent) = parent(path) else { return };
        let thing = things.get(&parent).unwrap_or_else(|| panic!("{path} stands in nothing"));
        assert_eq!(thing.borrow().node, Node::Directory, "{path}");
        touched.push(Rc::clone(thing));
    };
    let mut taken: HashMap<u64, (TreePath, Things)> = HashMap::new();
    let mut open = None;
    for change in changes {
        match change {
            TreeChange::Gone { path, number } => {
                let moved: Things =
                    below(&things, &path).into_iter().map(|at| (at.clone(), things.remove(&at).unwrap())).collect();
                assert!(!moved.is_empty(), "{path}");
                touch(&things, &path);
                if let Some(number) = number {
                    taken.insert(number, (path, moved));
                }
            }
            TreeChange::Entry(entry) => {
                if entry.origin != Origin::Kept {
                    touch(&things, &entry.path);
                }
                open = Some(entered(&mut things, &mut taken, *entry));
            }
            TreeChange::Link { path, to } => {
                touch(&things, &path);
                let thing = Rc::clone(&things[&to]);
                assert!(things.insert(path, thing).is_none());
            }
            TreeChange::Roots { .. } => {}
            TreeChange::Extent(change) => extended(&mut open.as_ref().unwrap().borrow_mut(), &change),
        }
    }
    assert!(taken.is_empty());
    (things, touched)
}

fn entered(things: &mut Things, taken: &mut HashMap<u64, (TreePath, Things)>, entry: Entry) -> Rc<RefCell<Thing>> {
    let Entry { path, origin, node, attributes } = entry;
    match origin {
        Origin::New => {
            let fresh = Thing { node: node.clone(), attributes: Attributes::default(), content: Vec::new() };
            assert!(things.insert(path.clone(), Rc::new(RefCell::new(fresh))).is_none());
        }
        Origin::Kept => {}
        Origin::Taken(number) => {
            let (was, moved) = taken.remove(&number).unwrap();
            for (at, thing) in moved {
                let names = [path.names(), &at.names()[was.names().len()..]].concat();
                assert!(things.insert(TreePath::new(names).unwrap(), thing).is_none());
            }
        }
    }
    let thing = Rc::clone(&things[&path]);
    let mut inner = thing.borrow_mut();
    assert_eq!(inner.node.file_type(), node.file_type());
    if let Node::File { size, old_size } = node {
        assert_eq!(inner.content.len() as u64, old_size);
        inner.content.resize(usize::try_from(size).unwrap(), 0);
    }
    (inner.node, inner.attributes) = (node, attributes);
    drop(inner);
    thing
}

fn extended(thing: &mut Thing, change: &Change) {
    let range = usize::try_from(change.offset()).unwrap()..usize::try_from(change.end()).unwrap();
    match change {
        Change::Data(data) => thing.content[range].copy_from_slice(data.bytes()),
        Change::Zero { .. } => thing.content[range].fill(0),
    }
}

/// In hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}

/// As text: README.md.
pub fn listing(things: &Things) -> String {
    let shown = |path: &TreePath| path.names().iter().map(|name| hex(name.as_bytes())).collect::<Vec<_>>().join("/");
    let mut first: HashMap<*const RefCell<Thing>, String> = HashMap::new();
    let mut out = String::new();
    for (path, thing) in things {
        let group = first.entry(Rc::as_ptr(thing)).or_insert_with(|| shown(path)).clone();
        let Thing { node, attributes: Attributes { mode, uid, gid, modified, xattrs }, content } = &*thing.borrow();
        let what = match node {
            Node::File { .. } => format!("{}:{}", content.len(), blake3::hash(content)),
            Node::Symlink { target } => hex(target),
            Node::Device { major, minor, .. } => format!("{major}:{minor}"),
            Node::Directory | Node::Fifo | Node::Socket => "-".to_owned(),
        };
        let extra = xattrs.iter().map(|(name, value)| format!("{}={}", hex(name), hex(value))).collect::<Vec<_>>().join(",");
        let (seconds, nanoseconds, kind) = (modified.seconds, modified.nanoseconds, node.file_type());
        let path = shown(path);
        writeln!(out, "/{path} /{group} {kind} {mode:o} {uid} {gid} {seconds} {nanoseconds} {what} {extra}").unwrap();
    }
    out
}
