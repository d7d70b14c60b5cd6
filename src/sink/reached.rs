//! How far a run has come.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::format::{Change, Id};
use crate::state::{Checkpoint, Content};

/// What a sink says of a run that was cut and can go on.
pub const KEPT: &str = "what has arrived is kept: the next run goes on from there";

/// Where a run would be cut now. Offsets are bytes of the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Everything before it was verified by the stream's digest.
    pub verified: u64,
    /// Everything before it was written, or will be once the queue is empty.
    pub applied: u64,
}

impl Cut {
    /// What the target is once the queue is empty, if it is worth going on from: `begin` is what it was at the beginning.
    pub fn checkpoint(&self, begin: &Checkpoint, to: Option<Id>) -> Option<Checkpoint> {
        let cut = begin.written(self.applied, Content::Unknown).written(self.verified, Content::State(to?));
        cut.is_useful().then_some(cut)
    }
}

/// What a sink has done of a stream, for the checkpoint that another run may go on from.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    cut: Cut,
    /// When a checkpoint was written down last.
    last: Instant,
    every: Duration,
}

impl Reached {
    /// At the beginning of a run that writes down a checkpoint at most so often.
    pub fn new(every: Duration) -> Reached {
        Reached { cut: Cut::default(), last: Instant::now(), every }
    }

    /// A change was handed to the queue.
    pub fn change(&mut self, change: &Change) {
        self.cut.applied = self.cut.applied.max(change.end());
    }

    /// All changes so far were verified; whether it is time to write that down.
    pub fn verified(&mut self) -> bool {
        self.cut.verified = self.cut.applied;
        let due = self.last.elapsed() >= self.every;
        if due {
            self.last = Instant::now();
        }
        due
    }

    /// Where the run would be cut now.
    pub fn cut(&self) -> Cut {
        self.cut
    }
}
