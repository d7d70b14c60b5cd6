//! Marks: the snapshots of a dataset that stand for received states. Which ones are is said by [`Dataset::mark`].

use crate::format::Id;
use crate::host::zfs::{self, Dataset, Snapshot};
use crate::state::{Class, Fault, Head, Held, Mark, Run, Standing, State, StateList, Unfinished, escape_zfs_name};

/// What a committed snapshot is called until it has its name.
const PENDING: &str = "siphon-pending-";
/// The longest full name of a snapshot: ZFS_MAX_DATASET_NAME_LEN less its NUL.
const LIMIT_FULL_NAME: usize = 255;
/// `logicalreferenced` of a volume that nothing was ever written to: three blocks of 2 KiB of its own bookkeeping.
const BLANK_REFERENCED: u64 = 6144;

/// A snapshot and the record that makes it a mark.
#[derive(Clone, Debug)]
pub struct Marked {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Its record.
    pub mark: Mark,
}

impl Marked {
    /// Committed, but not yet called by its name.
    pub fn is_pending(&self) -> bool {
        self.snapshot.name.starts_with(PENDING)
    }

    /// As one line of JSON.
    pub fn to_json(&self) -> String {
        let Marked { snapshot, mark } = self;
        let line = serde_json::json!({
            "name": snapshot.name, "guid": snapshot.guid, "seconds": snapshot.creation, "holds": snapshot.holds,
            "state": mark.state.to_string(), "source": mark.source.to_string(), "size": mark.size,
            "digest": mark.digest.to_string(), "named": !self.is_pending(),
        });
        format!("{line}\n")
    }

    /// As a state that the target holds.
    pub fn held(&self) -> Held {
        Held { ids: vec![self.mark.state], name: self.snapshot.name.clone() }
    }
}

/// The marks of a dataset, oldest first.
pub fn marks(dataset: &Dataset) -> Vec<Marked> {
    let marked = |snapshot: &Snapshot| dataset.mark(snapshot).map(|mark| Marked { snapshot: snapshot.clone(), mark });
    dataset.snapshots.iter().filter_map(marked).collect()
}

/// The unfinished run of ours, if the dataset's record still fits the dataset and its newest mark. After a roll-back by hand,
/// a commit, or on a replica it does not.
pub fn unfinished(dataset: &Dataset) -> Option<Run> {
    let run = Run::parse(dataset.receiving.as_deref()?)?;
    let newest = marks(dataset).last().map(|marked| marked.snapshot.guid);
    (run.dataset == dataset.guid && run.newest_mark == newest).then_some(run)
}

/// What the properties alone say about a dataset. Whether the head still is what the newest mark holds needs the device: see
/// [`super::Zvol`].
pub fn standing(dataset: Option<&Dataset>) -> Standing {
    let Some(dataset) = dataset else {
        return Standing { head: Head::Absent, marks: vec![], above: vec![], way_back: true };
    };
    let marks = marks(dataset);
    let newest = marks.last().map_or(0, |marked| marked.snapshot.createtxg);
    let above =
        dataset.snapshots.iter().filter(|snapshot| snapshot.createtxg > newest).map(|snapshot| snapshot.name.clone()).collect();
    let head = match unfinished(dataset) {
        Some(Run { stream, from, to, .. }) => Head::Receiving(Unfinished { stream, from, to }),
        None if !marks.is_empty() => Head::AtMark,
        None if dataset.snapshots.is_empty() && dataset.logical_referenced <= BLANK_REFERENCED => Head::Blank,
        None => Head::Foreign,
    };
    Standing { head, marks: marks.iter().map(Marked::held).collect(), above, way_back: true }
}

/// The marks as a state list.
pub fn state_list(dataset: &Dataset) -> StateList {
    let state = |marked: Marked| State {
        id: marked.mark.state,
        seconds: marked.snapshot.creation,
        bytes: marked.mark.size,
        name: marked.snapshot.name.into_bytes(),
    };
    StateList { states: marks(dataset).into_iter().map(state).collect() }
}

