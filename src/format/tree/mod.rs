//! A directory tree as an object: what a stream says of names, kinds, attributes and content.
//!
//! First what is gone, in descending order: so a directory can be emptied before it goes. What comes back under another
//! name is taken, and numbered. Then what stands there, in ascending order: so a directory is there before what is in it.

mod entry;
mod path;
mod rules;

pub use entry::{Attributes, Entry, Node, Origin, Time, file_type};
pub use path::{Name, TreePath};
pub use rules::Rules;

use entry::len_of;

use super::fields::{Fields, PutFields};
use super::object::{Object, Written, Wrong};
use super::{Change, Damage, Feature, Header, wire};

/// A directory tree, as the object of a stream. The second frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Every extent of a file begins at a multiple of this and ends at one or at the file's end, in bytes.
    pub grain: u32,
}

/// One statement about the to-state of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeChange {
    /// What stood at this path in the from-state stands there no more, with all that is in it.
    Gone {
        /// Where it stood.
        path: TreePath,
        /// It comes back by an [`Entry`] that says this number: 1 for the first, then one more for each. `None`: it does not.
        number: Option<u64>,
    },
    /// This stands here.
    Entry(
        /// Boxed: extents are many, and small.
        Box<Entry>,
    ),
    /// Another name of a file, or of anything else but a directory.
    Link {
        /// The new name.
        path: TreePath,
        /// One that it has already: said before, or since the from-state.
        to: TreePath,
    },
    /// In a list, and first: where the two trees can be read, on the machine where the list is made.
    Roots {
        /// The tree of the from-state; `None`: the list is whole.
        old: Option<Vec<u8>>,
        /// The tree of the to-state.
        new: Vec<u8>,
    },
    /// Content of the file that the last [`Entry`] is about.
    Extent(
        /// Offsets are bytes of this file.
        Change,
    ),
}

impl From<Change> for TreeChange {
    fn from(change: Change) -> TreeChange {
        TreeChange::Extent(change)
    }
}

impl Tree {
    /// A tree at the grain that our sources declare.
    pub fn new() -> Tree {
        Tree { grain: wire::DEFAULT_GRAIN }
    }

    /// Makes the header that of a tree's stream.
    pub fn mark(header: &mut Header) {
        header.features.push(feature(wire::FEATURE_TREE, b"tree (a directory tree)"));
    }

    /// Makes the header that of a list of what changed in a tree: entries without content.
    pub fn mark_as_list(header: &mut Header) {
        Tree::mark(header);
        header
            .features
            .push(feature(wire::FEATURE_LIST, b"list (entries without content: tree-diff-stream --changes fills it in)"));
    }
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::new()
    }
}

fn feature(bit: u8, text: &[u8]) -> Feature {
    Feature { incompatible: true, bit, text: text.to_vec() }
}

impl Object for Tree {
    const MINOR: u16 = 1;
    type Change = TreeChange;
    type Rules = Rules;

    fn known_features() -> u64 {
        1 << wire::FEATURE_TREE | 1 << wire::FEATURE_LIST
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(wire::OBJECT_LEN);
        out.put_u16(wire::OBJECT_TREE);
        out.put_u16(0);
        out.put_u32(self.grain);
        for _ in 0..3 {
            out.put_u64(0);
        }
        out
    }

    fn decode(payload: &[u8], header: &Header) -> Result<Tree, Wrong> {
        let wrong = |class, what: &str| Err((class, what.to_owned()));
        let mut fields = Fields(payload);
        let parsed = (|| {
            let (kind, reserved, grain) = (fields.u16()?, fields.u16()?, fields.u32()?);
            let rest = fields.array::<24>()?;
            fields.0.is_empty().then_some((kind, reserved != 0 || rest != [0; 24], grain))
        })();
        let Some((kind, reserved, grain)) = parsed else {
            return wrong(Damage::Length, "OBJECT has a wrong length");
        };
        if kind != wire::OBJECT_TREE || !header.has(wire::FEATURE_TREE) {
            return wrong(Damage::Value, "OBJECT is no tree, or HEADER does not say that it is one");
        }
        if reserved {
            return wrong(Damage::Reserved, "a reserved field of OBJECT is not zero");
        }
        if !grain.is_power_of_two() || grain > wire::LIMIT_GRAIN {
            return wrong(Damage::Value, "the grain is not a power of two up to 64 KiB");
        }
        Ok(Tree { grain })
    }

