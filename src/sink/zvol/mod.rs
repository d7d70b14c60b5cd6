//! A ZFS volume, committed as a snapshot.
//!
//! Two halves: the [`keeper`] runs `zfs` and never reads the stream; [`Zvol`] takes the stream's changes and writes them to
//! the device that the keeper opened.

mod claim;
pub mod evidence;
mod keeper;
pub mod marks;

use crate::flow::{Proof, Sink};
use crate::format::{Change, Header, Image};
use crate::state::{Class, Fault, NextStream, Overrides, Plan, Receipt};

use super::WriteQueue;
use keeper::{Keeper, Request, would};
use marks::Marked;

/// Writes in flight: more gained nothing on zvols, fewer lost.
const THREADS: usize = 4;

/// What the user wants of a volume.
#[derive(Clone)]
pub struct Options {
    /// The dataset.
    pub name: String,
    /// Give the commit its name and hold.
    pub mark: bool,
    /// Hold the newest mark against destruction.
    pub hold: bool,
    /// What is allowed beyond the default.
    pub overrides: Overrides,
    /// Make the volume smaller when the image became smaller.
    pub shrink: bool,
    /// Say what would be done, and stop.
    pub dry_run: bool,
    /// Block size in bytes of a volume that is created.
    pub block_size: Option<u64>,
    /// Properties (`name=value`) of a volume that is created.
    pub properties: Vec<String>,
    /// Takes what the user should know: the target's name, and the text.
    pub notes: fn(&str, &str),
}

impl Options {
    fn note(&self, text: &str) {
        (self.notes)(&self.name, text);
    }
}

/// A volume as a sink.
pub struct Zvol {
    options: Options,
    stage: Stage,
}

enum Stage {
    Waiting,
    // In this order: the queue lets go of the device before the keeper hides it.
    Writing(WriteQueue, Box<Keeper>),
    /// A plan that nothing comes of, and in words.
    DryRun(Plan, String),
}

impl Zvol {
    /// The volume of these options. Nothing is looked at before the stream begins.
    pub fn new(options: Options) -> Zvol {
        Zvol { options, stage: Stage::Waiting }
    }
}

impl Sink for Zvol {
    /// `None` after a dry run.
    type Done = Option<Receipt>;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        let request = Request {
            next: NextStream::from(header),
            source: header.source,
            to_name: header.names.to.clone(),
            old_size: image.old_size,
            new_size: image.new_size,
        };
        if self.options.dry_run {
            let (plan, words) = would(&self.options, &request)?;
            self.stage = Stage::DryRun(plan, words);
            return Ok(());
        }
        let keeper = Keeper::prepare(self.options.clone(), request)?;
        self.stage = Stage::Writing(WriteQueue::new(keeper.device(), THREADS), Box::new(keeper));
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        match &self.stage {
            Stage::Writing(_, keeper) if keeper.only_reads() => Ok(()),
            Stage::Writing(queue, keeper) => queue.push(change).map_err(|failed| keeper.explain(failed)),
            Stage::DryRun(..) => Ok(()),
            Stage::Waiting => Err(out_of_turn()),
        }
    }

    fn commit(self, proof: Proof) -> Result<Option<Receipt>, Fault> {
        let (keeper, queue) = match self.stage {
            Stage::Writing(queue, keeper) => (keeper, queue),
            Stage::DryRun(plan, words) => {
                plan.check_end(proof.ending().to)?;
                self.options.note(&words);
                return Ok(None);
            }
            Stage::Waiting => return Err(out_of_turn()),
        };
        let durable = queue.finish().map_err(|failed| keeper.explain(failed))?;
        let already = keeper.only_reads();
        let digest = proof.ending().digest.ok_or_else(|| Fault::new(Class::Io, "only a stream can be committed to a volume"))?;
        let marked = keeper.commit(durable, proof.ending().to, digest)?;
        Ok(Some(Receipt { already, ..receipt(&self.options, &proof, marked) }))
    }
}

fn receipt(options: &Options, proof: &Proof, marked: Option<Marked>) -> Receipt {
    let mut receipt = proof.receipt("zvol-apply", &options.name);
    if let Some(marked) = marked {
        receipt.marked = !marked.is_pending();
        receipt.snapshot_guid = Some(marked.snapshot.guid);
        receipt.snapshot = Some(marked.snapshot.name);
    }
    receipt
}

fn out_of_turn() -> Fault {
    Fault::new(Class::Io, "a change before the stream began")
}
