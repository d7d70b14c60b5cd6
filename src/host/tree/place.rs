//! What kind of file system a tree lies on, and how it is mounted.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FsWord, StatVfsMountFlags, StatxFlags, fstatfs, fstatvfs, statx};

use super::Dir;
use crate::format::Name;
use crate::state::Fault;

/// Numbers that statfs(2) gives: of the kernel's CephFS client, FUSE, and ZFS.
const CEPH: i128 = 0x00c3_6400;
const FUSE: i128 = 0x6573_5546;
const ZFS: i128 = 0x2fc1_2fc1;

/// What ZFS calls the way to its snapshots, in the root of a dataset; and the inode number which it gives to nothing else
/// (ZFSCTL_INO_ROOT).
const CONTROL: &[u8] = b".zfs";
const CONTROL_INODE: u64 = 0xffff_ffff_ffff;

/// A file system that matters to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// CephFS by the kernel's client.
    CephKernel,
    /// CephFS by ceph-fuse.
    CephFuse,
    /// A ZFS dataset.
    Zfs,
    /// Any other.
    Other,
}

impl FileSystem {
    /// CephFS by either client.
    pub fn is_ceph(self) -> bool {
        matches!(self, FileSystem::CephKernel | FileSystem::CephFuse)
    }
}

/// Where a directory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of which kind the file system is.
    pub file_system: FileSystem,
    /// Reading leaves access times alone (`noatime`; a dataset with `atime=off`).
    pub is_noatime: bool,
    /// Reading sets access times at times only (`relatime`).
    pub is_relatime: bool,
    /// Mounted read-only.
    pub is_read_only: bool,
}

impl Place {
    /// Asks for the place of an open directory.
    pub fn of(directory: &Dir) -> Result<Place, Fault> {
        let failed = |error| directory.failed("asking for the file system of", None, error);
        let kind = fstatfs(directory).map_err(failed)?.f_type;
        let flags = fstatvfs(directory).map_err(failed)?.f_flag;
        Ok(Place {
            file_system: file_system(kind, || mounted_as(directory)),
            is_noatime: flags.contains(StatVfsMountFlags::NOATIME),
            is_relatime: flags.contains(StatVfsMountFlags::RELATIME),
            is_read_only: flags.contains(StatVfsMountFlags::RDONLY),
        })
    }
}

fn file_system(kind: FsWord, mounted_as: impl FnOnce() -> Option<String>) -> FileSystem {
    match i128::from(kind) {
        CEPH => FileSystem::CephKernel,
        ZFS => FileSystem::Zfs,
        FUSE if mounted_as().is_some_and(|name| name == "fuse.ceph-fuse" || name == "fuse.ceph") => FileSystem::CephFuse,
        _ => FileSystem::Other,
    }
}

/// syncfs(2) ends in the kernel on FUSE: what serves the file system (ceph-fuse, sshfs) is told by fsync(2) only, and only then
/// says that it lost a write.
fn is_served(kind: FsWord) -> bool {
    i128::from(kind) == FUSE
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// As the list of mounts calls it: a device, a dataset.
    pub source: String,
    /// From its root on; else it is a directory in it that is mounted here, too.
    pub is_whole: bool,
}

impl Dir {
    /// What is mounted here. (Since Linux 5.8; before: not known.)
    pub fn mounted_from(&self) -> Option<Mounted> {
        mount_of(self).map(|Mount { mounted, .. }| mounted)
    }

    /// Making the whole file system durable reaches the kernel's part of it alone.
    pub fn is_served(&self) -> Result<bool, Fault> {
        let found = fstatfs(self).map_err(|error| self.failed("asking for the file system of", None, error))?;
        Ok(is_served(found.f_type))
    }

    /// The directory by which ZFS shows snapshots, if it is here, listed or not. It is no content, and what is made or removed
    /// in there are snapshots.
    pub fn control(&self) -> Result<Option<Name>, Fault> {
        let Some(name) = Name::new(CONTROL) else { return Ok(None) };
        let found = self.look(&name)?.filter(|meta| self.is_control(CONTROL, meta.inode));
        Ok(found.map(|_| name))
    }

