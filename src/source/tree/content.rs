//! What a file holds, perhaps beside what it held before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::side::{CHUNK, Shown};
use crate::format::{Change, Data, Pool, wire};
use crate::host::holes::{Holes, Piece};
use crate::host::tree::Meta;
use crate::source::window::Window;
use crate::state::{Class, Fault, TreeRoot};

/// An open file.
pub(super) struct Content {
    file: File,
    size: u64,
    holes: Holes,
    shown: Shown,
    live: bool,
    pool: Pool,
}

/// A file that is compared with what it held before, from its first byte to its last; a new one with nothing.
pub(super) struct Comparison {
    new: Content,
    old: Option<Content>,
    /// Everything before this was looked at.
    at: u64,
    /// What was read and may hold more changes.
    window: Option<Window>,
}

impl Content {
    /// A file of which this is known. Where it takes all the room that it may, it has no holes worth asking for.
    pub fn new(file: File, meta: &Meta, shown: Shown, trusts_holes: bool, live: bool, pool: Pool) -> Content {
        let may_have_holes = meta.blocks.saturating_mul(512) < meta.size;
        let holes = Holes::new(trusts_holes && may_have_holes, meta.size, wire::DEFAULT_GRAIN.into());
        Content { file, size: meta.size, holes, shown, live, pool }
    }

    /// The piece from `offset` on. It ends at a multiple of the grain, perhaps behind the file's end, where all is zero.
    fn piece(&mut self, offset: u64) -> Result<Piece, Fault> {
        if offset >= self.size {
            return Ok(Piece { end: u64::MAX, hole: true });
        }
        let piece = self.holes.at(&self.file, offset);
        let piece = piece.map_err(|error| Fault::io(format!("looking for holes of {}", self.shown), &error))?;
        Ok(Piece { end: piece.end.next_multiple_of(wire::DEFAULT_GRAIN.into()), ..piece })
    }

    /// Reads `len` bytes from `offset`. What lies behind the end is zero.
    fn read(&self, offset: u64, len: usize) -> Result<Data, Fault> {
        let mut buffer = self.pool.take(len);
        let inside = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(len);
        let mut filled = 0;
        while filled < inside {
            match self.file.read_at(&mut buffer[filled..inside], offset + filled as u64) {
                Ok(0) if self.live => break,
                Ok(0) => {
                    return Err(Fault::new(Class::Changed, format!("{} became shorter while it was read", self.shown))
                        .hint("send a snapshot, or a tree that nobody writes to"));
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::io(format!("reading {}", self.shown), &error)),
            }
        }
        buffer[filled..].fill(0);
        Ok(Data::new(offset, buffer.freeze()))
    }
}

impl Comparison {
    pub fn new(new: Content, old: Option<Content>) -> Comparison {
        Comparison { new, old, at: 0, window: None }
    }

    /// The next difference; `None` at the end. All of the file goes into `root`.
    pub fn change(&mut self, mut root: Option<&mut TreeRoot>) -> Result<Option<Change>, Fault> {
        loop {
            if let Some(change) = self.window.as_mut().and_then(Window::change) {
                return Ok(Some(change));
            }
            self.window = self.next_window(root.as_deref_mut())?;
            if self.window.is_none() {
                return Ok(None);
            }
        }
    }

    /// Goes on to the next part that may hold differences.
    fn next_window(&mut self, mut root: Option<&mut TreeRoot>) -> Result<Option<Window>, Fault> {
        let size = self.new.size;
        while self.at < size {
            let new = self.new.piece(self.at)?;
            let old = self.old.as_mut().map_or(Ok(Piece { end: u64::MAX, hole: true }), |old| old.piece(self.at))?;
            let end = old.end.min(new.end).min(size);
            if new.hole && old.hole {
                if let Some(root) = &mut root {
                    root.zeros(end - self.at);
                }
                self.at = end;
                continue;
            }
            let most = wire::CUT - self.at % wire::CUT;
            let (offset, len) = (self.at, usize::try_from(most.min(end - self.at)).unwrap_or(CHUNK));
            self.at += len as u64;
            let data = if new.hole { None } else { Some(self.new.read(offset, len)?) };
            match (&mut root, &data) {
                (Some(root), Some(data)) => root.data(data),
                (Some(root), None) => root.zeros(len as u64),
                (None, _) => {}
            }
            let before = self.old.as_ref().filter(|_| !old.hole).map(|old| old.read(offset, len)).transpose()?;
            return Ok(Some(Window::new(offset, len, data, before)));
        }
        Ok(None)
    }
}
