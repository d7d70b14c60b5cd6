//! Several streams that follow each other as one: A→B and B→C become A→C.

use crate::flow::{Ending, Source};
use crate::format::{Change, Header, Id, Image, Names};
use crate::state::{Class, Fault, escape};

/// Reads streams side by side, and says of each range what the newest of them says of it.
///
/// Holds one change of each stream. Every stream is read to its end, whatever of it is still wanted: only there it says
/// that it was whole.
pub struct Merge<S> {
    header: Header,
    image: Image,
    /// Oldest first.
    layers: Vec<Layer<S>>,
    /// Everything before this was said.
    at: u64,
}

/// A stream, and what it says next.
struct Layer<S> {
    source: S,
    next: Option<Change>,
    ended: bool,
}

impl<S: Source> Merge<S> {
    /// Streams that follow each other, oldest first. Only the first may be whole.
    pub fn new(sources: Vec<S>) -> Result<Merge<S>, Fault> {
        let (Some(first), Some(last)) = (sources.first(), sources.last()) else {
            return Err(Fault::new(Class::Usage, "there is nothing to merge"));
        };
        for (older, newer) in sources.iter().zip(sources.iter().skip(1)) {
            follows(older.header().to, newer)?;
            if older.object().new_size != newer.object().old_size {
                let (was, told) = (older.object().new_size, newer.object().old_size);
                return Err(Fault::new(
                    Class::WrongBase,
                    format!("one stream leads to {was} bytes, and the next begins from {told}"),
                ));
            }
        }
        let names = Names { from: first.header().names.from.clone(), ..last.header().names.clone() };
        let header = Header::new(last.header().source, first.header().from, last.header().to, names);
        let image = Image { grain: grain(&sources), old_size: first.object().old_size, new_size: last.object().new_size };
        let layers = sources.into_iter().map(|source| Layer { source, next: None, ended: false }).collect();
        Ok(Merge { header, image, layers, at: 0 })
    }
}

/// The second stream begins where the first one leads. `None`: the first one will say at its end.
fn follows(to: Option<Id>, newer: &impl Source) -> Result<(), Fault> {
    let from = newer.header().from;
    let name = escape(&newer.header().names.to);
    match from {
        None => Err(Fault::new(Class::WrongBase, format!("the stream to {name} is whole, and only the first one may be"))),
        Some(_) if to.is_none() || to == from => Ok(()),
        Some(_) => {
            Err(Fault::new(Class::WrongBase, format!("the stream to {name} does not begin where the one before it leads"))
                .hint("give the streams in their order, oldest first"))
        }
    }
}

/// The finest grain of all; and finer, where an image ended at no multiple of it before it grew.
fn grain<S: Source>(sources: &[S]) -> u32 {
    let told = sources.iter().map(|source| source.object().grain).min().unwrap_or(1);
    let end = sources.last().map_or(0, |source| source.object().new_size);
    let ends = sources.iter().map(|source| source.object().new_size).filter(|size| *size < end);
    // The lowest bit that is set is the largest power of two that divides it.
    ends.map(|size| 1_u32.checked_shl(size.trailing_zeros()).unwrap_or(told)).fold(told, u32::min)
}

impl<S: Source> Layer<S> {
    /// What it says of `at` or of what lies behind. Behind the end of the image that it leads to all is gone, and reads as
    /// zero if a later one brings it back.
    fn look(&mut self, at: u64) -> Result<&Change, Fault> {
        let end = self.source.object().new_size;
        while self.next.as_ref().is_none_or(|change| change.end() <= at) {
            let change = if self.ended { None } else { self.source.change()? };
            self.ended = change.is_none();
            self.next = Some(change.unwrap_or(Change::Zero { offset: end, len: u64::MAX - end, may_deallocate: true }));
        }
        self.next.as_ref().ok_or_else(|| Fault::new(Class::Io, "a stream without an end"))
    }
}

/// The part of a change from `start` to `end`, both inside of it.
fn part(change: &Change, start: u64, end: u64) -> Change {
    match change {
        Change::Zero { may_deallocate, .. } => Change::Zero { offset: start, len: end - start, may_deallocate: *may_deallocate },
        Change::Data(data) => {
            let inside = |at: u64| usize::try_from(at - data.offset()).unwrap_or(usize::MAX);
            Change::Data(data.slice(inside(start)..inside(end)))
        }
    }
}

impl<S: Source> Source for Merge<S> {
    fn header(&self) -> &Header {
        &self.header
    }

    fn object(&self) -> &Image {
        &self.image
    }

    fn change(&mut self) -> Result<Option<Change>, Fault> {
        let size = self.image.new_size;
        while self.at < size {
            let at = self.at;
            // Where somebody newer than who speaks of `at` has the word again.
            let mut until = size;
            let mut said = None;
            for layer in self.layers.iter_mut().rev() {
                let change = layer.look(at)?;
                if change.offset() <= at {
                    until = until.min(change.end());
                    said = Some(part(change, at, until));
                    break;
                }
                until = until.min(change.offset());
            }
            self.at = until;
            if said.is_some() {
                return Ok(said);
            }
        }
        Ok(None)
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        let mut reached = None;
        for n in 0..self.layers.len() {
            let layer = &mut self.layers[n];
            while !layer.ended {
                layer.ended = layer.source.change()?.is_none();
            }
            if n > 0 {
                follows(reached, &layer.source)?;
            }
            reached = layer.source.finish()?.to;
            if reached.is_none() && n + 1 < self.layers.len() {
                return Err(Fault::new(Class::WrongBase, "a stream leads to no state, so that no other can follow it"));
            }
        }
        Ok(Ending { to: reached, digest: None })
    }
}
