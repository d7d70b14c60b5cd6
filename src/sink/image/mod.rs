//! A raw image file or plain block device as a target.
//!
//! Such a target keeps no state of its own: a record lies beside it. There is no way back either: while a run is under
//! way the target is part old, part new, and its record says so.

mod target;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::flow::{Proof, Sink};
use crate::format::{Change, Header, Image};
use crate::host::device::Device;
use crate::host::record::{HeldState, Receiving, RecordFile};
use crate::host::stamp::{Between, Evidence};
use crate::host::successor::free_of_links;
use crate::state::{Act, Checkpoint, Class, Fault, Head, NextStream, Overrides, Plan, Receipt, Standing, decide};

use super::Outcome;
use super::manifest::Manifest;
use super::{KEPT, Reached, WriteQueue};
pub use crate::host::record::STATE_DIR;
use target::Target;

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
    /// What the target holds is found out by reading it: content alone decides.
    pub by_content: bool,
    /// Change nothing.
    pub dry_run: bool,
    /// Where the records of devices lie.
    pub state_dir: PathBuf,
    /// Keep a manifest of what the target holds in this file.
    pub manifest: Option<PathBuf>,
    /// Takes what the user should know: the target's name, and the text.
    pub notes: fn(&str, &str),
}

/// A raw image as a sink.
pub struct RawImage {
    options: Options,
    stage: Stage,
}

enum Stage {
    Waiting,
    Writing(Box<Writing>, Manifest),
    Watching(Watching),
}

/// A stream that is read to its end and verified, while nothing is written.
enum Watching {
    /// The target is where the stream leads, or its end refuses it.
    Already(Plan, Option<Arc<Device>>, Manifest),
    /// The user wants to know whether it would be accepted.
    DryRun(Act),
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
        let Options { path, state_dir, trust, by_content, replace, dry_run, manifest, notes: _ } = &self.options;
        manifest.as_deref().map_or(Ok(()), |manifest| keep_apart(manifest, path))?;
        let target = Target::open(path, state_dir, *trust)?;
        let standing = if *by_content { target.standing_by_content()? } else { target.standing()? };
        let overrides = Overrides { rollback: false, replace: *replace };
        let decided = decide(&standing, NextStream::from(header), overrides);
        let plan = decided.or_else(|fault| Err(explain(fault, &target, &standing.head)?))?;
        let act = plan.act;
        let base = standing.checkpoint.filter(|resumable| resumable.held.is(header.from)).map(|resumable| resumable.checkpoint);
        check_sizes(&target, act, header, image, base.as_ref())?;
        let manifest = Manifest::open(manifest.as_deref().filter(|_| !dry_run), header, image)?;
        match act {
            Act::Already => Ok(Stage::Watching(Watching::Already(plan, target.device, manifest))),
            Act::Create | Act::Clear | Act::Apply if *dry_run => Ok(Stage::Watching(Watching::DryRun(act))),
            Act::Create | Act::Clear | Act::Apply => {
                Ok(Stage::Writing(Box::new(Writing::begin(target, act, header, image, base)?), manifest))
            }
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
            Stage::Writing(writing, manifest) => {
                manifest.touched(change.offset(), change.end());
                writing.change(change)
            }
            Stage::Watching(_) => Ok(()),
            Stage::Waiting => Err(out_of_turn()),
        }
    }

    fn checkpoint(&mut self) -> Result<(), Fault> {
        if let Stage::Writing(writing, _) = &mut self.stage {
            writing.reached.verified();
        }
        Ok(())
    }

    fn give_up(self) {
        // The run has failed already, and says why; what fails here only costs the next one time.
        if let Stage::Writing(writing, _) = self.stage
            && let Ok(true) = writing.give_up()
        {
            (self.options.notes)(&self.options.path.display().to_string(), KEPT);
        }
    }

    fn commit(self, proof: Proof) -> Result<Outcome, Fault> {
        let name = self.options.path.display().to_string();
        let (receipt, note) = (proof.receipt("image-apply", &name), |text: &str| (self.options.notes)(&name, text));
        match self.stage {
            Stage::Writing(writing, manifest) => {
                writing.commit(&proof, manifest, note)?;
                Ok(Outcome::Done(Box::new(receipt)))
            }
            Stage::Watching(Watching::Already(plan, device, manifest)) => {
                plan.check_end(proof.ending().to)?;
                if let Some(device) = device {
                    manifest.write_unless_there(&*device, proof.ending().to, note)?.keep()?;
                }
                Ok(Outcome::Done(Box::new(Receipt { already: true, ..receipt })))
            }
            Stage::Watching(Watching::DryRun(act)) => Ok(Outcome::Would(act.would().to_owned())),
            Stage::Waiting => Err(out_of_turn()),
        }
    }
}

