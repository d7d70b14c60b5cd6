//! ZFS by its own programs: `zfs` and `zpool`, one call for one thing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ChildStdout;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::command::{self, Failed, Running};
use super::tree::Dir;
use crate::state::{Check, Checkpoint, Class, Fault, Mark, Pause, ZfsGuid};

/// User property of a snapshot: the [`crate::state::Mark`] that it is.
pub const MARK: &str = "siphon:mark";
/// User property of a volume: the [`crate::state::Run`] that has not ended.
pub const RECEIVING: &str = "siphon:receiving";
/// What the record of a run becomes where it is ended in one call with other settings.
pub const ENDED: &str = "-";
/// User property of a volume that we created: hide its device between runs.
pub const HIDDEN: &str = "siphon:hidden";
/// User property of a snapshot: the [`crate::state::Check`] that it is.
pub const CHECK: &str = "siphon:check";
/// Tag of the hold that moves on with the newest mark.
pub const HOLD: &str = "siphon";
/// Tag of holds that people asked for.
pub const KEEP: &str = "siphon-keep";

/// A dataset with what decides about it, as of one moment.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Full name.
    pub name: String,
    /// Its guid.
    pub guid: ZfsGuid,
    /// Size in bytes; `None` when it is no volume.
    pub volsize: Option<u64>,
    /// Block size in bytes; 0 when it is no volume.
    pub volblocksize: u64,
    /// How it shows itself, and whether that was set here.
    pub volmode: Setting,
    /// Whether it is read-only, and whether that was set here.
    pub readonly: Setting,
    /// Whether reading changes times of access, and whether that was set here. Of file systems.
    pub atime: Setting,
    /// Space that it refers to, in bytes, before compression.
    pub logical_referenced: u64,
    /// Space written since its newest snapshot, in bytes: what [`written_since`] says of that one.
    pub written: u64,
    /// Set on this very dataset, here: not inherited, not received; and not [`ENDED`].
    pub receiving: Option<String>,
    /// We made it, to be hidden between runs.
    pub hidden: bool,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
}

/// A property's value and whether it was set on this dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// The value in force.
    pub value: String,
    /// Set here, not by default, inheritance or receive.
    pub local: bool,
}

/// A snapshot of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The part after `@`.
    pub name: String,
    /// Its guid.
    pub guid: ZfsGuid,
    /// Transaction group in which it was made: the order of snapshots.
    pub createtxg: u64,
    /// When it was made, seconds since 1970 UTC.
    pub creation: i64,
    /// Size of the volume in bytes, as it was then.
    pub volsize: Option<u64>,
    /// Number of holds.
    pub holds: u64,
    /// Full names of the volumes cloned from it.
    pub clones: Vec<String>,
    /// Set on this very snapshot, here: not inherited, not received.
    pub mark: Option<String>,
    /// Set on this very snapshot, here.
    pub check: Option<String>,
}

/// The longest that is waited for a pool to give back what was destroyed.
const FREEING: Duration = Duration::from_secs(60);

const IS_IT_THERE: &str = "is the pool imported? is the name right?";

const PROPERTIES: &str = "guid,createtxg,creation,userrefs,clones,volsize,volblocksize,volmode,readonly,atime,logicalreferenced,written,siphon:mark,siphon:receiving,siphon:hidden,siphon:check";

impl Dataset {
    /// Looks a dataset up, with its snapshots; `None` when there is none of that name, but one that could hold it: a pool that
    /// is not imported is no new target.
    pub fn load(name: &str) -> Result<Option<Dataset>, Fault> {
        let found = Dataset::find(name)?;
        found.map_or_else(|| parent_exists(name).map(|()| None), |dataset| Ok(Some(dataset)))
    }

