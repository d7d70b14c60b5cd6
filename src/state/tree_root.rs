//! One digest for what a directory tree holds: tree-stream(5), "TREE ROOT".

use std::convert::Infallible;

use super::content::{Block, Blocks, RootHasher};
use crate::format::{Data, Digest, Entry, Node, TreePath, encode_link};

/// Computes the root of a tree from its entries in order, each in the form that a whole stream has it in.
pub struct TreeRoot {
    root: RootHasher,
    /// Those of the file that was entered last.
    blocks: Blocks,
}

impl TreeRoot {
    /// Before the entry of the tree's own root.
    pub fn new() -> TreeRoot {
        TreeRoot { root: RootHasher::beginning_with(b"siphon-tree-1"), blocks: Blocks::new(0) }
    }

    /// The next entry: new, with no old size. All content of a file follows it.
    pub fn entry(&mut self, entry: &Entry) {
        self.payload(&entry.encode());
        if let Node::File { size, .. } = entry.node {
            self.root.update(&size.to_le_bytes());
            self.blocks = Blocks::new(size);
        }
    }

    /// Another name of an entry.
    pub fn link(&mut self, path: &TreePath, to: &TreePath) {
        self.payload(&encode_link(path, to));
    }

    /// The file's next bytes.
    pub fn data(&mut self, data: &Data) {
        let TreeRoot { root, blocks } = self;
        let Ok(()) = blocks.data(data, &mut into(root));
    }

    /// The file's next `len` bytes, all zero.
    pub fn zeros(&mut self, len: u64) {
        let TreeRoot { root, blocks } = self;
        let Ok(()) = blocks.zeros(len, &mut into(root));
    }

    /// The root, after the last entry.
    pub fn finish(mut self) -> Digest {
        self.close();
        self.root.finish()
    }

    fn payload(&mut self, payload: &[u8]) {
        self.close();
        // A payload is far shorter than 4 GiB.
        self.root.update(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.root.update(payload);
    }

    fn close(&mut self) {
        let blocks = std::mem::replace(&mut self.blocks, Blocks::new(0));
        let Ok(()) = blocks.finish(&mut into(&mut self.root));
    }
}

impl Default for TreeRoot {
    fn default() -> TreeRoot {
        TreeRoot::new()
    }
}

fn into(root: &mut RootHasher) -> impl FnMut(Block<'_>) -> Result<(), Infallible> {
    |block| {
        root.block(&block);
        Ok(())
    }
}
