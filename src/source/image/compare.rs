//! Two images side by side, and where they differ.

use super::chunk;
use super::input::Input;
use crate::format::{Change, Pool};
use crate::source::window::Window;
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
            let data = read(&self.new, new.hole)?;
            match &data {
                Some(data) => root.data(data),
                None => root.zeros(len as u64),
            }
            let window = Window::new(offset, len, data, read(&self.base, old.hole)?);
            return Ok(Some(window));
        }
        Ok(None)
    }
}