/// The name that a mark of this state will have: the source's, unless it is taken or too long. The id decides what a
/// snapshot is, never its name.
pub fn choose_name(dataset: &str, taken: &[Snapshot], source_name: &[u8], state: Id) -> String {
    let short = state.short();
    let plain = escape_zfs_name(source_name);
    let candidates = [plain.clone(), format!("{plain}.{short}"), format!("siphon-{short}")];
    let numbered = (2_u64..).map(|n| format!("siphon-{short}.{n}"));
    let fits = |name: &String| {
        !name.is_empty()
            && !name.starts_with(['.', '-'])
            && !name.starts_with(PENDING)
            && dataset.len() + 1 + name.len() <= LIMIT_FULL_NAME
            && taken.iter().all(|snapshot| snapshot.name != *name)
    };
    // The numbers do not end, and only finitely many names are taken.
    candidates.into_iter().chain(numbered).find(fits).unwrap_or_default()
}

/// The name of a committed snapshot that gets its own later.
pub fn pending_name(taken: &[Snapshot], stream: Id) -> String {
    let plain = format!("{PENDING}{}", stream.short());
    let free = |name: &String| taken.iter().all(|snapshot| snapshot.name != *name);
    let numbered = (2_u64..).map(|n| format!("{plain}.{n}"));
    // The numbers do not end, and only finitely many names are taken.
    std::iter::once(plain.clone()).chain(numbered).find(free).unwrap_or_default()
}

/// Takes the snapshot that is the commit, with its record, in one act; under the still exclusive claim on the device. Gives
/// the dataset as it is then.
pub fn commit(dataset: &str, snapshot: &str, mark: &Mark) -> Result<Dataset, Fault> {
    zfs::snapshot(dataset, snapshot, zfs::MARK, &mark.to_text())?;
    let after = Dataset::open(dataset)?;
    match marks(&after).pop() {
        Some(marked) if marked.snapshot.name == snapshot && marked.mark == *mark => Ok(after),
        _ => Err(Fault::new(Class::Io, format!("the snapshot {dataset}@{snapshot} is not there, or not as it was made"))),
    }
}

/// A run died after its commit: a mark has no name yet, or the newest no hold.
pub fn is_unsettled(dataset: &Dataset, hold: bool) -> bool {
    let marks = marks(dataset);
    marks.iter().any(Marked::is_pending) || hold && marks.last().is_some_and(|newest| newest.snapshot.holds == 0)
}

/// Gives a committed snapshot its name and our hold, and moves the hold on from older marks. May be broken off anywhere and
/// done again.
pub fn settle(dataset: &Dataset, hold: bool) -> Result<Option<Marked>, Fault> {
    let mut all = marks(dataset);
    for marked in all.iter_mut().filter(|marked| marked.is_pending()) {
        let Mark { name, state, .. } = &marked.mark;
        let taken = dataset.snapshots.iter().any(|snapshot| snapshot.name == *name);
        let name = if taken { choose_name(&dataset.name, &dataset.snapshots, name.as_bytes(), *state) } else { name.clone() };
        zfs::rename_snapshot(&dataset.name, &marked.snapshot.name, &name)?;
        marked.snapshot.name = name;
    }
    let Some((newest, older)) = all.split_last() else { return Ok(None) };
    if hold && newest.snapshot.holds == 0 {
        zfs::hold(zfs::HOLD, &dataset.name, &newest.snapshot.name)?;
    }
    if hold {
        let held = older.iter().filter(|marked| marked.snapshot.holds > 0).map(|marked| marked.snapshot.name.as_str());
        zfs::release(zfs::HOLD, &dataset.name, &held.collect::<Vec<_>>())?;
    }
    Ok(Some(newest.clone()))
}

/// The record of a run that ended, or was left behind by a roll-back. Nobody believes it; but a roll-back by hand could bring
/// back the mark that it is bound to.
pub fn is_record_stale(dataset: &Dataset) -> bool {
    dataset.receiving.is_some() && unfinished(dataset).is_none()
}
