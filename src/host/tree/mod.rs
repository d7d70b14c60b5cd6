//! Directory trees, as the only way in which they are read and written.
//!
//! Somebody who may write inside a tree must not lead us out of it: not by a symbolic link, not by swapping a directory for one
//! at the right moment, not by a mount. Each operation is therefore given a directory that is held open and *one* name in it,
//! never a path with slashes. Such a name is looked up once, in the very directory that we hold, so there is nothing on the way
//! that could be swapped; what remains is that the name itself is something else than it was. Operation by operation:
//!
//! - **Going in, opening, creating files** ([`Dir::open`], [`Dir::open_file`], [`Dir::open_to_write`], [`Dir::make_file`]):
//!   openat2(2) with `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`, `RESOLVE_NO_MAGICLINKS`, `RESOLVE_NO_XDEV` and `O_NOFOLLOW`. The
//!   kernel refuses a link and a mount, however late they were put there. Where the call does not exist that is an error; there
//!   is no other way in.
//! - **Existing files** are first held without being opened (`O_PATH`), looked at, and opened by `/proc/self/fd/N`, which is the
//!   same inode. A pipe is never waited on, and no device is woken.
//! - **Attributes** are set in the same way: the entry is held, and every call goes to what is held (`AT_EMPTY_PATH`, or
//!   `/proc/self/fd/N` where a call has no such flag), or by the descriptor to what is open anyway. A held symbolic link is itself;
//!   nobody follows it.
//! - **Making** directories, symbolic links, nodes and hard links ([`Dir::make_dir`], [`Dir::make_symlink`], [`Dir::make_node`],
//!   [`Dir::link`]): the kernel makes a new name in the held directory or says that it is taken, and does not look through a
//!   link that takes it. `linkat` without `AT_SYMLINK_FOLLOW` links to a link.
//! - **Renaming and removing** ([`Dir::rename`], [`Dir::remove`], [`Dir::remove_dir`], [`Dir::remove_all`]): `renameat2` and
//!   `unlinkat` never follow the last name, which is the only one; a mount point is busy. `remove_all` goes in as above.
//! - **Looking** ([`Dir::look`], [`Dir::read_link`], [`Dir::xattrs`]): `AT_SYMLINK_NOFOLLOW`, `readlinkat`, and the `l` calls for
//!   extended attributes at `/proc/self/fd/DIRECTORY/NAME`: the kernel goes to the held directory and does not follow the name.
//!
//! What this cannot know: a directory that was inside when it was opened, and is moved out while it is held, goes on being
//! written to. And a hard link to a file elsewhere on the same file system is an entry like any other;
//! `fs.protected_hardlinks` (1 nearly everywhere) lets nobody make one to a file that is not theirs.

mod attributes;
mod ceph;
mod dir;
mod make;
mod meta;
mod pin;
mod place;
mod remove;
mod root;
mod xattrs;

pub use attributes::{Attribute, Unset, set_file_attributes};
pub use ceph::{SNAPSHOTS, ceph_inode};
pub use dir::{Dir, file_xattrs};
pub use meta::{Kind, Meta};
pub use place::{FileSystem, Mounted, Place};
pub use xattrs::{Xattrs, is_carried};

#[cfg(test)]
mod tests;