    /// The same for one that is made where there is none: then `zfs create` itself says that nothing could hold it.
    pub fn find(name: &str) -> Result<Option<Dataset>, Fault> {
        let Some(tables) = Tables::of(name)? else { return Ok(None) };
        let own = tables.get(name).ok_or_else(|| garbled(name))?;
        let mut snapshots: Vec<Snapshot> = tables
            .iter()
            .filter_map(|(of, table)| Some((of.strip_prefix(name)?.strip_prefix('@')?, table)))
            .map(|(snapshot, table)| snapshot_of(snapshot, table).ok_or_else(|| garbled(name)))
            .collect::<Result<_, _>>()?;
        snapshots.sort_by_key(|snapshot| snapshot.createtxg);
        Ok(Some(Dataset {
            name: name.to_owned(),
            guid: number(own, "guid").ok_or_else(|| garbled(name))?,
            volsize: number(own, "volsize"),
            volblocksize: number(own, "volblocksize").unwrap_or(0),
            volmode: own.get("volmode").cloned().unwrap_or_default(),
            readonly: own.get("readonly").cloned().unwrap_or_default(),
            atime: own.get("atime").cloned().unwrap_or_default(),
            logical_referenced: number(own, "logicalreferenced").unwrap_or(u64::MAX),
            written: number(own, "written").unwrap_or(u64::MAX),
            receiving: local(own, RECEIVING).filter(|run| run != ENDED),
            hidden: local(own, HIDDEN).is_some(),
            snapshots,
        }))
    }

    /// What a snapshot stands for, when its record was set on itself, here, and names this very dataset. A record that was
    /// inherited by a snapshot of others, came with `zfs send -R`, or was carried off by a clone's promotion, makes no mark.
    pub fn mark(&self, snapshot: &Snapshot) -> Option<Mark> {
        Mark::parse(snapshot.mark.as_deref()?).filter(|mark: &Mark| mark.home == self.guid)
    }

    /// What of an unfinished run a snapshot holds; believed as a mark is.
    pub fn pause(&self, snapshot: &Snapshot) -> Option<Checkpoint> {
        let pause: Pause = Pause::parse(snapshot.mark.as_deref()?)?;
        (pause.home == self.guid).then_some(pause.checkpoint)
    }

    /// Number of the run that a snapshot is the check of; believed as a mark is.
    pub fn check(&self, snapshot: &Snapshot) -> Option<u32> {
        Check::parse(snapshot.check.as_deref()?).filter(|check| check.home == self.guid).map(|check| check.run)
    }

    /// Looks at it again; another one that has its name by now is refused.
    pub fn again(&self) -> Result<Dataset, Fault> {
        let now = Dataset::open(&self.name)?;
        if now.guid == self.guid { Ok(now) } else { Err(renamed(&self.name)) }
    }

    /// Looks up a dataset that must exist.
    pub fn open(name: &str) -> Result<Dataset, Fault> {
        Dataset::load(name)?.ok_or_else(|| Fault::new(Class::NotFound, format!("there is no dataset {name}")))
    }
}

/// Somebody gave the name of a dataset to another one while we were at it.
pub fn renamed(name: &str) -> Fault {
    Fault::new(Class::Changed, format!("another dataset is called {name} by now")).hint("was it renamed while it was written to?")
}

/// What `zfs get` prints: of a dataset and its snapshots the properties.
///
/// It prints values as they are, and a user property may hold line breaks, and so whole lines that look like those of others.
/// Whoever may set properties of a dataset below this one must have no say here: hence never a word of children.
#[derive(Default)]
struct Tables(BTreeMap<String, BTreeMap<String, Setting>>);

impl Tables {
    /// `None`: there is no such dataset.
    fn of(name: &str) -> Result<Option<Tables>, Fault> {
        let Some(text) = ask(name, &["-d", "1", "-t", "volume,snapshot"])? else { return Ok(None) };
        // A volume itself comes first, and has no children.
        if text.split('\t').next() == Some(name) {
            return Tables::parse(name, &text).map(Some);
        }
        // Of a file system first what was written since the newest snapshot; then which that is.
        let Some(own) = ask(name, &["-t", "filesystem"])? else { return Ok(None) };
        let snapshots = ask(name, &["-d", "1", "-t", "snapshot"])?.unwrap_or_default();
        Tables::parse(name, &(own + &snapshots)).map(Some)
    }

    fn parse(name: &str, text: &str) -> Result<Tables, Fault> {
        let mut tables = Tables::default();
        for line in text.lines() {
            let mut columns = line.split('\t');
            if let (Some(of), Some(property), Some(value), Some(source)) =
                (columns.next(), columns.next(), columns.next(), columns.next())
            {
                let setting = Setting { value: value.to_owned(), local: source == "local" };
                // Nothing is said twice, unless by a value.
                if tables.0.entry(of.to_owned()).or_default().insert(property.to_owned(), setting).is_some() {
                    return Err(garbled(name));
                }
            }
        }
        Ok(tables)
    }

