//! An extent stream as a source: what every `…-apply` reads.

use std::io::Read;

use crate::flow::{Ending, Source};
use crate::format::{Change, Header, Image, Reader};
use crate::state::{Class, Fault};

/// The stream on an input.
pub struct Decoder<R: Read>(Reader<R>);

impl<R: Read> Decoder<R> {
    /// Reads the beginning of the stream.
    pub fn open(input: R) -> Result<Decoder<R>, Fault> {
        Ok(Decoder(Reader::open(input)?))
    }
}

impl<R: Read> Source for Decoder<R> {
    fn header(&self) -> &Header {
        self.0.header()
    }

    fn image(&self) -> &Image {
        self.0.image()
    }

    fn change(&mut self) -> Result<Option<Change>, Fault> {
        Ok(self.0.change()?)
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        let trailer = self.0.trailer().ok_or_else(|| Fault::new(Class::Io, "the stream was not read to its end"))?;
        Ok(Ending { to: trailer.to, digest: Some(trailer.digest) })
    }
}
