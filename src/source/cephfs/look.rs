//! What a thing on CephFS looks like: the same in every snapshot and by every client, as long as nobody changes it.

use crate::host::tree::{Kind, Meta, ceph_inode};
use crate::state::Look;

/// What a look at it tells. Of directories every client calls something else their size.
pub(super) fn look(meta: &Meta) -> Look {
    let mut hasher = blake3::Hasher::new();
    let size = if meta.kind == Kind::Directory { 0 } else { meta.size };
    let kind = match meta.kind {
        Kind::File => 1_u64,
        Kind::Directory => 2,
        Kind::Symlink => 3,
        Kind::Fifo => 4,
        Kind::Socket => 5,
        Kind::CharacterDevice => 6,
        Kind::BlockDevice => 7,
    };
    for number in [kind, meta.mode.into(), meta.uid.into(), meta.gid.into(), size] {
        hasher.update(&number.to_le_bytes());
    }
    for time in [meta.modified, meta.changed] {
        hasher.update(&time.seconds.to_le_bytes()).update(&time.nanoseconds.to_le_bytes());
    }
    let mut digest = [0; 8];
    hasher.finalize_xof().fill(&mut digest);
    Look { inode: ceph_inode(meta.inode), digest: u64::from_le_bytes(digest) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::format::Name;
    use crate::host::tree::Dir;

    #[test]
    fn a_look_tells_every_change() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "1").unwrap();
        let one = Dir::root(dir.path()).unwrap().look(&Name::new(b"f").unwrap()).unwrap().unwrap();
        let mut others = vec![one; 8];
        others[0].kind = Kind::Symlink;
        others[1].mode ^= 1;
        others[2].uid ^= 1;
        others[3].gid ^= 1;
        others[4].size ^= 1;
        others[5].modified.nanoseconds ^= 1;
        others[6].changed.seconds ^= 1;
        others[7].inode ^= 1;
        for other in others {
            assert_ne!(look(&one), look(&other), "{other:?}");
        }
        // As another client shows it in another snapshot.
        let same = Meta { inode: one.inode | 5 << 48, device: one.device ^ 1, ..one };
        assert_eq!(look(&one), look(&same));
        let directory = Meta { kind: Kind::Directory, ..one };
        assert_eq!(look(&directory), look(&Meta { size: 99, links: 7, ..directory }));
    }
}
