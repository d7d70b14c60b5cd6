//! A file system of ZFS as a target. Its states are marks, and the commit is a snapshot.

use super::entries::Before;
use super::keep::{Already, Keep, Left, Prepared, Run};
use crate::flow::Ending;
use crate::format::{Digest, Header, Id, Time};
use crate::host::tree::Dir;
use crate::host::zfs::{self, Dataset};
use crate::sink::dataset::check::{self, Check};
use crate::sink::dataset::marks::{self, Marked};
use crate::sink::dataset::{Committing, begin, check_new, commit, end_without_state, evidence, go_back};
use crate::state::{Act, Class, Fault, Head, NextStream, Overrides, Plan, Standing, decide};

/// What a file system is created with, unless told otherwise: reading it is no change, and it can hold what a stream can.
const CREATED_WITH: [&str; 3] = ["atime=off", "acltype=posix", "xattr=sa"];
/// So many bytes an increment takes at least.
const LEAST: u64 = 1 << 20;

/// A file system, and what the user wants of it.
#[derive(Clone, Debug)]
pub struct FileSystem {
    /// The dataset.
    pub name: String,
    /// Give the commit its name and hold.
    pub mark: bool,
    /// Hold the newest mark against destruction.
    pub hold: bool,
    /// What is allowed beyond the default.
    pub overrides: Overrides,
    /// Leave it writable between runs.
    pub writable: bool,
    /// Say what would be done, and stop.
    pub dry_run: bool,
    /// Properties (`name=value`) of one that is created.
    pub properties: Vec<String>,
    /// Takes what the user should know: the target's name, and the text.
    pub notes: fn(&str, &str),
}

impl Keep for FileSystem {
    type Run = Received;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn prepare(&self, header: &Header) -> Result<Prepared<Received>, Fault> {
        let next = NextStream::from(header);
        let known = if next.from.is_none() { Dataset::find(&self.name)? } else { Dataset::load(&self.name)? };
        let is_new = known.is_none();
        if let Some(dataset) = known {
            refuse_unfit(&dataset)?;
        } else {
            let plan = decide(&marks::standing(None), next, self.overrides)?;
            if self.dry_run {
                return Ok(Prepared::DryRun(plan.would()));
            }
            self.create()?;
        }
        let mut root = claim(&self.name)?;
        let (dataset, standing, check) = self.look(&mut root)?;
        // Again: a property that it was created with may be against it.
        refuse_unfit(&dataset)?;
        let plan = decide(&standing, next, self.overrides)?;
        if is_new && plan.act != Act::Clear {
            return Err(Fault::new(Class::Busy, "another run took the file system that was just created")
                .hint("try again when it has ended"));
        }
        if self.dry_run {
            return Ok(Prepared::DryRun(plan.would()));
        }
        self.begin(Claimed { dataset, root, check }, &standing, plan, header)
    }
}

/// A file system that others of us stay away from.
struct Claimed {
    dataset: Dataset,
    /// Locked.
    root: Dir,
    /// If one was taken to find out what it holds.
    check: Option<Check>,
}

impl FileSystem {
    fn create(&self) -> Result<(), Fault> {
        check_new(&self.properties)?;
        let is_given = |default: &&str| {
            let (name, _) = default.split_once('=').unwrap_or((default, ""));
            self.properties.iter().any(|given| given.split_once('=').is_some_and(|(given, _)| given == name))
        };
        let defaults = CREATED_WITH.iter().filter(|default| !is_given(default)).map(|default| (*default).to_owned());
        let settings = defaults.chain(self.properties.iter().cloned());
        let options: Vec<String> = settings.flat_map(|setting| ["-o".to_owned(), setting]).collect();
        match zfs::create_file_system(&self.name, &options) {
            Err(fault) if fault.class == Class::Exists => {
                Err(Fault::new(Class::Busy, "another run has just created the file system").hint("try again when it has ended"))
            }
            created => created,
        }
    }

    /// What it holds, seen under the claim, with all that anybody wrote to it. Settles what an earlier run left committed but
    /// unnamed or without its hold, unless nothing is to be changed. With the check, if one was taken to find out.
    fn look(&self, root: &mut Dir) -> Result<(Dataset, Standing, Option<Check>), Fault> {
        // A page that was not written out counts in nothing, and a write only from the next transaction group on.
        root.sync_file_system()?;
        zfs::sync_pool(&self.name)?;
        let mut dataset = Dataset::open(&self.name)?;
        if !self.dry_run && marks::is_unsettled(&dataset, self.hold) {
            marks::settle(&dataset, self.hold)?;
            dataset = Dataset::open(&self.name)?;
        }
        let mut standing = marks::standing(Some(&dataset));
        // Of no run that counts.
        if !matches!(standing.head, Head::Receiving(_)) && check::forget(&dataset)? {
            dataset = Dataset::open(&self.name)?;
        }
        let newest = marks::marks(&dataset).pop();
        let (changed, check) = match (&standing.head, &newest) {
            (Head::AtMark, Some(newest)) => evidence::written_since_claimed(&dataset, newest)?,
            _ => (false, None),
        };
        standing.head = match (standing.head, newest) {
            (Head::AtMark, _) if changed => Head::WrittenSince,
            (Head::Blank | Head::Foreign, None) if dataset.snapshots.is_empty() && root.is_empty()? => Head::Blank,
            (Head::Blank, _) => Head::Foreign,
            (head, _) => head,
        };
        Ok((dataset, standing, check))
    }

