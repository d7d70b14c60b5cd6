//! The keeper: the half of the sink that runs `zfs`, and never sees a byte of the stream.
//!
//! It is asked in plain values: to prepare the volume for a stream with these ids and sizes, to keep a checkpoint, to commit what
//! was written, to explain a failure. Mostly by another process, in which the parser runs behind a sandbox: [`crate::sink::Remote`].

use std::sync::Arc;

use super::Options;
use super::claim::{self, Exposure, NODE_TIMEOUT};
use crate::format::{Digest, Id};
use crate::host::device::Device;
use crate::host::zfs::{self, Dataset};
use crate::sink::dataset::check::{self, Check};
use crate::sink::dataset::marks::{self, Marked};
use crate::sink::dataset::{Committing, begin, check_new, commit, end_without_state, evidence, go_back};
use crate::sink::{Cut, Durable, Request};
use crate::state::{Act, Checkpoint, Class, Fault, Head, Held, Plan, Standing, decide};

/// What the stream's end and the volume itself say of what was received.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Last link of the stream's digest chain.
    pub digest: Digest,
    /// Content root of the volume as it was read back, if it was.
    pub root: Option<Digest>,
}

/// Block size of the volumes that we create, unless told otherwise: bytes.
const DEFAULT_BLOCK: u64 = 16 << 10;
/// Where fewer bytes than this are left to a volume, it is full.
const FULL: u64 = 1 << 20;

/// The volume under our claim.
pub struct Keeper {
    options: Options,
    request: Request,
    dataset: Dataset,
    /// What the run stands on, if it writes. Dropped while the device is ours.
    check: Option<Check>,
    device: Arc<Device>,
    plan: Plan,
    /// What the volume is before the first change, if a run that is cut can go on.
    beginning: Option<Checkpoint>,
    /// Dropped last: hides the device once it is closed.
    exposure: Exposure,
}

/// What would be done, in a plan and in words.
pub fn would(options: &Options, request: &Request) -> Result<(Plan, String), Fault> {
    let known = only_volume(Dataset::load(&options.name)?)?;
    let mut standing = evidence::standing(known.as_ref());
    if let (Head::AtMark, Some(dataset)) = (&standing.head, &known)
        && evidence::was_written(dataset)?
    {
        standing.head = Head::WrittenSince;
    }
    let plan = decide(&standing, request.next, options.overrides)?;
    if let Some(dataset) = &known {
        check_base(dataset, &plan, request)?;
    }
    let words = describe(&plan, &standing);
    Ok((plan, words))
}

impl Keeper {
    /// Finds out what the volume is in, decides, and prepares it: nothing is touched before the decision.
    pub fn prepare(options: Options, request: Request) -> Result<Keeper, Fault> {
        let whole = request.next.from.is_none();
        let known = only_volume(if whole { Dataset::find(&options.name)? } else { Dataset::load(&options.name)? })?;
        // What can be refused without the device is refused before the device is shown to anybody.
        let standing = if whole { marks::standing(known.as_ref()) } else { evidence::standing(known.as_ref()) };
        let plan = decide(&standing, request.next, options.overrides)?;
        let (mut exposure, block) = match &known {
            Some(dataset) => (Exposure::show(dataset)?, dataset.volblocksize),
            None => create(&options, &request)?,
        };
        let device = exposure.open(block)?;
        let (dataset, standing, plan, check) = match known {
            // We made it a moment ago.
            None => (untouched(&options.name)?, standing, plan, None),
            Some(known) => {
                let just_shown = exposure.hide;
                // Visible already: left so by a run that was killed. While another run had it, it was not ours to hide.
                exposure.hide |= known.hidden;
                // Under the claim: look again, and closer.
                let (dataset, standing, check) = settled_standing(&options, &device, just_shown)?;
                let plan = decide(&standing, request.next, options.overrides)?;
                (dataset, standing, plan, check)
            }
        };
        exposure.guid = Some(dataset.guid);
        check_base(&dataset, &plan, &request)?;
        let mut keeper = Keeper { options, request, dataset, check: None, device, plan, beginning: None, exposure };
        keeper.begin(&standing, check)?;
        Ok(keeper)
    }

    /// The open volume.
    pub fn device(&self) -> Arc<Device> {
        Arc::clone(&self.device)
    }

    /// Nothing is to be written.
    pub fn only_reads(&self) -> bool {
        self.plan.act == Act::Already
    }

