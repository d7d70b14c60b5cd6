//! Whether a volume still holds what its newest mark holds.

use std::io::BufReader;

use crate::foreign::zfs_send::{Record, Records, ZVOL_DATA};
use crate::host::device::Device;
use crate::host::zfs::{self, Dataset};
use crate::state::Fault;

/// Snapshot that stands in for the head while the send stream is looked at.
const CHECK: &str = "siphon-check";

/// Somebody wrote to the volume since this snapshot; asked under our claim on the device.
///
/// A dirty page of the device counts in nothing until it is written out, and a write counts in `written@` only from the
/// next transaction group on: hence the order. `written@` 0 is proof. More is none: a roll-back leaves 1 KiB there, a new
/// size 12 KiB; then a send stream since the mark says whether data changed. An open volume cannot be sent, so a snapshot
/// stands in for it.
pub fn written_since_claimed(device: &Device, dataset: &Dataset, snapshot: &str) -> Result<bool, Fault> {
    device.sync()?;
    zfs::sync_pool(&dataset.name)?;
    if zfs::written_since(&dataset.name, snapshot)? == 0 {
        return Ok(false);
    }
    forget_check(dataset)?;
    zfs::snapshot(&dataset.name, CHECK, zfs::CHECK, &dataset.guid.to_string())?;
    let changed = changed_since(dataset, snapshot, &format!("{}@{CHECK}", dataset.name));
    zfs::destroy_snapshot(&dataset.name, CHECK)?;
    changed
}

/// The same without a claim, for a volume that nobody has open: an answer for this moment.
pub fn written_since(dataset: &Dataset, snapshot: &str) -> Result<bool, Fault> {
    zfs::sync_pool(&dataset.name)?;
    Ok(zfs::written_since(&dataset.name, snapshot)? != 0 && changed_since(dataset, snapshot, &dataset.name)?)
}

/// Removes what a run left that died between taking and destroying it. One of that name that is not ours stays, and then the
/// next snapshot fails with its own message.
fn forget_check(dataset: &Dataset) -> Result<(), Fault> {
    let ours = |snapshot: &&zfs::Snapshot| snapshot.name == CHECK && snapshot.check == Some(dataset.guid);
    dataset.snapshots.iter().find(ours).map_or(Ok(()), |snapshot| zfs::destroy_snapshot(&dataset.name, &snapshot.name))
}

fn changed_since(dataset: &Dataset, snapshot: &str, until: &str) -> Result<bool, Fault> {
    let (running, output) = zfs::send(&dataset.name, snapshot, until)?;
    match data_changed(BufReader::new(output), dataset.volsize.unwrap_or(u64::MAX)) {
        // The first changed block answers; what follows need not be read.
        Ok(true) => Ok(true),
        Ok(false) => running.finish().map(|()| false),
        // Its own failure explains more than a stream that ends too early.
        Err(error) => Err(running.finish().err().unwrap_or_else(|| Fault::io("reading zfs send", &error))),
    }
}

fn data_changed(stream: impl std::io::Read, size: u64) -> std::io::Result<bool> {
    let mut records = Records::open(stream)?;
    while let Some(record) = records.record()? {
        let (Record::Write { object, offset, .. } | Record::Free { object, offset, .. }) = record else { continue };
        if object == ZVOL_DATA && offset < size {
            return Ok(true);
        }
    }
    Ok(false)
}
