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
    stage: Stage,
}

#[derive(PartialEq)]
enum Stage {
    /// Nothing stands on it yet.
    Taken,
    /// A run that is on record does.
    Standing,
    /// Somebody went back past it: there is another one in its place, for the next run, and no commit.
    Passed,
    /// The run has ended.
    Gone,
}

impl Check {
    /// Takes one.
    pub fn take(dataset: &Dataset) -> Result<Check, Fault> {
        let record = state::Check { home: dataset.guid, run: zfs::run_number()? };
        zfs::snapshot(&dataset.name, &name(record, 0), zfs::CHECK, &record.to_text())?;
        Ok(Check { dataset: dataset.name.clone(), record, renewed: 0, stage: Stage::Taken })
    }

    /// What a plan can use of one that was taken to find out what a dataset is in: it is in the way of a roll-back, and for
    /// nothing where nothing is written.
    pub fn kept_for(plan: &Plan, check: Option<Check>) -> Result<Option<Check>, Fault> {
        match check {
            Some(check) if plan.act == Act::Already || plan.roll_back.is_some() => check.destroy().map(|()| None),
            kept => Ok(kept),
        }
    }

    /// The number of the run.
    pub fn number(&self) -> u32 {
        self.record.run
    }

    /// The run is on record with it: it stands, however the run ends.
    pub fn stand(&mut self) {
        self.stage = Stage::Standing;
    }

    /// Refuses when somebody went back past it: what was written until then is gone. Asked under our claim on the dataset, under
    /// which nobody else wrote: all that is there is of the run, so that another check puts it back on record.
    pub fn look(&mut self, dataset: &Dataset) -> Result<(), Fault> {
        if dataset.guid != self.record.home {
            return Err(zfs::renamed(&dataset.name));
        }
        if self.stage == Stage::Passed {
            return Err(self.refusal());
        }
        if has(dataset, self.record.run) {
            return Ok(());
        }
        self.stage = Stage::Passed;
        self.again()?;
        Err(self.refusal())
    }

    fn refusal(&self) -> Fault {
        Fault::new(Class::WrittenSince, format!("somebody rolled {} back while it was written to", self.dataset))
            .hint("send it again: where the newest mark is still there, the next run begins from it")
    }

    /// Takes it again, above all that is there by now, and lets go of the last one. Refuses as [`Check::look`] does.
    pub fn renew(&mut self) -> Result<(), Fault> {
        let last = self.name();
        self.again()?;
        match zfs::destroy_snapshot(&self.dataset, &last) {
            Err(fault) if fault.class == Class::NotFound => {
                // The new one is in its place.
                self.stage = Stage::Passed;
                Err(self.refusal())
            }
            // It is left over.
            _ => Ok(()),
        }
    }

    fn again(&mut self) -> Result<(), Fault> {
        zfs::snapshot(&self.dataset, &name(self.record, self.renewed + 1), zfs::CHECK, &self.record.to_text())?;
        self.renewed += 1;
        Ok(())
    }

    /// Its full name.
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.dataset, self.name())
    }

    /// Destroys it, where it has served.
    pub fn destroy(mut self) -> Result<(), Fault> {
        self.stage = Stage::Gone;
        zfs::destroy_snapshot(&self.dataset, &self.name())
    }

    /// The run has committed, and [`forget`] is asked to destroy it.
    pub fn end(mut self) {
        self.stage = Stage::Gone;
    }

    fn name(&self) -> String {
        name(self.record, self.renewed)
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        // Not worth failing for: what is left over is destroyed by the next run, and what is not on record is for a hand.
        match self.stage {
            Stage::Taken => drop(zfs::destroy_snapshot(&self.dataset, &self.name())),
            Stage::Standing => drop(Dataset::open(&self.dataset).and_then(|dataset| self.look(&dataset))),
            Stage::Passed | Stage::Gone => {}
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

/// Destroys all that a dataset had when it was looked at, but for those that others hold or have cloned; whether there were any.
pub fn forget(dataset: &Dataset) -> Result<bool, Fault> {
    let mut forgot = false;
    for check in dataset.snapshots.iter().filter(|snapshot| dataset.check(snapshot).is_some()) {
        match zfs::destroy_snapshot(&dataset.name, &check.name) {
            // Who may not destroy would leave one behind every night.
            Err(fault) if fault.class == Class::Permission => return Err(fault),
            Err(_) => {}
            Ok(()) => forgot = true,
        }
    }
    Ok(forgot)
}
