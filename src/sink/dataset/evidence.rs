//! Whether a dataset still holds what its newest mark holds.

use std::io::BufReader;

use crate::foreign::zfs_send::{self, Record, Records, ZVOL_DATA};
use crate::format::Digest;
use crate::host::device::Device;
use crate::host::zfs::{self, Dataset};
use crate::state::{Class, Fault};

use super::check::Check;
use super::marks::{self, Marked};

/// The volume with all that anybody wrote to it, seen under our claim on the device.
///
/// A dirty page of the device counts in nothing until it is written out, and a write counts in what ZFS says of a volume only
/// from the next transaction group on: hence the order. One that we have just shown, and that has marks, is asked what changed by
/// [`changed_until`] a [`Check`] anyway, whose snapshot waits for that group by itself.
pub fn settled(device: &Device, name: &str, just_shown: bool) -> Result<Dataset, Fault> {
    device.sync()?;
    if just_shown {
        let dataset = Dataset::open(name)?;
        if !marks::marks(&dataset).is_empty() {
            return Ok(dataset);
        }
    }
    zfs::sync_pool(name)?;
    Dataset::open(name)
}

/// Somebody wrote to the dataset since this snapshot: of a file system all whose writes are counted, or of a [`settled`] volume
/// that was not just shown, under our claim on it. And the check, where one was taken to find out.
///
/// Space written since 0 is proof. More is none: a roll-back and a device shown again leave 1 KiB there, a new size 12 KiB;
/// then a send stream since the mark says whether data changed. (`zfs diff` would be no evidence: it is silent about a file that
/// is changed by one name while its last other one is gone.)
pub fn written_since_claimed(dataset: &Dataset, newest: &Marked) -> Result<(bool, Option<Check>), Fault> {
    let written = match dataset.snapshots.last() {
        Some(last) if last.guid == newest.snapshot.guid => dataset.written,
        _ => zfs::written_since(&dataset.name, &newest.snapshot.name)?,
    };
    if written == 0 { Ok((false, None)) } else { changed_until_check(dataset, newest) }
}

/// The same by the send stream alone. What is open or mounted cannot be sent, so the check stands in for it.
pub fn changed_until_check(dataset: &Dataset, newest: &Marked) -> Result<(bool, Option<Check>), Fault> {
    let check = Check::take(dataset)?;
    let changed = changed_until(dataset, newest, &check.full_name())?;
    Ok((changed, Some(check)))
}

/// The same without a claim, for a volume that nobody has open, or a file system: an answer for this moment.
pub fn written_since(dataset: &Dataset, newest: &Marked) -> Result<bool, Fault> {
    zfs::sync_pool(&dataset.name)?;
    if zfs::written_since(&dataset.name, &newest.snapshot.name)? == 0 {
        return Ok(false);
    }
    match dataset.volsize {
        Some(_) => changed_until(dataset, newest, &dataset.name),
        None => {
            let (changed, check) = changed_until_check(dataset, newest)?;
            check.map_or(Ok(()), Check::destroy)?;
            Ok(changed)
        }
    }
}

/// Checks that a dataset is at its newest mark, and that the mark has its name and a hold. Class *differs* when not.
///
/// With `read`, which gives the content root of the snapshot of a full name, also that the mark holds what was received; then
/// one mark may be named as `DATASET@NAME`, and this alone is checked of it.
pub fn verify(target: &str, read: Option<impl FnOnce(&str) -> Result<Digest, Fault>>) -> Result<Marked, Fault> {
    let (dataset, marked) = match read.is_some() && target.contains('@') {
        true => marks::find(target)?,
        false => Dataset::open(target).and_then(|dataset| verify_standing(&dataset).map(|newest| (dataset, newest)))?,
    };
    if let Some(read) = read {
        marked.mark.check_root(|| read(&format!("{}@{}", dataset.name, marked.snapshot.name)))?;
    }
    Ok(marked)
}

fn verify_standing(dataset: &Dataset) -> Result<Marked, Fault> {
    let newest = marks::marks(dataset).pop().ok_or_else(|| Fault::new(Class::NotFound, "there is no mark"))?;
    let name = &newest.snapshot.name;
    let differs = |what: String| Err(Fault::new(Class::Differs, what));
    if marks::unfinished(dataset).is_some() {
        return differs(format!("an unfinished run lies above {name}"));
    }
    if written_since(dataset, &newest)? {
        return differs(format!("somebody wrote to {} since {name}", dataset.name));
    }
    if newest.is_pending() || newest.snapshot.holds == 0 {
        return differs(format!("{name} has no hold or not its name yet"))
            .map_err(|fault| fault.hint(format!("`zfs-snapmark mark --committed {}` gives it both", dataset.name)));
    }
    Ok(newest)
}

fn changed_until(dataset: &Dataset, newest: &Marked, until: &str) -> Result<bool, Fault> {
    let (running, output) = zfs::send(Some(&format!("{}@{}", dataset.name, newest.snapshot.name)), until)?;
    let output = BufReader::new(output);
    let changed = match dataset.volsize {
        Some(size) => data_changed(output, size, newest.mark.size),
        // Names and attributes are content, too; all that is left is what is no record.
        None => zfs_send::has_records(output),
    };
    match changed {
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
