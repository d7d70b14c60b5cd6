//! The keeper: the half of the sink that runs `zfs`, and never sees a byte of the stream.
//!
//! It is asked for three things, in plain values: to prepare the volume for a stream with these ids and sizes, to commit
//! what was written, and to let go. So it can become a process of its own, with the parser behind a sandbox.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::marks::{self, Marked};
use super::{Options, evidence};
use crate::format::{Digest, Id};
use crate::host::device::{Device, Zeroing};
use crate::host::zfs::{self, Dataset};
use crate::sink::Durable;
use crate::state::{Act, Class, Fault, Head, Held, Mark, NextStream, Plan, Run, Standing, decide};

/// What the stream's beginning says, as far as the keeper needs it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whose state becomes whose.
    pub next: NextStream,
    /// Id of the source.
    pub source: Id,
    /// The source's name of the to-state.
    pub to_name: Vec<u8>,
    /// Exact image size of the from-state in bytes; 0 in a whole stream.
    pub old_size: u64,
    /// Exact image size of the to-state in bytes.
    pub new_size: u64,
}

/// udev makes the link to a new node some 0.1 s after the fact; under load it took seconds.
const NODE_TIMEOUT: Duration = Duration::from_secs(20);
/// Seconds within which udev gives a new node its owner and group.
const UDEV_SECONDS: i64 = 5;
/// How long a device may take to vanish once it was hidden.
const HIDE_PATIENCE: Duration = Duration::from_millis(500);
/// How often it is hidden again when it does not vanish: somebody has it open.
const HIDE_ATTEMPTS: u32 = 10;
/// Block size of the volumes that we create, unless told otherwise: bytes.
const DEFAULT_BLOCK: u64 = 16 << 10;

/// The volume under our claim.
pub struct Keeper {
    options: Options,
    request: Request,
    dataset: Dataset,
    device: Arc<Device>,
    act: Act,
    /// Dropped last: hides the device once it is closed.
    _exposure: Exposure,
}

impl Keeper {
    /// Finds out what the volume is in, decides, and prepares it: nothing is touched before the decision. `None`: a dry run.
    pub fn prepare(options: Options, request: Request) -> Result<Option<Keeper>, Fault> {
        let known = Dataset::load(&options.name)?;
        if known.as_ref().is_some_and(|dataset| dataset.volsize.is_none()) {
            return Err(Fault::new(Class::Unsupported, "this is a file system, not a volume"));
        }
        // What can be refused without the device is refused before the device is shown to anybody.
        let mut standing = marks::standing(known.as_ref());
        let plan = decide(&standing, request.next, options.overrides)?;
        if options.dry_run {
            if let (Head::AtMark, Some(dataset)) = (&standing.head, &known)
                && let Some(newest) = marks::marks(dataset).last()
                && evidence::written_since(dataset, newest)?
            {
                standing.head = Head::WrittenSince;
            }
            let plan = decide(&standing, request.next, options.overrides)?;
            options.note(&describe(&plan, &standing));
            return Ok(None);
        }
        let created = known.is_none();
        let dataset = match known {
            Some(dataset) => dataset,
            None => create(&options, &request)?,
        };
        let (exposure, device) = claim(&dataset)?;
        // Under the claim: look again, and closer.
        let (dataset, standing) = settled_standing(&options, &device)?;
        let plan = if created { plan } else { decide(&standing, request.next, options.overrides)? };
        let mut keeper = Keeper { options, request, dataset, device, act: plan.act, _exposure: exposure };
        keeper.begin(&plan, &standing)?;
        Ok(Some(keeper))
    }

    /// The open volume.
    pub fn device(&self) -> Arc<Device> {
        Arc::clone(&self.device)
    }

    /// What is to be done with the stream.
    pub fn act(&self) -> Act {
        self.act
    }

    fn begin(&mut self, plan: &Plan, standing: &Standing) -> Result<(), Fault> {
        if let Some(held) = &plan.roll_back {
            self.roll_back(held, standing)?;
        }
        if plan.act == Act::Already {
            return Ok(());
        }
        let newest = marks::marks(&self.dataset).pop();
        if let (Act::Apply, Some(newest)) = (plan.act, &newest)
            && newest.mark.size != self.request.old_size
        {
            let (told, known) = (self.request.old_size, newest.mark.size);
            return Err(Fault::new(
                Class::WrongBase,
                format!("the stream says its base has {told} bytes; the mark says {known}"),
            ));
        }
        let NextStream { stream, from, to } = self.request.next;
        let newest_mark = newest.map(|marked| marked.snapshot.guid);
        let run = Run { dataset: self.dataset.guid, newest_mark, stream, from, to };
        zfs::set(&self.dataset.name, zfs::RECEIVING, &run.to_text())?;
        self.fit()?;
        match plan.act {
            Act::Clear => self.device.zero(0, self.device.size()?),
            // The rest behind the image is zero, always; what the image gave up becomes rest.
            Act::Apply if self.request.new_size < self.request.old_size => {
                self.device.zero(self.request.new_size, self.device.size()?.saturating_sub(self.request.new_size))
            }
            Act::Create | Act::Apply | Act::Already => Ok(()),
        }
    }

