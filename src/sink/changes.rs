//! A list of changes as text: lines as `zfs diff -FH` prints them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::flow::{Proof, Sink};
use crate::format::{Header, Node, Origin, Tree, TreeChange, TreePath};
use crate::host::tree::{Dir, Kind};
use crate::state::Fault;

/// Prints what goes by: change, type, path, and for what was renamed its new path, with tabs between. A directory that is gone
/// stands for all that was in it.
pub struct ChangeLines<W: Write> {
    output: W,
    /// Paths as they are, and a NUL behind each; else a line feed, and what cannot be printed as `\0ooo`.
    nul: bool,
    /// As the user knows it.
    root: Vec<u8>,
    old: Option<Dir>,
    taken: HashMap<u64, TreePath>,
}

impl<W: Write> ChangeLines<W> {
    /// Prints to `output`.
    pub fn new(output: W, nul: bool) -> ChangeLines<W> {
        ChangeLines { output, nul, root: Vec::new(), old: None, taken: HashMap::new() }
    }

    /// One change: a letter, a type, and one or two paths.
    fn line(&mut self, letter: char, kind: char, paths: &[&TreePath]) -> io::Result<()> {
        let mut out = Vec::new();
        write!(out, "{letter}\t{kind}")?;
        for path in paths {
            let joined =
                if path.names().is_empty() { self.root.clone() } else { [&self.root, &b"/"[..], &path.joined()].concat() };
            out.push(b'\t');
            self.spell(&mut out, &joined);
        }
        out.push(if self.nul { 0 } else { b'\n' });
        self.output.write_all(&out)
    }

    fn spell(&self, out: &mut Vec<u8>, path: &[u8]) {
        for byte in path {
            match byte {
                _ if self.nul => out.push(*byte),
                // As zfs diff has it, so that who reads that reads this.
                0..=0x20 | b'\\' | 0x7f.. => out.extend_from_slice(format!("\\{byte:04o}").as_bytes()),
                plain => out.push(*plain),
            }
        }
    }

    /// The type of what stood at a path of the old tree.
    fn old_kind(&self, path: &TreePath) -> char {
        let find = || {
            let (parents, name) = path.split()?;
            let dir =
                parents.iter().try_fold(self.old.as_ref()?.again(), |dir, name| dir.map(|dir| dir.open(name))).ok()?.ok()?;
            dir.look(name).ok()?.map(|meta| letter_of(meta.kind))
        };
        find().unwrap_or('?')
    }

    fn print(&mut self, change: &TreeChange) -> io::Result<()> {
        match change {
            TreeChange::Roots { old, .. } => {
                self.old = old.as_ref().and_then(|old| Dir::root(Path::new(OsStr::from_bytes(old))).ok());
                Ok(())
            }
            TreeChange::Gone { path, number: Some(number) } => {
                self.taken.insert(*number, path.clone());
                Ok(())
            }
            TreeChange::Gone { path, number: None } => self.line('-', self.old_kind(path), &[path]),
            TreeChange::Entry(entry) => {
                let kind = type_of(&entry.node);
                match entry.origin {
                    Origin::New => self.line('+', kind, &[&entry.path]),
                    Origin::Kept => self.line('M', kind, &[&entry.path]),
                    Origin::Taken(number) => {
                        let old = self.taken.remove(&number).unwrap_or_default();
                        self.line('R', kind, &[&old, &entry.path])
                    }
                }
            }
            // Of which type, its first name says.
            TreeChange::Link { path, .. } => self.line('+', 'F', &[path]),
            TreeChange::Extent(_) => Ok(()),
        }
    }
}

fn letter_of(kind: Kind) -> char {
    match kind {
        Kind::File => 'F',
        Kind::Directory => '/',
        Kind::Symlink => '@',
        Kind::Fifo => '|',
        Kind::Socket => '=',
        Kind::CharacterDevice => 'C',
        Kind::BlockDevice => 'B',
    }
}

fn type_of(node: &Node) -> char {
    letter_of(match node {
        Node::File { .. } => Kind::File,
        Node::Directory => Kind::Directory,
        Node::Symlink { .. } => Kind::Symlink,
        Node::Fifo => Kind::Fifo,
        Node::Socket => Kind::Socket,
        Node::Device { is_block: false, .. } => Kind::CharacterDevice,
        Node::Device { is_block: true, .. } => Kind::BlockDevice,
    })
}

fn failed(error: io::Error) -> Fault {
    Fault::io("writing the list", &error)
}

impl<W: Write> Sink<Tree> for ChangeLines<W> {
    type Done = ();

    fn begin(&mut self, header: &Header, _: &Tree) -> Result<(), Fault> {
        self.root.clone_from(&header.names.source);
        Ok(())
    }

    fn change(&mut self, change: TreeChange) -> Result<(), Fault> {
        self.print(&change).map_err(failed)
    }

    fn commit(mut self, _: Proof<Tree>) -> Result<(), Fault> {
        self.output.flush().map_err(failed)
    }
}
