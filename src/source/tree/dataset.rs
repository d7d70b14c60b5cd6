//! A snapshot of a ZFS file system: whole, or since an earlier one.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::plan::Plan;
use super::seen::{Identity, TreeIdentity};
use super::side::Side;
use super::since::{Compared, Since};
use super::told::Told;
use super::walk::Walk;
use crate::flow::{Ending, Source};
use crate::format::{Header, Id, Names, Time, Tree, TreeChange};
use crate::host::tree::{Dir, FileSystem, Place};
use crate::host::zfs::{self, Dataset, Snapshot};
use crate::host::{command, limits};
use crate::state::{Class, Fault, State, StateList, ZfsGuid, zfs_source, zfs_state};

/// Seconds after which a dirty page was written back for certain: Linux does it after 30 (vm.dirty_expire_centisecs), with patience
/// for a slow pool.
const WRITTEN_BACK: i64 = 600;

/// A snapshot of a ZFS file system as a source.
pub struct DatasetTree {
    header: Header,
    tree: Tree,
    walk: Walk,
    dataset: String,
    /// The snapshots that must still be there at the end.
    relied_on: Vec<ZfsGuid>,
    /// What the user should know but need not act on.
    pub note: Option<String>,
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetWish {
    /// The file system's name.
    pub dataset: String,
    /// The snapshot to begin from; with an `@` before it as itself, whatever it was received as. `None`: from nothing.
    pub from: Option<String>,
    /// The snapshot to send.
    pub to: String,
}

/// What identifies a snapshot: as it was received, where it is a mark; else as itself.
struct Known {
    source: Id,
    state: Id,
}

impl DatasetWish {
    /// `POOL/NAME@SNAPSHOT`, and where to begin.
    pub fn new(full: &str, from: Option<&str>) -> Result<DatasetWish, Fault> {
        let (dataset, to) = full.split_once('@').ok_or_else(|| {
            Fault::new(Class::Usage, "name a snapshot as POOL/NAME@SNAPSHOT").hint("--states lists those that there are")
        })?;
        Ok(DatasetWish { dataset: dataset.to_owned(), from: from.map(str::to_owned), to: to.to_owned() })
    }

    /// What `zfs diff` is asked for by these words.
    pub fn of_command(words: &[OsString]) -> Result<DatasetWish, Fault> {
        let no = |why: &str| {
            Fault::new(Class::Usage, why).hint("zfs diff -FH POOL/NAME@OLD POOL/NAME@NEW; or say --from and --dataset, too")
        };
        let (program, words) = words.split_first().ok_or_else(|| no("a command is needed"))?;
        let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
        let is_diff = Path::new(program).file_name() == Some(OsStr::new("zfs")) && words.first() == Some(&"diff");
        let mut names = words.iter().skip(1).filter(|word| !word.starts_with('-'));
        match (is_diff, names.next(), names.next(), names.next()) {
            (true, Some(old), Some(new), None) => match (old.split_once('@'), new.split_once('@')) {
                (Some((dataset, from)), Some((same, to))) if same.is_empty() || dataset == same => {
                    Ok(DatasetWish { dataset: dataset.to_owned(), from: Some(from.to_owned()), to: to.to_owned() })
                }
                _ => Err(no("two snapshots of one file system are needed: what is live changes while it is read")),
            },
            _ => Err(no("of which snapshots this command speaks cannot be told")),
        }
    }
}

impl DatasetTree {
    /// Opens the snapshots. `lines`: a command that prints the lines of `zfs diff -FH` between the two; directories to which none
    /// leads are not looked at.
    pub fn open(wish: &DatasetWish, lines: Option<&[OsString]>) -> Result<DatasetTree, Fault> {
        limits::many_open_files();
        let dataset = file_system(&wish.dataset)?;
        let to = find(&dataset, &wish.to)?;
        let from = wish.from.as_deref().map(|from| find(&dataset, from.strip_prefix('@').unwrap_or(from))).transpose()?;
        if let Some(from) = from.filter(|from| from.createtxg > to.createtxg) {
            return Err(Fault::new(Class::WrongBase, format!("{} is not older than {}", from.name, to.name)));
        }
        let mount = mount(&dataset.name)?;
        let known_to = known(&dataset, to);
        let from_id = from.map(|from| match wish.from.as_deref() {
            Some(name) if name.starts_with('@') => zfs_state(from.guid),
            _ => known(&dataset, from).state,
        });
        let names = Names {
            source: dataset.name.clone().into_bytes(),
            from: from.map(|from| from.name.clone().into_bytes()).unwrap_or_default(),
            to: to.name.clone().into_bytes(),
        };
        let mut header = Header::new(known_to.source, from_id, Some(known_to.state), names);
        Tree::mark(&mut header);
        let side = open(&mount, to)?;
        let (since, note) = match from {
            None => (None, None),
            Some(from) => {
                let old = open(&mount, from)?;
                let told = lines.map(|command| told(command, &mount)).transpose()?;
                told.as_ref().map_or(Ok(()), |(told, _)| told.fits(&old, &side))?;
                let (since, note) = compared(old, from.creation, &side, told)?;
                (Some(since), note)
            }
        };
        let relied_on = std::iter::once(to).chain(from).map(|snapshot| snapshot.guid).collect();
        let walk = Walk::new(side, since, false);
        Ok(DatasetTree { header, tree: Tree::new(), walk, dataset: dataset.name, relied_on, note })
    }

