//! Shows how far a transfer is.

use crate::flow::{Proof, Sink};
use crate::format::{Change, Header, Image, Totals};
use crate::state::Fault;

/// Somebody who wants to see how far it is.
pub trait Progress {
    /// Called once, before the first change; sizes are bytes.
    fn begin(&mut self, header: &Header, image: &Image);
    /// Called after each change: where it ended, and what went by so far.
    fn at(&mut self, offset: u64, totals: &Totals);
}

/// Passes everything on and counts it.
pub struct Tally<S, P> {
    inner: S,
    progress: P,
    totals: Totals,
}

impl<S: Sink, P: Progress> Tally<S, P> {
    /// Shows to `progress` what goes into `inner`.
    pub fn new(inner: S, progress: P) -> Tally<S, P> {
        Tally { inner, progress, totals: Totals::default() }
    }
}

impl<S: Sink, P: Progress> Sink for Tally<S, P> {
    type Done = S::Done;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        self.inner.begin(header, image)?;
        self.progress.begin(header, image);
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        self.totals.count(&change);
        let end = change.end();
        self.inner.change(change)?;
        self.progress.at(end, &self.totals);
        Ok(())
    }

    fn commit(self, proof: Proof) -> Result<S::Done, Fault> {
        self.inner.commit(proof)
    }
}
