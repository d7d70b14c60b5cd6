//! A directory as a target. Its state is kept in a record beside it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::aside::another_way;
use super::entries::{Before, Entries};
use super::keep::{Already, Keep, Left, Prepared, Run};
use crate::flow::Ending;
use crate::format::{Digest, Header, Time};
use crate::host::record::{HeldState, Progress, Receiving, Record, RecordFile, standing};
use crate::host::stamp::{Between, Birth, Evidence};
use crate::host::tree::Dir;
use crate::sink::dataset::marks::Marked;
use crate::state::{Act, Class, Fault, Head, NextStream, Overrides, Plan, Standing, decide};

/// A directory, and what the user wants of it.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Where it is.
    pub path: PathBuf,
    /// A whole stream may replace content that is there.
    pub replace: bool,
    /// Nobody changed the target since its record was made: the user knows.
    pub trust: bool,
    /// Change nothing.
    pub dry_run: bool,
}

impl Directory {
    /// Asks something of what it holds; it is claimed for the moment of the look.
    pub fn ask(&self, ask: impl FnOnce(&Standing) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut keeper = Keeper::open(&self.path, self.trust)?;
        let standing = keeper.standing()?;
        ask(&standing).map_err(|fault| keeper.explain(fault))
    }
}

impl Keep for Directory {
    type Run = Recorded;

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn prepare(&self, header: &Header) -> Result<Prepared<Recorded>, Fault> {
        let mut keeper = Keeper::open(&self.path, self.trust)?;
        let standing = keeper.standing()?;
        let overrides = Overrides { rollback: false, replace: self.replace };
        let plan = decide(&standing, NextStream::from(header), overrides).map_err(|fault| keeper.explain(fault))?;
        match plan.act {
            Act::Already => Ok(Prepared::Already(Box::new(keeper.already(plan)))),
            act @ (Act::Create | Act::Clear | Act::Apply) if self.dry_run => Ok(Prepared::DryRun(act.would().to_owned())),
            act @ (Act::Create | Act::Clear | Act::Apply) => {
                if let (Act::Apply, Head::AtMark, Some(root)) = (act, &standing.head, &keeper.root) {
                    Entries::check(root)?;
                }
                let (run, before) = keeper.begin(act, header)?;
                Ok(Prepared::Write { run, before, is_increment: act == Act::Apply })
            }
        }
    }
}

/// A directory that was looked at, and is held for us alone if it exists.
struct Keeper {
    /// Free of links, as far as it exists.
    path: PathBuf,
    /// `None`: there is no such directory yet.
    root: Option<Dir>,
    records: RecordFile,
    record: Option<Record>,
    /// Nobody changed it since its record was made: the user knows.
    trust: bool,
    /// Its record is of another directory.
    is_another: bool,
}

impl Keeper {
    /// Looks at a directory and claims it.
    fn open(path: &Path, trust: bool) -> Result<Keeper, Fault> {
        let looking = |error| Fault::io("looking at the target", &error);
        let meta = match path.metadata() {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
                return Keeper::absent(path, trust);
            }
            Err(error) => return Err(looking(error)),
        };
        if !meta.is_dir() {
            return Err(Fault::new(Class::Unsupported, "the target is no directory")
                .hint("image-apply writes to files and devices, zvol-apply to ZFS volumes"));
        }
        let path = path.canonicalize().map_err(looking)?;
        if path.file_name().is_none() {
            return Err(Fault::new(Class::Unsupported, "the root of the file system has no place beside it for a record"));
        }
        let root = Dir::root(&path)?;
        root.lock()?;
        let is = root.meta()?;
        if (is.inode, is.device) != (meta.ino(), meta.dev()) {
            return Err(Fault::new(Class::Busy, "the target was replaced just now").hint("try again"));
        }
        let records = RecordFile::beside(&path);
        let record = records.read()?;
        Ok(Keeper { path, root: Some(root), records, record, trust, is_another: false })
    }

    /// A directory that is to be made. What a record says of one that is gone is over.
    fn absent(path: &Path, trust: bool) -> Result<Keeper, Fault> {
        let no_name = || Fault::new(Class::NotFound, "the target is not there, and has no name to make it by");
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = parent.canonicalize().map_err(|error| Fault::io(parent.display(), &error))?;
        let path = parent.join(path.file_name().ok_or_else(no_name)?);
        let records = RecordFile::beside(&path);
        Ok(Keeper { path, root: None, records, record: None, trust, is_another: false })
    }

    /// What decides about the next stream.
    fn standing(&mut self) -> Result<Standing, Fault> {
        let Some(root) = &mut self.root else { return Ok(standing(Head::Absent, None, None)) };
        let (now, birth) = (root.evidence()?, root.birth()?);
        let trusted = |record: &Record| self.trust && record.held.is_some();
        let ours = self.record.as_ref().filter(|record| is_of(record, &now, &birth) || trusted(record));
        let head = match ours {
            Some(record) if trusted(record) => record.head(Between::Untouched),
            Some(record) => record.head(record.seen.between(&now)),
            None => Head::Foreign,
        };
        // Where a run was broken off, somebody may have emptied it: then nothing is there that an increment could begin from. But
        // an empty directory in the place of one that holds something may be where that is mounted at other times.
        self.is_another = self.record.is_some() && ours.is_none();
        let may_be_new = matches!(head, Head::Receiving(_)) || head == Head::Foreign && !self.is_another;
        let head = if may_be_new && root.is_empty()? { Head::Blank } else { head };
        Ok(standing(head, ours, None))
    }

    /// A refusal, with what a directory can be told of it.
    fn explain(&self, fault: Fault) -> Fault {
        if fault.class == Class::WrittenSince {
            fault.hint("--trust takes it as it is, if you know that nobody changed it")
        } else if fault.class == Class::Foreign && self.is_another {
            let record = self.records.path().display();
            fault.hint(format!("the record {record} is of another directory: is the right disk mounted here?"))
        } else {
            fault
        }
    }

    fn already(self, plan: Plan) -> Already {
        let left = left(self.record.as_ref().and_then(|record| record.held.as_ref()));
        Already { plan, marked: None, left, claim: self.root }
    }

    /// Writes down that a run begins, and empties the root for a whole stream. What an earlier run of the same stream has done.
    fn begin(self, act: Act, header: &Header) -> Result<(Recorded, Before), Fault> {
        let root = match self.root {
            Some(root) => root,
            None => create(&self.path)?,
        };
        // What is being replaced can no longer be begun from.
        let record = self.record.filter(|_| act == Act::Apply);
        let (held, earlier) = record.map_or((None, None), |record| (record.held, record.receiving));
        let earlier = earlier.and_then(|run| run.directory);
        let before = before(earlier.as_ref());
        let progress = match earlier {
            Some(progress) => progress,
            None => Progress { modified: root.meta()?.modified, plan: None },
        };
        let receiving = Receiving::of(header, root.birth()?);
        let mut run = Recorded { path: self.path, records: self.records, root, receiving, held, progress };
        run.say()?;
        if act != Act::Apply {
            run.root.clear()?;
        }
        Ok((run, before))
    }
}

