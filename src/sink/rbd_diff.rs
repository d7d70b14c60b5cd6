//! A stream as a file that `rbd import-diff` or `rbd import --export-format 2` takes.

use std::io::{self, Write};

use crate::flow::{Proof, Sink};
use crate::foreign::rbd_diff::{About, DiffWriter, Version};
use crate::format::{Change, Header, Image};
use crate::state::{Class, Fault};

/// The diff on an output. Its end record is written by commit and by nothing else.
pub struct RbdDiffFile<W: Write> {
    version: Version,
    stage: Stage<W>,
}

enum Stage<W: Write> {
    Waiting(Option<W>),
    Writing {
        writer: DiffWriter<W>,
        /// What is said so far of an image that is said whole, in bytes; and its size. A diff leaves out what it does not speak of,
        /// and the image that it is applied to need not be a new one.
        whole: Option<(u64, u64)>,
    },
}

impl<W: Write> RbdDiffFile<W> {
    /// Writes to this output.
    pub fn new(output: W, version: Version) -> RbdDiffFile<W> {
        RbdDiffFile { version, stage: Stage::Waiting(Some(output)) }
    }
}

impl<W: Write> Sink for RbdDiffFile<W> {
    type Done = Proof;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        if self.version == Version::V2 && !header.is_whole() {
            return Err(Fault::new(
                Class::Unsupported,
                "an export of format 2 begins from nothing, and this stream is an increment",
            )
            .hint("--to rbd-diff-v1 takes increments"));
        }
        let name = |name: &[u8]| (!name.is_empty()).then(|| name.to_vec());
        let from = if header.is_whole() { None } else { name(&header.names.from) };
        let about = About { from, to: name(&header.names.to), size: image.new_size };
        if !header.is_whole() && about.from.is_none() {
            return Err(Fault::new(
                Class::Unsupported,
                "the stream does not name its from-state, and a diff has nothing but names",
            ));
        }
        if let Stage::Waiting(output) = &mut self.stage
            && let Some(output) = output.take()
        {
            let whole = (header.is_whole() && self.version == Version::V1).then_some((0, image.new_size));
            let writer = DiffWriter::begin(output, self.version, &about).map_err(|error| failed(&error))?;
            self.stage = Stage::Writing { writer, whole };
        }
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        let Stage::Writing { writer, whole } = &mut self.stage else { return Err(out_of_turn()) };
        if let Some((said, _)) = whole {
            fill(writer, *said, change.offset())?;
            *said = change.end();
        }
        match &change {
            Change::Data(data) => writer.data(data.offset(), data.bytes()),
            Change::Zero { offset, len, .. } => writer.zero(*offset, *len),
        }
        .map_err(|error| failed(&error))
    }

    fn commit(self, proof: Proof) -> Result<Proof, Fault> {
        match self.stage {
            Stage::Writing { mut writer, whole } => {
                whole.map_or(Ok(()), |(said, size)| fill(&mut writer, said, size))?;
                writer.finish().map(|()| proof).map_err(|error| failed(&error))
            }
            Stage::Waiting(_) => Err(out_of_turn()),
        }
    }
}

/// All between these is zero.
fn fill<W: Write>(writer: &mut DiffWriter<W>, from: u64, to: u64) -> Result<(), Fault> {
    if from < to { writer.zero(from, to - from).map_err(|error| failed(&error)) } else { Ok(()) }
}

fn failed(error: &io::Error) -> Fault {
    Fault::io("writing the diff", error)
}

fn out_of_turn() -> Fault {
    Fault::new(Class::Io, "the diff was written to out of turn")
}
