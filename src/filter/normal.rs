//! The canonical form: the same content gives the same extents, however the source came upon them.
//!
//! DATA is cut at multiples of 1 MiB and joined where it touches; runs of zeros that fill whole grains leave it; ZERO is
//! joined without limit. A whole stream carries no ZERO, because there a gap says the same.

use std::ops::Range;

use bytes::BytesMut;

use crate::flow::{Proof, Sink};
use crate::format::{Change, Data, Header, Image, Node, Origin, Tree, TreeChange, all_zero, wire};
use crate::state::Fault;

/// Brings changes into canonical form on their way into a sink: those of an image, or of each file of a tree.
///
/// Holds at most one window of 1 MiB, in however many pieces it comes.
pub struct Normal<S> {
    inner: S,
    shape: Shape,
}

/// The extents of one image, or of one file, on their way.
#[derive(Default)]
struct Shape {
    grain: u64,
    size: u64,
    /// Nothing was there before: a gap is zero.
    whole: bool,
    window: Option<Window>,
    zero: Option<Zero>,
}

/// Where the canonical extents go.
type Next<'a> = &'a mut dyn FnMut(Change) -> Result<(), Fault>;

/// Touching data inside one window of 1 MiB.
///
/// One piece, the common case, is not copied. Many small ones are, so that they do not keep many large buffers alive.
enum Window {
    One(Data),
    Many(u64, BytesMut),
}

impl Window {
    fn end(&self) -> u64 {
        match self {
            Window::One(data) => data.offset() + data.bytes().len() as u64,
            Window::Many(offset, joined) => offset + joined.len() as u64,
        }
    }
}

/// A run of zeros that may still grow.
struct Zero {
    offset: u64,
    end: u64,
    may_deallocate: bool,
}

impl<S> Normal<S> {
    /// Canonical changes for `inner`.
    pub fn new(inner: S) -> Normal<S> {
        Normal { inner, shape: Shape::default() }
    }
}

impl Shape {
    /// Zeros that are fewer than the default grain cost more as a frame of their own than as bytes.
    fn new(grain: u32, size: u64, whole: bool) -> Shape {
        Shape { grain: grain.max(wire::DEFAULT_GRAIN).into(), size, whole, window: None, zero: None }
    }

    fn change(&mut self, change: Change, next: Next<'_>) -> Result<(), Fault> {
        match change {
            Change::Data(data) => {
                let mut at = 0;
                while at < data.bytes().len() {
                    let room = usize::try_from(wire::CUT - (data.offset() + at as u64) % wire::CUT).unwrap_or(usize::MAX);
                    let end = data.bytes().len().min(at + room);
                    self.piece(data.slice(at..end), next)?;
                    at = end;
                }
                Ok(())
            }
            Change::Zero { offset, len, may_deallocate } => {
                self.close_window(next)?;
                self.zero(offset, len, may_deallocate, next)
            }
        }
    }

    /// There are no more.
    fn close(&mut self, next: Next<'_>) -> Result<(), Fault> {
        self.close_window(next)?;
        self.close_zero(next)
    }

    /// Takes data that lies inside one window.
    fn piece(&mut self, piece: Data, next: Next<'_>) -> Result<(), Fault> {
        let offset = piece.offset();
        let touching = self.window.take_if(|window| window.end() == offset && !offset.is_multiple_of(wire::CUT));
        let (offset, mut joined) = match touching {
            Some(Window::One(first)) => (first.offset(), BytesMut::from(first.bytes().as_ref())),
            Some(Window::Many(offset, joined)) => (offset, joined),
            None => {
                self.close_window(next)?;
                self.window = Some(Window::One(piece));
                return Ok(());
            }
        };
        joined.extend_from_slice(piece.bytes());
        self.window = Some(Window::Many(offset, joined));
        Ok(())
    }

