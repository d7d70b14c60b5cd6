//! The way back to a mark.

use super::marks;
use crate::host::zfs::{self, Dataset, Snapshot};
use crate::state::{Class, Fault, Head, Held, Run, Standing};

/// Goes back to what `held` holds, and says what is given up. `room`: bytes that are to be written afterwards, for which it is
/// waited until the pool has given back what was given up. `hold`: a mark gets its hold first, as the newest has one. The dataset
/// as it is then.
pub fn go_back(
    dataset: &Dataset,
    held: &Held,
    standing: &Standing,
    room: u64,
    hold: bool,
    note: impl Fn(&str),
) -> Result<Dataset, Fault> {
    let name = &dataset.name;
    let resumed = standing.checkpoint.as_ref().filter(|resumable| resumable.held == *held);
    let goal = dataset.snapshots.iter().position(|snapshot| snapshot.name == held.name);
    let goal = goal.ok_or_else(|| Fault::new(Class::NotFound, format!("{name}@{} is gone", held.name)))?;
    let above: Vec<&Snapshot> = dataset.snapshots.iter().skip(goal + 1).collect();
    let names: Vec<&str> = above.iter().map(|snapshot| snapshot.name.as_str()).collect();
    let lost = above.iter().filter(|snapshot| !marks::is_of_a_run(dataset, snapshot));
    let lost: Vec<&str> = lost.map(|snapshot| snapshot.name.as_str()).collect();
    if let Some((snapshot, tag)) = zfs::holds(name, &names)?.into_iter().find(|(_, tag)| tag != zfs::HOLD) {
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
    // Retention that runs beside us may have judged it while it was not the newest; where it won, nothing is given up yet.
    if hold && dataset.snapshots.get(goal).is_some_and(|goal| dataset.mark(goal).is_some() && goal.holds == 0) {
        zfs::hold(zfs::HOLD, name, &held.name)?;
    }
    let marks = standing.marks.iter().map(|mark| mark.name.as_str()).filter(|mark| names.contains(mark));
    zfs::release(zfs::HOLD, name, &marks.collect::<Vec<_>>())?;
    let freed = zfs::written_since(name, &held.name)?;
    zfs::destroy_snapshots(name, &names)?;
    zfs::rollback(name, &held.name)?;
    if resumed.is_none() && dataset.receiving.is_some() {
        // The run that ended here is over: what is written from now on is not of it.
        zfs::inherit(name, zfs::RECEIVING)?;
    }
    // What was given up counts as available at once, and can be written to only later.
    if zfs::available(name)?.saturating_sub(freed) < room {
        zfs::wait_until_freed(name)?;
    }
    dataset.again()
}
