//! Whether a volume still holds what its newest mark holds.

use std::io::BufReader;

use crate::foreign::zfs_send::{self, Record, Records, ZVOL_DATA};
use crate::host::device::Device;
use crate::host::zfs::{self, Dataset};
use crate::state::{Class, Fault};

use super::marks::{self, Marked};

/// Snapshot that stands in for the head while the send stream is looked at.
const CHECK: &str = "siphon-check";

/// The volume with all that anybody wrote to it, seen under our claim on the device.
///
/// A dirty page of the device counts in nothing until it is written out, and a write counts in what ZFS says of a volume only
/// from the next transaction group on: hence the order.
pub fn settled(device: &Device, name: &str) -> Result<Dataset, Fault> {
    device.sync()?;
    zfs::sync_pool(name)?;
    Dataset::open(name)
}

/// Somebody wrote to the volume since this snapshot; asked of a [`settled`] volume, under our claim on the device.
///
/// Space written since 0 is proof. More is none: a roll-back and a device shown again leave 1 KiB there, a new size 12 KiB;
/// then a send stream since the mark says whether data changed. An open volume cannot be sent, so a snapshot stands in for it.
pub fn written_since_claimed(dataset: &Dataset, newest: &Marked) -> Result<bool, Fault> {
    let written = match dataset.snapshots.last() {
        Some(last) if last.guid == newest.snapshot.guid => dataset.written,
        _ => zfs::written_since(&dataset.name, &newest.snapshot.name)?,
    };
    if written == 0 {
        return Ok(false);
    }
    zfs::snapshot(&dataset.name, CHECK, zfs::CHECK, &dataset.guid.to_string())?;
    let changed = changed_since(dataset, newest, &format!("{}@{CHECK}", dataset.name));
    zfs::destroy_snapshot(&dataset.name, CHECK)?;
    changed
}

/// The same without a claim, for a volume that nobody has open: an answer for this moment.
pub fn written_since(dataset: &Dataset, newest: &Marked) -> Result<bool, Fault> {
    zfs::sync_pool(&dataset.name)?;
    Ok(zfs::written_since(&dataset.name, &newest.snapshot.name)? != 0 && changed_since(dataset, newest, &dataset.name)?)
}

/// Checks that a dataset is at its newest mark, and that the mark has its name and a hold. Class *differs* when not.
pub fn verify(dataset: &Dataset) -> Result<Marked, Fault> {
    let newest = marks::marks(dataset).pop().ok_or_else(|| Fault::new(Class::NotFound, "there is no mark"))?;
    let name = &newest.snapshot.name;
    let differs = |what: String| Err(Fault::new(Class::Differs, what));
    if marks::unfinished(dataset).is_some() {
        return differs(format!("an unfinished run lies above {name}"));
    }
    if written_since(dataset, &newest)? {
        return differs(format!("somebody wrote to the volume since {name}"));
    }
    if newest.is_pending() || newest.snapshot.holds == 0 {
        return differs(format!("{name} has no hold or not its name yet"))
            .map_err(|fault| fault.hint(format!("`zfs-snapmark mark --committed {}` gives it both", dataset.name)));
    }
    Ok(newest)
}

/// Removes what a run left that died between taking and destroying it, and says whether there was any. One of that name that
/// is not ours stays, and then the next snapshot fails with its own message.
pub fn forget_check(dataset: &Dataset) -> Result<bool, Fault> {
    let ours = |snapshot: &&zfs::Snapshot| snapshot.name == CHECK && snapshot.check == Some(dataset.guid);
    let left = dataset.snapshots.iter().find(ours);
    left.map_or(Ok(false), |snapshot| zfs::destroy_snapshot(&dataset.name, &snapshot.name).map(|()| true))
}

fn changed_since(dataset: &Dataset, newest: &Marked, until: &str) -> Result<bool, Fault> {
    let (running, output) = zfs::send(Some(&format!("{}@{}", dataset.name, newest.snapshot.name)), until)?;
    match data_changed(BufReader::new(output), dataset.volsize.unwrap_or(u64::MAX), newest.mark.size) {
        // The first changed block answers; what follows need not be read.
        Ok(true) => Ok(true),
        Ok(false) => running.finish().map(|()| false),
        // Its own failure explains more than a stream that ends too early.
        Err(error) => Err(running.finish().err().unwrap_or_else(|| Fault::new(Class::Io, format!("reading zfs send: {error}")))),
    }
}

/// Behind the image all was zero, so that freeing there changes nothing: a volume that grew says so. One that somebody made
/// smaller than the image lost what was behind its new end.
fn data_changed(stream: impl std::io::Read, volume_size: u64, image_size: u64) -> Result<bool, zfs_send::Error> {
    let mut records = Records::open(stream)?;
    while let Some(record) = records.record()? {
        let (object, offset, size) = match record {
            Record::Write { object, offset, .. } => (object, offset, volume_size),
            Record::Free { object, offset, .. } => (object, offset, image_size),
            Record::Other => continue,
        };
        if object == ZVOL_DATA && offset < size {
            return Ok(true);
        }
    }
    Ok(false)
}
