//! What is hashed into an id, for each system: the normative table of extent-stream(5), "IDENTITIES".
//!
//! Names and times are never part of an id: a renamed image is the same image, a snapshot made anew under an old name is
//! another one. `tests/vectors/identities.tsv` holds a vector for each function.

use crate::format::{Digest, Id, Time};

/// What makes an RBD image this one.
#[derive(Clone, Copy, Debug)]
pub struct RbdImage<'a> {
    /// The cluster's fsid, lower-case text as `ceph fsid` prints it.
    pub fsid: &'a str,
    /// Number of the pool that holds the image's header.
    pub pool: u64,
    /// Namespace in the pool; empty for the default one.
    pub namespace: &'a str,
    /// The image's id, as `rbd info` prints it. It survives renaming, not copying.
    pub image_id: &'a str,
}

/// An RBD image.
pub fn rbd_source(image: RbdImage<'_>) -> Id {
    rbd("rbd-image", image, &[])
}

/// A snapshot of an RBD image. Snapshot ids are never used again in a pool.
pub fn rbd_state(image: RbdImage<'_>, snapshot_id: u64) -> Id {
    rbd("rbd-snapshot", image, &[&snapshot_id.to_le_bytes()])
}

fn rbd(kind: &str, image: RbdImage<'_>, more: &[&[u8]]) -> Id {
    let pool = image.pool.to_le_bytes();
    let parts = [image.fsid.as_bytes(), &pool, image.namespace.as_bytes(), image.image_id.as_bytes()];
    Id::derive(kind, &[&parts, more].concat())
}

/// A ZFS guid, as `zfs get guid` prints it. A snapshot's survives send, receive, rename and promote.
pub type ZfsGuid = u64;

/// A ZFS volume or file system.
pub fn zfs_source(dataset: ZfsGuid) -> Id {
    Id::derive("zfs-dataset", &[&dataset.to_le_bytes()])
}

/// A ZFS snapshot.
pub fn zfs_state(snapshot: ZfsGuid) -> Id {
    Id::derive("zfs-snapshot", &[&snapshot.to_le_bytes()])
}

/// An LVM logical volume: UUIDs of the group and the volume as `lvs` prints them.
pub fn lvm_source(group_uuid: &str, volume_uuid: &str) -> Id {
    Id::derive("lvm-volume", &[group_uuid.as_bytes(), volume_uuid.as_bytes()])
}

/// An LVM thin snapshot: the volume that it is, and its pool's transaction id when it was made.
pub fn lvm_state(group_uuid: &str, volume_uuid: &str, transaction: u64) -> Id {
    Id::derive("lvm-snapshot", &[group_uuid.as_bytes(), volume_uuid.as_bytes(), &transaction.to_le_bytes()])
}

/// Any image file or plain device: it has no identity but its content, so all are of one source.
pub fn file_source() -> Id {
    Id::derive("file", &[])
}

/// The content of an image file or plain device, by its content root.
pub fn file_state(root: Digest) -> Id {
    Id::derive("file-content", &[&root.0])
}

/// A directory on CephFS: the cluster's fsid as text, and its inode number of 48 bits.
pub fn cephfs_source(fsid: &str, inode: u64) -> Id {
    Id::derive("cephfs-directory", &[fsid.as_bytes(), &inode.to_le_bytes()])
}

/// A directory on CephFS as it was in a snapshot: by when that was taken, to the nanosecond, by the clock of the client that
/// took it. A mount does not tell the snapshot's number.
pub fn cephfs_state(fsid: &str, inode: u64, taken: Time) -> Id {
    let time = [&taken.seconds.cast_unsigned().to_le_bytes()[..], &taken.nanoseconds.to_le_bytes()].concat();
    Id::derive("cephfs-snapshot", &[fsid.as_bytes(), &inode.to_le_bytes(), &time])
}

/// Any directory tree: like a file it has no identity but its content, so all are of one source.
pub fn tree_source() -> Id {
    Id::derive("tree", &[])
}

/// The content of a directory tree, by its root: tree-stream(5), "TREE ROOT".
pub fn tree_state(root: Digest) -> Id {
    Id::derive("tree-content", &[&root.0])
}