    fn get(&self, name: &str) -> Option<&BTreeMap<String, Setting>> {
        self.0.get(name)
    }

    fn iter(&self) -> impl Iterator<Item = (&String, &BTreeMap<String, Setting>)> {
        self.0.iter()
    }
}

/// `None`: there is nothing of that name.
fn ask(name: &str, of: &[&str]) -> Result<Option<String>, Fault> {
    let words = ["get", "-Hp"].into_iter().chain(of.iter().copied());
    match command::run("zfs", words.chain(["-o", "name,property,value,source", PROPERTIES, name]))? {
        Ok(text) => Ok(Some(text)),
        Err(failed) if is_absent(&failed) => Ok(None),
        Err(failed) => Err(fault(name, &failed)),
    }
}

/// A number for a run that no other run has: at random.
pub fn run_number() -> Result<u32, Fault> {
    let mut number = [0; 4];
    rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::empty())
        .map(|_| u32::from_le_bytes(number))
        .map_err(|error| Fault::io("no random number", &error.into()))
}

/// The device node of a volume.
pub fn node(name: &str) -> PathBuf {
    PathBuf::from("/dev/zvol").join(name)
}

fn number<T: std::str::FromStr>(table: &BTreeMap<String, Setting>, key: &str) -> Option<T> {
    table.get(key)?.value.parse().ok()
}

fn local(table: &BTreeMap<String, Setting>, key: &str) -> Option<String> {
    table.get(key).filter(|setting| setting.local).map(|setting| setting.value.clone())
}

fn clones_of(setting: &Setting) -> Vec<String> {
    setting.value.split(',').filter(|clone| !["", "-"].contains(clone)).map(str::to_owned).collect()
}

fn snapshot_of(name: &str, table: &BTreeMap<String, Setting>) -> Option<Snapshot> {
    Some(Snapshot {
        name: name.to_owned(),
        guid: number(table, "guid")?,
        createtxg: number(table, "createtxg")?,
        creation: number(table, "creation")?,
        volsize: number(table, "volsize"),
        holds: number(table, "userrefs").unwrap_or(0),
        clones: table.get("clones").map(clones_of).unwrap_or_default(),
        mark: local(table, MARK),
        check: local(table, CHECK),
    })
}

/// Creates a volume, sparse, of `size` bytes. `options` are further arguments of `zfs create`.
pub fn create_volume(name: &str, size: u64, options: &[String]) -> Result<(), Fault> {
    let size = size.to_string();
    let fixed = ["create", "-s", "-V", &size];
    zfs(name, fixed.into_iter().chain(options.iter().map(String::as_str)).chain([name])).map_err(hint_at_pool)
}

fn hint_at_pool(fault: Fault) -> Fault {
    if fault.class == Class::NotFound { fault.hint(IS_IT_THERE) } else { fault }
}

/// Creates a file system. `options` are further arguments of `zfs create`.
pub fn create_file_system(name: &str, options: &[String]) -> Result<(), Fault> {
    zfs(name, ["create"].into_iter().chain(options.iter().map(String::as_str)).chain([name])).map_err(hint_at_pool)
}

/// Where a file system is mounted.
pub fn mounted_at(name: &str) -> Result<PathBuf, Fault> {
    let text = command::run("zfs", ["mount"])?.map_err(|failed| fault(name, &failed))?;
    // A name, blanks, and a path, which may have blanks.
    let listed = text.lines().filter_map(|line| line.split_once(' ')).filter(|(of, _)| *of == name);
    // A directory in it that is mounted elsewhere, too, is listed in the same words.
    let is_part = |path: &PathBuf| {
        let mounted = Dir::root(path).ok().and_then(|dir| dir.mounted_from());
        mounted.is_some_and(|mounted| mounted.source == name && !mounted.is_whole)
    };
    listed.map(|(_, path)| PathBuf::from(path.trim_start())).find(|path| !is_part(path)).ok_or_else(|| {
        Fault::new(Class::NotFound, format!("the file system {name} is not mounted")).hint(format!("zfs mount {name}"))
    })
}

/// Sets properties, each a name and a value.
pub fn set(name: &str, properties: &[(&str, &str)]) -> Result<(), Fault> {
    let settings: Vec<String> = properties.iter().map(|(property, value)| format!("{property}={value}")).collect();
    zfs(name, ["set"].into_iter().chain(settings.iter().map(String::as_str)).chain([name]))
}