    /// `check`: one that was taken to find out what the volume is in.
    fn begin(&mut self, standing: &Standing, check: Option<Check>) -> Result<(), Fault> {
        let check = Check::kept_for(&self.plan, check)?;
        if let Some(held) = self.plan.roll_back.clone() {
            self.roll_back(&held, standing)?;
        }
        if self.only_reads() {
            return Ok(());
        }
        self.check = Some(begin(&self.dataset, check, self.request.next)?);
        self.beginning = Some(self.request.beginning(standing));
        // What cannot be destroyed costs space and nothing else: each says itself what it holds.
        let _ = marks::forget_pauses(&self.dataset, self.plan.roll_back.as_ref().map(|held| held.name.as_str()));
        self.fit()?;
        match self.plan.act {
            Act::Clear => self.clear(),
            // The rest behind the image is zero, always; what the image gave up becomes rest.
            Act::Apply if self.request.new_size < self.request.old_size => {
                self.device.zero(self.request.new_size, self.device.size()?.saturating_sub(self.request.new_size))
            }
            Act::Create | Act::Apply | Act::Already => Ok(()),
        }
    }

    fn clear(&mut self) -> Result<(), Fault> {
        self.device.zero(0, self.device.size()?)?;
        // It would keep what was there, which there may be no space for beside the new.
        self.check.as_mut().map_or(Ok(()), Check::renew)
    }

    /// Takes the snapshot that another run can go on from, in place of the last one; whether there is one now. Where it cannot
    /// be done, or undone, this run goes on without.
    pub fn pause(&mut self, _: Durable, cut: Cut) -> bool {
        let begin = self.beginning.as_ref();
        let checkpoint = begin.and_then(|begin| cut.checkpoint(begin, self.request.next.to));
        let Some((checkpoint, check)) = checkpoint.zip(self.check.as_mut()) else { return false };
        let paused = marks::pause(&self.dataset, checkpoint, check);
        if let Err(fault) = &paused {
            self.beginning = None;
            self.options.note(&format!("no checkpoint is kept: {}", fault.what));
        }
        paused.is_ok()
    }

    /// Grows the volume to hold the image; shrinks it only on request.
    fn fit(&mut self) -> Result<(), Fault> {
        let wanted = volume_size(self.request.new_size, self.dataset.volblocksize);
        let size = self.dataset.volsize.unwrap_or(0);
        if wanted > size || wanted < size && self.options.shrink {
            zfs::set(&self.dataset.name, &[("volsize", &wanted.to_string())])?;
            self.wait_for_size(wanted)?;
        }
        Ok(())
    }

    /// The device has so many bytes: what is done to its end is done there.
    fn wait_for_size(&self, wanted: u64) -> Result<(), Fault> {
        let has_it = || Ok((self.device.size()? == wanted).then_some(()));
        claim::wait(NODE_TIMEOUT, has_it, || format!("{} does not take its new size", self.dataset.name))
    }

    fn roll_back(&mut self, held: &Held, standing: &Standing) -> Result<(), Fault> {
        let room = self.request.new_size.max(FULL);
        self.dataset = go_back(&self.dataset, held, standing, room, self.options.hold, |text| self.options.note(text))?;
        self.device.invalidate();
        self.wait_for_size(self.dataset.volsize.unwrap_or(0))
    }

    /// Refuses a stream that could not be refused before its end.
    pub fn check_end(&self, to: Option<Id>) -> Result<(), Fault> {
        self.plan.check_end(to)
    }

    /// Takes the snapshot that is the commit of what was written. `None`: the stream led to no state.
    pub fn commit(mut self, _: Durable, to: Option<Id>, received: Received) -> Result<Option<Marked>, Fault> {
        self.plan.check_end(to)?;
        let Some(check) = self.check.take() else {
            let dataset = self.dataset.again()?;
            let marked = marks::settle(&dataset, self.options.hold)?;
            let _ = check::forget(&dataset);
            self.exposure.end_run(&dataset)?;
            return Ok(marked);
        };
        let size = self.device.size()?;
        if size < self.request.new_size {
            let what = format!("somebody made the volume smaller than the image while it was written: {size} bytes");
            return Err(Fault::new(Class::TooSmall, what).hint("send it again"));
        }
        let Some(state) = to else {
            return end_without_state(&self.dataset, check).map(|()| None);
        };
        let Request { next, source, to_name, new_size, .. } = &self.request;
        let Options { mark, hold, .. } = self.options;
        let (source, stream, size) = (*source, next.stream, *new_size);
        let Received { digest, root } = received;
        let (committed, marked) = commit(
            &self.dataset,
            check,
            &Committing { source, state, to_name, stream, size, digest, root, unset: false, mark, hold },
        )?;
        self.exposure.end_run(&committed)?;
        Ok(marked)
    }

    /// A failure of a write, and why: for a quota the kernel says no more than EIO.
    pub fn explain(&self, failed: Fault) -> Fault {
        let left = || zfs::available(&self.dataset.name).unwrap_or(u64::MAX);
        if failed.class != Class::Io || left() >= FULL {
            return failed;
        }
        Fault { class: Class::NoSpace, ..failed }.hint(format!(
            "no space is left to {0}: `zfs get -r quota,refquota,available {0}`, and those above it",
            self.dataset.name
        ))
    }
}