    /// Carries out what was decided, up to the first entry.
    fn begin(&self, claimed: Claimed, standing: &Standing, plan: Plan, header: &Header) -> Result<Prepared<Received>, Fault> {
        let Claimed { mut dataset, mut root, check } = claimed;
        let check = Check::kept_for(&plan, check)?;
        if let Some(held) = &plan.roll_back {
            dataset = go_back(&dataset, held, standing, LEAST, self.hold, |text| (self.notes)(&self.name, text))?;
        }
        if plan.act == Act::Already {
            if plan.roll_back.is_some() || marks::is_record_stale(&dataset) {
                self.end_earlier(&dataset)?;
            }
            let marked = marks::settle(&dataset, self.hold)?;
            let _ = check::forget(&dataset);
            let left = left(marked.as_ref());
            return Ok(Prepared::Already(Box::new(Already { plan, marked, left, claim: Some(root) })));
        }
        let mut check = begin(&dataset, check, NextStream::from(header))?;
        if dataset.readonly.value == "on" {
            zfs::set_read_only(&self.name, false)?;
        }
        let open = Open { name: self.name.clone(), close: !self.writable };
        let modified = root.meta()?.modified;
        if plan.act == Act::Clear {
            root.clear()?;
            // It would keep what was there, which there may be no space for beside the new.
            check.renew()?;
        }
        let is_increment = plan.act == Act::Apply;
        let run = Received { options: self.clone(), dataset, check, root, modified, is_increment, open };
        Ok(Prepared::Write { run, before: Before::Nothing, is_increment })
    }

    /// Ends what a run left behind that was given up, where no other begins: what is written from here on is somebody else's.
    fn end_earlier(&self, dataset: &Dataset) -> Result<(), Fault> {
        if !self.writable && dataset.readonly.value != "on" {
            zfs::set_read_only(&self.name, true)?;
        }
        zfs::inherit(&self.name, zfs::RECEIVING)
    }
}

fn refuse_unfit(dataset: &Dataset) -> Result<(), Fault> {
    let name = &dataset.name;
    if dataset.volsize.is_some() {
        return Err(Fault::new(Class::Unsupported, "this is a volume, not a file system").hint("zvol-apply writes to volumes"));
    }
    if dataset.atime.value != "off" {
        return Err(Fault::new(Class::Unsupported, "atime is on: whoever reads in the file system would change it")
            .hint(format!("zfs set atime=off {name}")));
    }
    Ok(())
}

/// Opens the root where it is mounted, for us alone. A roll-back leaves it open and locked.
fn claim(name: &str) -> Result<Dir, Fault> {
    let path = zfs::mounted_at(name)?;
    let root = Dir::root(&path)?;
    if !root.mounted_from().is_some_and(|mounted| mounted.source == name && mounted.is_whole) {
        return Err(Fault::new(Class::Mounted, format!("something else is mounted at {}", path.display())));
    }
    root.lock()?;
    Ok(root)
}

/// Writable for the run; read-only again when the run is over, however it ended.
struct Open {
    name: String,
    close: bool,
}

impl Open {
    fn close(&mut self) -> Result<(), Fault> {
        if std::mem::take(&mut self.close) { zfs::set_read_only(&self.name, true) } else { Ok(()) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Not worth failing for: what was written is given up by the next run in any case.
        let _ = self.close();
    }
}

/// A run that is on record.
pub struct Received {
    options: FileSystem,
    dataset: Dataset,
    /// What the run stands on. Dropped while the root is locked.
    check: Check,
    root: Dir,
    modified: Time,
    /// What it begins from is a state, from which nobody can have removed anything.
    is_increment: bool,
    open: Open,
}

impl Run for Received {
    fn root(&self) -> Result<Dir, Fault> {
        self.root.again()
    }

    fn modified(&self) -> Time {
        self.modified
    }

    fn left(&self) -> Left {
        if self.is_increment { left(marks::marks(&self.dataset).last()) } else { Left::default() }
    }

    /// A run that is broken off is gone back from, and never gone on with.
    fn all_gone(&mut self, _: Digest) -> Result<(), Fault> {
        Ok(())
    }

    fn spoil(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn commit(mut self, header: &Header, ending: Ending, left: Left) -> Result<Option<Marked>, Fault> {
        // Nobody puts anything between what was written and the snapshot.
        self.open.close()?;
        let Some(state) = ending.to else {
            return end_without_state(&self.dataset, self.check).map(|()| None);
        };
        let committing = committing(&self.options, header, ending.digest, state, left)?;
        let (committed, marked) = commit(&self.dataset, self.check, &committing)?;
        end_run(&committed)?;
        Ok(marked)
    }
}

fn committing<'a>(
    options: &FileSystem,
    header: &'a Header,
    digest: Option<Digest>,
    state: Id,
    Left { unset, .. }: Left,
) -> Result<Committing<'a>, Fault> {
    let digest = digest.ok_or_else(|| Fault::new(Class::Io, "only a stream can be committed to a dataset"))?;
    let (to_name, stream) = (header.names.to.as_slice(), header.stream());
    let FileSystem { mark, hold, .. } = *options;
    Ok(Committing { source: header.source, state, to_name, stream, size: 0, digest, root: None, unset, mark, hold })
}

/// Whatever an increment finds missing was left out.
fn left(mark: Option<&Marked>) -> Left {
    Left { missing: true, unset: mark.is_some_and(|marked| marked.mark.unset) }
}

/// Removes the record of a run that is over.
fn end_run(dataset: &Dataset) -> Result<(), Fault> {
    if marks::is_record_stale(dataset) { zfs::inherit(&dataset.name, zfs::RECEIVING) } else { Ok(()) }
}
