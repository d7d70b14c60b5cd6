//! The commit: a snapshot that carries its record.

use super::check::{self, Check};
use super::marks::{self, Marked};
use crate::format::{Digest, Id};
use crate::host::zfs::{self, Dataset};
use crate::state::{Class, Fault, Mark};

/// What is to be committed, and as what.
pub struct Committing<'a> {
    /// Id of the source.
    pub source: Id,
    /// Id of the state that was received.
    pub state: Id,
    /// The source's name of it.
    pub to_name: &'a [u8],
    /// Id of the stream.
    pub stream: Id,
    /// Exact size of an image in bytes; 0 for a tree.
    pub size: u64,
    /// Last link of the stream's digest chain.
    pub digest: Digest,
    /// Content root of an image that was read back.
    pub root: Option<Digest>,
    /// Of a tree: something was left as it was, now or before.
    pub unset: bool,
    /// Give the snapshot its final name.
    pub mark: bool,
    /// And hold the newest mark against destruction.
    pub hold: bool,
}

/// Takes the snapshot; the dataset with it, and what it is now. All that it is to hold is durable. Not if somebody went back past
/// the check of the run, or gave the dataset's name to another one.
pub fn commit(dataset: &Dataset, mut check: Check, what: &Committing<'_>) -> Result<(Dataset, Option<Marked>), Fault> {
    let seen = dataset.again()?;
    check.look(&seen)?;
    let committed = match snapshot(&seen, what) {
        // Somebody took the name since we looked.
        Err(fault) if fault.class == Class::Exists => snapshot(&dataset.again()?, what),
        taken => taken,
    }?;
    // Once more: in between there was no snapshot to be in anybody's way.
    if let Err(fault) = check.look(&committed) {
        let wrong = marks::marks(&committed).pop();
        wrong.map_or(Ok(()), |wrong| zfs::destroy_snapshot(&dataset.name, &wrong.snapshot.name))?;
        return Err(fault);
    }
    check.end();
    let marked = if what.mark { marks::settle(&committed, what.hold)? } else { marks::marks(&committed).pop() };
    // It is committed, whatever becomes of these.
    let _ = marks::forget_pauses(&committed, None);
    let _ = check::forget(&committed);
    Ok((committed, marked))
}

/// Ends a run whose stream led to no state: what it wrote is durable, and nothing says what that is.
pub fn end_without_state(dataset: &Dataset, mut check: Check) -> Result<(), Fault> {
    // With sync=disabled durable was no more than a promise. The snapshot of a commit waits for its transaction group by itself.
    zfs::sync_pool(&dataset.name)?;
    check.look(&dataset.again()?)?;
    check.destroy()?;
    zfs::inherit(&dataset.name, zfs::RECEIVING)
}

/// Under its final name at once, where it is to be a mark. The names that are taken are those of `seen`.
fn snapshot(seen: &Dataset, what: &Committing<'_>) -> Result<Dataset, Fault> {
    let Committing { source, state, size, digest, root, unset, .. } = *what;
    let name = marks::choose_name(&seen.name, &seen.snapshots, what.to_name, state);
    let called = if what.mark { name.clone() } else { marks::pending_name(&seen.snapshots, what.stream) };
    let mark = Mark { home: seen.guid, source, state, aliases: Vec::new(), size, digest, root, unset, name };
    marks::commit(&seen.name, &called, &mark)
}
