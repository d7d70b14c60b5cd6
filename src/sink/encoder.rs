//! An extent stream as a sink: what every `…-diff-stream` writes.

use std::io::{self, Write};

use crate::flow::{Proof, Sink};
use crate::format::{Header, Image, Object, Trailer, Writer};
use crate::state::{Class, Fault, Receipt};

/// The stream on an output. END is written by commit and by nothing else.
pub struct Encoder<W: Write, O: Object = Image>(Stage<W, O>);

enum Stage<W: Write, O: Object> {
    Waiting(W),
    Writing(Box<Writer<W, O>>),
    Broken,
}

/// A stream that was sealed and written.
#[derive(Debug)]
pub struct Sealed<O = Image> {
    proof: Proof<O>,
    /// What HEADER says: a filter may have begun another stream than the source.
    header: Header,
    /// What END says.
    pub trailer: Trailer,
}

impl<O: Object> Sealed<O> {
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

impl<W: Write, O: Object> Encoder<W, O> {
    /// Writes to this output.
    pub fn new(output: W) -> Encoder<W, O> {
        Encoder(Stage::Waiting(output))
    }
}

impl<W: Write, O: Object> Sink<O> for Encoder<W, O> {
    type Done = Sealed<O>;

    fn begin(&mut self, header: &Header, object: &O) -> Result<(), Fault> {
        if let Stage::Waiting(output) = std::mem::replace(&mut self.0, Stage::Broken) {
            self.0 = Stage::Writing(Box::new(Writer::begin(output, header, object).map_err(failed)?));
        }
        Ok(())
    }

    fn change(&mut self, change: O::Change) -> Result<(), Fault> {
        match &mut self.0 {
            Stage::Writing(writer) => writer.change(&change).map_err(failed),
            Stage::Waiting(_) | Stage::Broken => Err(out_of_turn()),
        }
    }

    fn commit(self, proof: Proof<O>) -> Result<Sealed<O>, Fault> {
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
