//! A sink in two halves: one keeps the target, one writes to it.
//!
//! What [`Keep`]s holds the target's name and the right to change it, and never sees a byte of the stream. What is
//! [`Writing`] reads the stream and holds nothing but the open device. Both may live in one process; or the second in one
//! of its own behind a sandbox, and then [`super::Remote`] stands for the first.

use std::sync::Arc;
use std::time::Duration;

use super::{Cut, Reached, WriteQueue};
use crate::flow::{Carried, Proof, Sink};
use crate::format::{Change, Header, Image};
use crate::host::device::Device;
use crate::state::Fault;

/// Writes in flight: more gained nothing on zvols, fewer lost.
const THREADS: usize = 4;

/// The half that keeps. What it is told it cannot check: a writing half that lies can spoil this run, and nothing else.
pub trait Keep {
    /// What [`Keep::commit`] gives.
    type Done;

    /// Refuses, or prepares the target for a stream that begins so. `None`: nothing is to be written.
    fn begin(&mut self, header: &Header, image: &Image) -> Result<Option<Arc<Device>>, Fault>;

    /// The bytes from `offset` to `end` of the image are written to.
    fn touched(&mut self, offset: u64, end: u64);

    /// All writes so far have ended. Makes them durable and writes down that a run that is cut can go on from here.
    fn checkpoint(&mut self, cut: Cut) -> Result<(), Fault>;

    /// There will be no more, and all writes have ended. Writes down where the run was cut.
    fn give_up(&mut self, cut: Cut);

    /// Why a write failed, as far as the target's name tells.
    fn explain(&mut self, failed: Fault) -> Fault;

    /// All was written, and the writing half has let go of the device. Makes it durable and says so, in one act.
    fn commit(self, carried: Carried) -> Result<Self::Done, Fault>;
}

/// The half that writes, as a sink.
pub struct Writing<K> {
    // In this order: the queue lets go of the device before the keeping half does.
    stage: Stage,
    keeper: K,
    checkpoint_every: Duration,
}

enum Stage {
    /// Nothing is to be written, or the stream has not begun.
    Idle,
    Writing(WriteQueue, Reached),
}

impl<K: Keep> Writing<K> {
    /// For the target of this keeper. Nothing is looked at before the stream begins.
    pub fn new(keeper: K, checkpoint_every: Duration) -> Writing<K> {
        Writing { stage: Stage::Idle, keeper, checkpoint_every }
    }
}

impl<K: Keep> Sink for Writing<K> {
    type Done = K::Done;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        if let Some(device) = self.keeper.begin(header, image)? {
            self.stage = Stage::Writing(WriteQueue::new(device, THREADS), Reached::new(self.checkpoint_every));
        }
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        let Stage::Writing(queue, reached) = &mut self.stage else { return Ok(()) };
        reached.change(&change);
        self.keeper.touched(change.offset(), change.end());
        queue.push(change).map_err(|failed| self.keeper.explain(failed))
    }

    fn checkpoint(&mut self) -> Result<(), Fault> {
        let Stage::Writing(queue, reached) = &mut self.stage else { return Ok(()) };
        if !reached.verified() {
            return Ok(());
        }
        queue.drain().map_err(|failed| self.keeper.explain(failed))?;
        self.keeper.checkpoint(reached.cut())
    }

    fn give_up(mut self) {
        let Stage::Writing(queue, reached) = std::mem::replace(&mut self.stage, Stage::Idle) else { return };
        // The run has failed already, and says why; what fails here only costs the next one time.
        if queue.drain().is_ok() {
            drop(queue);
            self.keeper.give_up(reached.cut());
        }
    }

    fn commit(mut self, proof: Proof) -> Result<K::Done, Fault> {
        if let Stage::Writing(queue, _) = std::mem::replace(&mut self.stage, Stage::Idle) {
            queue.drain().map_err(|failed| self.keeper.explain(failed))?;
        }
        self.keeper.commit(proof.into_carried())
    }
}
