//! A snapshot of a ZFS volume: whole, or since an earlier one, by `zfs send`.

mod extents;
mod resume;

use std::io::{BufReader, Read};

use self::extents::Extents;
use crate::flow::{Ending, Source};
use crate::foreign::zfs_send::{Error, Records};
use crate::format::{Change, Header, Id, Image, Names, wire};
use crate::host::command::Running;
use crate::host::zfs::{self, Dataset, Snapshot};
use crate::source::resumed;
use crate::state::{Class, Fault, RESUME, State, StateList, ZfsGuid, zfs_source, zfs_state};

/// Bytes of `zfs send`'s output that are read at once.
const READ_AHEAD: usize = 256 << 10;
/// The smallest block that a volume can have, in bytes: what a saved stream's extents are multiples of, whatever it is of.
const SMALLEST_BLOCK: u32 = 512;

/// A volume's snapshot as a source.
pub struct Zvol {
    /// What is sent.
    pub changes: Box<dyn Source>,
    /// What the user should know but need not act on.
    pub note: Option<String>,
}

/// What changed between two snapshots of a volume; or all that there is.
struct Between {
    header: Header,
    image: Image,
    /// `None`: both states are the same.
    extents: Option<Extents<Box<dyn Read>>>,
    live: Option<Live>,
    /// The old size was taken for the new one, because nothing tells it.
    old_size_assumed: bool,
    /// What begins here or behind it, in bytes, is not asked for.
    until: u64,
}

/// A volume that is being read; a saved stream has none.
struct Live {
    /// `None`: there was nothing to send.
    running: Option<Running>,
    dataset: String,
    /// The snapshots that must still be there at the end: name and guid.
    relied_on: Vec<(String, ZfsGuid)>,
}

/// What a saved stream does not say. Sizes are those of images, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct SavedSizes {
    /// Of the state that it leads to.
    pub new: u64,
    /// Of the state that it begins from; `None`: the same, if the stream says nothing of another.
    pub old: Option<u64>,
}

/// What identifies a snapshot: as it was received, where it is a mark; else as itself.
struct Known {
    source: Id,
    state: Id,
    /// Exact size of the image in bytes.
    size: u64,
}

/// What an increment begins from.
struct Base {
    /// The full name for `zfs send -i`.
    full: String,
    name: String,
    state: Id,
    /// `None`: a bookmark does not tell.
    size: Option<u64>,
    createtxg: u64,
    guid: ZfsGuid,
    /// A bookmark is not needed any more once `zfs send` has begun.
    is_bookmark: bool,
}

impl Zvol {
    /// A snapshot, `POOL/VOLUME@SNAPSHOT`; `from`: only what changed since this earlier snapshot, or `#BOOKMARK`, or what the
    /// token of a checkpoint says.
    pub fn open(full: &str, from: Option<&str>) -> Result<Zvol, Fault> {
        let (name, snapshot) = full.split_once('@').ok_or_else(|| {
            Fault::new(Class::Usage, "name a snapshot as POOL/VOLUME@SNAPSHOT").hint("--states lists those that there are")
        })?;
        let dataset = volume(name)?;
        if let Some(token) = from.filter(|from| from.starts_with(RESUME)) {
            let to = find(&dataset, snapshot)?.clone();
            let (changes, note) = resumed::open(resume::Chosen { dataset, to }, token)?;
            return Ok(Zvol { changes, note: Some(note) });
        }
        let from = from.map(|from| base(&dataset, from)).transpose()?;
        Ok(Zvol { changes: Box::new(Between::open(&dataset, find(&dataset, snapshot)?, from, u64::MAX)?), note: None })
    }

    /// A saved `zfs send` stream. It does not say which volume it is of: its source is the volume with the guid 0.
    pub fn saved(input: Box<dyn Read>, sizes: SavedSizes) -> Result<Zvol, Fault> {
        Ok(Zvol { changes: Box::new(Between::saved(input, sizes)?), note: None })
    }

