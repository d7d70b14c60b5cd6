//! An RBD image, committed as a snapshot.
//!
//! As for a volume there are two halves: the [`keeper`] holds the image and never reads the stream; [`Rbd`] takes the
//! stream's changes and writes them.

mod evidence;
mod keeper;
mod queue;

use std::path::PathBuf;
use std::time::Duration;

use crate::flow::{Proof, Sink};
use crate::format::{Buffer, Change, Header, Image, Pool};
use crate::host::ceph::{Access, Claimed, Creation, Reading, Spec};
use crate::sink::manifest::{Content, Manifest};
use crate::sink::{KEPT, Outcome, Reached, Request};
use crate::state::{Class, Fault, Overrides, Plan, Receipt};

pub use keeper::standing;
use keeper::{Keeper, would};
use queue::Queue;

/// Bytes of one request while the image is read back.
const READ_PART: usize = 1 << 20;

/// What the user wants of an image.
#[derive(Clone)]
pub struct Options {
    /// How to reach the cluster.
    pub access: Access,
    /// The image.
    pub spec: Spec,
    /// What is allowed beyond the default.
    pub overrides: Overrides,
    /// Say what would be done, and stop.
    pub dry_run: bool,
    /// How an image that is not there is made.
    pub creation: Creation,
    /// The image that it is made like, where `creation` says nothing.
    pub like: Option<Spec>,
    /// A checkpoint is taken at most so often.
    pub checkpoint_every: Duration,
    /// Keep a manifest of what the image holds in this file.
    pub manifest: Option<PathBuf>,
    /// Takes what the user should know: the target's name, and the text.
    pub notes: fn(&str, &str),
}

impl Options {
    fn note(&self, text: &str) {
        (self.notes)(&self.spec.image_name(), text);
    }
}

/// An image as a sink.
pub struct Rbd {
    options: Options,
    stage: Stage,
}

enum Stage {
    Waiting,
    // In this order: the queue waits for its writes before the keeper lets go of the image.
    Writing(Queue, Box<Keeper>, Reached, Manifest),
    DryRun(Plan),
}

impl Rbd {
    /// The image of these options. Nothing is looked at before the stream begins.
    pub fn new(options: Options) -> Rbd {
        Rbd { options, stage: Stage::Waiting }
    }
}

impl Sink for Rbd {
    type Done = Outcome;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        let request = Request::new(header, image);
        self.stage = if self.options.dry_run {
            Stage::DryRun(would(&self.options, &request)?)
        } else {
            let manifest = Manifest::open(self.options.manifest.as_deref(), header, image)?;
            let keeper = Keeper::prepare(&self.options, request)?;
            let reached = Reached::new(self.options.checkpoint_every);
            Stage::Writing(Queue::new(keeper.target()), Box::new(keeper), reached, manifest)
        };
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        match &mut self.stage {
            Stage::Writing(_, keeper, ..) if keeper.only_reads() => Ok(()),
            Stage::Writing(queue, _, reached, manifest) => {
                reached.change(&change);
                manifest.touched(change.offset(), change.end());
                queue.push(&change)
            }
            Stage::DryRun(_) => Ok(()),
            Stage::Waiting => Err(out_of_turn()),
        }
    }

    fn checkpoint(&mut self) -> Result<(), Fault> {
        let Stage::Writing(queue, keeper, reached, _) = &mut self.stage else { return Ok(()) };
        if keeper.only_reads() || !reached.verified() {
            return Ok(());
        }
        let durable = queue.settle()?;
        keeper.pause(&self.options, durable, reached);
        Ok(())
    }

    fn give_up(self) {
        let Stage::Writing(mut queue, mut keeper, reached, _) = self.stage else { return };
        // The run has failed already, and says why; what fails here only costs the next one time.
        if !keeper.only_reads()
            && let Ok(durable) = queue.settle()
            && keeper.pause(&self.options, durable, &reached)
        {
            self.options.note(KEPT);
        }
    }

    fn commit(self, proof: Proof) -> Result<Outcome, Fault> {
        let (mut queue, keeper, manifest) = match self.stage {
            Stage::Writing(queue, keeper, _, manifest) => (queue, keeper, manifest),
            Stage::DryRun(plan) => {
                plan.check_end(proof.ending().to)?;
                return Ok(Outcome::Would(plan.would()));
            }
            Stage::Waiting => return Err(out_of_turn()),
        };
        let durable = queue.settle()?;
        let already = keeper.only_reads();
        let digest = proof.ending().digest.ok_or_else(|| Fault::new(Class::Io, "only a stream can be committed to an image"))?;
        keeper.check_end(proof.ending().to)?;
        let (target, note) = (keeper.target(), |text: &str| self.options.note(text));
        let manifest = match already {
            true => manifest.write_unless_there(&*target, proof.ending().to, note)?,
            false => manifest.write(&*target, proof.ending().to, note)?,
        };
        let marked = keeper.commit(durable, proof.ending().to, digest, manifest.root())?;
        manifest.keep()?;
        let mut receipt = Receipt { already, ..proof.receipt("rbd-apply", &self.options.spec.image_name()) };
        if let Some(marked) = marked {
            receipt.marked = true;
            receipt.snapshot_guid = Some(marked.snapshot.id);
            receipt.snapshot = Some(marked.name());
        }
        Ok(Outcome::Done(Box::new(receipt)))
    }
}

impl Content for Claimed {
    fn read(&self, pool: &Pool, offset: u64, len: usize) -> Result<Buffer, Fault> {
        let mut bytes = pool.take(len);
        let parts = bytes.chunks_mut(READ_PART).zip((offset..).step_by(READ_PART));
        // All of them in flight at once.
        let reads: Vec<_> = parts.map(|(part, at)| (Reading::start(self.image(), at, pool.take(part.len())), part)).collect();
        for (read, part) in reads {
            part.copy_from_slice(&read?.wait()?);
        }
        Ok(bytes)
    }
}

fn out_of_turn() -> Fault {
    Fault::new(Class::Io, "a change before the stream began")
}
