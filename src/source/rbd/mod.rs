//! A snapshot of a Ceph RBD image: whole, or what changed since an earlier one.

mod extents;
mod resume;
mod shape;
mod window;
mod witness;

use std::sync::Arc;

use extents::{Extents, Search, Way};
use shape::Shape;
use window::Window;
use witness::Witness;

use crate::flow::{Ending, Source};
use crate::format::{Change, Header, Id, Image as ImageHeader, Names};
use crate::host::ceph::{Access, Found, Image, Marks, Snapshot, Spec, feature, flag};
use crate::source::resumed;
use crate::state::{Class, Fault, RESUME, State, StateList, rbd_source, rbd_state};

/// Reads in flight unless told otherwise: on a link of 2 ms more bring no more, and their buffers are 12 MiB at most.
pub const DEFAULT_JOBS: usize = 64;

/// How far object maps are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Not at all: every object is asked.
    Nothing,
    /// For which objects there are, which is all that a whole stream needs. Not for what changed: after a roll-back the maps
    /// are those of the snapshot that was gone back to, and call clean what differs from a later one (librbd 16.2.15:
    /// snapshots a, b; write; snapshot c; roll back to b; snapshot d. From c to d nothing changed, by the maps).
    #[default]
    Existence,
    /// For what changed, too.
    Changes,
}

/// How an RBD snapshot is to be sent.
#[derive(Clone, Debug)]
pub struct RbdOptions {
    /// Name of the snapshot to begin from, or the token of a checkpoint; `None`: the whole image.
    pub from: Option<String>,
    /// Most reads in flight.
    pub jobs: usize,
    /// How far object maps are believed.
    pub trust: Trust,
}

/// An RBD snapshot as a source.
pub struct Rbd {
    /// What is sent.
    pub changes: Box<dyn Source>,
    /// What the user should know but need not act on.
    pub note: Option<String>,
}

/// What was chosen to be sent.
struct Chosen {
    found: Found,
    marks: Marks,
    spec: Spec,
    to: Snapshot,
    jobs: usize,
    trust: Trust,
}

/// What changed between two snapshots, in a range of the image; or all that there is.
struct Between {
    header: Header,
    image: ImageHeader,
    /// `None`: all was said.
    window: Option<Window>,
    witness: Witness,
    chosen: Arc<Chosen>,
}

/// What identifies a snapshot: as it was received, where it is a mark; else as itself.
struct Known {
    source: Id,
    state: Id,
}

impl Rbd {
    /// Connects, chooses the states, and begins to search for what differs.
    pub fn open(access: &Access, spec: &Spec, options: &RbdOptions) -> Result<Rbd, Fault> {
        let to_name = spec.snapshot.as_deref().ok_or_else(|| {
            Fault::new(Class::Usage, format!("{spec} without a snapshot is the live image, which changes while it is read"))
                .hint(format!("name a snapshot: {spec}@SNAP; `rbd snap create {spec}@SNAP` makes one"))
        })?;
        let (found, head) = Found::open(access, spec)?;
        let marks = Marks::load(&head)?;
        let to = chosen(&marks.snapshots, to_name, spec)?.clone();
        let RbdOptions { jobs, trust, .. } = *options;
        let chosen = Arc::new(Chosen { found, marks, spec: spec.clone(), to, jobs, trust });
        if let Some(token) = options.from.as_deref().filter(|from| from.starts_with(RESUME)) {
            let (changes, note) = resumed::open(chosen, token)?;
            return Ok(Rbd { changes, note: Some(note) });
        }
        let from = options.from.as_deref().map(|name| chosen.base(name)).transpose()?;
        let (between, note) = Between::open(&chosen, from, (0, chosen.to.size))?;
        Ok(Rbd { changes: Box::new(between), note })
    }