    /// All snapshots of a volume. One that is a mark is in the list twice: by its name as what it was received as, and with an
    /// `@` before its name as itself.
    pub fn states(name: &str) -> Result<StateList, Fault> {
        if name.contains('@') {
            return Err(Fault::new(Class::Usage, "--states takes a volume, not a snapshot"));
        }
        let dataset = volume(name)?;
        let mut list = StateList::default();
        for snapshot in &dataset.snapshots {
            let known = known(&dataset, snapshot)?;
            let line = |known: &Known, name: String| State {
                id: known.state,
                seconds: snapshot.creation,
                bytes: known.size,
                name: name.into_bytes(),
            };
            let itself = itself(&dataset, snapshot)?;
            if itself.state != known.state {
                list.states.push(line(&itself, format!("@{}", snapshot.name)));
            }
            list.states.push(line(&known, snapshot.name.clone()));
        }
        Ok(list)
    }
}

impl Between {
    /// What comes before `until`, in bytes.
    fn open(dataset: &Dataset, to: &Snapshot, base: Option<Base>, until: u64) -> Result<Between, Fault> {
        let (name, snapshot) = (dataset.name.as_str(), to.name.as_str());
        let full = format!("{name}@{snapshot}");
        let known = known(dataset, to)?;
        if let Some(base) = &base
            && base.createtxg > to.createtxg
        {
            return Err(Fault::new(Class::WrongBase, format!("{} is not older than {snapshot}", base.name)));
        }
        let names = Names {
            source: name.as_bytes().to_vec(),
            from: base.as_ref().map(|base| base.name.clone().into_bytes()).unwrap_or_default(),
            to: snapshot.as_bytes().to_vec(),
        };
        let header = Header::new(known.source, base.as_ref().map(|base| base.state), Some(known.state), names);
        // Snapshots are told apart by their guids: a mark can go by another id, and two marks by one.
        let (running, extents) = if base.as_ref().is_some_and(|base| base.guid == to.guid) {
            (None, None)
        } else {
            let (running, output) = zfs::send(base.as_ref().map(|base| base.full.as_str()), &full)?;
            let input: Box<dyn Read> = Box::new(BufReader::with_capacity(READ_AHEAD, output));
            match Records::open(input) {
                Ok(records) => {
                    let begin = records.begin();
                    if (begin.to_guid, begin.from_guid) != (to.guid, base.as_ref().map(|base| base.guid)) {
                        return Err(Fault::new(Class::Changed, "the snapshots were renamed meanwhile").hint("try again"));
                    }
                    (Some(running), Some(Extents::new(records, known.size, header.is_whole())))
                }
                Err(error) => return Err(explained(Some(running), &error)),
            }
        };
        let old_size = base.as_ref().map_or(0, |base| base.size.unwrap_or(known.size));
        let image = described(dataset, old_size, known.size);
        let old_size_assumed = base.as_ref().is_some_and(|base| base.size.is_none());
        let mut relied_on = vec![(snapshot.to_owned(), to.guid)];
        relied_on.extend(base.filter(|base| !base.is_bookmark).map(|base| (base.name, base.guid)));
        let live = Some(Live { running, dataset: name.to_owned(), relied_on });
        Ok(Between { header, image, extents, live, old_size_assumed, until })
    }

    fn saved(input: Box<dyn Read>, sizes: SavedSizes) -> Result<Between, Fault> {
        let records = Records::open(input).map_err(|error| failed(&error))?;
        let begin = records.begin();
        let (source, to) = begin.to_name.split_at(begin.to_name.iter().position(|byte| *byte == b'@').unwrap_or(0));
        let names = Names { source: source.to_vec(), from: Vec::new(), to: to.get(1..).unwrap_or_default().to_vec() };
        let header = Header::new(zfs_source(0), begin.from_guid.map(zfs_state), Some(zfs_state(begin.to_guid)), names);
        let old_size = if header.is_whole() { 0 } else { sizes.old.unwrap_or(sizes.new) };
        let image = Image { grain: SMALLEST_BLOCK, ..Image::new(old_size, sizes.new) };
        let old_size_assumed = !header.is_whole() && sizes.old.is_none();
        let extents = Extents::new(records, sizes.new, header.is_whole());
        Ok(Between { header, image, extents: Some(extents), live: None, old_size_assumed, until: u64::MAX })
    }
}

impl Source for Between {
    fn header(&self) -> &Header {
        &self.header
    }

    fn object(&self) -> &Image {
        &self.image
    }

