//! The same part of two images or files, and where they differ.

use crate::format::{Change, Data, all_zero, wire};

/// What both sides hold in a range that begins at a multiple of the grain, compared grain by grain.
///
/// Zeros inside of what differs are found downstream, by [`crate::filter::Normal`].
pub(super) struct Window {
    offset: u64,
    len: usize,
    /// `None`: a hole.
    new: Option<Data>,
    /// `None`: reads as zero.
    old: Option<Data>,
    /// Everything before this was compared.
    at: usize,
}

impl Window {
    /// What both sides hold in `len` bytes from `offset` on; `None`: it reads as zero.
    pub fn new(offset: u64, len: usize, new: Option<Data>, old: Option<Data>) -> Window {
        Window { offset, len, new, old, at: 0 }
    }

    /// The next run of grains that differ.
    pub fn change(&mut self) -> Option<Change> {
        while self.at < self.len && !self.differs(self.at) {
            self.at = self.next_grain(self.at);
        }
        let start = self.at;
        while self.at < self.len && self.differs(self.at) {
            self.at = self.next_grain(self.at);
        }
        let offset = self.offset + start as u64;
        if start == self.at {
            return None;
        }
        Some(match &self.new {
            Some(data) => Change::Data(data.slice(start..self.at)),
            None => Change::Zero { offset, len: (self.at - start) as u64, may_deallocate: true },
        })
    }

    fn next_grain(&self, at: usize) -> usize {
        const GRAIN: usize = wire::DEFAULT_GRAIN as usize;
        (at + GRAIN).min(self.len)
    }

    fn differs(&self, at: usize) -> bool {
        let range = at..self.next_grain(at);
        match (&self.new, &self.old) {
            (Some(new), Some(old)) => new.bytes()[range.clone()] != old.bytes()[range],
            (Some(one), None) | (None, Some(one)) => !all_zero(&one.bytes()[range]),
            (None, None) => false,
        }
    }
}
