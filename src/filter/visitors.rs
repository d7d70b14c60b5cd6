//! Who looks at an image's blocks: one that writes a manifest of them, and one that compares them with a manifest.

use std::io::{Read, Write};

use super::digest::Visitor;
use crate::format::{Digest, Id};
use crate::state::{Block, Class, Comparison, Fault, ManifestHeader, ManifestReader, ManifestWriter};

/// Writes a manifest.
pub struct Keeping<W: Write> {
    fine: bool,
    stage: Stage<W>,
}

enum Stage<W: Write> {
    Waiting(Option<W>),
    Writing(Box<ManifestWriter<W>>),
}

impl<W: Write> Keeping<W> {
    /// To this output; `fine`: with digests of grains, too.
    pub fn new(output: W, fine: bool) -> Keeping<W> {
        Keeping { fine, stage: Stage::Waiting(Some(output)) }
    }

    /// Seals the manifest of this state.
    pub fn finish(self, state: Option<Id>) -> Result<Digest, Fault> {
        match self.stage {
            Stage::Writing(writer) => writer.finish(state).map_err(|error| Fault::io("writing the manifest", &error)),
            Stage::Waiting(_) => Err(out_of_turn()),
        }
    }
}

impl<W: Write> Visitor for Keeping<W> {
    fn begin(&mut self, source: Id, size: u64) -> Result<(), Fault> {
        if let Stage::Waiting(output) = &mut self.stage {
            let output = output.take().ok_or_else(out_of_turn)?;
            let writer = ManifestWriter::begin(output, ManifestHeader { size, source, fine: self.fine });
            self.stage = Stage::Writing(Box::new(writer.map_err(|error| Fault::io("writing the manifest", &error))?));
        }
        Ok(())
    }

    fn block(&mut self, block: &Block<'_>) -> Result<(), Fault> {
        match &mut self.stage {
            Stage::Writing(writer) => writer.block(block).map_err(|error| Fault::io("writing the manifest", &error)),
            Stage::Waiting(_) => Err(out_of_turn()),
        }
    }
}

/// Compares with a manifest, and joins ranges that touch.
pub struct Comparing<R: Read, F> {
    comparison: Comparison<R>,
    /// The range that may still grow: offset and end.
    range: Option<(u64, u64)>,
    /// Ranges that differ, so far.
    ranges: u64,
    tell: F,
}

impl<R: Read, F: FnMut(u64, u64) -> Result<(), Fault>> Comparing<R, F> {
    /// With this manifest; `tell` hears the offset and the length in bytes of each range that differs.
    pub fn new(manifest: ManifestReader<R>, tell: F) -> Comparing<R, F> {
        Comparing { comparison: Comparison::new(manifest), range: None, ranges: 0, tell }
    }

    /// Tells the last range, and agrees if nothing differs from this image of `size` bytes: else a fault of class *differs*.
    /// What was told holds only after either of them: the manifest was whole.
    pub fn finish(mut self, root: Digest, size: u64) -> Result<(), Fault> {
        if let Some((offset, end)) = self.range.take() {
            (self.tell)(offset, end - offset)?;
        }
        let described = self.comparison.header().size;
        let same = self.comparison.finish()?.root == root;
        let differs = |what: String| Err(Fault::new(Class::Differs, what));
        match self.ranges {
            _ if size != described => differs(format!("this image has {size} bytes, and the manifest's {described}")),
            0 if same => Ok(()),
            0 => differs("the content roots differ".to_owned()),
            1 => differs("one range differs".to_owned()),
            ranges => differs(format!("{ranges} ranges differ")),
        }
    }
}

impl<R: Read, F: FnMut(u64, u64) -> Result<(), Fault>> Visitor for Comparing<R, F> {
    fn begin(&mut self, _: Id, size: u64) -> Result<(), Fault> {
        self.comparison.begin(size);
        Ok(())
    }

    fn block(&mut self, block: &Block<'_>) -> Result<(), Fault> {
        let Comparing { comparison, range, ranges, tell } = self;
        comparison.block(block, &mut |offset, len| match range {
            Some((_, end)) if *end == offset => {
                *end += len;
                Ok(())
            }
            _ => {
                *ranges += 1;
                match range.replace((offset, offset + len)) {
                    Some((offset, end)) => tell(offset, end - offset),
                    None => Ok(()),
                }
            }
        })
    }
}

fn out_of_turn() -> Fault {
    Fault::new(Class::Io, "a block before the image began")
}
