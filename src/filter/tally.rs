//! Shows how far a transfer is.

use crate::flow::{Proof, Sink};
use crate::format::{Header, Image, Object, Totals};
use crate::state::Fault;

/// Somebody who wants to see how far it is.
pub trait Progress<O: Object = Image> {
    /// Called once, before the first change.
    fn begin(&mut self, header: &Header, object: &O);
    /// Called for each change: this is about to be carried out, and so much went by with it.
    fn at(&mut self, change: &O::Change, totals: &Totals);
}

/// Passes everything on and counts it.
pub struct Tally<S, P> {
    inner: S,
    progress: P,
    totals: Totals,
}

impl<S, P> Tally<S, P> {
    /// Shows to `progress` what goes into `inner`.
    pub fn new(inner: S, progress: P) -> Tally<S, P> {
        Tally { inner, progress, totals: Totals::default() }
    }
}

impl<O: Object, S: Sink<O>, P: Progress<O>> Sink<O> for Tally<S, P> {
    type Done = S::Done;

    fn begin(&mut self, header: &Header, object: &O) -> Result<(), Fault> {
        self.inner.begin(header, object)?;
        self.progress.begin(header, object);
        Ok(())
    }

    fn change(&mut self, change: O::Change) -> Result<(), Fault> {
        if let Some(extent) = O::extent(&change) {
            self.totals.count(extent);
        }
        self.progress.at(&change, &self.totals);
        self.inner.change(change)
    }

    fn checkpoint(&mut self) -> Result<(), Fault> {
        self.inner.checkpoint()
    }

    fn give_up(self) {
        self.inner.give_up();
    }

    fn commit(self, proof: Proof<O>) -> Result<S::Done, Fault> {
        self.inner.commit(proof)
    }
}