    /// All snapshots of a file system. One that is a mark is in the list twice: by its name as what it was received as, and with
    /// an `@` before its name as itself.
    pub fn states(name: &str) -> Result<StateList, Fault> {
        if name.contains('@') {
            return Err(Fault::new(Class::Usage, "--states takes a file system, not a snapshot"));
        }
        let dataset = file_system(name)?;
        let mut list = StateList::default();
        for snapshot in &dataset.snapshots {
            // What a snapshot holds is not known without a walk.
            let line = |id, name: String| State { id, seconds: snapshot.creation, bytes: 0, name: name.into_bytes() };
            let (known, itself) = (known(&dataset, snapshot).state, zfs_state(snapshot.guid));
            if known != itself {
                list.states.push(line(itself, format!("@{}", snapshot.name)));
            }
            list.states.push(line(known, snapshot.name.clone()));
        }
        Ok(list)
    }
}

/// How the names of one snapshot (`taken` then) become those of another; and why all is walked over though there are lines.
fn compared(old: Side, taken: i64, new: &Side, told: Option<(Told, String)>) -> Result<(Since, Option<String>), Fault> {
    let roots = (old.root()?.meta, new.root()?.meta);
    // Each snapshot is mounted by itself, with the inode numbers of their file system. Only its root has one of its own there.
    let wanted = if roots.0.device == roots.1.device { TreeIdentity::Path } else { TreeIdentity::Inode };
    let identity = Identity::new(wanted, &roots.0, &roots.1);
    let (planned, note) = match told {
        None => (None, None),
        // zfs diff goes on with what it cannot find the path of, and exits with 0.
        Some((_, said)) if !said.is_empty() => (None, Some(said.replace('\n', "; "))),
        Some((mut told, _)) => match Plan::new(&old, new, &identity, &mut told)? {
            plan if plan.is_torn => (None, Some("not all names of a hard link are told".to_owned())),
            plan => (Some(plan), None),
        },
    };
    let plan = planned.map_or_else(|| Plan::new(&old, new, &identity, &mut ()), Ok)?;
    let note = note.map(|note| format!("{note}: walking over all, which takes longer"));
    // Two snapshots do not change, and ZFS sets the time of change by a clock of its own: but for a write to a mapped page when
    // the page becomes dirty. A snapshot in between has the time, and the next one the content.
    let settled = Time { seconds: taken.saturating_sub(WRITTEN_BACK), nanoseconds: 0 };
    let since = Since { side: old, identity, plan, content: Compared::BytesUnlessAsOld(Some(settled)), census: None };
    Ok((since, note))
}

/// What the lines lead to, and what was said beside them.
fn told(command: &[OsString], mount: &Path) -> Result<(Told, String), Fault> {
    let (program, arguments) = command.split_first().ok_or_else(|| Fault::new(Class::Usage, "a command is needed"))?;
    let program = program.to_str().ok_or_else(|| Fault::new(Class::Usage, "the command's name is no text"))?;
    let (running, output) = command::start(program, arguments)?;
    running.finish_heard(|| Told::read(output, mount.as_os_str().as_encoded_bytes()))
}

/// Where the file system is mounted. Another one that is mounted over it may have snapshots of the same names.
fn mount(name: &str) -> Result<PathBuf, Fault> {
    let path = zfs::mounted_at(name)?;
    let root = Dir::root(&path)?;
    match root.mounted_from() {
        Some(mounted) if mounted.source != name && Place::of(&root)?.file_system == FileSystem::Zfs => {
            Err(Fault::new(Class::Mounted, format!("{} is mounted at {}, over {name}", mounted.source, path.display()))
                .hint(format!("zfs get mountpoint {name} {}", mounted.source)))
        }
        Some(_) | None => Ok(path),
    }
}

fn file_system(name: &str) -> Result<Dataset, Fault> {
    let dataset = Dataset::open(name)?;
    match dataset.volsize {
        None => Ok(dataset),
        Some(_) => Err(Fault::new(Class::Unsupported, format!("{name} is a volume")).hint("zvol-diff-stream sends volumes")),
    }
}

fn find<'a>(dataset: &'a Dataset, name: &str) -> Result<&'a Snapshot, Fault> {
    dataset.snapshots.iter().find(|snapshot| snapshot.name == name).ok_or_else(|| {
        Fault::new(Class::NotFound, format!("{} has no snapshot {name}", dataset.name))
            .hint("--states lists those that there are")
    })
}

fn known(dataset: &Dataset, snapshot: &Snapshot) -> Known {
    match dataset.mark(snapshot) {
        Some(mark) => Known { source: mark.source, state: mark.state },
        None => Known { source: zfs_source(dataset.guid), state: zfs_state(snapshot.guid) },
    }
}

fn open(mount: &Path, snapshot: &Snapshot) -> Result<Side, Fault> {
    let path: PathBuf = [mount, Path::new(".zfs/snapshot"), Path::new(&snapshot.name)].iter().collect();
    Side::open(&path, false, false)
        .map_err(|fault| fault.hint("the file system has to be mounted, and the property snapdir must not be \"disabled\""))
}

impl Source<Tree> for DatasetTree {
    fn header(&self) -> &Header {
        &self.header
    }

    fn object(&self) -> &Tree {
        &self.tree
    }

    fn change(&mut self) -> Result<Option<TreeChange>, Fault> {
        self.walk.change()
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        self.walk.finish()?;
        let now = file_system(&self.dataset)?;
        mount(&now.name)?;
        match self.relied_on.iter().all(|guid| now.snapshots.iter().any(|snapshot| snapshot.guid == *guid)) {
            true => Ok(Ending { to: self.header.to, digest: None }),
            false => Err(Fault::new(Class::Vanished, "a snapshot was removed while it was read")),
        }
    }
}
