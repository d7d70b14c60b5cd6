//! Marks: the snapshots of a dataset that stand for received states. Which ones are is said by [`Dataset::mark`].

use super::check::{self, Check};
use crate::format::{Digest, Id};
use crate::host::zfs::{self, Dataset, Snapshot};
use crate::state::{
    self, Checkpoint, Class, Fault, Head, Held, ManifestEnd, ManifestHeader, Mark, Pause, Receipt, Resumable, Run, Standing,
    State, StateList, Unfinished, escape_zfs_name,
};

/// What a committed snapshot is called until it has its name.
const PENDING: &str = "siphon-pending-";
/// The longest full name of a snapshot: ZFS_MAX_DATASET_NAME_LEN less its NUL.
const LIMIT_FULL_NAME: usize = 255;
/// More than this is `logicalreferenced` of nothing that was never written to: bytes. For its own bookkeeping ZFS takes 6 KiB in
/// a volume and 12 KiB in a file system where the pool has sectors of 512 bytes, 28 and 42 KiB where they have 4 KiB (2.1.11).
const BLANK_AT_MOST: u64 = 1 << 20;

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
    fn to_json(&self) -> String {
        let Marked { snapshot, mark } = self;
        let line = serde_json::json!({
            "name": snapshot.name, "guid": snapshot.guid, "seconds": snapshot.creation, "holds": snapshot.holds,
            "state": mark.state.to_string(), "aliases": mark.aliases.iter().map(Id::to_string).collect::<Vec<_>>(), "source": mark.source.to_string(), "size": mark.size,
            "digest": mark.digest.to_string(), "root": mark.root.as_ref().map(Digest::to_string), "named": !self.is_pending(),
        });
        format!("{line}\n")
    }

    /// As one line: its full name, or all of it as JSON.
    pub fn to_line(&self, dataset: &str, json: bool) -> String {
        if json { self.to_json() } else { format!("{dataset}@{}\n", self.snapshot.name) }
    }

    /// As a state that the target holds.
    pub fn held(&self) -> Held {
        Held { ids: self.mark.ids(), name: self.snapshot.name.clone() }
    }
}

/// The marks of a dataset, oldest first.
pub fn marks(dataset: &Dataset) -> Vec<Marked> {
    let marked = |snapshot: &Snapshot| dataset.mark(snapshot).map(|mark| Marked { snapshot: snapshot.clone(), mark });
    dataset.snapshots.iter().filter_map(marked).collect()
}

/// The receipt of a run that led to this snapshot, if it led to one.
pub fn on_receipt(marked: Option<Marked>, receipt: Receipt) -> Receipt {
    let Some(marked) = marked else { return receipt };
    let is_marked = !marked.is_pending();
    let Snapshot { name, guid, .. } = marked.snapshot;
    Receipt { marked: is_marked, snapshot_guid: Some(guid), snapshot: Some(name), ..receipt }
}

/// The newest mark of the dataset of this name.
pub fn newest(name: &str) -> Result<Marked, Fault> {
    marks(&Dataset::open(name)?).pop().ok_or_else(|| Fault::new(Class::NotFound, "there is no mark"))
}

/// The unfinished run of ours, if the dataset's record still fits the dataset and its newest mark, and its check stands. After a
/// roll-back by hand, a commit, or on a replica it does not.
pub fn unfinished(dataset: &Dataset) -> Option<Run> {
    let run: Run = Run::parse(dataset.receiving.as_deref()?)?;
    let newest = marks(dataset).last().map(|marked| marked.snapshot.guid);
    let stands = run.check.is_none_or(|run| check::has(dataset, run));
    (run.home == dataset.guid && run.newest_mark == newest && stands).then_some(run)
}

/// The snapshots that unfinished runs left to go on from, oldest first.
pub fn pauses(dataset: &Dataset) -> Vec<(Snapshot, Checkpoint)> {
    let pause = |snapshot: &Snapshot| dataset.pause(snapshot).map(|checkpoint| (snapshot.clone(), checkpoint));
    dataset.snapshots.iter().filter_map(pause).collect()
}

