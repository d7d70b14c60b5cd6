//! What changed below a directory on CephFS between two snapshots of it: a list of changes, without the content of files.

mod anchor;
mod look;
mod looks;
mod place;
mod rctime;

use std::collections::{BTreeSet, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use look::look;
pub use place::{Place, Snapshot, split};
use rctime::Rctime;

use super::tree::{Doubt, Looked, TreeList};
use crate::flow::{Ending, Source};
use crate::format::{Header, Names, Time, Tree, TreeChange, TreePath};
use crate::host::limits;
use crate::state::{Anchor, Class, Fault, Linked, Memory};

/// What is asked, and what may be believed.
#[derive(Clone, Debug)]
pub struct CephfsOptions {
    /// The snapshot that the list begins from; `None`: all that is there.
    pub from: Option<Vec<u8>>,
    /// What the last run remembered.
    pub memory: Option<Memory>,
    /// rctime is believed; else every directory is walked over.
    pub trust_rctime: bool,
    /// Every so many runs all is walked over, and rctime has to agree; also now, if `cross_check`.
    pub full_every: u32,
    /// Walk over all, and see whether rctime agrees.
    pub cross_check: bool,
    /// A directory counts as changed if its rctime is later than the old snapshot less this: as much as clocks may differ.
    pub margin: Duration,
    /// A snapshot is read when it is as old as this: until then rctimes and what clients had buffered go on coming into it.
    pub settle: Duration,
    /// Takes what the user should know.
    pub notes: fn(&str, &str),
}

/// What changed, as a source of a list.
pub struct CephfsChanged {
    header: Header,
    tree: Tree,
    place: Place,
    from: Option<Snapshot>,
    to: Snapshot,
    roots: Option<TreeChange>,
    list: Option<TreeList>,
    /// `None`: rctime was not asked.
    rctime: Option<Rctime>,
    /// Names that were remembered; those below what was left out still are.
    linked: Vec<Linked>,
    runs: u32,
    /// What was changed where rctime said that nothing was.
    disagreed: Option<TreePath>,
    /// The last state that was walked over whole, and what was said since.
    anchor: Option<Anchor>,
    /// What earlier runs left out.
    missed: BTreeSet<TreePath>,
    /// What came into the anchor's snapshot after it was read: nobody can tell where.
    is_late: bool,
    /// An earlier run said that lists left something out.
    lacks: bool,
    /// It was found out whether earlier runs left out anything.
    is_audited: bool,
    notes: fn(&str, &str),
}

impl CephfsChanged {
    /// Looks for the snapshots, waits until they can be read, and finds out which names differ.
    pub fn open(path: &Path, to: &[u8], options: CephfsOptions) -> Result<CephfsChanged, Fault> {
        limits::many_open_files();
        let mut place = Place::open(path)?;
        let to = place.snapshot(to)?;
        let from = options.from.as_deref().map(|name| place.snapshot(name)).transpose()?;
        if let Some(from) = from.as_ref().filter(|from| from.taken > to.taken) {
            let (from, to) = (from.name.escape_ascii(), to.name.escape_ascii());
            return Err(Fault::new(Class::WrongBase, format!("the snapshot to begin from, {from}, is newer than {to}"))
                .hint("an increment leads forward only"));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        sleep(unsettled(to.taken, now, options.settle, options.margin));
        let bytes = |path: std::path::PathBuf| path.as_os_str().as_bytes().to_vec();
        let names = Names {
            source: path.as_os_str().as_bytes().to_vec(),
            from: from.as_ref().map(|from| from.name.clone()).unwrap_or_default(),
            to: to.name.clone(),
        };
        let mut header = Header::new(place.source(), from.as_ref().map(|from| place.state(from)), Some(place.state(&to)), names);
        Tree::mark_as_list(&mut header);
        let roots =
            TreeChange::Roots { old: from.as_ref().map(|from| bytes(place.path_of(from))), new: bytes(place.path_of(&to)) };
        let memory = options.memory.as_ref().filter(|memory| Some(memory.state) == header.from);
        if from.is_some() && memory.is_none() && options.trust_rctime {
            let text = "no memory of the last run: walking over all, which takes longer; what runs before it missed is not found";
            (options.notes)(&path.display().to_string(), text);
        }
        let (runs, linked) = memory.map_or((0, Vec::new()), |memory| (memory.runs.saturating_add(1), memory.linked.clone()));
        // What an earlier list left out is missing, whether or not that was the last one that was applied.
        let lacks = from.is_some() && options.memory.as_ref().is_some_and(|memory| memory.lacks);
        let anchor = memory.and_then(|memory| memory.anchor.clone());
        let mut changed = CephfsChanged {
            header,
            tree: Tree::new(),
            place,
            from,
            to,
            roots: Some(roots),
            list: None,
            rctime: None,
            linked,
            runs,
            disagreed: None,
            anchor,
            missed: BTreeSet::new(),
            is_late: false,
            lacks,
            is_audited: false,
            notes: options.notes,
        };
        changed.compare(&options, memory.is_some())?;
        Ok(changed)
    }

    fn compare(&mut self, options: &CephfsOptions, remembers: bool) -> Result<(), Fault> {
        let new = self.place.path_of(&self.to);
        let Some(from) = &self.from else {
            let list = TreeList::whole(&new)?;
            self.still_there(&list)?;
            self.list = Some(list);
            return Ok(());
        };
        let since = earlier(from.taken, options.margin);
        let old = self.place.path_of(from);
        let is_checked = options.cross_check || self.runs >= options.full_every;
        if remembers && options.trust_rctime {
            self.rctime = Some(Rctime::new(since, !is_checked, &self.linked, &self.to.dir)?);
        }
        let doubt = Doubt { since };
        let mut list = match &mut self.rctime {
            Some(rctime) => TreeList::since(&old, &new, doubt, rctime)?,
            None => TreeList::since(&old, &new, doubt, &mut ())?,
        };
        self.still_there(&list)?;
        if self.believed().is_none() {
            self.runs = 0;
        } else if self.anchor.is_some() {
            list.remember_looks();
        }
        self.list = Some(list);
        Ok(())
    }

    /// What is read is the directory that was opened first, and not one that was put in its place meanwhile.
    fn still_there(&self, list: &TreeList) -> Result<(), Fault> {
        if list.is_of(self.place.inode())? {
            return Ok(());
        }
        Err(Fault::new(Class::Changed, "another directory was put in its place"))
    }

    /// rctime, where it is believed; else all is walked over.
    fn believed(&self) -> Option<&Rctime> {
        self.rctime.as_ref().filter(|rctime| rctime.believed)
    }

    /// After the end: what the next run should remember.
    pub fn memory(&self) -> Option<Memory> {
        let (runs, lacks, anchor, linked) = (self.runs, self.lacks, self.anchor.clone(), self.linked.clone());
        self.header.to.map(|state| Memory { state, name: self.to.entry_name().to_vec(), runs, lacks, anchor, linked })
    }

    /// After the end: whether earlier runs left out anything, or this one would have if it had believed rctime. No later list
    /// has what an earlier one left out.
    pub fn agreed(&self) -> Result<(), Fault> {
        let anew = "take a new snapshot and send that whole: without --from, and with tree-apply --replace";
        if let Some(first) = self.missed.first() {
            let more = self.missed.len().saturating_sub(1);
            let more = if more == 0 { String::new() } else { format!(", and {more} more,") };
            return Err(Fault::new(
                Class::Differs,
                format!("{}{more} changed in an earlier run, and its list did not say so", shown(first)),
            )
            .hint(format!("what the lists were applied to lacks it: {anew}")));
        }
        if self.is_late {
            let text = "after the last walk over all, data came into the snapshot that it had read; its list does not have it";
            return Err(Fault::new(Class::Differs, text)
                .hint(anew)
                .hint("a longer --settle waits for what clients had buffered"));
        }
        if self.lacks {
            return Err(Fault::new(Class::Differs, "an earlier run found that lists had left something out").hint(anew));
        }
        let Some(path) = &self.disagreed else { return Ok(()) };
        let fault = Fault::new(Class::Differs, format!("{} was changed, and rctime says that nothing was", shown(path)));
        Err(if self.is_audited {
            fault.hint("this list is whole, and since the last walk over all the lists before it were, too: nothing was missed")
        } else {
            fault.hint(format!("this list is whole, but earlier runs may have missed something: {anew}"))
        }
        .hint("--no-trust-rctime walks over all, always"))
    }

    /// Remembers what the list said.
    fn said(&mut self) {
        let looked = self.list.as_mut().map(TreeList::looked).unwrap_or_default();
        let Some(anchor) = &mut self.anchor else { return };
        for Looked { path, old, new } in looked {
            if !anchor.say(old.as_ref().map(look), look(&new)) {
                self.missed.insert(path);
            }
        }
    }

    /// All was said from the old snapshot to this one. Whether that is so from the anchor to the old snapshot, too.
    fn audit(&mut self) -> Result<(), Fault> {
        let (Some(from), Some(anchor)) = (&self.from, &self.anchor) else { return Ok(()) };
        let found = self.place.snapshots()?.into_iter().find(|snapshot| self.place.state(snapshot) == anchor.state);
        let audited = found.as_ref().map(|found| match Some(anchor.state) == self.header.from {
            true => anchor::census(&found.dir).map(|census| (BTreeSet::new(), census)),
            false => anchor::audit(anchor, &found.dir, &from.dir),
        });
        // One that was removed meanwhile looks like anything.
        match found.as_ref().map(|found| self.place.confirm(found)).zip(audited) {
            Some((Ok(()), audited)) => {
                let (missed, census) = audited?;
                self.missed.extend(missed);
                self.is_late = census.0 != anchor.sum;
            }
            Some((Err(fault), _)) if fault.class != Class::Vanished => return Err(fault),
            _ => {
                let name = anchor.name.escape_ascii();
                (self.notes)(
                    &self.place.path.display().to_string(),
                    &format!("snapshot {name} is gone: what earlier runs missed since then is not found"),
                );
                return Ok(());
            }
        }
        self.is_audited = true;
        Ok(())
    }

    fn saw(&mut self, change: &TreeChange) {
        let path = match change {
            TreeChange::Gone { path, .. } | TreeChange::Link { path, .. } => path,
            TreeChange::Entry(entry) => &entry.path,
            TreeChange::Roots { .. } | TreeChange::Extent(_) => return,
        };
        let quiet = self.rctime.as_ref().filter(|rctime| !rctime.believed).and_then(|rctime| rctime.quiet_above(path));
        if self.disagreed.is_none() && quiet.is_some() {
            self.disagreed = Some(path.clone());
        }
    }
}

impl Source<Tree> for CephfsChanged {
    fn header(&self) -> &Header {
        &self.header
    }

    fn object(&self) -> &Tree {
        &self.tree
    }

    fn change(&mut self) -> Result<Option<TreeChange>, Fault> {
        if let Some(roots) = self.roots.take() {
            return Ok(Some(roots));
        }
        let change = self.list.as_mut().map_or(Ok(None), TreeList::change)?;
        self.said();
        if let Some(change) = &change {
            self.saw(change);
        }
        Ok(change)
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        let Some(passed) = self.list.take().map(TreeList::finish).transpose()? else {
            return Err(Fault::new(Class::Io, "a list ended before it began"));
        };
        // What was left out is as it was.
        let rctime = self.rctime.as_ref().filter(|rctime| rctime.believed);
        let is_quiet = |linked: &Linked| rctime.is_some_and(|rctime| rctime.quiet_above(&linked.path).is_some());
        let (mut linked, walked): (Vec<_>, Vec<_>) = std::mem::take(&mut self.linked).into_iter().partition(is_quiet);
        let seen: HashSet<&TreePath> = passed.linked.iter().map(|(path, _)| path).collect();
        // The last name of what had several need not be its first one: rctime may count it below no directory at all.
        linked.extend(looks::standing(walked.iter().filter(|linked| !seen.contains(&linked.path)), &self.to.dir)?);
        linked.extend(passed.linked.iter().map(|(path, meta)| Linked { path: path.clone(), look: look(meta) }));
        linked.sort_unstable();
        if rctime.is_none() {
            self.audit()?;
            let anchor = |state| Anchor::new(state, self.to.entry_name().to_vec(), passed.census.0);
            self.anchor = self.header.to.map(anchor);
        } else if self.anchor.take_if(|anchor| anchor.is_overfull()).is_some() {
            let text = format!(
                "more than {} things were changed since the last walk over all: what was missed since then is not found",
                Anchor::LIMIT
            );
            (self.notes)(&self.place.path.display().to_string(), &text);
        }
        self.linked = linked;
        self.lacks |= self.is_late || !self.missed.is_empty();
        self.place.confirm(&self.to)?;
        self.from.as_ref().map_or(Ok(()), |from| self.place.confirm(from))?;
        Ok(Ending { to: self.header.to, digest: None })
    }
}

/// How long to wait until a snapshot is so old. When it was taken is told by the clock of the client that took it, which may be
/// behind by the margin: what only seems to be old enough is not.
fn unsettled(taken: Time, now: Duration, age: Duration, margin: Duration) -> Duration {
    let taken = Duration::new(u64::try_from(taken.seconds).unwrap_or(0), taken.nanoseconds);
    if now.saturating_sub(taken) < age.saturating_add(margin) { age } else { Duration::ZERO }
}

/// A path for people; the directory itself is a dot.
fn shown(path: &TreePath) -> String {
    if path.names().is_empty() { ".".to_owned() } else { path.to_string() }
}

fn earlier(time: Time, by: Duration) -> Time {
    let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
    Time { seconds: time.seconds.saturating_sub(seconds), nanoseconds: time.nanoseconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_waited_for_unless_it_is_old_by_every_clock() {
        let wait = |age_seconds: i64| {
            let taken = Time { seconds: 1_000_000 - age_seconds, nanoseconds: 0 };
            unsettled(taken, Duration::from_secs(1_000_000), Duration::from_secs(20), Duration::from_secs(3600)).as_secs()
        };
        // Just now; by clocks that are ahead, or behind by the margin.
        assert_eq!([wait(0), wait(-100), wait(3600), wait(3619)], [20; 4]);
        assert_eq!([wait(3620), wait(1_000_000)], [0; 2]);
    }
}
