//! Where an entry stands: names below the root of the tree.

use std::fmt;
use std::sync::Arc;

use crate::format::object::Wrong;
use crate::format::{Damage, wire};

/// One component of a path: 1 to 255 bytes in no particular encoding, neither `.` nor `..`, without `/` and NUL. Shared when it is
/// cloned: the paths of all that is in a directory have its names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// A name that may stand in a path; `None`: this one may not.
    pub fn new(bytes: &[u8]) -> Option<Name> {
        let fits = (1..=wire::LIMIT_COMPONENT).contains(&bytes.len());
        (fits && bytes != b"." && bytes != b".." && !bytes.iter().any(|byte| matches!(byte, 0 | b'/')))
            .then(|| Name(bytes.into()))
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// Where an entry stands below the root of a tree; without any name: the root itself.
///
/// Paths are ordered by their names, one after another, each by its bytes. So a directory comes before all that is in it,
/// and all that is in it comes before what is behind it.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Vec<Name>);

impl TreePath {
    /// The root of a tree.
    pub const ROOT: TreePath = TreePath(Vec::new());

    /// The path of these names; `None`: more than the limits allow.
    pub fn new(names: Vec<Name>) -> Option<TreePath> {
        let path = TreePath(names);
        (path.0.len() <= wire::LIMIT_DEPTH && path.wire_len() <= wire::LIMIT_PATH).then_some(path)
    }

    /// What is called so in the directory at this path.
    pub fn join(&self, name: Name) -> Option<TreePath> {
        let mut names = Vec::with_capacity(self.0.len().saturating_add(1));
        names.extend_from_slice(&self.0);
        names.push(name);
        TreePath::new(names)
    }

    /// The names, from the root downwards.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// The directory that it stands in, and its name there; `None`: it is the root.
    pub fn split(&self) -> Option<(&[Name], &Name)> {
        self.0.split_last().map(|(name, parent)| (parent, name))
    }

    /// It stands in the directory at this path, or in one below it.
    pub fn is_below(&self, directory: &TreePath) -> bool {
        self.0.len() > directory.0.len() && self.0.starts_with(&directory.0)
    }

    /// As a user writes it, with `/` between the names; as bytes. Of the root: nothing.
    pub fn joined(&self) -> Vec<u8> {
        self.0.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/')
    }

    fn wire_len(&self) -> usize {
        self.0.iter().map(|name| name.0.len().saturating_add(1)).sum()
    }

    /// Each name behind its length in a byte.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.wire_len());
        for name in &self.0 {
            // At most 255, by the limit of names.
            out.push(u8::try_from(name.0.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(&name.0);
        }
        out
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<TreePath, Wrong> {
        let wrong = |what: String| (Damage::Path, what);
        let mut names = Vec::new();
        while let Some((len, rest)) = bytes.split_first() {
            let (name, rest) =
                rest.split_at_checked(usize::from(*len)).ok_or_else(|| wrong("a path does not end with a name".to_owned()))?;
            let allowed = Name::new(name).ok_or_else(|| wrong(format!("\"{}\" is no name for an entry", name.escape_ascii())))?;
            names.push(allowed);
            bytes = rest;
        }
        TreePath::new(names).ok_or_else(|| wrong("a path is longer or deeper than the limits allow".to_owned()))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.joined().escape_ascii())
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