/// None of them may be there yet, so nothing else would notice before one took the other's place.
fn keep_apart(manifest: &Path, target: &Path) -> Result<(), Fault> {
    let (manifest, target) = (free_of_links(manifest), free_of_links(target));
    let what = match manifest {
        manifest if manifest == target => "the target itself",
        manifest if manifest == RecordFile::beside(&target).path() => "the record of the target",
        _ => return Ok(()),
    };
    Err(Fault::new(Class::Usage, format!("--manifest names {what}")))
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
fn check_sizes(target: &Target, act: Act, header: &Header, image: &Image, checkpoint: Option<&Checkpoint>) -> Result<(), Fault> {
    if let (true, Some(device)) = (target.is_block, &target.device)
        && device.size()? < image.new_size
    {
        return Err(Fault::new(
            Class::TooSmall,
            format!("the device has {} bytes, and the image {}", device.size()?, image.new_size),
        ));
    }
    let held = target.record.as_ref().and_then(|record| record.held.as_ref());
    let of_held = held.filter(|held| header.from == Some(held.id)).map(|held| held.size);
    match checkpoint.map(Checkpoint::size).or(of_held) {
        Some(size) if act == Act::Apply && size != image.old_size => Err(Fault::new(
            Class::WrongBase,
            format!("the stream begins from an image of {} bytes, and the target holds {size}", image.old_size),
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
    run: Receiving,
    /// What it looked like before the first change.
    before: Evidence,
    /// Something else than zeros was written.
    has_written: bool,
    /// What the target is before the first change, in its new size.
    beginning: Checkpoint,
    reached: Reached,
    new_size: u64,
    /// Everything before this is defined; what follows still holds what was there before. `None`: gaps stay as they are.
    defined: Option<u64>,
}

impl Writing {
    fn begin(mut target: Target, act: Act, header: &Header, image: &Image, base: Option<Checkpoint>) -> Result<Writing, Fault> {
        if target.device.is_none() {
            target.create()?;
        }
        let cut = target.record.as_ref().and_then(|record| record.receiving.as_ref());
        let defined = match (act, target.is_block) {
            (Act::Create | Act::Clear, true) => Some(0),
            (Act::Apply | Act::Already, true) => cut.and_then(|run| run.stale_from),
            (_, false) => None,
        };
        let run = Receiving { stale_from: defined, ..Receiving::of(header, target.birth()?) };
        if act != Act::Apply
            && let Some(record) = &mut target.record
        {
            // What is being replaced can no longer be begun from.
            record.held = None;
        }
        let before = target.evidence()?;
        say_receiving(&target, before.clone(), run.clone())?;
        let beginning = match base {
            Some(checkpoint) => checkpoint.resized(image.new_size),
            None => Checkpoint::begin(header.from, image.old_size, image.new_size),
        };
        let threads = if target.is_block { DEVICE_THREADS } else { FILE_THREADS };
        let device = target.device.clone().ok_or_else(out_of_turn)?;
        let writing = Writing {
            queue: WriteQueue::new(Arc::clone(&device), threads),
            device,
            run,
            before,
            has_written: false,
            beginning,
            reached: Reached::new(Duration::ZERO),
            new_size: image.new_size,
            defined,
            target,
        };
        writing.resize(act, image)?;
        Ok(writing)
    }

    /// Gives the target the image's size, and zeros to whatever is cut off or grows.
    fn resize(&self, act: Act, image: &Image) -> Result<(), Fault> {
        let Image { old_size, new_size, .. } = *image;
        match (act, self.target.is_block) {
            (Act::Apply, true) if new_size < old_size => self.device.zero(new_size, old_size - new_size),
            // A run that was cut may have written there; and where the device grew, it holds what was there before.
            (Act::Apply, true) if new_size > old_size => self.device.zero(old_size, new_size - old_size),
            (_, true) => Ok(()),
            // Cut first, so that what grows is zero whatever was there.
            (Act::Apply, false) => self.device.resize(old_size.min(new_size)).and_then(|()| self.device.resize(new_size)),
            (Act::Create | Act::Clear | Act::Already, false) => self.device.resize(0).and_then(|()| self.device.resize(new_size)),
        }
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        self.fill_to(change.offset(), change.end())?;
        self.reached.change(&change);
        self.has_written |= matches!(change, Change::Data(_));
        self.queue.push(change)
    }

    /// Zeroes what no change spoke of before `offset`, in a whole stream; the next gap begins at `next`.
    fn fill_to(&mut self, offset: u64, next: u64) -> Result<(), Fault> {
        let Some(defined) = self.defined else { return Ok(()) };
        self.defined = Some(defined.max(next));
        match offset.saturating_sub(defined) {
            0 => Ok(()),
            len => self.queue.push(Change::Zero { offset: defined, len, may_deallocate: true }),
        }
    }

    /// Writes down where the run was cut. There is no way back, so this holds only for a target that nobody touches until it
    /// goes on, which its looks will show.
    fn give_up(self) -> Result<bool, Fault> {
        let Some(checkpoint) = self.reached.cut().checkpoint(&self.beginning, self.run.to) else { return Ok(false) };
        self.queue.finish()?;
        let seen = self.target.looked_at_last(&self.before, self.has_written, self.new_size)?;
        let run = Receiving { checkpoint: Some(checkpoint.to_string()), stale_from: self.defined, ..self.run };
        say_receiving(&self.target, seen, run)?;
        Ok(true)
    }

    fn commit(mut self, proof: &Proof, manifest: Manifest, note: impl Fn(&str)) -> Result<(), Fault> {
        let end = if self.defined.is_some() { self.device.size()? } else { 0 };
        self.fill_to(end, end)?;
        self.queue.settle()?;
        // What is read back is what lies on the disk.
        self.device.invalidate();
        let manifest = manifest.write(&*self.device, proof.ending().to, note)?;
        self.record(proof)?;
        manifest.keep()
    }

    /// The commit: the record says what the target holds.
    fn record(self, proof: &Proof) -> Result<(), Fault> {
        let seen = self.target.looked_at_last(&self.before, self.has_written, self.new_size)?;
        let Some(records) = &self.target.records else { return Ok(()) };
        let ending = proof.ending();
        let held = HeldState::of(proof.header(), ending.to, ending.digest, self.new_size);
        records.say_held(self.target.lasting.clone(), seen, held)
    }
}

/// Writes down, durably, that what the target holds is part old, part new from now on.
fn say_receiving(target: &Target, seen: Evidence, run: Receiving) -> Result<(), Fault> {
    let Some(records) = &target.records else { return Ok(()) };
    if target.is_block {
        records.make_directory()?;
    }
    let held = target.record.as_ref().and_then(|record| record.held.clone());
    records.say_receiving(target.lasting.clone(), seen, run, held)
}

fn out_of_turn() -> Fault {
    Fault::new(Class::Io, "a change before the stream began")
}
