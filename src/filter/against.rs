//! Only what differs from what a manifest describes.

use std::io::{Read, Seek};

use crate::flow::{Proof, Sink};
use crate::format::{Change, Data, Header, Image};
use crate::state::{Block, Blocks, Class, Comparison, Fault, ManifestEnd, ManifestHeader, ManifestReader};

/// A manifest that was read to its end once, and found whole.
pub struct Described<R> {
    manifest: R,
    header: ManifestHeader,
    end: ManifestEnd,
}

impl<R: Read + Seek> Described<R> {
    /// Verifies a manifest, so that what it says may be relied on.
    pub fn verify(mut manifest: R) -> Result<Described<R>, Fault> {
        let (header, end) = ManifestReader::open(&mut manifest)?.verify()?;
        manifest.rewind().map_err(|error| Fault::io("reading the manifest", &error))?;
        Ok(Described { manifest, header, end })
    }
}

/// Makes an increment of a whole stream: from the state that a manifest describes. Without a manifest all goes by as it is.
pub struct Against<R: Read, S> {
    inner: S,
    described: Option<Described<R>>,
    baseline: Option<Baseline<R>>,
}

/// What a whole image is compared with while it goes by.
struct Baseline<R: Read> {
    /// What the first reading of the manifest said.
    told: (ManifestHeader, ManifestEnd),
    comparison: Comparison<R>,
    blocks: Blocks,
    /// Everything before this was said.
    at: u64,
    size: u64,
}

impl<R: Read, S: Sink> Against<R, S> {
    /// What differs, into `inner`.
    pub fn new(described: Option<Described<R>>, inner: S) -> Against<R, S> {
        Against { inner, described, baseline: None }
    }
}

impl<R: Read> Baseline<R> {
    /// What nobody spoke of reads as zero in a whole stream.
    fn zeros_to(&mut self, offset: u64, inner: &mut impl Sink) -> Result<(), Fault> {
        let Baseline { comparison, blocks, at, .. } = self;
        blocks.zeros(offset - *at, &mut |block| difference(comparison, &block, inner))?;
        *at = offset;
        Ok(())
    }

    fn change(&mut self, change: &Change, inner: &mut impl Sink) -> Result<(), Fault> {
        self.zeros_to(change.offset(), inner)?;
        let Change::Data(data) = change else { return self.zeros_to(change.end(), inner) };
        let Baseline { comparison, blocks, .. } = self;
        blocks.data(data, &mut |block| difference(comparison, &block, inner))?;
        self.at = change.end();
        Ok(())
    }

    fn finish(mut self, inner: &mut impl Sink) -> Result<(), Fault> {
        self.zeros_to(self.size, inner)?;
        let Baseline { mut comparison, blocks, told: (_, end), .. } = self;
        blocks.finish(&mut |block| difference(&mut comparison, &block, inner))?;
        if comparison.finish()? == end { Ok(()) } else { Err(changed()) }
    }
}

fn changed() -> Fault {
    Fault::new(Class::Changed, "the manifest changed while it was read")
}

/// Says what of a block differs from what was described.
fn difference<R: Read>(comparison: &mut Comparison<R>, block: &Block<'_>, inner: &mut impl Sink) -> Result<(), Fault> {
    let begins = comparison.at();
    comparison.block(block, &mut |offset, len| match block {
        Block::Zeros(_) => inner.change(Change::Zero { offset, len, may_deallocate: true }),
        Block::Full { bytes, .. } => {
            let start = usize::try_from(offset - begins).unwrap_or(usize::MAX);
            let range = start..start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
            let bytes = bytes.get(range).ok_or_else(|| Fault::new(Class::Io, "a difference outside of its block"))?;
            inner.change(Change::Data(Data::new(offset, bytes.to_vec())))
        }
    })
}

impl<R: Read, S: Sink> Sink for Against<R, S> {
    type Done = S::Done;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        let Some(Described { manifest, header: of, end }) = self.described.take() else {
            return self.inner.begin(header, image);
        };
        if !header.is_whole() {
            return Err(Fault::new(
                Class::Unsupported,
                "this is an increment: it does not say all that would have to be compared",
            ));
        }
        let Some(from) = end.state else {
            return Err(Fault::new(Class::Unsupported, "the manifest's state has no identity, so no stream can begin from it")
                .hint("take the manifest of a snapshot, or of an image that is not in use"));
        };
        let manifest = ManifestReader::open(manifest)?;
        if manifest.header() != of {
            return Err(changed());
        }
        let mut comparison = Comparison::new(manifest);
        comparison.begin(image.new_size);
        self.baseline =
            Some(Baseline { told: (of, end), comparison, blocks: Blocks::new(image.new_size), at: 0, size: image.new_size });
        let header = Header::new(header.source, Some(from), header.to, header.names.clone());
        self.inner.begin(&header, &Image { old_size: of.size, ..*image })
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        match &mut self.baseline {
            Some(baseline) => baseline.change(&change, &mut self.inner),
            None => self.inner.change(change),
        }
    }

    fn commit(mut self, proof: Proof) -> Result<S::Done, Fault> {
        if let Some(baseline) = self.baseline.take() {
            baseline.finish(&mut self.inner)?;
        }
        self.inner.commit(proof)
    }
}