    /// Finds the zero runs in the window, and passes it on.
    fn close_window(&mut self, next: Next<'_>) -> Result<(), Fault> {
        let data = match self.window.take() {
            None => return Ok(()),
            Some(Window::One(piece)) => piece,
            Some(Window::Many(offset, joined)) => Data::new(offset, joined),
        };
        let (offset, bytes) = (data.offset(), data.bytes());
        let mut start = 0;
        let mut zero = false;
        let mut at = 0;
        while at < bytes.len() {
            let len = self.grain_at(offset + at as u64).min(bytes.len() - at);
            let is_zero = self.fills_grain(offset + at as u64, len) && all_zero(&bytes[at..at + len]);
            if zero != is_zero && at > start {
                self.run(&data, start..at, zero, next)?;
                start = at;
            }
            zero = is_zero;
            at += len;
        }
        self.run(&data, start..at, zero, next)
    }

    /// Bytes from `offset` to the next multiple of the grain.
    fn grain_at(&self, offset: u64) -> usize {
        usize::try_from(self.grain - offset % self.grain).unwrap_or(usize::MAX)
    }

    /// The range is a whole grain, or the image's last, short one.
    fn fills_grain(&self, offset: u64, len: usize) -> bool {
        let len = len as u64;
        offset.is_multiple_of(self.grain) && (len == self.grain || offset + len == self.size)
    }

    fn run(&mut self, data: &Data, range: Range<usize>, zero: bool, next: Next<'_>) -> Result<(), Fault> {
        if zero {
            return self.zero(data.offset() + range.start as u64, range.len() as u64, false, next);
        }
        self.close_zero(next)?;
        next(Change::Data(data.slice(range)))
    }

    fn zero(&mut self, offset: u64, len: u64, may_deallocate: bool, next: Next<'_>) -> Result<(), Fault> {
        if self.whole {
            return Ok(());
        }
        if let Some(zero) = &mut self.zero
            && zero.end == offset
            && zero.may_deallocate == may_deallocate
        {
            zero.end += len;
            return Ok(());
        }
        self.close_zero(next)?;
        self.zero = Some(Zero { offset, end: offset + len, may_deallocate });
        Ok(())
    }

    fn close_zero(&mut self, next: Next<'_>) -> Result<(), Fault> {
        let Some(Zero { offset, end, may_deallocate }) = self.zero.take() else { return Ok(()) };
        next(Change::Zero { offset, len: end - offset, may_deallocate })
    }
}

/// What comes out is cut anew, whatever bound the stream had that came in.
fn cut_anew(header: &Header) -> Header {
    Header { max_payload: wire::DEFAULT_MAX_PAYLOAD, ..header.clone() }
}

impl<S: Sink> Sink for Normal<S> {
    type Done = S::Done;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        self.shape = Shape::new(image.grain, image.new_size, header.is_whole());
        self.inner.begin(&cut_anew(header), image)
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        self.shape.change(change, &mut |change| self.inner.change(change))
    }

    fn commit(mut self, proof: Proof) -> Result<S::Done, Fault> {
        self.shape.close(&mut |change| self.inner.change(change))?;
        self.inner.commit(proof)
    }
}

impl<S: Sink<Tree>> Sink<Tree> for Normal<S> {
    type Done = S::Done;

    fn begin(&mut self, header: &Header, tree: &Tree) -> Result<(), Fault> {
        self.shape.grain = tree.grain.into();
        self.inner.begin(&cut_anew(header), tree)
    }

    fn change(&mut self, change: TreeChange) -> Result<(), Fault> {
        let mut next = |change| self.inner.change(TreeChange::Extent(change));
        match change {
            TreeChange::Extent(extent) => return self.shape.change(extent, &mut next),
            TreeChange::Roots { .. } | TreeChange::Gone { .. } | TreeChange::Entry(_) | TreeChange::Link { .. } => {
                self.shape.close(&mut next)?
            }
        }
        if let TreeChange::Entry(entry) = &change
            && let Node::File { size, .. } = entry.node
        {
            let grain = u32::try_from(self.shape.grain).unwrap_or(wire::DEFAULT_GRAIN);
            self.shape = Shape::new(grain, size, entry.origin == Origin::New);
        }
        self.inner.change(change)
    }

    fn commit(mut self, proof: Proof<Tree>) -> Result<S::Done, Fault> {
        self.shape.close(&mut |change| self.inner.change(TreeChange::Extent(change)))?;
        self.inner.commit(proof)
    }
}