    /// Grows the volume to hold the image; shrinks it only on request.
    fn fit(&mut self) -> Result<(), Fault> {
        let wanted = volume_size(self.request.new_size, self.dataset.volblocksize);
        let size = self.dataset.volsize.unwrap_or(0);
        if wanted > size || wanted < size && self.options.shrink {
            zfs::set(&self.dataset.name, "volsize", &wanted.to_string())?;
            wait(
                NODE_TIMEOUT,
                || Ok((self.device.size()? == wanted).then_some(())),
                || format!("{} does not take its new size", self.dataset.name),
            )?;
        }
        Ok(())
    }

    fn roll_back(&mut self, held: &Held, standing: &Standing) -> Result<(), Fault> {
        let newer: Vec<&str> =
            standing.marks.iter().rev().map(|mark| mark.name.as_str()).take_while(|name| *name != held.name).collect();
        let lost: Vec<&str> = newer.iter().copied().chain(standing.above.iter().map(String::as_str)).collect();
        self.options.note(&match lost.as_slice() {
            [] if matches!(standing.head, Head::Receiving(_)) => {
                format!("going back to {}: giving up an unfinished run", held.name)
            }
            [] => format!("going back to {}: giving up what was written since", held.name),
            lost => format!("going back to {}: giving up {}", held.name, lost.join(", ")),
        });
        for name in &newer {
            zfs::release(zfs::HOLD, &self.dataset.name, name)?;
        }
        zfs::rollback(&self.dataset.name, &held.name, !lost.is_empty())?;
        self.device.invalidate();
        // The run that ended here is over, also where nothing is written after it.
        zfs::inherit(&self.dataset.name, zfs::RECEIVING)?;
        self.dataset = Dataset::open(&self.dataset.name)?;
        Ok(())
    }

    /// Takes the snapshot that is the commit of what was written. `None`: the stream led to no state.
    pub fn commit(self, _: Durable, to: Option<Id>, digest: Digest) -> Result<Option<Marked>, Fault> {
        let name = &self.dataset.name;
        if self.act == Act::Already {
            return marks::settle(&Dataset::open(name)?, self.options.hold);
        }
        let Some(state) = to else {
            // With sync=disabled durable was no more than a promise. A snapshot, below, waits for its transaction group.
            zfs::sync_pool(name)?;
            zfs::inherit(name, zfs::RECEIVING)?;
            return Ok(None);
        };
        let Request { next, source, to_name, new_size, .. } = &self.request;
        let name_it = marks::choose_name(name, &self.dataset.snapshots, to_name, state);
        let mark = Mark { dataset: self.dataset.guid, source: *source, state, size: *new_size, digest, name: name_it };
        let committed = marks::commit(&self.dataset, next.stream, &mark)?;
        if self.options.mark { marks::settle(&committed, self.options.hold) } else { Ok(marks::marks(&committed).pop()) }
    }
}

fn create(options: &Options, request: &Request) -> Result<Dataset, Fault> {
    let block = options.block_size.unwrap_or(DEFAULT_BLOCK);
    let mut arguments = vec!["-b".to_owned(), block.to_string()];
    let mut set = |setting: String| arguments.extend(["-o".to_owned(), setting]);
    if !options.properties.iter().any(|property| property.starts_with("volmode=")) {
        set("volmode=none".to_owned());
        set(format!("{}=yes", zfs::HIDDEN));
    }
    for property in &options.properties {
        if property.starts_with("keyformat=passphrase")
            && !options.properties.iter().any(|other| other.starts_with("keylocation=file"))
        {
            return Err(Fault::new(Class::Usage, "a passphrase cannot be asked for here: standard input is the stream")
                .hint("-o keylocation=file:///… or create the volume below an encrypted dataset whose key is loaded"));
        }
        set(property.clone());
    }
    let created = zfs::create_volume(&options.name, volume_size(request.new_size, block), &arguments);
    if created.as_ref().is_err_and(|fault| fault.class == Class::Exists) {
        return Err(Fault::new(Class::Busy, "another run has just created the volume").hint("try again when it has ended"));
    }
    created?;
    Dataset::open(&options.name)
}

/// A volume has whole blocks, and at least one: bytes.
fn volume_size(image: u64, block: u64) -> u64 {
    let block = block.max(512);
    image.max(1).checked_next_multiple_of(block).unwrap_or(u64::MAX)
}

