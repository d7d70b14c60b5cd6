//! A whole stream as the plain bytes of its image, in order.

use std::io::{self, Write};

use crate::flow::{Proof, Sink};
use crate::format::{Change, Header, Image};
use crate::state::{Class, Fault};

/// Zeros that are written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// An image's bytes on an output that cannot be gone back in.
pub struct RawBytes<W: Write> {
    output: W,
    /// Everything before this was written.
    at: u64,
    size: u64,
}

impl<W: Write> RawBytes<W> {
    /// Writes to this output.
    pub fn new(output: W) -> RawBytes<W> {
        RawBytes { output, at: 0, size: 0 }
    }

    fn zeros_to(&mut self, offset: u64) -> Result<(), Fault> {
        while self.at < offset {
            let now = usize::try_from(offset - self.at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.output.write_all(&ZEROS[..now]).map_err(|error| failed(&error))?;
            self.at += now as u64;
        }
        Ok(())
    }
}

impl<W: Write> Sink for RawBytes<W> {
    type Done = Proof;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        if !header.is_whole() {
            return Err(Fault::new(Class::Unsupported, "this stream is an increment: it does not say all that the image holds")
                .hint(
                    "image-apply applies it to a copy of the from-state; extent-merge makes a whole one of a whole one and it",
                ));
        }
        self.size = image.new_size;
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        self.zeros_to(change.offset())?;
        match &change {
            Change::Data(data) => {
                self.output.write_all(data.bytes()).map_err(|error| failed(&error))?;
                self.at = change.end();
                Ok(())
            }
            Change::Zero { .. } => self.zeros_to(change.end()),
        }
    }

    fn commit(mut self, proof: Proof) -> Result<Proof, Fault> {
        self.zeros_to(self.size)?;
        self.output.flush().map_err(|error| failed(&error))?;
        Ok(proof)
    }
}

fn failed(error: &io::Error) -> Fault {
    Fault::io("writing the image", error)
}
