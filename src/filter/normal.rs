//! The canonical form: the same content gives the same extents, however the source came upon them.
//!
//! DATA is cut at multiples of 1 MiB and joined where it touches; runs of zeros that fill whole grains leave it; ZERO is
//! joined without limit. A whole stream carries no ZERO, because there a gap says the same.

use bytes::{Bytes, BytesMut};

use crate::flow::{Proof, Sink};
use crate::format::{Change, Header, Image, all_zero, wire};
use crate::state::Fault;

/// Brings changes into canonical form on their way into a sink.
pub struct Normal<S> {
    inner: S,
    grain: u64,
    size: u64,
    whole: bool,
    pending: Pending,
}

/// What may still grow.
enum Pending {
    Nothing,
    /// Touching pieces inside one window of 1 MiB, the first at `offset`.
    Data {
        offset: u64,
        end: u64,
        pieces: Vec<Bytes>,
    },
    Zero {
        offset: u64,
        end: u64,
        may_deallocate: bool,
    },
}

impl<S: Sink> Normal<S> {
    /// Canonical changes for `inner`.
    pub fn new(inner: S) -> Normal<S> {
        Normal { inner, grain: 1, size: 0, whole: false, pending: Pending::Nothing }
    }

    /// Takes data that lies inside one window, and finds the zero runs in it.
    fn window(&mut self, offset: u64, payload: &Bytes) -> Result<(), Fault> {
        let mut start = 0;
        let mut zero = None;
        let mut at = 0;
        while at < payload.len() {
            let len = self.grain_at(offset + at as u64).min(payload.len() - at);
            let is_zero = self.fills_grain(offset + at as u64, len) && all_zero(&payload[at..at + len]);
            if zero != Some(is_zero) && at > start {
                self.run(offset, payload, start..at, zero == Some(true))?;
                start = at;
            }
            zero = Some(is_zero);
            at += len;
        }
        self.run(offset, payload, start..at, zero == Some(true))
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

    fn run(&mut self, offset: u64, payload: &Bytes, range: std::ops::Range<usize>, zero: bool) -> Result<(), Fault> {
        let (offset, len) = (offset + range.start as u64, range.len() as u64);
        match zero {
            true => self.zero(offset, len, false),
            false => self.data(offset, payload.slice(range)),
        }
    }

    fn data(&mut self, offset: u64, payload: Bytes) -> Result<(), Fault> {
        let len = payload.len() as u64;
        if let Pending::Data { end, pieces, .. } = &mut self.pending
            && *end == offset
            && !offset.is_multiple_of(wire::CUT)
        {
            *end += len;
            pieces.push(payload);
            return Ok(());
        }
        self.flush()?;
        self.pending = Pending::Data { offset, end: offset + len, pieces: vec![payload] };
        Ok(())
    }

    fn zero(&mut self, offset: u64, len: u64, may_deallocate: bool) -> Result<(), Fault> {
        if self.whole {
            return self.flush();
        }
        if let Pending::Zero { end, may_deallocate: pending, .. } = &mut self.pending
            && *end == offset
            && *pending == may_deallocate
        {
            *end += len;
            return Ok(());
        }
        self.flush()?;
        self.pending = Pending::Zero { offset, end: offset + len, may_deallocate };
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fault> {
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => Ok(()),
            Pending::Data { offset, pieces, .. } => self.inner.change(Change::Data { offset, payload: join(pieces) }),
            Pending::Zero { offset, end, may_deallocate } => {
                self.inner.change(Change::Zero { offset, len: end - offset, may_deallocate })
            }
        }
    }
}

impl<S: Sink> Sink for Normal<S> {
    type Done = S::Done;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        self.grain = image.grain.into();
        self.size = image.new_size;
        self.whole = header.is_whole();
        self.inner.begin(header, image)
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        match change {
            Change::Data { mut offset, mut payload } => {
                while !payload.is_empty() {
                    let room = usize::try_from(wire::CUT - offset % wire::CUT).unwrap_or(usize::MAX);
                    let now = payload.split_to(room.min(payload.len()));
                    self.window(offset, &now)?;
                    offset += now.len() as u64;
                }
                Ok(())
            }
            Change::Zero { offset, len, may_deallocate } => self.zero(offset, len, may_deallocate),
        }
    }

    fn commit(mut self, proof: Proof) -> Result<S::Done, Fault> {
        self.flush()?;
        self.inner.commit(proof)
    }
}

/// Pieces of one window as one payload; a single one, the common case, is not copied.
fn join(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1
        && let Some(piece) = pieces.pop()
    {
        return piece;
    }
    let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
    joined.freeze()
}
