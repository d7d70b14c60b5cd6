//! An extent stream as a source: what every `…-apply` reads.

use std::io::Read;

use crate::flow::{Ending, Source};
use crate::format::{Beginning, Header, Image, Object, Reader, Tree, wire};
use crate::state::{Class, Fault};

/// The stream on an input.
pub struct Decoder<R: Read, O: Object = Image> {
    reader: Reader<R, O>,
    /// CHECKPOINT frames that were told of.
    told: u64,
}

/// A stream of whatever object.
pub enum AnyDecoder<R: Read> {
    /// Of an image.
    Image(Decoder<R>),
    /// Of a directory tree, or a list of changes.
    Tree(Decoder<R, Tree>),
}

impl<R: Read> AnyDecoder<R> {
    /// Reads the beginning of a stream.
    pub fn open(input: R) -> Result<AnyDecoder<R>, Fault> {
        let beginning = Beginning::read_any(input)?;
        Ok(match beginning.header().has(wire::FEATURE_TREE) {
            true => AnyDecoder::Tree(Decoder::of(beginning.of()?)),
            false => AnyDecoder::Image(Decoder::of(beginning.of()?)),
        })
    }
}

impl<R: Read> Decoder<R> {
    /// Reads the beginning of an image's stream.
    pub fn open(input: R) -> Result<Decoder<R>, Fault> {
        Ok(Decoder::of(Reader::open(input)?))
    }
}

impl<R: Read, O: Object> Decoder<R, O> {
    /// The stream whose beginning this reader has read.
    pub fn of(reader: Reader<R, O>) -> Decoder<R, O> {
        Decoder { reader, told: 0 }
    }
}

impl<R: Read, O: Object> Source<O> for Decoder<R, O> {
    fn header(&self) -> &Header {
        self.reader.header()
    }

    fn object(&self) -> &O {
        self.reader.object()
    }

    fn change(&mut self) -> Result<Option<O::Change>, Fault> {
        Ok(self.reader.change()?)
    }

    fn passed_checkpoint(&mut self) -> bool {
        let before = std::mem::replace(&mut self.told, self.reader.checkpoints());
        before != self.told
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        let trailer = self.reader.trailer().ok_or_else(|| Fault::new(Class::Io, "the stream was not read to its end"))?;
        Ok(Ending { to: trailer.to, digest: Some(trailer.digest) })
    }
}