/// Takes the snapshot that an unfinished run can go on from, in place of those there are, and renews the check above it.
pub fn pause(dataset: &Dataset, checkpoint: Checkpoint, check: &mut Check) -> Result<(), Fault> {
    let (name, before) = (&dataset.name, dataset.again()?);
    check.look(&before)?;
    let called = format!("siphon-checkpoint-{}", checkpoint.id().short());
    let pause = Pause { home: before.guid, checkpoint };
    match zfs::snapshot(name, &called, zfs::MARK, &pause.to_text()) {
        // Nothing was done since it was taken.
        Err(fault) if fault.class == Class::Exists => return Ok(()),
        taken => taken?,
    }
    if let Err(fault) = check.renew() {
        zfs::destroy_snapshot(name, &called)?;
        return Err(fault);
    }
    forget_pauses(&before, None)
}

/// Destroys what unfinished runs left to go on from, but for the one of this name.
pub fn forget_pauses(dataset: &Dataset, but: Option<&str>) -> Result<(), Fault> {
    let all = pauses(dataset);
    let mut others = all.iter().filter(|(snapshot, _)| Some(snapshot.name.as_str()) != but);
    others.try_for_each(|(snapshot, _)| zfs::destroy_snapshot(&dataset.name, &snapshot.name))
}

/// A checkpoint or a check: a run left it, and nothing is lost with it.
pub fn is_of_a_run(dataset: &Dataset, snapshot: &Snapshot) -> bool {
    dataset.pause(snapshot).is_some() || dataset.check(snapshot).is_some()
}

/// Names of the snapshots of others above a transaction group.
fn others_above(dataset: &Dataset, createtxg: u64) -> Vec<String> {
    let theirs = |snapshot: &&Snapshot| snapshot.createtxg > createtxg && !is_of_a_run(dataset, snapshot);
    dataset.snapshots.iter().filter(theirs).map(|snapshot| snapshot.name.clone()).collect()
}

/// What the properties alone say about a dataset. Whether the head still is what the newest mark holds, or is blank at all, needs
/// the device or the root: see [`super::evidence`].
pub fn standing(dataset: Option<&Dataset>) -> Standing {
    let absent = Standing { head: Head::Absent, marks: vec![], above: vec![], way_back: true, checkpoint: None };
    let Some(dataset) = dataset else { return absent };
    let marks = marks(dataset);
    let newest = marks.last().map_or(0, |marked| marked.snapshot.createtxg);
    let may_be_blank =
        dataset.logical_referenced <= BLANK_AT_MOST && dataset.snapshots.iter().all(|snapshot| is_of_a_run(dataset, snapshot));
    let head = match unfinished(dataset) {
        Some(Run { stream, from, to, .. }) => Head::Receiving(Unfinished { stream, from, to }),
        None if !marks.is_empty() => Head::AtMark,
        None if may_be_blank => Head::Blank,
        None => Head::Foreign,
    };
    let last_pause = pauses(dataset).pop().filter(|(snapshot, _)| snapshot.createtxg > newest);
    let checkpoint = last_pause.map(|(snapshot, checkpoint)| Resumable {
        held: Held { ids: vec![checkpoint.id()], name: snapshot.name },
        above: others_above(dataset, snapshot.createtxg),
        checkpoint,
    });
    let above = others_above(dataset, newest);
    Standing { head, marks: marks.iter().map(Marked::held).collect(), above, checkpoint, ..absent }
}

/// The marks as a state list.
pub fn state_list(dataset: &Dataset) -> StateList {
    let lines = |marked: Marked| {
        let name = marked.snapshot.name.into_bytes();
        let (seconds, bytes) = (marked.snapshot.creation, marked.mark.size);
        marked.mark.ids().into_iter().map(move |id| State { id, seconds, bytes, name: name.clone() })
    };
    StateList { states: marks(dataset).into_iter().flat_map(lines).collect() }
}

