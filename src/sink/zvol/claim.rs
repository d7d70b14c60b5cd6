//! The volume's device, for us alone: shown while we use it, hidden between runs.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::host::device::{Device, Zeroing, zvol_behind};
use crate::host::zfs::{self, Dataset};
use crate::sink::dataset::marks;
use crate::state::{Class, Fault, ZfsGuid};

/// udev makes the link to a new node some 0.1 s after the fact; under load it took seconds.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(20);
/// Seconds within which udev gives a new node its owner and group.
const UDEV_SECONDS: i64 = 5;
/// How long a device may take to vanish once it was hidden.
const HIDE_PATIENCE: Duration = Duration::from_millis(500);
/// How often it is hidden again when it does not vanish: somebody has it open.
const HIDE_ATTEMPTS: u32 = 10;

/// The `volmode` of a device that we use: whole, without the partitions in it.
pub const SHOWN: &str = "dev";
/// And between runs.
const HIDDEN: &str = "none";

/// A device that is hidden again when it is let go.
pub struct Exposure {
    name: String,
    /// Of the volume, once it is known: what else has its name by now is not ours to hide.
    pub guid: Option<ZfsGuid>,
    /// Hide it: it was hidden, or is ours to hide.
    pub hide: bool,
    /// That it was hidden was not set on the volume itself.
    inherited: bool,
    run_ended: bool,
    /// It was looked at a moment ago, and is the volume.
    is_settled: bool,
    /// There while the device is: once it was opened what the kernel says, because udev takes a link away and puts it back.
    shown_as: PathBuf,
}

impl Exposure {
    /// Shows the device of a volume, if it is hidden.
    pub fn show(dataset: &Dataset) -> Result<Exposure, Fault> {
        if dataset.readonly.value == "on" {
            return Err(
                Fault::new(Class::Permission, "the volume is read-only").hint(format!("zfs set readonly=off {}", dataset.name))
            );
        }
        // Until the device is ours, another run may be using it: hide then only what we showed.
        let hide = dataset.volmode.value == HIDDEN;
        let inherited = !dataset.volmode.local;
        let exposure = Exposure::new(&dataset.name, Some(dataset.guid), hide, inherited);
        if hide {
            zfs::set(&dataset.name, &[("volmode", SHOWN)])?;
        }
        Ok(exposure)
    }

    /// Of a volume that we made, shown for now.
    pub fn of_new(name: &str) -> Exposure {
        Exposure::new(name, None, true, false)
    }

    fn new(name: &str, guid: Option<ZfsGuid>, hide: bool, inherited: bool) -> Exposure {
        let (name, shown_as) = (name.to_owned(), zfs::node(name));
        Exposure { name, guid, hide, inherited, run_ended: false, is_settled: false, shown_as }
    }

    /// Opens the volume's device for us alone, once it is there.
    pub fn open(&mut self, block: u64) -> Result<Arc<Device>, Fault> {
        let (node, zeroing) = (zfs::node(&self.name), Zeroing::DiscardBlocks(block.max(512)));
        let late = || format!("{} does not appear", node.display());
        let device = wait(NODE_TIMEOUT, || open_checked(&node, &self.name, zeroing), late)?;
        self.shown_as = device.in_sysfs()?;
        Ok(Arc::new(device))
    }

    fn is_still_there(&self) -> bool {
        let is_it = |guid| !matches!(Dataset::find(&self.name), Ok(Some(dataset)) if dataset.guid != guid);
        self.is_settled || self.guid.is_none_or(is_it)
    }

    /// Ends the record of a run that has committed, or was left behind: in the call that hides the device, if there is one.
    pub fn end_run(&mut self, dataset: &Dataset) -> Result<(), Fault> {
        let stale = marks::is_record_stale(dataset);
        (self.run_ended, self.is_settled) = (stale && self.hide, true);
        if stale && !self.hide { zfs::inherit(&self.name, zfs::RECEIVING) } else { Ok(()) }
    }
}

impl Drop for Exposure {
    fn drop(&mut self) {
        if !self.hide || !self.is_still_there() {
            return;
        }
        let settings = [("volmode", HIDDEN), (zfs::RECEIVING, zfs::ENDED)];
        let mut settings = if self.run_ended { &settings[..] } else { &settings[..1] };
        // udev looks at a device that was just closed, and ZFS leaves one that is open where it is, without a word.
        for _ in 0..HIDE_ATTEMPTS {
            // Not worth failing for; the next run hides it.
            let gone = || Ok((!self.shown_as.exists()).then_some(()));
            if zfs::set(&self.name, settings).is_err() || wait(HIDE_PATIENCE, gone, String::new).is_ok() {
                break;
            }
            // Who has it open may be the next run, whose record this would end.
            settings = &settings[..1];
        }
        if self.inherited {
            // Nor this: it stays hidden.
            let _ = zfs::revert(&self.name, "volmode");
        }
    }
}

/// Opens the node, once it is there and is that of the dataset: links lag behind, and node numbers are used again.
fn open_checked(node: &Path, name: &str, zeroing: Zeroing) -> Result<Option<Device>, Fault> {
    // A link that leads elsewhere a moment later must not matter.
    let Ok(node) = node.canonicalize() else { return Ok(None) };
    let is_its_own = |of: Option<String>| of.as_deref() == Some(name);
    let device = match Device::open_block(&node, zeroing) {
        Ok(device) => device,
        // Who is at it may be at another volume.
        Err(fault) if matches!(fault.class, Class::Busy | Class::Mounted | Class::Claimed) => {
            return if is_its_own(zvol_behind(&node)) { Err(fault) } else { Ok(None) };
        }
        // The link was there, the node is not yet.
        Err(fault) if fault.class == Class::NotFound => return Ok(None),
        // Or it is there, and udev has not yet given it to its group.
        Err(fault) if fault.class == Class::Permission && is_fresh(&node) => return Ok(None),
        Err(fault) => return Err(fault),
    };
    Ok(is_its_own(device.zvol_name()).then_some(device))
}

/// The node was made, or changed hands, just now.
fn is_fresh(node: &Path) -> bool {
    let changed = node.metadata().map(|meta| meta.ctime()).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs().cast_signed()).unwrap_or_default();
    now.saturating_sub(changed) < UDEV_SECONDS
}

/// Tries until there is something, or the time is up.
pub fn wait<T>(
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