/// The volume that was made a moment ago. Until the claim on its device somebody else could have had it.
fn untouched(name: &str) -> Result<Dataset, Fault> {
    match Dataset::open(name)? {
        dataset if dataset.snapshots.is_empty() && dataset.receiving.is_none() => Ok(dataset),
        _ => {
            Err(Fault::new(Class::Busy, "another run took the volume that was just created").hint("try again when it has ended"))
        }
    }
}

/// Only volumes take streams.
fn only_volume(known: Option<Dataset>) -> Result<Option<Dataset>, Fault> {
    match known {
        Some(dataset) if dataset.volsize.is_none() => Err(Fault::new(Class::Unsupported, "this is a file system, not a volume")
            .hint("tree-apply --dataset writes to file systems")),
        known => Ok(known),
    }
}

/// The mark that the stream is applied to has the size that the stream says.
fn check_base(dataset: &Dataset, plan: &Plan, request: &Request) -> Result<(), Fault> {
    let marks = marks::marks(dataset);
    let base = match &plan.roll_back {
        Some(held) => marks.iter().find(|marked| marked.snapshot.name == held.name),
        None => marks.last(),
    };
    let pauses = marks::pauses(dataset);
    let paused = plan.roll_back.as_ref().and_then(|held| pauses.iter().find(|(snapshot, _)| snapshot.name == held.name));
    let size = paused.map(|(_, checkpoint)| checkpoint.size()).or(base.map(|base| base.mark.size));
    match size {
        Some(size) if plan.act == Act::Apply && size != request.old_size => Err(Fault::new(
            Class::WrongBase,
            format!("the stream says its base has {} bytes; the target says {size}", request.old_size),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Makes the volume, its device shown; and says how large its blocks are.
fn create(options: &Options, request: &Request) -> Result<(Exposure, u64), Fault> {
    check_new(&options.properties)?;
    let block = options.block_size.unwrap_or(DEFAULT_BLOCK);
    let hide = !options.properties.iter().any(|property| property.starts_with("volmode="));
    let mut arguments = vec!["-b".to_owned(), block.to_string()];
    let mut set = |setting: String| arguments.extend(["-o".to_owned(), setting]);
    if hide {
        set(format!("volmode={}", claim::SHOWN));
        set(format!("{}=yes", zfs::HIDDEN));
    }
    for property in &options.properties {
        set(property.clone());
    }
    match zfs::create_volume(&options.name, volume_size(request.new_size, block), &arguments) {
        Err(fault) if fault.class == Class::Exists => {
            Err(Fault::new(Class::Busy, "another run has just created the volume").hint("try again when it has ended"))
        }
        Err(fault) => Err(fault),
        Ok(()) if hide => Ok((Exposure::of_new(&options.name), block)),
        Ok(()) => Ok((Exposure::show(&Dataset::open(&options.name)?)?, block)),
    }
}

/// A volume has whole blocks, and at least one: bytes.
fn volume_size(image: u64, block: u64) -> u64 {
    let block = block.max(512);
    image.max(1).checked_next_multiple_of(block).unwrap_or(u64::MAX)
}

/// Settles what an earlier run left committed but unnamed or without its hold, then says what the volume is in, evidence
/// included; and the check, if one was taken for that.
fn settled_standing(options: &Options, device: &Device, just_shown: bool) -> Result<(Dataset, Standing, Option<Check>), Fault> {
    let mut dataset = evidence::settled(device, &options.name, just_shown)?;
    if marks::is_unsettled(&dataset, options.hold) {
        marks::settle(&dataset, options.hold)?;
        dataset = Dataset::open(&options.name)?;
    }
    let mut standing = marks::standing(Some(&dataset));
    // Of no run that counts.
    if !matches!(standing.head, Head::Receiving(_)) && check::forget(&dataset)? {
        dataset = Dataset::open(&options.name)?;
    }
    let newest = marks::marks(&dataset).pop();
    let ((changed, taken), otherwise) = match (&standing.head, &newest) {
        (Head::AtMark, Some(newest)) if just_shown => (evidence::changed_until_check(&dataset, newest)?, Head::WrittenSince),
        (Head::AtMark, Some(newest)) => (evidence::written_since_claimed(&dataset, newest)?, Head::WrittenSince),
        (Head::Blank, _) => (evidence::holds_data_until_check(&dataset)?, Head::Foreign),
        _ => ((false, None), Head::Foreign),
    };
    if changed {
        standing.head = otherwise;
    }
    Ok((dataset, standing, taken))
}

/// The plan in words, for a dry run.
fn describe(plan: &Plan, standing: &Standing) -> String {
    match &plan.roll_back {
        Some(held) if !standing.above.is_empty() => {
            format!("would go back to {}, giving up {}; then {}", held.name, standing.above.join(", "), plan.act.would())
        }
        Some(_) | None => plan.would(),
    }
}
