//! The beginning of a run: before the first byte is written, it is on record.

use super::check::{self, Check};
use super::marks;
use crate::host::zfs::{self, Dataset};
use crate::state::{Fault, NextStream, Run};

/// Puts a run on record, and takes the check that it stands on, if that was not taken to find out what the dataset is in: also
/// where there is no snapshot yet, because others can take one, and go back to it, or receive one over what the run wrote.
/// The dataset as it is just now.
pub fn begin(dataset: &Dataset, check: Option<Check>, next: NextStream) -> Result<Check, Fault> {
    let mut check = check.map_or_else(|| Check::take(dataset), Ok)?;
    let NextStream { stream, from, to } = next;
    let newest_mark = marks::marks(dataset).pop().map(|marked| marked.snapshot.guid);
    let run = Run { home: dataset.guid, newest_mark, stream, from, to, check: Some(check.number()) };
    // By itself and first: whatever is done to the dataset from here on is on record.
    zfs::set(&dataset.name, &[(zfs::RECEIVING, &run.to_text())])?;
    check.stand();
    // Those of a run that was cut. What cannot be destroyed costs space and nothing else: each says itself what it is.
    let _ = check::forget(dataset);
    Ok(check)
}
