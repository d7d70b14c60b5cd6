//! The way back to a mark.

use super::{check, marks};
use crate::host::zfs::{self, Dataset};
use crate::state::{Class, Fault, Head, Held, Run, Standing};

/// Goes back to what `held` holds, and says what is given up. `room`: bytes that are to be written afterwards, for which it is
/// waited until the pool has given back what was given up. The dataset as it is then.
pub fn go_back(dataset: &Dataset, held: &Held, standing: &Standing, room: u64, note: impl Fn(&str)) -> Result<Dataset, Fault> {
    let name = &dataset.name;
    let resumed = standing.checkpoint.as_ref().filter(|resumable| resumable.held == *held);
    let newer = standing.marks.iter().rev().map(|mark| mark.name.as_str()).take_while(|name| *name != held.name);
    let newer: Vec<&str> = if resumed.is_some() { Vec::new() } else { newer.collect() };
    let above = resumed.map_or(&standing.above, |resumable| &resumable.above);
    let lost: Vec<&str> = newer.iter().copied().chain(above.iter().map(String::as_str)).collect();
    if let Some((snapshot, tag)) = zfs::holds(name, &lost)?.into_iter().find(|(_, tag)| tag != zfs::HOLD) {
        let what = format!("going back to {} would destroy {snapshot}, on which there is a hold, {tag}", held.name);
        return Err(
            Fault::new(Class::ForeignSnapshot, what).hint(format!("`zfs release {tag} {name}@{snapshot}`, if nobody needs it"))
        );
    }
    note(&match lost.as_slice() {
        [] if resumed.is_some() => "going on from where an unfinished run was cut".to_owned(),
        [] if matches!(standing.head, Head::Receiving(_)) => {
            format!("going back to {}: giving up an unfinished run", held.name)
        }
        [] => format!("going back to {}: giving up what was written since", held.name),
        lost => format!("going back to {}: giving up {}", held.name, lost.join(", ")),
    });
    // The check of that run is in the way, and until another begins it stays on record without.
    if let Some(run) = marks::unfinished(dataset).filter(|run| run.check.is_some()) {
        zfs::set(name, &[(zfs::RECEIVING, &Run { check: None, ..run }.to_text())])?;
    }
    zfs::release(zfs::HOLD, name, &newer)?;
    if resumed.is_none() {
        // They are ours, and lie above what is gone back to.
        marks::forget_pauses(dataset, None)?;
    }
    let freed = zfs::written_since(name, &held.name)?;
    let goal = dataset.snapshots.iter().find(|snapshot| snapshot.name == held.name).map_or(0, |snapshot| snapshot.createtxg);
    let in_the_way: Vec<&str> = lost.into_iter().chain(check::above(dataset, goal)).collect();
    zfs::destroy_snapshots(name, &in_the_way)?;
    zfs::rollback(name, &held.name)?;
    // What was given up counts as available at once, and can be written to only later.
    if zfs::available(name)?.saturating_sub(freed) < room {
        zfs::wait_until_freed(name)?;
    }
    Dataset::open(name)
}
