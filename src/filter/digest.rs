//! What an image holds after a whole stream, block by block.

use crate::flow::{Proof, Sink};
use crate::format::{Change, Digest, Header, Id, Image};
use crate::state::{Block, Blocks, Class, Fault, RootHasher, check_size};

/// Somebody who wants to see an image's blocks.
pub trait Visitor {
    /// Called once, before the first block: the thing that the image is of, and the image's exact size in bytes.
    fn begin(&mut self, source: Id, size: u64) -> Result<(), Fault>;
    /// The next block, or blocks of zeros, in order.
    fn block(&mut self, block: &Block<'_>) -> Result<(), Fault>;
}

/// For who wants only the root.
impl Visitor for () {
    fn begin(&mut self, _: Id, _: u64) -> Result<(), Fault> {
        Ok(())
    }
    fn block(&mut self, _: &Block<'_>) -> Result<(), Fault> {
        Ok(())
    }
}

/// Takes a whole stream for its content root. Holds one block.
pub struct Digester<V> {
    visitor: V,
    size: u64,
    /// Everything before this was said.
    at: u64,
    blocks: Blocks,
    root: RootHasher,
}

/// What [`Digester`] found.
#[derive(Debug)]
pub struct Digested<V> {
    /// Content root of the image.
    pub root: Digest,
    /// Its exact size in bytes.
    pub size: u64,
    /// The state that it is; `None`: it has no identity.
    pub state: Option<Id>,
    /// Who saw all blocks.
    pub visitor: V,
}

impl<V: Visitor> Digester<V> {
    /// Shows all blocks to `visitor`.
    pub fn new(visitor: V) -> Digester<V> {
        Digester { visitor, size: 0, at: 0, blocks: Blocks::new(0), root: RootHasher::new(0) }
    }

    /// What nobody spoke of reads as zero.
    fn zeros_to(&mut self, offset: u64) -> Result<(), Fault> {
        let Digester { visitor, blocks, root, .. } = self;
        blocks.zeros(offset - self.at, &mut seen_by(visitor, root))?;
        self.at = offset;
        Ok(())
    }
}

fn seen_by(visitor: &mut impl Visitor, root: &mut RootHasher) -> impl FnMut(Block<'_>) -> Result<(), Fault> {
    |block| {
        root.block(&block);
        visitor.block(&block)
    }
}

impl<V: Visitor> Sink for Digester<V> {
    type Done = Digested<V>;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        if !header.is_whole() {
            return Err(Fault::new(Class::Unsupported, "this stream is an increment: it does not say all that the image holds")
                .hint("send the state whole, or take the digest of where the increment was applied"));
        }
        check_size(image.new_size)?;
        self.size = image.new_size;
        self.blocks = Blocks::new(image.new_size);
        self.root = RootHasher::new(image.new_size);
        self.visitor.begin(header.source, image.new_size)
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        self.zeros_to(change.offset())?;
        let end = change.end();
        match change {
            Change::Data(data) => {
                let Digester { visitor, blocks, root, .. } = self;
                blocks.data(&data, &mut seen_by(visitor, root))?;
                self.at = end;
                Ok(())
            }
            Change::Zero { .. } => self.zeros_to(end),
        }
    }

    fn commit(mut self, proof: Proof) -> Result<Digested<V>, Fault> {
        self.zeros_to(self.size)?;
        let Digester { mut visitor, blocks, mut root, size, .. } = self;
        blocks.finish(&mut seen_by(&mut visitor, &mut root))?;
        Ok(Digested { root: root.finish(), size, state: proof.ending().to, visitor })
    }
}
