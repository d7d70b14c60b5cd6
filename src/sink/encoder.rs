//! An extent stream as a sink: what every `…-diff-stream` writes.

use std::io::{self, Write};

use crate::flow::{Proof, Sink};
use crate::format::{Change, Header, Image, Trailer, Writer};
use crate::state::{Class, Fault, Receipt};

/// The stream on an output. END is written by commit and by nothing else.
pub struct Encoder<W: Write>(Stage<W>);

enum Stage<W: Write> {
    Waiting(W),
    Writing(Box<Writer<W>>),
    Broken,
}

/// A stream that was sealed and written.
#[derive(Debug)]
pub struct Sealed {
    proof: Proof,
    /// What HEADER says: a filter may have begun another stream than the source.
    header: Header,
    /// What END says.
    pub trailer: Trailer,
}

impl Sealed {
    /// What the sender says of it.
    pub fn receipt(&self, tool: &str, source: &str) -> Receipt {
        let Sealed { proof, header, trailer } = self;
        Receipt {
            stream: header.stream().to_string(),
            from: header.from.map(|id| id.to_string()),
            data_bytes: trailer.totals.data_bytes,
            zero_bytes: trailer.totals.zero_bytes,
            digest: trailer.digest.to_string(),
            ..proof.receipt(tool, source)
        }
    }
}

impl<W: Write> Encoder<W> {
    /// Writes to this output.
    pub fn new(output: W) -> Encoder<W> {
        Encoder(Stage::Waiting(output))
    }
}

impl<W: Write> Sink for Encoder<W> {
    type Done = Sealed;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        if let Stage::Waiting(output) = std::mem::replace(&mut self.0, Stage::Broken) {
            self.0 = Stage::Writing(Box::new(Writer::begin(output, header, image).map_err(failed)?));
        }
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        match &mut self.0 {
            Stage::Writing(writer) => writer.change(&change).map_err(failed),
            Stage::Waiting(_) | Stage::Broken => Err(out_of_turn()),
        }
    }

    fn commit(self, proof: Proof) -> Result<Sealed, Fault> {
        match self.0 {
            Stage::Writing(writer) => {
                let header = writer.header().clone();
                let trailer = writer.finish(proof.ending().to).map_err(failed)?;
                Ok(Sealed { proof, header, trailer })
            }
            Stage::Waiting(_) | Stage::Broken => Err(out_of_turn()),
        }
    }
}

fn failed(error: io::Error) -> Fault {
    Fault::io("writing the stream", &error)
}

fn out_of_turn() -> Fault {
    Fault::new(Class::Io, "the stream was written to out of turn")
}
