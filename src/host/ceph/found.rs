//! Finding an image by its name, and what is refused by name.

use std::sync::Arc;

use super::cluster::{Access, Cluster, Pool};
use super::image::{Image, feature};
use super::spec::Spec;
use crate::state::{Class, Fault, RbdImage};

/// What identifies an image that was found, and the pool that it is in.
pub struct Found {
    /// The pool, its namespace set.
    pub pool: Arc<Pool>,
    /// The image's id.
    pub image_id: String,
    fsid: String,
    pool_id: u64,
    namespace: String,
}

impl Found {
    /// Connects, and opens the image at its head for reading.
    pub fn open(access: &Access, spec: &Spec) -> Result<(Found, Image), Fault> {
        let cluster = Cluster::connect(access)?;
        let pool = Pool::open(&cluster, &spec.pool, &spec.namespace)?;
        let head = find(&pool, spec)?.ok_or_else(|| {
            Fault::new(Class::NotFound, "there is no such image").hint(format!("`rbd ls {}` lists the images", spec.pool))
        })?;
        let pool_id = u64::try_from(pool.id()).map_err(|_| Fault::new(Class::Io, "the pool has no number"))?;
        let (fsid, image_id) = (cluster.fsid()?, head.id()?);
        Ok((Found { pool, image_id, fsid, pool_id, namespace: spec.namespace.clone() }, head))
    }

    /// What its ids are made of.
    pub fn identity(&self) -> RbdImage<'_> {
        RbdImage { fsid: &self.fsid, pool: self.pool_id, namespace: &self.namespace, image_id: &self.image_id }
    }
}

/// The image at its head, for reading; `None` where there is none. One in the trash, on its way elsewhere or under a
/// mirror's hands is refused.
pub fn find(pool: &Arc<Pool>, spec: &Spec) -> Result<Option<Image>, Fault> {
    let image = match (Image::open(pool, &spec.image), pool.in_trash(&spec.image)) {
        (Err(fault), Some(id)) if fault.class == Class::NotFound => {
            return Err(Fault::new(Class::Unsupported, "the image is in the trash")
                .hint(format!("`rbd trash restore {}/{id}` brings it back", spec.pool)));
        }
        (Err(fault), None) if fault.class == Class::NotFound => return Ok(None),
        (opened, _) => opened?,
    };
    let features = image.features()?;
    if features & feature::MIGRATING != 0 {
        return Err(Fault::new(Class::Unsupported, "the image is being migrated: its ids and snapshots are about to change")
            .hint("`rbd migration commit` or `rbd migration abort` ends the migration"));
    }
    if features & feature::NON_PRIMARY != 0 {
        return Err(Fault::new(
            Class::Unsupported,
            "the image is a mirror's receiving end, where snapshots appear before their content has arrived",
        )
        .hint("use it on the primary cluster, or promote it"));
    }
    Ok(Some(image))
}
