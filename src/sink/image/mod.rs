//! A raw image file or plain block device as a target.
//!
//! Such a target keeps no state of its own: a record lies beside it. There is no way back either: while a run is under
//! way the target is part old, part new, and its record says so.

mod target;

use std::path::PathBuf;
use std::sync::Arc;

use crate::flow::{Proof, Sink};
use crate::format::{Change, Header, Id, Image};
use crate::host::device::Device;
use crate::host::record::{HeldState, Receiving, Record};
use crate::host::stamp::Between;
use crate::state::{Act, Class, Fault, Head, NextStream, Overrides, Plan, Receipt, Standing, decide, escape};

use super::WriteQueue;
use target::Target;

/// Where the records of devices lie.
pub const STATE_DIR: &str = "/var/lib/siphon/targets";
/// Writes to a file go through its lock one by one; a second thread lets them run while the stream is read.
const FILE_THREADS: usize = 1;
/// Writes in flight on a device.
const DEVICE_THREADS: usize = 4;

/// What the user wants of the target.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file or device.
    pub path: PathBuf,
    /// A whole stream may replace content that is there.
    pub replace: bool,
    /// Nobody wrote to the target since its record was made: the user knows.
    pub trust: bool,
    /// Change nothing.
    pub dry_run: bool,
    /// Where the records of devices lie.
    pub state_dir: PathBuf,
}

/// A raw image as a sink.
pub struct RawImage {
    options: Options,
    stage: Stage,
}

enum Stage {
    Waiting,
    Writing(Box<Writing>),
    Watching(Watching),
}

/// A stream that is read to its end and verified, while nothing is written.
enum Watching {
    /// The target is where the stream leads, or its end refuses it.
    Already(Plan),
    /// The user wants to know whether it would be accepted.
    DryRun(Act),
}

/// What became of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target is in the stream's to-state, durably.
    Done(Box<Receipt>),
    /// A dry run: the stream is whole, and this would be done with it.
    Would(Act),
}

/// What the target at this path holds; it is claimed for the moment of the look.
pub fn standing(options: &Options) -> Result<Standing, Fault> {
    Target::open(&options.path, &options.state_dir, options.trust)?.standing()
}

impl RawImage {
    /// The target of these options. Nothing is looked at before the stream begins.
    pub fn new(options: Options) -> RawImage {
        RawImage { options, stage: Stage::Waiting }
    }

    fn prepare(&self, header: &Header, image: &Image) -> Result<Stage, Fault> {
        let Options { path, state_dir, trust, replace, dry_run } = &self.options;
        let target = Target::open(path, state_dir, *trust)?;
        let standing = target.standing()?;
        let overrides = Overrides { rollback: false, replace: *replace };
        let decided = decide(&standing, NextStream::from(header), overrides);
        let plan = decided.or_else(|fault| Err(explain(fault, &target, &standing.head)?))?;
        let act = plan.act;
        check_sizes(&target, act, header, image)?;
        match act {
            Act::Already => Ok(Stage::Watching(Watching::Already(plan))),
            Act::Create | Act::Clear | Act::Apply if *dry_run => Ok(Stage::Watching(Watching::DryRun(act))),
            Act::Create | Act::Clear | Act::Apply => Ok(Stage::Writing(Box::new(Writing::begin(target, act, header, image)?))),
        }
    }
}

impl Sink for RawImage {
    type Done = Outcome;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        self.stage = self.prepare(header, image)?;
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        match &mut self.stage {
            Stage::Writing(writing) => writing.change(change),
            Stage::Watching(_) => Ok(()),
            Stage::Waiting => Err(out_of_turn()),
        }
    }

    fn commit(self, proof: Proof) -> Result<Outcome, Fault> {
        let receipt = proof.receipt("image-apply", &self.options.path.display().to_string());
        match self.stage {
            Stage::Writing(writing) => writing.commit(&proof).map(|()| Outcome::Done(Box::new(receipt))),
            Stage::Watching(Watching::Already(plan)) => {
                plan.check_end(proof.ending().to)?;
                Ok(Outcome::Done(Box::new(Receipt { already: true, ..receipt })))
            }
            Stage::Watching(Watching::DryRun(act)) => Ok(Outcome::Would(act)),
            Stage::Waiting => Err(out_of_turn()),
        }
    }
}

/// A refusal, with what is known of files and devices.
fn explain(fault: Fault, target: &Target, head: &Head) -> Result<Fault, Fault> {
    Ok(match (head, &target.record) {
        (Head::WrittenSince, Some(record)) => explain_written(fault, target.between(record)?),
        (Head::Foreign, None) if target.is_block && target.records.is_none() => {
            fault.hint("the device has no name that lasts, so no state of it can be kept, and it takes only whole streams")
        }
        _ => fault,
    })
}

fn explain_written(fault: Fault, between: Between) -> Fault {
    let fault = match between {
        Between::Unknown => Fault {
            what: "nothing proves that nobody wrote to the target: the machine was restarted, or the device attached anew"
                .to_owned(),
            ..fault
        },
        Between::Untouched | Between::Written => fault,
    };
    fault.hint("--trust takes it as it is, if you know that nobody wrote to it")
}

