//! An image in memory: the oracle of the tests.

use crate::flow::{Proof, Sink};
use crate::format::{Change, Header, Image};
use crate::state::{Class, Fault};

/// Applies changes to a vector of bytes. For tests and small images.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    content: Vec<u8>,
}

impl Memory {
    /// An image that holds `content` before the stream.
    pub fn new(content: Vec<u8>) -> Memory {
        Memory { content }
    }

    fn range(&mut self, offset: u64, len: u64) -> Result<&mut [u8], Fault> {
        let outside = || Fault::new(Class::TooSmall, "the change lies outside the image");
        let start = usize::try_from(offset).map_err(|_| outside())?;
        let end = usize::try_from(offset.saturating_add(len)).map_err(|_| outside())?;
        self.content.get_mut(start..end).ok_or_else(outside)
    }
}

impl Sink for Memory {
    type Done = Vec<u8>;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        if header.is_whole() {
            self.content.clear();
        }
        let size =
            usize::try_from(image.new_size).map_err(|_| Fault::new(Class::TooSmall, "the image does not fit into memory"))?;
        self.content.resize(size, 0);
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        let range = self.range(change.offset(), change.len())?;
        match change {
            Change::Data(data) => range.copy_from_slice(data.bytes()),
            Change::Zero { .. } => range.fill(0),
        }
        Ok(())
    }

    fn commit(self, _proof: Proof) -> Result<Vec<u8>, Fault> {
        Ok(self.content)
    }
}