/// Shows the volume's device if it is hidden, and opens it for us alone.
fn claim(dataset: &Dataset) -> Result<(Exposure, Arc<Device>), Fault> {
    if dataset.readonly.value == "on" {
        return Err(
            Fault::new(Class::Permission, "the volume is read-only").hint(format!("zfs set readonly=off {}", dataset.name))
        );
    }
    let was_hidden = dataset.volmode.value == "none";
    // Until the device is ours, another run may be using it: hide then only what we showed.
    let mut exposure = Exposure { name: dataset.name.clone(), hide: was_hidden };
    if was_hidden {
        zfs::set(&dataset.name, "volmode", "dev")?;
    }
    let node = dataset.node();
    let zeroing = Zeroing::DiscardBlocks(dataset.volblocksize.max(512));
    let opened = wait(NODE_TIMEOUT, || open_checked(&node, dataset, zeroing), || format!("{} does not appear", node.display()))?;
    // Visible already: left so by a run that was killed. While another run has it, it is not ours to hide.
    exposure.hide |= dataset.hidden;
    Ok((exposure, Arc::new(opened)))
}

/// Opens the node, once it is there and is that of the dataset: links lag behind, and node numbers are used again.
fn open_checked(node: &Path, dataset: &Dataset, zeroing: Zeroing) -> Result<Option<Device>, Fault> {
    if !node.exists() {
        return Ok(None);
    }
    let device = match Device::open_block(node, zeroing) {
        Ok(device) => device,
        // The link was there, the node is not yet.
        Err(fault) if fault.class == Class::NotFound => return Ok(None),
        // Or it is there, and udev has not yet given it to its group.
        Err(fault) if fault.class == Class::Permission && is_fresh(node) => return Ok(None),
        Err(fault) => return Err(fault),
    };
    Ok((device.zvol_name().as_deref() == Some(dataset.name.as_str())).then_some(device))
}

/// The node was made, or changed hands, just now.
fn is_fresh(node: &Path) -> bool {
    let changed = node.metadata().map(|meta| meta.ctime()).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs().cast_signed()).unwrap_or_default();
    now.saturating_sub(changed) < UDEV_SECONDS
}

/// Tries until there is something, or the time is up.
fn wait<T>(
    patience: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>, Fault>,
    late: impl Fn() -> String,
) -> Result<T, Fault> {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt()? {
            return Ok(found);
        }
        if start.elapsed() > patience {
            return Err(Fault::new(Class::Io, late()).hint("is udev running? `udevadm settle` waits for it"));
        }
        sleep(Duration::from_millis(20));
    }
}

/// Settles what an earlier run left committed but unnamed, then says what the volume is in, evidence included.
fn settled_standing(options: &Options, device: &Device) -> Result<(Dataset, Standing), Fault> {
    let mut dataset = Dataset::open(&options.name)?;
    let unnamed = marks::marks(&dataset).iter().any(Marked::is_pending);
    if unnamed {
        marks::settle(&dataset, options.hold)?;
    }
    if evidence::forget_check(&dataset)? || unnamed {
        dataset = Dataset::open(&options.name)?;
    }
    let mut standing = marks::standing(Some(&dataset));
    if standing.head == Head::Blank {
        // What others wrote counts in nothing before it is written out.
        device.sync()?;
        zfs::sync_pool(&options.name)?;
        dataset = Dataset::open(&options.name)?;
        standing = marks::standing(Some(&dataset));
    }
    if standing.head == Head::AtMark
        && let Some(newest) = marks::marks(&dataset).last()
        && evidence::written_since_claimed(device, &dataset, newest)?
    {
        standing.head = Head::WrittenSince;
    }
    Ok((dataset, standing))
}

/// The plan in words, for a dry run.
fn describe(plan: &Plan, standing: &Standing) -> String {
    match &plan.roll_back {
        Some(held) if standing.above.is_empty() => format!("would go back to {}; then {}", held.name, plan.act.would()),
        Some(held) => {
            format!("would go back to {}, giving up {}; then {}", held.name, standing.above.join(", "), plan.act.would())
        }
        None => plan.act.would().to_owned(),
    }
}

/// Hides a device again when it is let go.
struct Exposure {
    name: String,
    hide: bool,
}

impl Drop for Exposure {
    fn drop(&mut self) {
        if !self.hide {
            return;
        }
        // udev looks at a device that was just closed, and ZFS leaves one that is open where it is, without a word.
        let node = Path::new("/dev/zvol").join(&self.name);
        for _ in 0..HIDE_ATTEMPTS {
            // Not worth failing for; the next run hides it.
            let gone = || Ok((!node.exists()).then_some(()));
            if zfs::set(&self.name, "volmode", "none").is_err() || wait(HIDE_PATIENCE, gone, String::new).is_ok() {
                return;
            }
        }
    }
}
