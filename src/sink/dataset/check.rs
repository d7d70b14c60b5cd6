//! The check: a snapshot of ours that a run takes before it writes, and that stands until the run has ended.
//!
//! It stands in for the head while it is found out whether that was written to. And it tells whether somebody went back under
//! the feet of the run, or after it was cut, which leaves no other trace: `zfs rollback` does not pass a newer snapshot, unless
//! it is told to destroy it.

use crate::host::zfs::{self, Dataset};
use crate::state::{self, Act, Class, Fault, Plan};

/// What its name begins with; the number of the run follows, and how often it was renewed.
const NAME: &str = "siphon-check-";

/// Destroyed when it is dropped, unless the run is on record.
pub struct Check {
    dataset: String,
    record: state::Check,
    renewed: u32,
    is_on_record: bool,
}

impl Check {
    /// Takes one.
    pub fn take(dataset: &Dataset) -> Result<Check, Fault> {
        let record = state::Check { home: dataset.guid, run: zfs::run_number()? };
        zfs::snapshot(&dataset.name, &name(record, 0), zfs::CHECK, &record.to_text())?;
        Ok(Check { dataset: dataset.name.clone(), record, renewed: 0, is_on_record: false })
    }

    /// What a plan can use of one that was taken to find out what a dataset is in: it is in the way of a roll-back, and for
    /// nothing where nothing is written.
    pub fn kept_for(plan: &Plan, check: Option<Check>) -> Result<Option<Check>, Fault> {
        match check {
            Some(check) if plan.act == Act::Already || plan.roll_back.is_some() => check.destroy().map(|()| None),
            kept => Ok(kept),
        }
    }

    /// Takes it again, above all that is there by now, and lets go of the last one.
    pub fn renew(&mut self) -> Result<(), Fault> {
        let last = self.name();
        zfs::snapshot(&self.dataset, &name(self.record, self.renewed + 1), zfs::CHECK, &self.record.to_text())?;
        self.renewed += 1;
        // It may be gone. If it is not, it is left over.
        let _ = zfs::destroy_snapshot(&self.dataset, &last);
        Ok(())
    }

    /// The number of the run.
    pub fn number(&self) -> u32 {
        self.record.run
    }

    /// The run is on record with it: it stands, however the run ends.
    pub fn stand(&mut self) {
        self.is_on_record = true;
    }

    /// Somebody went back past it: what was written until then is gone.
    pub fn is_passed(&self, dataset: &Dataset) -> bool {
        !has(dataset, self.record.run)
    }

    /// What a run is refused with that is [passed](Check::is_passed).
    pub fn passed(dataset: &Dataset) -> Fault {
        Fault::new(Class::WrittenSince, format!("somebody rolled {} back while it was written to", dataset.name))
            .hint("send it again: the next run begins from the newest mark")
    }

    /// Its full name.
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.dataset, self.name())
    }

    /// Destroys it, where it has served.
    pub fn destroy(mut self) -> Result<(), Fault> {
        self.is_on_record = true;
        zfs::destroy_snapshot(&self.dataset, &self.name())
    }

    fn name(&self) -> String {
        name(self.record, self.renewed)
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        if !self.is_on_record {
            // The next run finds it.
            let _ = zfs::destroy_snapshot(&self.dataset, &self.name());
        }
    }
}

fn name(record: state::Check, renewed: u32) -> String {
    format!("{NAME}{}.{renewed}", record.run)
}

/// The check of the run of this number is there.
pub fn has(dataset: &Dataset, run: u32) -> bool {
    dataset.snapshots.iter().any(|snapshot| dataset.check(snapshot) == Some(run))
}

/// The checks above a transaction group, of whatever run.
pub fn above(dataset: &Dataset, createtxg: u64) -> impl Iterator<Item = &str> {
    let is_one = move |snapshot: &&zfs::Snapshot| snapshot.createtxg > createtxg && dataset.check(snapshot).is_some();
    dataset.snapshots.iter().filter(is_one).map(|snapshot| snapshot.name.as_str())
}

/// Destroys all that a dataset had when it was looked at.
pub fn forget(dataset: &Dataset) -> Result<(), Fault> {
    zfs::destroy_snapshots(&dataset.name, &above(dataset, 0).collect::<Vec<_>>())
}
