//! Extended attributes: those that belong to the user's data, and no others.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, getxattr, lgetxattr, listxattr, llistxattr, lremovexattr,
    lsetxattr, removexattr, setxattr,
};
use rustix::io::Errno;

/// Values by full names.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The POSIX ACLs: who may, and what new entries of a directory get.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// Bytes that nearly every list and value fits.
const USUAL: usize = 2048;
/// XATTR_LIST_MAX and XATTR_SIZE_MAX of Linux, in bytes.
const MOST: usize = 64 << 10;
/// How often an attribute may grow while it is being read.
const ATTEMPTS: u32 = 4;

/// As what XFS shows the POSIX ACLs once more to whoever may see `trusted.`: to remove one of these removes the ACL.
const ACLS_OF_XFS: &[u8] = b"trusted.SGI_ACL_";
/// Labels that a kernel with SELinux or Smack gives to all that is made, and lets nobody take away.
const LABELS: [&[u8]; 2] = [b"security.selinux", b"security.SMACK64"];

/// It is read and written: `user.`, `trusted.`, `security.` and the two POSIX ACLs. What else there is belongs to the file
/// system (`ceph.`, other `system.`), and setting it would reach beyond the entry.
pub fn is_carried(name: &[u8]) -> bool {
    let spaces = [b"user.".as_slice(), b"trusted.", b"security."];
    is_acl(name) || spaces.iter().any(|space| name.starts_with(space)) && !name.starts_with(ACLS_OF_XFS)
}

/// Where a stream has none, that of the target stays.
pub(super) fn is_label(name: &[u8]) -> bool {
    LABELS.iter().any(|label| name.starts_with(label))
}

/// One of the two POSIX ACLs.
pub(super) fn is_acl(name: &[u8]) -> bool {
    ACLS.contains(&name)
}

/// Whose attributes: never a path with more than one name that is not ours.
#[derive(Clone, Copy)]
pub(super) enum At<'a> {
    /// `/proc/self/fd/DIRECTORY/NAME`; the name is not followed.
    Entry(&'a [u8]),
    /// `/proc/self/fd/N`; followed, to the thing that is held, and to nothing else.
    Held(&'a [u8]),
    /// An open file or directory. What is only held (`O_PATH`) these calls refuse.
    Open(BorrowedFd<'a>),
}

impl At<'_> {
    fn list(self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            At::Entry(path) => llistxattr(path, buffer),
            At::Held(path) => listxattr(path, buffer),
            At::Open(fd) => flistxattr(fd, buffer),
        }
    }

    fn get(self, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            At::Entry(path) => lgetxattr(path, name, buffer),
            At::Held(path) => getxattr(path, name, buffer),
            At::Open(fd) => fgetxattr(fd, name, buffer),
        }
    }

    pub fn set(self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        match self {
            At::Entry(path) => lsetxattr(path, name, value, XattrFlags::empty()),
            At::Held(path) => setxattr(path, name, value, XattrFlags::empty()),
            At::Open(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
        }
    }

    pub fn remove(self, name: &[u8]) -> Result<(), Errno> {
        match self {
            At::Entry(path) => lremovexattr(path, name),
            At::Held(path) => removexattr(path, name),
            At::Open(fd) => fremovexattr(fd, name),
        }
    }
}

/// All that are carried. A file system without any has none; one that goes while we read is left out.
pub(super) fn read(at: At<'_>) -> Result<Xattrs, Errno> {
    let list = match fitting(|buffer| at.list(buffer)) {
        Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
        list => list?,
    };
    let mut found = Xattrs::new();
    for name in list.split(|byte| *byte == 0).filter(|name| is_carried(name)) {
        match fitting(|buffer| at.get(name, buffer)) {
            Ok(value) => {
                found.insert(name.to_vec(), value);
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// What a call fills a buffer with, which is as large as it has to be.
fn fitting(mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; USUAL];
    match call(&mut small) {
        Ok(len) => return Ok(small.get(..len).unwrap_or_default().to_vec()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    let mut large = vec![0; MOST];
    for _ in 1..ATTEMPTS {
        match call(&mut large) {
            Err(Errno::RANGE) => {}
            len => {
                large.truncate(len?);
                return Ok(large);
            }
        }
    }
    Err(Errno::RANGE)
}