    fn rules(&self, header: &Header) -> Rules {
        Rules::new(self.grain, header.is_whole(), header.has(wire::FEATURE_LIST))
    }

    fn admit(rules: &mut Rules, change: &TreeChange) -> Result<(), Wrong> {
        rules.admit(change)
    }

    fn close(rules: &Rules) -> Result<(), Wrong> {
        rules.close()
    }

    fn read(kind: u16, payload: &[u8]) -> Option<Result<TreeChange, Wrong>> {
        match kind {
            wire::kind::GONE => Some(read_gone(payload)),
            wire::kind::ENTRY => Some(Entry::decode(payload).map(|entry| TreeChange::Entry(Box::new(entry)))),
            wire::kind::LINK => Some(read_link(payload)),
            wire::kind::ROOTS => Some(read_roots(payload)),
            _ => None,
        }
    }

    fn extent(change: &TreeChange) -> Option<&Change> {
        match change {
            TreeChange::Extent(extent) => Some(extent),
            TreeChange::Gone { .. } | TreeChange::Entry(_) | TreeChange::Link { .. } | TreeChange::Roots { .. } => None,
        }
    }

    fn written(change: &TreeChange) -> Written<'_> {
        match change {
            TreeChange::Extent(extent) => Written::Extent(extent),
            TreeChange::Gone { path, number } => {
                let mut out = Vec::new();
                out.put_u64(number.unwrap_or(0));
                out.extend(path.encode());
                Written::Frame(wire::kind::GONE, out)
            }
            TreeChange::Entry(entry) => Written::Frame(wire::kind::ENTRY, entry.encode()),
            TreeChange::Link { path, to } => Written::Frame(wire::kind::LINK, encode_link(path, to)),
            TreeChange::Roots { old, new } => {
                Written::Frame(wire::kind::ROOTS, encode_two(old.as_deref().unwrap_or_default(), new))
            }
        }
    }
}

/// The payload of LINK.
pub fn encode_link(path: &TreePath, to: &TreePath) -> Vec<u8> {
    encode_two(&path.encode(), &to.encode())
}

/// Two byte strings, the length of the first before them.
fn encode_two(first: &[u8], second: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(first.len().saturating_add(second.len()).saturating_add(8));
    out.put_u32(len_of(first));
    out.put_u32(0);
    out.extend_from_slice(first);
    out.extend_from_slice(second);
    out
}

fn read_gone(payload: &[u8]) -> Result<TreeChange, Wrong> {
    let mut fields = Fields(payload);
    let number = fields.u64().ok_or_else(|| (Damage::Length, "GONE is shorter than its fields".to_owned()))?;
    Ok(TreeChange::Gone { path: TreePath::decode(fields.0)?, number: (number != 0).then_some(number) })
}

fn read_link(payload: &[u8]) -> Result<TreeChange, Wrong> {
    let (path, to) = read_two("LINK", payload)?;
    Ok(TreeChange::Link { path: TreePath::decode(path)?, to: TreePath::decode(to)? })
}

fn read_roots(payload: &[u8]) -> Result<TreeChange, Wrong> {
    let (old, new) = read_two("ROOTS", payload)?;
    if new.is_empty() || [old, new].iter().any(|path| path.len() > wire::LIMIT_NAME || path.contains(&0)) {
        return Err((Damage::Value, "a root is empty, too long, or holds NUL".to_owned()));
    }
    Ok(TreeChange::Roots { old: (!old.is_empty()).then(|| old.to_vec()), new: new.to_vec() })
}

/// What [`encode_two`] wrote.
fn read_two<'a>(name: &str, payload: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Wrong> {
    let short = || (Damage::Length, format!("{name} is shorter than its fields"));
    let mut fields = Fields(payload);
    let (len, reserved) = fields.u32().zip(fields.u32()).ok_or_else(short)?;
    let first = usize::try_from(len).ok().and_then(|len| fields.bytes(len)).ok_or_else(short)?;
    if reserved != 0 {
        return Err((Damage::Reserved, format!("a reserved field of {name} is not zero")));
    }
    Ok((first, fields.0))
}