/// Makes a mounted file system read-only, or writable again.
pub fn set_read_only(name: &str, is_read_only: bool) -> Result<(), Fault> {
    let setting = if is_read_only { "readonly=on" } else { "readonly=off" };
    match command::run("zfs", ["set", setting, name])? {
        // Mounting is for root on Linux. The file system has taken it over; only its line in the list of mounts has not.
        Err(failed) if !failed.message.contains("unable to remount filesystem") => Err(fault(name, &failed)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Removes a property that was set here.
pub fn inherit(name: &str, property: &str) -> Result<(), Fault> {
    zfs(name, ["inherit", property, name])
}

/// Gives a property back the value that it was received with, or else inherits.
pub fn revert(name: &str, property: &str) -> Result<(), Fault> {
    zfs(name, ["inherit", "-S", property, name])
}

/// Takes a snapshot with a property set in the same act.
pub fn snapshot(name: &str, snapshot: &str, property: &str, value: &str) -> Result<(), Fault> {
    zfs(name, ["snapshot", "-o", &format!("{property}={value}"), &format!("{name}@{snapshot}")])
}

/// Renames a snapshot.
pub fn rename_snapshot(name: &str, from: &str, to: &str) -> Result<(), Fault> {
    zfs(name, ["rename", &format!("{name}@{from}"), &format!("{name}@{to}")])
}

/// Puts a hold on a snapshot; one of that tag that is there already is as good.
pub fn hold(tag: &str, name: &str, snapshot: &str) -> Result<(), Fault> {
    tolerate(["hold", tag], name, &[snapshot], "tag already exists")
}

/// Takes a hold from snapshots; none of that tag there is as good.
pub fn release(tag: &str, name: &str, snapshots: &[&str]) -> Result<(), Fault> {
    if snapshots.is_empty() { Ok(()) } else { tolerate(["release", tag], name, snapshots, "no such tag") }
}

fn tolerate(words: [&str; 2], name: &str, snapshots: &[&str], fine: &str) -> Result<(), Fault> {
    let full = snapshots.iter().map(|snapshot| format!("{name}@{snapshot}"));
    match command::run("zfs", words.map(str::to_owned).into_iter().chain(full))? {
        // One message for each snapshot.
        Err(failed) if !failed.message.split("; ").all(|said| said.contains(fine)) => Err(fault(name, &failed)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Goes back to a snapshot, above which there is none. (`zfs rollback -r` would destroy those one by one, and leave off at the
/// first that is held or being sent: with some gone, and nowhere gone back to.)
pub fn rollback(name: &str, snapshot: &str) -> Result<(), Fault> {
    zfs(name, ["rollback", &format!("{name}@{snapshot}")]).map_err(|fault| match fault.what.contains("more recent snapshots") {
        true => Fault { class: Class::ForeignSnapshot, ..fault }
            .hint(format!("`zfs list -t snapshot,bookmark -r -d 1 {name}` shows what others made meanwhile")),
        false => fault,
    })
}

/// Waits, for a while, until the pool of a dataset has given back what was destroyed: it does so in the background, over
/// several transaction groups, and until then a full pool is full.
pub fn wait_until_freed(name: &str) -> Result<(), Fault> {
    let pool = name.split('/').next().unwrap_or(name);
    let begin = Instant::now();
    while begin.elapsed() < FREEING {
        sync_pool(name)?;
        let left = command::run("zpool", ["get", "-Hpo", "value", "freeing", pool])?.map_err(|failed| fault(name, &failed))?;
        if left.trim() == "0" {
            // Freed blocks are used again two transaction groups later (TXG_DEFER_SIZE).
            return sync_pool(name).and_then(|()| sync_pool(name));
        }
        sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Writes out what the pool holds in memory: a write of another process counts in `written@` only after that.
pub fn sync_pool(name: &str) -> Result<(), Fault> {
    let pool = name.split('/').next().unwrap_or(name);
    command::run("zpool", ["sync", pool])?.map(drop).map_err(|failed| fault(name, &failed))
}

/// Bytes of space written since a snapshot, metadata included: 0 proves that nothing changed, more proves nothing.
pub fn written_since(name: &str, snapshot: &str) -> Result<u64, Fault> {
    property(name, &format!("written@{snapshot}"))
}

/// Bytes that a dataset may still take, quotas and reservations counted in.
pub fn available(name: &str) -> Result<u64, Fault> {
    property(name, "available")
}

fn property(name: &str, property: &str) -> Result<u64, Fault> {
    let text = command::run("zfs", ["get", "-Hp", "-o", "value", property, name])?.map_err(|failed| fault(name, &failed))?;
    text.trim().parse().map_err(|_| garbled(name))
}

/// Starts `zfs send` of a snapshot or (when nobody has it open) the live volume; whole, or since an earlier snapshot or bookmark.
/// All are full names.
pub fn send(since: Option<&str>, until: &str) -> Result<(Running, ChildStdout), Fault> {
    let since = since.map(|since| ["-i", since]);
    command::start("zfs", ["send"].into_iter().chain(since.into_iter().flatten()).chain([until]))
}

/// Guid of a bookmark's snapshot, and the transaction group in which that was made. Takes a full name, `POOL/VOLUME#BOOKMARK`.
pub fn bookmark(full: &str) -> Result<(ZfsGuid, u64), Fault> {
    Ok((property(full, "guid")?, property(full, "createtxg")?))
}

/// The tags of all holds on these snapshots of a dataset: a snapshot and a tag each.
pub fn holds(name: &str, snapshots: &[&str]) -> Result<Vec<(String, String)>, Fault> {
    if snapshots.is_empty() {
        return Ok(Vec::new());
    }
    let full = snapshots.iter().map(|snapshot| format!("{name}@{snapshot}"));
    let text = command::run("zfs", ["holds", "-H"].map(str::to_owned).into_iter().chain(full))?
        .map_err(|failed| fault(name, &failed))?;
    let hold = |line: &str| {
        let (of, rest) = line.split_once('\t')?;
        Some((of.strip_prefix(name)?.strip_prefix('@')?.to_owned(), rest.split('\t').next()?.to_owned()))
    };
    Ok(text.lines().filter_map(hold).collect())
}

/// Destroys one snapshot.
pub fn destroy_snapshot(name: &str, snapshot: &str) -> Result<(), Fault> {
    destroy_snapshots(name, &[snapshot])
}

/// Destroys snapshots: all of them, or none.
pub fn destroy_snapshots(name: &str, snapshots: &[&str]) -> Result<(), Fault> {
    if snapshots.is_empty() { Ok(()) } else { zfs(name, ["destroy", &format!("{name}@{}", snapshots.join(","))]) }
}

fn zfs<'a>(name: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<(), Fault> {
    command::run("zfs", arguments)?.map(drop).map_err(|failed| fault(name, &failed))
}

fn is_absent(failed: &Failed) -> bool {
    failed.message.contains("does not exist") || failed.message.contains("no such pool")
}

fn parent_exists(name: &str) -> Result<(), Fault> {
    let parent = name.rsplit_once('/').map_or(name, |(parent, _)| parent);
    command::run("zfs", ["list", "-H", "-o", "name", parent])?.map(drop).map_err(|failed| match is_absent(&failed) {
        true => Fault::new(Class::NotFound, format!("there is no dataset {parent} that could hold it")).hint(IS_IT_THERE),
        false => fault(parent, &failed),
    })
}

fn garbled(name: &str) -> Fault {
    Fault::new(Class::Io, format!("what zfs prints about {name} is not understood"))
}

/// The class of what zfs says. It has no exit codes for this, but has kept these words since 0.6.
fn fault(name: &str, failed: &Failed) -> Fault {
    let says = |words: &[&str]| words.iter().any(|word| failed.message.contains(word));
    let class = if says(&["permission denied", "Permission denied", "must be superuser"]) {
        Class::Permission
    } else if says(&["out of space", "No space left", "quota exceeded"]) {
        Class::NoSpace
    } else if says(&["does not exist", "no such pool", "could not find any snapshots"]) {
        Class::NotFound
    } else if says(&["already exists"]) {
        Class::Exists
    } else if says(&["dataset is busy", "pool is busy"]) {
        Class::Busy
    } else {
        Class::Io
    };
    let fault = Fault::new(class, failed.message.clone());
    if class == Class::Permission {
        fault.hint(format!("zfs allow lists what a user may do to {name}; siphon(7) has the set that is needed"))
    } else {
        fault
    }
}