    /// The states of an image that can be sent: its user snapshots, oldest first. One that is a mark is in the list twice: by
    /// its name as what it was received as, and with an `@` before its name as itself.
    pub fn states(access: &Access, spec: &Spec) -> Result<StateList, Fault> {
        if spec.snapshot.is_some() {
            return Err(Fault::new(Class::Usage, format!("{spec} is one state; an image has states"))
                .hint(format!("--states {}", spec.image_name())));
        }
        let (found, head) = Found::open(access, spec)?;
        let marks = Marks::load(&head)?;
        let mut list = StateList::default();
        for snapshot in marks.snapshots.iter().filter(|snapshot| snapshot.is_users) {
            let seconds = head.seconds(snapshot.id)?;
            let line = |known: &Known, name| State { id: known.state, seconds, bytes: snapshot.size, name };
            let (known, itself) = (Known::new(&found, &marks, snapshot), Known::itself(&found, snapshot));
            let name = snapshot.name.as_bytes();
            if itself.state != known.state {
                list.states.push(line(&itself, [b"@", name].concat()));
            }
            list.states.push(line(&known, name.to_vec()));
        }
        Ok(list)
    }
}

/// A snapshot to begin from, and the id that it goes by.
#[derive(Clone)]
struct Base {
    snapshot: Snapshot,
    state: Id,
}

impl Chosen {
    /// The snapshot of this name; behind an `@`, as itself.
    fn base(&self, name: &str) -> Result<Base, Fault> {
        let snapshot = chosen(&self.marks.snapshots, name.strip_prefix('@').unwrap_or(name), &self.spec)?.clone();
        let known = match name.starts_with('@') {
            true => Known::itself(&self.found, &snapshot),
            false => Known::new(&self.found, &self.marks, &snapshot),
        };
        Ok(Base { snapshot, state: known.state })
    }

    /// The user's snapshot that goes by this id.
    fn of_state(&self, state: Id) -> Option<Base> {
        let snapshots = self.marks.snapshots.iter().filter(|snapshot| snapshot.is_users);
        let is = |snapshot: &&Snapshot| {
            Known::new(&self.found, &self.marks, snapshot).state == state || Known::itself(&self.found, snapshot).state == state
        };
        snapshots.rev().find(is).map(|snapshot| Base { snapshot: snapshot.clone(), state })
    }

    /// Whose state becomes whose.
    fn header(&self, from: Option<Id>, from_name: &[u8]) -> Header {
        let known = Known::new(&self.found, &self.marks, &self.to);
        let names =
            Names { source: self.spec.image_name().into_bytes(), from: from_name.to_vec(), to: self.to.name.as_bytes().to_vec() };
        Header::new(known.source, from, Some(known.state), names)
    }

    /// How what differs is found; and what the user should know of that.
    fn way(&self, from: Option<&Snapshot>, overlap: u64) -> Result<(Way, Option<String>), Fault> {
        let to = &self.to;
        Ok(match from {
            Some(from) if from.id == to.id => (Way::Nowhere, None),
            // librbd 16.2 aborts when it is asked for the changed objects of an image without any.
            _ if to.size == 0 => (Way::Nowhere, None),
            // The maps of a clone know nothing of its parent, and the parent's may be wrong where nobody looked.
            None if overlap > 0 => (Way::Everywhere, None),
            None if self.trust == Trust::Nothing => (Way::Everywhere, None),
            Some(_) if self.trust != Trust::Changes => (Way::Everywhere, None),
            _ => match distrusted(&self.found, &self.marks.snapshots, from.map_or(0, |from| from.id), to.id)? {
                None => (Way::Maps, None),
                Some(why) => (Way::Everywhere, Some(format!("{why}: every object is asked, which takes longer"))),
            },
        })
    }
}