/// What the target could not become, and what the stream cannot begin from.
fn check_sizes(target: &Target, act: Act, header: &Header, image: &Image) -> Result<(), Fault> {
    if let (true, Some(device)) = (target.is_block, &target.device)
        && device.size()? < image.new_size
    {
        return Err(Fault::new(
            Class::TooSmall,
            format!("the device has {} bytes, and the image {}", device.size()?, image.new_size),
        ));
    }
    let held = target.record.as_ref().and_then(|record| record.held.as_ref());
    match held {
        Some(held) if act == Act::Apply && header.from == Some(held.id) && held.size != image.old_size => Err(Fault::new(
            Class::WrongBase,
            format!("the stream begins from an image of {} bytes, and the target holds {}", image.old_size, held.size),
        )),
        _ => Ok(()),
    }
}

/// A run that has touched the target, or is about to.
struct Writing {
    /// What shows that nobody else writes, and where that is written down.
    target: Target,
    device: Arc<Device>,
    queue: WriteQueue,
    source: Id,
    to_name: String,
    new_size: u64,
    /// Everything before this is defined; what follows still holds what was there before. `None`: gaps stay as they are.
    defined: Option<u64>,
}

impl Writing {
    fn begin(mut target: Target, act: Act, header: &Header, image: &Image) -> Result<Writing, Fault> {
        if target.device.is_none() {
            target.create()?;
        }
        say_receiving(&target, act, header)?;
        let again = target.record.as_ref().is_some_and(|record| record.receiving.is_some());
        let defined = match (act, target.is_block) {
            (Act::Create | Act::Clear, true) => Some(0),
            _ => None,
        };
        let threads = if target.is_block { DEVICE_THREADS } else { FILE_THREADS };
        let device = target.device.clone().ok_or_else(out_of_turn)?;
        let writing = Writing {
            queue: WriteQueue::new(Arc::clone(&device), threads),
            device,
            source: header.source,
            to_name: escape(&header.names.to),
            new_size: image.new_size,
            defined,
            target,
        };
        writing.resize(act, image, again)?;
        Ok(writing)
    }

    /// Gives the target the image's size, and zeros to whatever is cut off or grows.
    fn resize(&self, act: Act, image: &Image, again: bool) -> Result<(), Fault> {
        let Image { old_size, new_size, .. } = *image;
        match (act, self.target.is_block) {
            (Act::Apply, true) if new_size < old_size => self.device.zero(new_size, old_size - new_size),
            // A run that was cut may have written there.
            (Act::Apply, true) if again && new_size > old_size => self.device.zero(old_size, new_size - old_size),
            (_, true) => Ok(()),
            // Cut first, so that what grows is zero whatever was there.
            (Act::Apply, false) => self.device.resize(old_size.min(new_size)).and_then(|()| self.device.resize(new_size)),
            (Act::Create | Act::Clear | Act::Already, false) => self.device.resize(0).and_then(|()| self.device.resize(new_size)),
        }
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        self.fill_to(change.offset(), change.end())?;
        self.queue.push(change)
    }

    /// Zeroes what no change spoke of before `offset`, in a whole stream; the next gap begins at `next`.
    fn fill_to(&mut self, offset: u64, next: u64) -> Result<(), Fault> {
        let Some(defined) = self.defined else { return Ok(()) };
        self.defined = Some(next);
        match offset.saturating_sub(defined) {
            0 => Ok(()),
            len => self.queue.push(Change::Zero { offset: defined, len, may_deallocate: true }),
        }
    }

    fn commit(mut self, proof: &Proof) -> Result<(), Fault> {
        let end = if self.defined.is_some() { self.device.size()? } else { 0 };
        self.fill_to(end, end)?;
        self.queue.finish()?;
        self.target.still_there()?;
        let Some(records) = &self.target.records else { return Ok(()) };
        let Some(id) = proof.ending().to else {
            // Nothing can be said of it: it counts as content that is not ours.
            return records.remove();
        };
        let mut record = Record::new(self.target.lasting.clone(), self.target.evidence()?);
        let digest = proof.ending().digest;
        record.held = Some(HeldState { source: self.source, id, name: self.to_name, size: self.new_size, digest });
        records.write(&record)
    }
}

/// Writes down, durably, that what the target holds is part old, part new from now on.
fn say_receiving(target: &Target, act: Act, header: &Header) -> Result<(), Fault> {
    let Some(records) = &target.records else { return Ok(()) };
    if target.is_block {
        records.make_directory()?;
    }
    let mut record = Record::new(target.lasting.clone(), target.evidence()?);
    record.receiving = Some(Receiving { stream: header.stream(), from: header.from, to: header.to });
    // What is being replaced can no longer be begun from.
    record.held = target.record.as_ref().filter(|_| act == Act::Apply).and_then(|record| record.held.clone());
    records.write(&record)
}

fn out_of_turn() -> Fault {
    Fault::new(Class::Io, "a change before the stream began")
}
