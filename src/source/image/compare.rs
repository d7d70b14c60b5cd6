//! Two images side by side, and where they differ.

use super::chunk;
use super::input::Input;
use crate::format::{Change, Data, Pool, all_zero, wire};
use crate::state::{ContentRoot, Fault};

/// An image and the base that it is compared with.
pub(super) struct Pair {
    pub new: Input,
    pub base: Input,
    pub pool: Pool,
    /// Everything before this offset was looked at.
    pub at: u64,
    /// What was read and may hold more changes.
    pub window: Option<Window>,
}

impl Pair {
    /// The next difference; `None` at the end. All of the new image goes into `root`.
    pub fn change(&mut self, root: &mut ContentRoot) -> Result<Option<Change>, Fault> {
        loop {
            if let Some(change) = self.window.as_mut().and_then(Window::change) {
                return Ok(Some(change));
            }
            self.window = self.next_window(root)?;
            if self.window.is_none() {
                return Ok(None);
            }
        }
    }

    /// Goes on to the next part that may hold differences.
    fn next_window(&mut self, root: &mut ContentRoot) -> Result<Option<Window>, Fault> {
        let size = self.new.size();
        while self.at < size {
            let (new, old) = (self.new.piece(self.at)?, self.base.piece(self.at)?);
            let end = old.end.min(new.end).min(size);
            if new.hole && old.hole {
                root.zeros(end - self.at);
                self.at = end;
                continue;
            }
            let (offset, len) = (self.at, chunk(self.at, end));
            self.at += len as u64;
            let read = |input: &Input, hole| if hole { Ok(None) } else { input.read(&self.pool, offset, len).map(Some) };
            let window = Window { offset, len, new: read(&self.new, new.hole)?, old: read(&self.base, old.hole)?, at: 0 };
            match &window.new {
                Some(data) => root.data(data),
                None => root.zeros(len as u64),
            }
            return Ok(Some(window));
        }
        Ok(None)
    }
}

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
    /// The next run of grains that differ.
    fn change(&mut self) -> Option<Change> {
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
