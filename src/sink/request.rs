//! What a stream's beginning asks of a target.

use crate::format::{Header, Id, Image};
use crate::state::{Checkpoint, NextStream, Standing};

/// As far as the half of a sink needs it that never sees the stream. Sizes are exact and in bytes.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whose state becomes whose.
    pub next: NextStream,
    /// Id of the source.
    pub source: Id,
    /// The source's name of the to-state.
    pub to_name: Vec<u8>,
    /// Size of the image in the from-state; 0 in a whole stream.
    pub old_size: u64,
    /// Size of the image in the to-state.
    pub new_size: u64,
}

impl Request {
    /// What this beginning asks.
    pub fn new(header: &Header, image: &Image) -> Request {
        Request {
            next: NextStream::from(header),
            source: header.source,
            to_name: header.names.to.clone(),
            old_size: image.old_size,
            new_size: image.new_size,
        }
    }

    /// What the target is before the first change, in its new size.
    pub fn beginning(&self, standing: &Standing) -> Checkpoint {
        let resumed = standing.checkpoint.as_ref().filter(|resumable| resumable.held.is(self.next.from));
        match resumed {
            Some(resumable) => resumable.checkpoint.resized(self.new_size),
            None => Checkpoint::begin(self.next.from, self.old_size, self.new_size),
        }
    }
}
