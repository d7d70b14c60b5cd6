//! What must be the same before the first read and after the last.
//!
//! librbd answers success and zeros for a snapshot or an image that was removed: a read-only handle is told of nothing, and
//! a missing object reads as zeros. No look at a single answer can tell. But ids are never used again, so what is still
//! there in the end was there all along. Removal moves a snapshot out of the user's namespace before anything else is
//! undone, so that is looked at, too.

use std::ffi::CString;
use std::sync::Arc;

use crate::host::ceph::{Cluster, Image, Parent, Pool, Snapshot, feature};
use crate::state::{Class, Fault};

/// Generations of clones that are followed; librbd's own limit is 16.
const GENERATIONS: usize = 64;

/// An image and its two states, as they were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Witness {
    features: u64,
    to: Kept,
    from: Option<Kept>,
    /// Parents, grandparents … of the to-state, nearest first.
    parents: Vec<(Parent, Kept)>,
}

/// What a snapshot is known by: not its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    id: u64,
    size: u64,
    is_users: bool,
}

impl Witness {
    /// Looks at an image that was just opened, at its head; gives it back at the to-state, with what the from-state is called by
    /// this very handle: names can have changed hands since it was chosen.
    pub fn look(image: Image, pool: &Arc<Pool>, to: u64, from: Option<u64>) -> Result<(Image, Witness, Option<CString>), Fault> {
        let snapshots = image.snapshots()?;
        let name = |id| snapshots.iter().find(|snapshot| Some(snapshot.id) == id).map(|snapshot| snapshot.name.clone());
        let from_name = name(from);
        let features = image.features()?;
        let (to, from) = (kept(&snapshots, to)?, from.map(|from| kept(&snapshots, from)).transpose()?);
        let image = image.at(to.id)?;
        let parents = parents(&image, pool.cluster())?;
        Ok((image, Witness { features, to, from, parents }, from_name))
    }

    /// Looks at the image of that id afresh, and is content only with what it saw first.
    pub fn confirm(&self, pool: &Arc<Pool>, image_id: &str) -> Result<(), Fault> {
        let from = self.from.map(|from| from.id);
        let again = Image::open_by_id(pool, image_id).and_then(|image| Witness::look(image, pool, self.to.id, from));
        let (_, again, _) = again.map_err(|fault| match fault.class {
            Class::NotFound => vanished(&format!("the image, a snapshot or a parent is gone: {}", fault.what)),
            _ => fault,
        })?;
        if again == *self {
            return Ok(());
        }
        if again.features & feature::MIGRATING != self.features & feature::MIGRATING {
            return Err(vanished("the image is being migrated"));
        }
        if again.to != self.to || again.from != self.from {
            return Err(vanished("a snapshot was removed"));
        }
        Err(Fault::new(Class::Changed, "the image's features or parents changed while it was read")
            .hint("features were switched, or a clone was flattened; run the same command again"))
    }
}

fn vanished(what: &str) -> Fault {
    Fault::new(Class::Vanished, format!("{what}, while it was read"))
        .hint("what was sent is incomplete and was not sealed; snapshots that are being sent must be kept")
}

fn kept(snapshots: &[Snapshot], id: u64) -> Result<Kept, Fault> {
    let found = snapshots.iter().find(|snapshot| snapshot.id == id);
    let gone = || Fault::new(Class::NotFound, format!("no snapshot number {id}"));
    found.map(|snapshot| Kept { id, size: snapshot.size, is_users: snapshot.is_users }).ok_or_else(gone)
}

fn parents(image: &Image, cluster: &Arc<Cluster>) -> Result<Vec<(Parent, Kept)>, Fault> {
    let mut parents = Vec::new();
    let mut next = image.parent()?;
    while let Some(parent) = next {
        if parents.len() == GENERATIONS {
            return Err(Fault::new(Class::Unsupported, format!("a clone of more than {GENERATIONS} generations")));
        }
        let pool = Pool::open_by_id(cluster, parent.pool, &parent.namespace)?;
        let image = Image::open_by_id(&pool, &parent.image_id)?;
        // A parent's snapshot may go to the trash meanwhile; as long as it has children it is kept there.
        let kept = Kept { is_users: true, ..kept(&image.snapshots()?, parent.snapshot)? };
        let image = image.at(parent.snapshot)?;
        next = image.parent()?;
        parents.push((parent, kept));
    }
    Ok(parents)
}
