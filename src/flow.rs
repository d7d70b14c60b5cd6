//! The one thing every tool does: [`copy`] a [`Source`] into a [`Sink`].
//!
//! ```text
//! rbd-diff-stream    copy(Rbd,    Normal(Encoder(stdout)))
//! image-apply        copy(Decoder(stdin), RawImage)
//! zvol-apply         copy(Decoder(stdin), Writing(Zvol))       in two processes: Writing(Remote) here, Zvol there
//! a test             copy(Rbd,    Memory)                      must equal the piped result
//! ```
//!
//! A sink commits on a [`Proof`], and only [`copy`] can make one: after the source has said that nothing is missing. So a sink
//! that commits without one does not compile. Where a sink is two halves, the half that parses has the proof, and tells the other
//! one in plain words; that one trusts it with one target and no more. A sink that is dropped without commit has changed no mark;
//! the next run finds the target *receiving* and knows what to do ([`crate::state::decide`]).

use serde::{Deserialize, Serialize};

use crate::format::{Digest, Header, Id, Image, Object, Totals};
use crate::state::{Fault, Receipt};

/// Turns one system's idea of change into changes, in ascending order.
///
/// Of an image, if nothing else is said; [`crate::format::Tree`] is the other [`Object`].
pub trait Source<O: Object = Image> {
    /// Whose state becomes whose. The same from the beginning to the end.
    fn header(&self) -> &Header;

    /// What the changes are about.
    fn object(&self) -> &O;

    /// The next change; `None` when all was said.
    fn change(&mut self) -> Result<Option<O::Change>, Fault>;

    /// Whether, since this was last asked, a stream's CHECKPOINT has verified every change before the last one that was given.
    fn passed_checkpoint(&mut self) -> bool {
        false
    }

    /// After the last change: looks once more whether what was sent is still what it was, and says what only the end can say.
    fn finish(&mut self) -> Result<Ending, Fault>;
}

impl<O: Object, S: Source<O> + ?Sized> Source<O> for Box<S> {
    fn header(&self) -> &Header {
        (**self).header()
    }

    fn object(&self) -> &O {
        (**self).object()
    }

    fn change(&mut self) -> Result<Option<O::Change>, Fault> {
        (**self).change()
    }

    fn passed_checkpoint(&mut self) -> bool {
        (**self).passed_checkpoint()
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        (**self).finish()
    }
}

/// What a source says when all was said and it stands by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The state that was sent; `None`: it has no identity and cannot be marked.
    pub to: Option<Id>,
    /// Last link of the digest chain, where the source was a stream.
    pub digest: Option<Digest>,
}

/// Makes changes true somewhere.
pub trait Sink<O: Object = Image>: Sized {
    /// What [`Sink::commit`] gives.
    type Done;

    /// Refuses, or prepares to take the changes. Nothing of the target's content may be touched before this agrees.
    fn begin(&mut self, header: &Header, object: &O) -> Result<(), Fault>;

    /// Takes one change. It may be written later, but not after `commit`.
    fn change(&mut self, change: O::Change) -> Result<(), Fault>;

    /// All changes so far were verified. A sink may write down that a run that is cut can go on from here.
    fn checkpoint(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// Makes all of it durable and says so, in one act.
    fn commit(self, proof: Proof<O>) -> Result<Self::Done, Fault>;

    /// There will be no more: the source has failed. A sink may write down where the run was cut.
    fn give_up(self) {}
}

/// What a copy carried: whose state became whose, and what was said of it. Plain values, which anybody can make up.
#[derive(Clone, Debug)]
pub struct Carried<O = Image> {
    /// Whose state became whose.
    pub header: Header,
    /// What it was about.
    pub object: O,
    /// What the source stood by at the end.
    pub ending: Ending,
    /// What the changes said, in sum.
    pub totals: Totals,
}

impl<O: Object> Carried<O> {
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
            size: self.object.size().unwrap_or(0),
            data_bytes: self.totals.data_bytes,
            zero_bytes: self.totals.zero_bytes,
            digest: self.ending.digest.map(|digest| digest.to_string()).unwrap_or_default(),
            ..Receipt::default()
        }
    }
}

/// That one whole, verified stream went by. Only [`copy`] makes it.
#[derive(Debug)]
pub struct Proof<O = Image>(Carried<O>);

impl<O: Object> Proof<O> {
    /// What went by, once the proof itself has done its work.
    pub fn into_carried(self) -> Carried<O> {
        self.0
    }

    /// Whose state became whose.
    pub fn header(&self) -> &Header {
        &self.0.header
    }

    /// What the source stood by at the end.
    pub fn ending(&self) -> Ending {
        self.0.ending
    }

    /// What the changes said, in sum.
    pub fn totals(&self) -> Totals {
        self.0.totals
    }

    /// What a receipt says of any transfer.
    pub fn receipt(&self, tool: &str, target: &str) -> Receipt {
        self.0.receipt(tool, target)
    }
}

/// Carries every change from the source to the sink, then lets the sink commit on proof.
pub fn copy<O: Object, S: Sink<O>>(source: &mut impl Source<O>, mut sink: S) -> Result<S::Done, Fault> {
    let (header, object) = (source.header().clone(), source.object().clone());
    sink.begin(&header, &object)?;
    match carry(source, &mut sink) {
        Ok((ending, totals)) => sink.commit(Proof(Carried { header, object, ending, totals })),
        Err(fault) => {
            sink.give_up();
            Err(fault)
        }
    }
}

fn carry<O: Object>(source: &mut impl Source<O>, sink: &mut impl Sink<O>) -> Result<(Ending, Totals), Fault> {
    let mut totals = Totals::default();
    while let Some(change) = source.change()? {
        if source.passed_checkpoint() {
            sink.checkpoint()?;
        }
        if let Some(extent) = O::extent(&change) {
            totals.count(extent);
        }
        sink.change(change)?;
    }
    Ok((source.finish()?, totals))
}