    /// What is listed here by this name and number is that directory.
    pub(super) fn is_control(&self, name: &[u8], inode: u64) -> bool {
        let is_zfs = || fstatfs(self).is_ok_and(|found| i128::from(found.f_type) == ZFS);
        name == CONTROL && inode == CONTROL_INODE && is_zfs()
    }
}

/// The file system's name in the list of mounts.
fn mounted_as(directory: &Dir) -> Option<String> {
    mount_of(directory).map(|mount| mount.file_system)
}

/// A line of the list of mounts.
struct Mount {
    file_system: String,
    mounted: Mounted,
}

fn mount_of(directory: &Dir) -> Option<Mount> {
    let found = statx(directory.as_fd(), "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    let mounts = std::fs::read("/proc/self/mountinfo").ok()?;
    (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then(|| mount(&mounts, found.stx_mnt_id))?
}

/// proc_pid_mountinfo(5): the mount's number is the first field, and the directory that it shows is the fourth; behind a lone `-`
/// are the file system's name and what is mounted.
fn mount(mounts: &[u8], number: u64) -> Option<Mount> {
    let mounts = String::from_utf8_lossy(mounts);
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(number.to_string().as_str()))?;
    let is_whole = line.split(' ').nth(3) == Some("/");
    let mut behind = line.split(' ').skip_while(|field| *field != "-").skip(1);
    let (file_system, source) = (behind.next()?.to_owned(), behind.next()?.replace(r"\040", " "));
    Some(Mount { file_system, mounted: Mounted { source, is_whole } })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/a rw\n\
        122 22 0:45 / /mnt/ceph\\040fs rw,nosuid shared:2 master:1 - fuse.ceph-fuse ceph-fuse rw,allow_other\n\
        123 22 0:46 / /mnt/x\xff rw - fuse.sshfs - rw\n\
        124 22 0:47 / /tank/a\\040b rw shared:3 - zfs tank/a\\040b rw\n\
        125 22 0:47 /sub /mnt/sub rw shared:3 - zfs tank/a\\040b rw\n";

    #[test]
    fn ceph_is_told_from_other_fuse_file_systems() {
        let fuse = FsWord::try_from(FUSE).unwrap();
        for (number, wanted) in
            [(122, FileSystem::CephFuse), (123, FileSystem::Other), (22, FileSystem::Other), (2, FileSystem::Other)]
        {
            assert_eq!(file_system(fuse, || mount(MOUNTS, number).map(|mount| mount.file_system)), wanted, "{number}");
        }
        let never = || panic!("only FUSE says no more than that");
        assert_eq!(file_system(FsWord::try_from(CEPH).unwrap(), never), FileSystem::CephKernel);
        assert_eq!(file_system(FsWord::try_from(ZFS).unwrap(), never), FileSystem::Zfs);
        assert_eq!(file_system(0xef53, never), FileSystem::Other);
    }

    #[test]
    fn where_a_program_serves_the_file_system_each_file_is_made_durable() {
        assert!(is_served(FsWord::try_from(FUSE).unwrap()));
        for kind in [CEPH, ZFS, 0xef53] {
            assert!(!is_served(FsWord::try_from(kind).unwrap()));
        }
        assert!(!Dir::root(std::path::Path::new("/proc")).unwrap().is_served().unwrap());
    }

    #[test]
    fn a_directory_that_is_mounted_elsewhere_is_told_from_all_of_a_file_system() {
        let mounted = |number| mount(MOUNTS, number).map(|mount| mount.mounted);
        let wanted = |is_whole| Some(Mounted { source: "tank/a b".to_owned(), is_whole });
        assert_eq!([mounted(124), mounted(125), mounted(126)], [wanted(true), wanted(false), None]);
    }

    #[test]
    fn a_file_system_of_this_machine_is_found_among_the_mounts() {
        // Everywhere; the root of a chroot need not be a mount.
        let proc = Dir::root(std::path::Path::new("/proc")).unwrap();
        assert!(mounted_as(&proc).is_some_and(|name| !name.is_empty()));
    }
}