fn left(held: Option<&HeldState>) -> Left {
    held.map_or(Left::default(), |held| Left { missing: held.lacks, unset: held.unset })
}

/// It is the directory that the record is of. Of one that holds a state the times tell the rest.
fn is_of(record: &Record, now: &Evidence, birth: &Birth) -> bool {
    let fits = record.receiving.as_ref().is_none_or(|run| run.birth.fits(birth));
    fits && matches!((&record.seen, now), (Evidence::File(before), Evidence::File(now)) if before.inode == now.inode)
}

fn create(path: &Path) -> Result<Dir, Fault> {
    let made_meanwhile = || Fault::new(Class::Busy, "another run made the target just now").hint("try again");
    let mut root = Dir::make_root(path).map_err(|fault| if path.exists() { made_meanwhile() } else { fault })?;
    root.lock()?;
    if root.is_empty()? { Ok(root) } else { Err(made_meanwhile()) }
}

/// How far the run has come that was broken off.
fn before(earlier: Option<&Progress>) -> Before {
    match earlier {
        None => Before::Nothing,
        Some(Progress { plan: Some(_), .. }) => Before::Placing,
        Some(Progress { plan: None, .. }) => Before::Going,
    }
}

/// A run that is on record.
pub struct Recorded {
    path: PathBuf,
    root: Dir,
    records: RecordFile,
    receiving: Receiving,
    held: Option<HeldState>,
    progress: Progress,
}

impl Recorded {
    fn say(&self) -> Result<(), Fault> {
        let run = Receiving { directory: Some(self.progress.clone()), ..self.receiving.clone() };
        self.records.say_receiving(None, self.root.evidence()?, run, self.held.clone())
    }
}

impl Run for Recorded {
    fn root(&self) -> Result<Dir, Fault> {
        self.root.again()
    }

    fn modified(&self) -> Time {
        self.progress.modified
    }

    fn left(&self) -> Left {
        left(self.held.as_ref())
    }

    fn all_gone(&mut self, plan: Digest) -> Result<(), Fault> {
        match self.progress.plan {
            Some(before) if before == plan => Ok(()),
            Some(_) => Err(another_way()),
            None => {
                self.progress.plan = Some(plan);
                self.say()
            }
        }
    }

    fn spoil(&mut self) -> Result<(), Fault> {
        self.receiving.to = None;
        self.say()
    }

    /// The record says what the directory holds.
    fn commit(self, header: &Header, ending: Ending, left: Left) -> Result<Option<Marked>, Fault> {
        let is = self.root.meta()?;
        if !self.path.metadata().is_ok_and(|meta| (meta.ino(), meta.dev()) == (is.inode, is.device)) {
            return Err(Fault::new(Class::Vanished, "the target was removed or replaced while it was written"));
        }
        let held = HeldState::of(header, ending.to, ending.digest, 0);
        let held = held.map(|held| HeldState { lacks: left.missing, unset: left.unset, ..held });
        let seen = self.root.evidence()?;
        seen.let_clock_tick();
        self.records.say_held(None, seen, held).map(|()| None)
    }
}