    fn change(&mut self) -> Result<Option<Change>, Fault> {
        let Some(extents) = &mut self.extents else { return Ok(None) };
        match extents.change() {
            Ok(Some(change)) if change.offset() >= self.until => {
                // Without a reader it ends.
                self.extents = None;
                self.live.iter_mut().for_each(|live| live.running = None);
                Ok(None)
            }
            Ok(change) => Ok(change),
            Err(error) => {
                self.extents = None;
                Err(explained(self.live.take().and_then(|live| live.running), &error))
            }
        }
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        if self.old_size_assumed && self.extents.as_ref().is_some_and(Extents::resized) {
            return Err(Fault::new(Class::Unsupported, "the volume was resized, and nothing says what size it had before")
                .hint("--old-size says it; or --from a snapshot, not a bookmark; or send the state whole"));
        }
        let Some(Live { running, dataset, relied_on }) = self.live.take() else {
            return Ok(Ending { to: self.header.to, digest: None });
        };
        running.map_or(Ok(()), Running::finish)?;
        let now = volume(&dataset)?;
        for (name, guid) in &relied_on {
            if !now.snapshots.iter().any(|snapshot| snapshot.guid == *guid) {
                return Err(Fault::new(Class::Vanished, format!("the snapshot {name} was destroyed while it was read")));
            }
        }
        Ok(Ending { to: self.header.to, digest: None })
    }
}

/// An image of a volume, by its sizes in bytes.
fn described(dataset: &Dataset, old_size: u64, new_size: u64) -> Image {
    let grain = u64::from(wire::DEFAULT_GRAIN).min(dataset.volblocksize.max(1));
    Image { grain: u32::try_from(grain).unwrap_or(1), ..Image::new(old_size, new_size) }
}

fn volume(name: &str) -> Result<Dataset, Fault> {
    let dataset = Dataset::open(name)?;
    match dataset.volsize {
        Some(_) => Ok(dataset),
        None => Err(Fault::new(Class::Unsupported, format!("{name} is a file system, not a volume"))),
    }
}

fn find<'a>(dataset: &'a Dataset, snapshot: &str) -> Result<&'a Snapshot, Fault> {
    dataset.snapshots.iter().find(|known| known.name == snapshot).ok_or_else(|| {
        Fault::new(Class::NotFound, format!("{} has no snapshot {snapshot}", dataset.name))
            .hint("--states lists those that there are")
    })
}

fn known(dataset: &Dataset, snapshot: &Snapshot) -> Result<Known, Fault> {
    if let Some(mark) = dataset.mark(snapshot) {
        return Ok(Known { source: mark.source, state: mark.state, size: mark.size });
    }
    itself(dataset, snapshot)
}

/// A snapshot as itself, whatever it was received as.
fn itself(dataset: &Dataset, snapshot: &Snapshot) -> Result<Known, Fault> {
    let size =
        snapshot.volsize.ok_or_else(|| Fault::new(Class::Io, format!("zfs does not say the size of {}", snapshot.name)))?;
    Ok(Known { source: zfs_source(dataset.guid), state: zfs_state(snapshot.guid), size })
}

fn base(dataset: &Dataset, from: &str) -> Result<Base, Fault> {
    if let Some(name) = from.strip_prefix('#') {
        let full = format!("{}#{name}", dataset.name);
        let (guid, createtxg) = zfs::bookmark(&full)?;
        return Ok(Base { full, name: name.to_owned(), state: zfs_state(guid), size: None, createtxg, guid, is_bookmark: true });
    }
    let (snapshot, known) = match from.strip_prefix('@') {
        Some(name) => find(dataset, name).and_then(|snapshot| Ok((snapshot, itself(dataset, snapshot)?)))?,
        None => find(dataset, from).and_then(|snapshot| Ok((snapshot, known(dataset, snapshot)?)))?,
    };
    Ok(Base {
        full: format!("{}@{}", dataset.name, snapshot.name),
        name: snapshot.name.clone(),
        state: known.state,
        size: Some(known.size),
        createtxg: snapshot.createtxg,
        guid: snapshot.guid,
        is_bookmark: false,
    })
}

/// What `zfs send` itself says of its failure explains more than a stream that ends early.
fn explained(running: Option<Running>, error: &Error) -> Fault {
    match (error, running.and_then(|running| running.finish().err())) {
        (Error::Truncated | Error::Io(_), Some(said)) => said,
        _ => failed(error),
    }
}

fn failed(error: &Error) -> Fault {
    let class = match error {
        Error::Unsupported(_) => Class::Unsupported,
        Error::Io(_) => Class::Io,
        Error::Truncated | Error::Damaged(_) => Class::ForeignStream,
    };
    Fault::new(class, format!("reading zfs send: {error}"))
}
