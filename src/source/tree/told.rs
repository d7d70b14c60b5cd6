//! Where the lines of `zfs diff` lead to.

use std::collections::{BTreeSet, HashSet};
use std::io::{BufRead, BufReader, Read};

use super::Skip;
use super::side::Side;
use crate::foreign::zfs_diff::{Letter, Line};
use crate::format::{Name, TreePath};
use crate::host::tree::Dir;
use crate::state::{Class, Fault};

/// The longest line in bytes: two paths of 4096 bytes, each escaped.
const LIMIT_LINE: u64 = 48 << 10;
/// What stands for what has no name any more, but was open.
const NAMELESS: &[u8] = b"(on_delete_queue)";
/// What stands in a path for where extended attributes are kept, if they are kept as files.
const XATTRS: &[u8] = b"<xattrdir>";

/// Directories that lines lead to. In the others no name came or went, and nothing that stands in them was changed.
#[derive(Default)]
pub(super) struct Told {
    visited: HashSet<TreePath>,
    /// What has to stand in the old tree, and in the new one.
    in_old: BTreeSet<TreePath>,
    in_new: BTreeSet<TreePath>,
}

impl Told {
    /// Reads all lines; `mount` is where the file system is mounted.
    pub fn read(lines: impl Read, mount: &[u8]) -> Result<Told, Fault> {
        let mut told = Told { visited: HashSet::from([TreePath::ROOT]), ..Told::default() };
        let mut lines = BufReader::new(lines);
        loop {
            let mut line = Vec::new();
            let read = lines.by_ref().take(LIMIT_LINE).read_until(b'\n', &mut line);
            read.map_err(|error| Fault::io("reading the lines", &error))?;
            if line.is_empty() {
                return Ok(told);
            }
            let Some(line) = line.strip_suffix(b"\n") else {
                return Err(Fault::new(Class::ForeignStream, "the lines end within a line, or one is too long"));
            };
            let line = Line::parse(line).map_err(|no_line| {
                Fault::new(Class::ForeignStream, no_line.to_string()).hint("zfs diff -FH prints such lines: neither -t nor -h")
            })?;
            told.take(&line, mount)?;
        }
    }

    fn take(&mut self, line: &Line, mount: &[u8]) -> Result<(), Fault> {
        for (n, path) in line.paths.iter().enumerate() {
            let Some(path) = below(path, mount)? else { continue };
            let is_new = line.letter == Letter::Added || line.letter == Letter::Renamed && n == 1;
            let is_old = line.letter == Letter::Removed || line.letter == Letter::Renamed && n == 0;
            let is_both = line.letter == Letter::Modified && !line.links_changed;
            if is_old || is_both {
                self.in_old.insert(path.clone());
            }
            if is_new || is_both {
                self.in_new.insert(path.clone());
            }
            let mut way = path.names().to_vec();
            while TreePath::new(way.clone()).is_some_and(|here| self.visited.insert(here)) {
                way.pop();
            }
        }
        Ok(())
    }

    /// The lines speak of these two trees: what they name stands where they say.
    pub fn fits(&self, old: &Side, new: &Side) -> Result<(), Fault> {
        for (side, paths, which) in [(old, &self.in_old, "old"), (new, &self.in_new, "new")] {
            let mut last: Option<(&[Name], Option<Dir>)> = None;
            for path in paths {
                let Some((parents, name)) = path.split() else { continue };
                let dir = match last.take().filter(|(at, _)| *at == parents) {
                    Some((_, dir)) => dir,
                    None => opened(side, parents)?,
                };
                if dir.as_ref().map_or(Ok(None), |dir| dir.look(name))?.is_none() {
                    return Err(Fault::new(
                        Class::ForeignStream,
                        format!("a line speaks of {path}, which is not in the {which} snapshot"),
                    )
                    .hint("the lines have to be those of these two snapshots"));
                }
                last = Some((parents, dir));
            }
        }
        Ok(())
    }
}

impl Skip for Told {
    fn is_same_below(&mut self, path: &TreePath, _: &Dir, _: &Dir) -> Result<bool, Fault> {
        Ok(!self.visited.contains(path))
    }
}

/// The directory at a path; `None`: there is none.
fn opened(side: &Side, names: &[Name]) -> Result<Option<Dir>, Fault> {
    match side.open_at(names) {
        Err(fault) if matches!(fault.class, Class::NotFound | Class::Changed) => Ok(None),
        opened => opened.map(Some),
    }
}

/// A path below the mount point. `None`: what it speaks of has no name.
fn below(path: &[u8], mount: &[u8]) -> Result<Option<TreePath>, Fault> {
    let mount = mount.strip_suffix(b"/").unwrap_or(mount);
    let wrong = |why: &str| Err(Fault::new(Class::ForeignStream, format!("a line speaks of {}, {why}", path.escape_ascii())));
    let Some(rest) = path.strip_prefix(mount) else {
        return wrong(&format!("which is not below {}", mount.escape_ascii()));
    };
    if rest == NAMELESS || rest.strip_prefix(b"/") == Some(NAMELESS) && mount.is_empty() {
        return Ok(None);
    }
    if !rest.is_empty() && !rest.starts_with(b"/") {
        return wrong(&format!("which is not below {}", mount.escape_ascii()));
    }
    // What holds the attributes of a file stands below it; the file itself is what changed.
    let names = rest.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).take_while(|name| *name != XATTRS);
    match names.map(Name::new).collect::<Option<Vec<_>>>().and_then(TreePath::new) {
        Some(path) => Ok(Some(path)),
        None => wrong("which is no path"),
    }
}
