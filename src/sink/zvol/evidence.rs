//! Whether a volume still holds what its newest mark holds.

use std::io::BufReader;

use crate::foreign::zfs_send::{Record, Records, ZVOL_DATA};
use crate::host::device::Device;
use crate::host::zfs::{self, Dataset};
use crate::state::Fault;

/// Somebody wrote to the volume since this snapshot. Only an answer under our claim on the device holds longer than a moment.
///
/// A dirty page of the device counts in nothing until it is written out, and a write counts in `written@` only from the
/// next transaction group on: hence the order. `written@` 0 is proof. More is none: a roll-back leaves 1 KiB there, a new
/// size 12 KiB; then the send stream of the head since the mark says whether data changed.
pub fn written_since(device: Option<&Device>, dataset: &Dataset, snapshot: &str) -> Result<bool, Fault> {
    device.map_or(Ok(()), Device::sync)?;
    zfs::sync_pool(&dataset.name)?;
    if zfs::written_since(&dataset.name, snapshot)? == 0 {
        return Ok(false);
    }
    let (running, output) = zfs::send_head(&dataset.name, snapshot)?;
    let changed = data_changed(BufReader::new(output), dataset.volsize.unwrap_or(u64::MAX));
    match changed {
        // The first changed block answers; what follows need not be read.
        Ok(true) => Ok(true),
        Ok(false) => running.finish().map(|()| false),
        Err(error) => Err(Fault::io("reading zfs send", &error)),
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
