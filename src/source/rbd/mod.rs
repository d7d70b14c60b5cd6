//! A snapshot of a Ceph RBD image: whole, or what changed since an earlier one.

mod extents;
mod shape;
mod spec;
mod window;
mod witness;

use std::sync::Arc;

use extents::{Extents, Search, Way};
use shape::Shape;
pub use spec::Spec;
use window::Window;
use witness::Witness;

use crate::flow::{Ending, Source};
use crate::format::{Change, Header, Id, Image as ImageHeader, Names};
use crate::host::ceph::{Access, Cluster, Image, Pool, Snapshot, feature, flag};
use crate::state::{Class, Fault, RbdImage, State, StateList, rbd_source, rbd_state};

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
    /// Name of the snapshot to begin from; `None`: the whole image.
    pub from: Option<String>,
    /// Most reads in flight.
    pub jobs: usize,
    /// How far object maps are believed.
    pub trust: Trust,
}

/// An RBD snapshot as a source.
pub struct Rbd {
    header: Header,
    image: ImageHeader,
    window: Window,
    opened: Opened,
    witness: Witness,
    note: Option<String>,
}

/// An image that was found, before a state of it was chosen.
struct Opened {
    pool: Arc<Pool>,
    fsid: String,
    pool_id: u64,
    namespace: String,
    image_id: String,
}

impl Rbd {
    /// Connects, chooses the states, and begins to search for what differs.
    pub fn open(access: &Access, spec: &Spec, options: &RbdOptions) -> Result<Rbd, Fault> {
        let to_name = spec.snapshot.as_deref().ok_or_else(|| {
            Fault::new(Class::Usage, format!("{spec} without a snapshot is the live image, which changes while it is read"))
                .hint(format!("name a snapshot: {spec}@SNAP; `rbd snap create {spec}@SNAP` makes one"))
        })?;
        let (opened, head) = Opened::find(access, spec)?;
        let snapshots = head.snapshots()?;
        let to = chosen(&snapshots, to_name, spec)?;
        let from = options.from.as_deref().map(|name| chosen(&snapshots, name, spec)).transpose()?;
        if let Some(from) = from.filter(|from| from.id > to.id) {
            let name = from.name.to_string_lossy();
            return Err(Fault::new(Class::WrongBase, format!("the snapshot to begin from, {name}, is newer than {to_name}"))
                .hint("an increment leads forward only"));
        }
        let (image, witness) = Witness::look(head, &opened.pool, to.id, from.map(|from| from.id))?;
        let (overlap, layout) = (image.overlap()?, image.layout()?);

        let source = rbd_source(opened.identity());
        let state = |snapshot: &Snapshot| rbd_state(opened.identity(), snapshot.id);
        let name = |snapshot: &Snapshot| snapshot.name.as_bytes().to_vec();
        let names = Names { source: spec.image_name().into_bytes(), from: from.map(name).unwrap_or_default(), to: name(to) };
        let header = Header::new(source, from.map(state), Some(state(to)), names);
        let described = ImageHeader::new(from.map_or(0, |from| from.size), to.size);

        let (way, note) = match from {
            Some(from) if from.id == to.id => (Way::Nowhere, None),
            // librbd 16.2 aborts when it is asked for the changed objects of an image without any.
            _ if to.size == 0 => (Way::Nowhere, None),
            // The maps of a clone know nothing of its parent, and the parent's may be wrong where nobody looked.
            None if overlap > 0 => (Way::Everywhere, None),
            None if options.trust == Trust::Nothing => (Way::Everywhere, None),
            Some(_) if options.trust != Trust::Changes => (Way::Everywhere, None),
            _ => match distrusted(&opened, &snapshots, from.map_or(0, |from| from.id), to.id)? {
                None => (Way::Maps, None),
                Some(why) => (Way::Everywhere, Some(format!("{why}: every object is asked, which takes longer"))),
            },
        };
        let image = Arc::new(image);
        let shape = Shape { grain: described.grain.into(), size: to.size, overlap };
        let from = from.map(|from| from.name.clone());
        let extents = Extents::start(Search { image: image.clone(), from, layout, way, shape })?;
        let window = Window::new(image, extents, options.jobs, header.is_whole());
        Ok(Rbd { header, image: described, window, opened, witness, note })
    }

    /// The states of an image that can be sent: its user snapshots, oldest first.
    pub fn states(access: &Access, spec: &Spec) -> Result<StateList, Fault> {
        if spec.snapshot.is_some() {
            return Err(Fault::new(Class::Usage, format!("{spec} is one state; an image has states"))
                .hint(format!("--states {}", spec.image_name())));
        }
        let (opened, head) = Opened::find(access, spec)?;
        let states = head.snapshots()?.into_iter().filter(|snapshot| snapshot.is_users).map(|snapshot| {
            Ok(State {
                id: rbd_state(opened.identity(), snapshot.id),
                seconds: head.seconds(snapshot.id)?,
                bytes: snapshot.size,
                name: snapshot.name.into_bytes(),
            })
        });
        Ok(StateList { states: states.collect::<Result<_, Fault>>()? })
    }

    /// What the user should know but need not act on.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}

impl Opened {
    fn find(access: &Access, spec: &Spec) -> Result<(Opened, Image), Fault> {
        let cluster = Cluster::connect(access)?;
        let pool = Pool::open(&cluster, &spec.pool, &spec.namespace)?;
        let head = Image::open(&pool, &spec.image).map_err(|fault| match (fault.class, pool.in_trash(&spec.image)) {
            (Class::NotFound, Some(id)) => Fault::new(Class::Unsupported, "the image is in the trash")
                .hint(format!("`rbd trash restore {}/{id}` brings it back", spec.pool)),
            (Class::NotFound, None) => fault.hint(format!("`rbd ls {}` lists the images", spec.pool)),
            _ => fault,
        })?;
        let features = head.features()?;
        if features & feature::MIGRATING != 0 {
            return Err(Fault::new(Class::Unsupported, "the image is being migrated: its ids and snapshots are about to change")
                .hint("`rbd migration commit` or `rbd migration abort` ends the migration"));
        }
        if features & feature::NON_PRIMARY != 0 {
            return Err(Fault::new(
                Class::Unsupported,
                "the image is a mirror's receiving end, where snapshots appear before their content has arrived",
            )
            .hint("read it on the primary cluster, or promote it"));
        }
        let pool_id = u64::try_from(pool.id()).map_err(|_| Fault::new(Class::Io, "the pool has no number"))?;
        let (fsid, image_id) = (cluster.fsid()?, head.id()?);
        Ok((Opened { pool, fsid, pool_id, namespace: spec.namespace.clone(), image_id }, head))
    }

    fn identity(&self) -> RbdImage<'_> {
        RbdImage { fsid: &self.fsid, pool: self.pool_id, namespace: &self.namespace, image_id: &self.image_id }
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
fn distrusted(opened: &Opened, snapshots: &[Snapshot], from: u64, to: u64) -> Result<Option<String>, Fault> {
    let mut image = Image::open_by_id(&opened.pool, &opened.image_id)?;
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

impl Source for Rbd {
    fn header(&self) -> &Header {
        &self.header
    }

    fn image(&self) -> &ImageHeader {
        &self.image
    }

    fn change(&mut self) -> Result<Option<Change>, Fault> {
        self.window.change()
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        self.witness.confirm(&self.opened.pool, &self.opened.image_id)?;
        let to: Option<Id> = self.header.to;
        Ok(Ending { to, digest: None })
    }
}
