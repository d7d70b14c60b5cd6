//! The one thing every tool does: [`copy`] a [`Source`] into a [`Sink`].
//!
//! ```text
//! rbd-diff-stream    copy(Rbd,    Normal(Encoder(stdout)))
//! zvol-apply         copy(Decoder(stdin), Zvol)
//! a test             copy(Rbd,    Memory)                      must equal the piped result
//! ```
//!
//! A sink commits on a [`Proof`], and only [`copy`] can make one: after the source has said that nothing is missing. So
//! "marked without proof" does not compile. A sink that is dropped without commit has changed no mark; the next run
//! finds the target *receiving* and knows what to do ([`crate::state::decide`]).

use crate::format::{Change, Digest, Header, Id, Image, Totals};
use crate::state::{Fault, Receipt};

/// Turns one system's idea of change into changes, in ascending order.
pub trait Source {
    /// Whose state becomes whose. The same from the beginning to the end.
    fn header(&self) -> &Header;

    /// What the changes are about.
    fn image(&self) -> &Image;

    /// The next change; `None` when all was said.
    fn change(&mut self) -> Result<Option<Change>, Fault>;

    /// After the last change: looks once more whether what was sent is still what it was, and says what only the end can say.
    fn finish(&mut self) -> Result<Ending, Fault>;
}

/// What a source says when all was said and it stands by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The state that was sent; `None`: it has no identity and cannot be marked.
    pub to: Option<Id>,
    /// Last link of the digest chain, where the source was a stream.
    pub digest: Option<Digest>,
}

/// Makes changes true somewhere.
pub trait Sink: Sized {
    /// What [`Sink::commit`] gives.
    type Done;

    /// Refuses, or prepares to take the changes. Nothing of the target's content may be touched before this agrees.
    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault>;

    /// Takes one change. It may be written later, but not after `commit`.
    fn change(&mut self, change: Change) -> Result<(), Fault>;

    /// Makes all of it durable and says so, in one act.
    fn commit(self, proof: Proof) -> Result<Self::Done, Fault>;
}

/// That one whole, verified stream went by. Only [`copy`] makes it.
#[derive(Debug)]
pub struct Proof {
    header: Header,
    image: Image,
    ending: Ending,
    totals: Totals,
}

impl Proof {
    /// Whose state became whose.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it was about.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// What the source stood by at the end.
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// What the changes said, in sum.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// What a receipt says of any transfer.
    pub fn receipt(&self, tool: &str, target: &str) -> Receipt {
        let text = |id: Option<Id>| id.map(|id| id.to_string());
        Receipt {
            receipt: 1,
            tool: tool.to_owned(),
            target: target.to_owned(),
            stream: self.header.stream().to_string(),
            from: text(self.header.from),
            to: text(self.ending.to),
            size: self.image.new_size,
            data_bytes: self.totals.data_bytes,
            zero_bytes: self.totals.zero_bytes,
            digest: self.ending.digest.map(|digest| digest.to_string()).unwrap_or_default(),
            ..Receipt::default()
        }
    }
}

/// Carries every change from the source to the sink, then lets the sink commit on proof.
pub fn copy<S: Sink>(source: &mut impl Source, mut sink: S) -> Result<S::Done, Fault> {
    let (header, image) = (source.header().clone(), *source.image());
    sink.begin(&header, &image)?;
    let mut totals = Totals::default();
    while let Some(change) = source.change()? {
        totals.count(&change);
        sink.change(change)?;
    }
    let ending = source.finish()?;
    sink.commit(Proof { header, image, ending, totals })
}