/// The marks as a state list, or as one line of JSON each.
pub fn listing(dataset: &Dataset, json: bool) -> String {
    if json { marks(dataset).iter().map(Marked::to_json).collect() } else { state_list(dataset).to_text() }
}

/// The name that a mark of this state will have: the source's, unless it is taken or too long.
pub fn choose_name(dataset: &str, taken: &[Snapshot], source_name: &[u8], state: Id) -> String {
    state::choose_name(&escape_zfs_name(source_name), state, |name| {
        !name.is_empty()
            && !name.starts_with(['.', '-'])
            && !name.starts_with(PENDING)
            && dataset.len() + 1 + name.len() <= LIMIT_FULL_NAME
            && taken.iter().all(|snapshot| snapshot.name != name)
    })
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

/// Settles what is committed, if the receipt (where there is one) is of it.
pub fn name_committed(target: &str, receipt: Option<&Receipt>, hold: bool) -> Result<Marked, Fault> {
    let dataset = Dataset::open(target)?;
    // The record on the dataset is believed; the receipt only has to fit it.
    let fits = |receipt: &Receipt| {
        let of_it = |marked: &Marked| Some(marked.snapshot.guid) == receipt.snapshot_guid;
        receipt.target == target && marks(&dataset).iter().any(of_it)
    };
    if !receipt.is_none_or(fits) {
        return Err(Fault::new(Class::NotFound, "no committed snapshot fits the receipt")
            .hint("the receipt is of another target, or of a target without snapshots"));
    }
    let newest = settle(&dataset, hold)?.ok_or_else(|| Fault::new(Class::NotFound, "nothing is committed here"))?;
    if is_record_stale(&dataset) {
        zfs::inherit(target, zfs::RECEIVING)?;
    }
    Ok(newest)
}

/// The mark of this full name, `DATASET@NAME`, with its dataset.
pub fn find(full: &str) -> Result<(Dataset, Marked), Fault> {
    let (dataset, name) = full.split_once('@').ok_or_else(|| Fault::new(Class::Usage, "name a mark as DATASET@NAME"))?;
    let dataset = Dataset::open(dataset)?;
    let found = marks(&dataset).into_iter().find(|marked| marked.snapshot.name == name);
    let missing = || Fault::new(Class::NotFound, "there is no mark of that name; snapshots of others are not touched");
    found.map(|marked| (dataset, marked)).ok_or_else(missing)
}

/// The same as dataset and name.
pub fn names(full: &str) -> Result<(String, String), Fault> {
    find(full).map(|(dataset, marked)| (dataset.name, marked.snapshot.name))
}

/// Lets a mark go by another id, too: of a state that holds the same. Both contents are told by their roots.
pub fn adopt(full: &str, root: Digest, other: &(ManifestHeader, ManifestEnd)) -> Result<bool, Fault> {
    let (_, Marked { mut mark, .. }) = find(full)?;
    let (header, end) = other;
    let id = end.state.ok_or_else(|| {
        Fault::new(Class::Usage, "the manifest is of no state that has an id").hint("take it of a snapshot, not of a live image")
    })?;
    if (header.size, end.root) != (mark.size, root) {
        let what =
            format!("the manifest is of {} bytes with the root {}, the mark of {} with {root}", header.size, end.root, mark.size);
        return Err(Fault::new(Class::Differs, what));
    }
    if mark.ids().contains(&id) {
        return Ok(false);
    }
    mark.aliases.push(id);
    zfs::set(full, &[(zfs::MARK, &mark.to_text())])?;
    Ok(true)
}

/// The record of a run that ended, or was left behind by a roll-back. Nobody believes it; but a roll-back by hand could bring
/// back the mark that it is bound to.
pub fn is_record_stale(dataset: &Dataset) -> bool {
    dataset.receiving.is_some() && unfinished(dataset).is_none()
}
