//! What an ENTRY asks: that something is made, or is there already, or comes from elsewhere.

use super::entries::{Entries, moved, not_there, occupied, wrong_base};
use super::file::Unfinished;
use crate::format::{Entry, Name, Node, Origin};
use crate::host::tree::{Kind, Meta};
use crate::state::{Class, Fault};

/// What the list says of one that was left out.
const DEVICE: &str = "a device";

impl Entries {
    /// Makes it stand where the way leads.
    pub(super) fn place(&mut self, name: &Name, entry: &Entry) -> Result<(), Fault> {
        match entry.origin {
            Origin::New => {
                self.way.unlock()?;
                self.make(name, entry)
            }
            Origin::Kept => self.keep(name, entry),
            Origin::Taken(number) => {
                self.way.unlock()?;
                self.bring_back(name, entry, number)
            }
        }
    }

    fn make(&mut self, name: &Name, entry: &Entry) -> Result<(), Fault> {
        let Entry { path, node, attributes, .. } = entry;
        if self.is_left_out(node) {
            self.differences.left_out(path, DEVICE);
            return Ok(());
        }
        if self.again() && self.free(name)? == Some(Kind::Directory) {
            // Things may have been brought into it, which nobody sends again.
            return if *node == Node::Directory {
                self.go_in(name, entry)
            } else {
                Err(wrong_base(format!("{path} is a directory")))
            };
        }
        match node {
            Node::File { size, .. } => {
                let made = Unfinished::made(self.way.here(), name, entry, *size);
                self.file = Some(made.map_err(|fault| occupied(fault, path))?);
                Ok(())
            }
            Node::Directory => {
                let dir = self.way.here().make_dir(name).map_err(|fault| occupied(fault, path))?;
                self.way.step_into(name, dir);
                self.way.want(attributes.clone())
            }
            Node::Symlink { .. } | Node::Fifo | Node::Socket | Node::Device { .. } => {
                self.make_node(name, node).map_err(|fault| occupied(fault, path))?;
                self.set(name, entry)
            }
        }
    }

    /// What has neither content nor entries in it.
    fn make_node(&self, name: &Name, node: &Node) -> Result<(), Fault> {
        let here = self.way.here();
        if let Node::Symlink { target } = node { here.make_symlink(name, target) } else { here.make_node(name, node) }
    }

    fn bring_back(&mut self, name: &Name, entry: &Entry, number: u64) -> Result<(), Fault> {
        if self.aside.holds(number)? {
            let called = self.aside.called(number)?;
            let aside = self.aside.make(self.way.root())?;
            moved(aside, &called, self.way.here(), name).map_err(|fault| occupied(fault, &entry.path))?;
        } else if !self.again() && !self.is_left_out(&entry.node) {
            return Err(not_there(&entry.path));
        }
        self.keep(name, entry)
    }

    /// What is there, and may change.
    fn keep(&mut self, name: &Name, entry: &Entry) -> Result<(), Fault> {
        let Entry { path, node, .. } = entry;
        let Some(meta) = self.way.here().look(name)? else { return self.miss(name, entry) };
        if meta.node(None).file_type() != node.file_type() {
            return Err(wrong_base(format!("{path} is of another type")));
        }
        match node {
            Node::File { size, old_size } => {
                // An earlier run of this stream may have given it its new size.
                if meta.size != *old_size && !(self.again() && meta.size == *size) {
                    let is = meta.size;
                    return Err(wrong_base(format!("{path} has {is} bytes, and the stream begins from {old_size}")));
                }
                self.file = Some(Unfinished::kept(self.way.here(), name, entry, (meta.size, *size))?);
                Ok(())
            }
            Node::Directory => self.go_in(name, entry),
            Node::Symlink { .. } | Node::Fifo | Node::Socket | Node::Device { .. } => {
                self.change_node(name, entry, &meta)?;
                self.set(name, entry)
            }
        }
    }

    /// What is to be there is not.
    fn miss(&mut self, name: &Name, entry: &Entry) -> Result<(), Fault> {
        let node = &entry.node;
        if self.is_left_out(node) {
            self.differences.left_out(&entry.path, DEVICE);
            return Ok(());
        }
        if self.again() && matches!(node, Node::Symlink { .. } | Node::Device { .. }) {
            // An earlier run of this stream was about to make it another: see below.
            self.make_node(name, node)?;
            return self.set(name, entry);
        }
        Err(not_there(&entry.path))
    }

    fn go_in(&mut self, name: &Name, entry: &Entry) -> Result<(), Fault> {
        if !self.way.step(name)? {
            return Err(not_there(&entry.path));
        }
        self.way.unlock()?;
        self.way.want(entry.attributes.clone())
    }

    /// Makes it point elsewhere, or be another device: nothing can do that to the thing itself.
    fn change_node(&mut self, name: &Name, entry: &Entry, meta: &Meta) -> Result<(), Fault> {
        let here = self.way.here();
        let same = match &entry.node {
            Node::Symlink { target } => here.read_link(name)? == *target,
            Node::Device { major, minor, .. } => (meta.major, meta.minor) == (*major, *minor),
            Node::Fifo | Node::Socket | Node::File { .. } | Node::Directory => true,
        };
        if same {
            return Ok(());
        }
        if self.is_left_out(&entry.node) {
            self.differences.left_out(&entry.path, DEVICE);
            return Ok(());
        }
        if meta.links > 1 {
            let what = format!("{} has several names, and cannot be made another at all of them", entry.path);
            return Err(Fault::new(Class::Unsupported, what).hint("send the whole tree with --replace"));
        }
        self.way.unlock()?;
        self.way.here().remove(name)?;
        self.make_node(name, &entry.node)
    }

    /// Only rights make it: it is left alone, and told.
    fn is_left_out(&self, node: &Node) -> bool {
        matches!(node, Node::Device { .. }) && !self.differences.all()
    }

    /// Makes room where an earlier run of this stream was. What is a directory stays.
    pub(super) fn free(&mut self, name: &Name) -> Result<Option<Kind>, Fault> {
        let found = self.way.here().look(name)?.map(|meta| meta.kind);
        match found {
            None | Some(Kind::Directory) => {}
            Some(_) => self.way.here().remove(name)?,
        }
        Ok(found)
    }

    fn set(&mut self, name: &Name, entry: &Entry) -> Result<(), Fault> {
        let unset = self.way.here().set_attributes(name, &entry.attributes, self.differences.all())?;
        self.differences.take(&entry.path, unset)
    }
}