impl Between {
    /// What differs in a range, in bytes; and what the user should know.
    fn open(chosen: &Arc<Chosen>, from: Option<Base>, range: (u64, u64)) -> Result<(Between, Option<String>), Fault> {
        let to = &chosen.to;
        let since = from.as_ref().map(|base| &base.snapshot);
        if let Some(from) = since.filter(|from| from.id > to.id) {
            let (from, to) = (from.name.to_string_lossy(), to.name.to_string_lossy());
            return Err(Fault::new(Class::WrongBase, format!("the snapshot to begin from, {from}, is newer than {to}"))
                .hint("an increment leads forward only"));
        }
        let found = &chosen.found;
        let head = Image::open_by_id(&found.pool, &found.image_id)?;
        let (image, witness, from_name) = Witness::look(head, &found.pool, to.id, since.map(|from| from.id))?;
        let (overlap, layout) = (image.overlap()?, image.layout()?);
        let header = chosen.header(from.as_ref().map(|base| base.state), since.map_or(b"", |from| from.name.as_bytes()));
        let described = ImageHeader::new(since.map_or(0, |from| from.size), to.size);
        let (way, note) = chosen.way(since, overlap)?;
        let image = Arc::new(image);
        let shape = Shape { grain: described.grain.into(), size: to.size, overlap };
        let extents = Extents::start(Search { image: image.clone(), from: from_name, layout, way, shape, range })?;
        let window = Some(Window::new(image, extents, chosen.jobs, header.is_whole()));
        Ok((Between { header, image: described, window, witness, chosen: chosen.clone() }, note))
    }
}

impl Known {
    fn new(found: &Found, marks: &Marks, snapshot: &Snapshot) -> Known {
        let marked = marks.mark(snapshot).map(|marked| marked.mark);
        marked.map_or_else(|| Known::itself(found, snapshot), |mark| Known { source: mark.source, state: mark.state })
    }

    /// A snapshot as itself, whatever it was received as.
    fn itself(found: &Found, snapshot: &Snapshot) -> Known {
        Known { source: rbd_source(found.identity()), state: rbd_state(found.identity(), snapshot.id) }
    }
}

/// The user snapshot of this name.
fn chosen<'a>(snapshots: &'a [Snapshot], name: &str, spec: &Spec) -> Result<&'a Snapshot, Fault> {
    let mut named = snapshots.iter().filter(|snapshot| snapshot.name.as_bytes() == name.as_bytes());
    if let Some(snapshot) = named.clone().find(|snapshot| snapshot.is_users) {
        return Ok(snapshot);
    }
    let image = spec.image_name();
    Err(match named.next() {
        Some(_) => Fault::new(
            Class::Unsupported,
            format!("snapshot {name} belongs to a group, to mirroring or to the trash, not to the user"),
        )
        .hint(format!("`rbd snap ls --all {image}` shows whose it is; `rbd snap create` makes a plain one")),
        None => Fault::new(Class::NotFound, format!("no snapshot {name}")).hint(format!("`rbd snap ls {image}` lists them")),
    })
}

/// Why the object maps of the interval are no help even to who trusts them; `None` when all of them are fine.
///
/// Older librbd look at the first snapshot's flags only, so each is looked at here. And librbd (16.2.15 at least) loses
/// removals by the maps when the image was smaller at a snapshot in between: what was cut off there and is a hole in the
/// to-state is not reported.
fn distrusted(found: &Found, snapshots: &[Snapshot], from: u64, to: u64) -> Result<Option<String>, Fault> {
    let mut image = Image::open_by_id(&found.pool, &found.image_id)?;
    if image.features()? & feature::FAST_DIFF == 0 {
        return Ok(Some("the image has no fast-diff".to_owned()));
    }
    let mut size = 0;
    for snapshot in snapshots.iter().filter(|snapshot| (from..=to).contains(&snapshot.id)) {
        if snapshot.size < size {
            let name = snapshot.name.to_string_lossy();
            return Ok(Some(format!("the image was shrunk before snapshot {name}")));
        }
        size = snapshot.size;
        image = image.at(snapshot.id)?;
        if image.flags()? & (flag::OBJECT_MAP_INVALID | flag::FAST_DIFF_INVALID) != 0 {
            let name = snapshot.name.to_string_lossy();
            return Ok(Some(format!("the object map of snapshot {name} is marked as invalid")));
        }
    }
    Ok(None)
}

impl Source for Between {
    fn header(&self) -> &Header {
        &self.header
    }

    fn object(&self) -> &ImageHeader {
        &self.image
    }

    fn change(&mut self) -> Result<Option<Change>, Fault> {
        let change = self.window.as_mut().map_or(Ok(None), Window::change)?;
        if change.is_none() {
            self.window = None;
        }
        Ok(change)
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        self.witness.confirm(&self.chosen.found.pool, &self.chosen.found.image_id)?;
        Ok(Ending { to: self.header.to, digest: None })
    }
}
