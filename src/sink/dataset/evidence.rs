//! Whether a dataset still holds what its newest mark holds.

use std::io::{BufReader, Read};

use crate::foreign::zfs_send::{self, Record, Records, ZVOL_DATA};
use crate::format::Digest;
use crate::host::command::Running;
use crate::host::device::Device;
use crate::host::tree::Dir;
use crate::host::zfs::{self, Dataset};
use crate::state::{Class, Fault, Head, Standing};

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

/// Something was written to a volume that has no snapshots of others, seen under our claim on it. And the check.
pub fn holds_data_until_check(dataset: &Dataset) -> Result<(bool, Option<Check>), Fault> {
    let check = Check::take(dataset)?;
    Ok((holds_data_from(&check.full_name(), 0)?, Some(check)))
}

/// What the properties say of a dataset, and whether nothing was ever written to it: without a claim, an answer for this moment.
pub fn standing(dataset: Option<&Dataset>) -> Standing {
    let standing = marks::standing(dataset);
    match dataset {
        Some(dataset) if standing.head == Head::Blank && !is_blank(dataset) => Standing { head: Head::Foreign, ..standing },
        _ => standing,
    }
}

/// A volume that cannot be asked, because somebody has it open, is not known to be blank. A file system that is not mounted may
/// be: tree-apply will look.
fn is_blank(dataset: &Dataset) -> bool {
    let name = &dataset.name;
    match dataset.volsize {
        Some(_) => !zfs::sync_pool(name).and_then(|()| holds_data_from(name, 0)).unwrap_or(true),
        None => zfs::mounted_at(name).and_then(|path| Dir::root(&path)?.is_empty()).unwrap_or(true),
    }
}

/// Somebody wrote to a dataset since its newest mark, if it has one: without a claim, an answer for this moment.
pub fn was_written(dataset: &Dataset) -> Result<bool, Fault> {
    marks::marks(dataset).last().map_or(Ok(false), |newest| written_since(dataset, newest))
}

/// Somebody wrote to a volume that nobody has open, or to a file system, without a claim on it.
fn written_since(dataset: &Dataset, newest: &Marked) -> Result<bool, Fault> {
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
    let mark = format!("{}@{}", dataset.name, newest.snapshot.name);
    let (running, output) = zfs::send(Some(&mark), until)?;
    let output = BufReader::new(output);
    let Some(volume_size) = dataset.volsize else {
        // Names and attributes are content, too; all that is left is what is no record.
        return finish(running, zfs_send::has_records(output));
    };
    let (mut rest, image_size) = (None, newest.mark.size);
    let is_change = |record: &Record| match *record {
        // To the end of the object, from where its last block ends: ZFS says it of every volume whose size was set.
        Record::Free { object: ZVOL_DATA, offset, len: u64::MAX } if volume_size >= image_size => {
            rest = Some(offset);
            false
        }
        // Behind the image all was zero. A volume that was made smaller than it lost what was behind its new end.
        Record::Free { object: ZVOL_DATA, offset, .. } => offset < image_size,
        Record::Write { object: ZVOL_DATA, offset, .. } => offset < volume_size,
        Record::Write { .. } | Record::Free { .. } | Record::Other => false,
    };
    match (finish(running, any(output, is_change))?, rest.filter(|rest| *rest < image_size)) {
        (false, Some(rest)) => holds_data_from(&mark, rest),
        (changed, _) => Ok(changed),
    }
}

/// Something was written to a volume at or behind this byte; told by all of a snapshot, or of a volume that nobody has open.
fn holds_data_from(until: &str, rest: u64) -> Result<bool, Fault> {
    let (running, output) = zfs::send(None, until)?;
    let is_data = |record: &Record| match record {
        Record::Write { object: ZVOL_DATA, offset, block } => offset.saturating_add(block.len()) > rest,
        Record::Write { .. } | Record::Free { .. } | Record::Other => false,
    };
    finish(running, any(BufReader::new(output), is_data))
}

fn any(stream: impl Read, mut is_one: impl FnMut(&Record) -> bool) -> Result<bool, zfs_send::Error> {
    let mut records = Records::open(stream)?;
    while let Some(record) = records.record()? {
        if is_one(&record) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn finish(running: Running, found: Result<bool, zfs_send::Error>) -> Result<bool, Fault> {
    match found {
        // The first one answers; what follows need not be read.
        Ok(true) => Ok(true),
        Ok(false) => running.finish().map(|()| false),
        // Its own failure explains more than a stream that ends too early.
        Err(error) => Err(running.finish().err().unwrap_or_else(|| Fault::new(Class::Io, format!("reading zfs send: {error}")))),
    }
}
