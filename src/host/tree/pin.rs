//! An entry that is held but not opened: whatever its name is swapped for, this stays what it is.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, ResolveFlags, accessat, chmodat, open, openat, openat2};
use rustix::io::Errno;
use rustix::path::DecInt;
use rustix::process::geteuid;

use super::{Kind, Meta, meta};
use crate::format::Name;

/// A directory below the root, and nothing that a link or a magic link of /proc leads to.
const BELOW: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// openat2 says EAGAIN when it cannot tell whether a rename let it out. Without `..` it should not; so this is plenty.
const ATTEMPTS: u32 = 16;

/// Held by `O_PATH`.
#[derive(Debug)]
pub(super) struct Pin {
    pub(super) fd: OwnedFd,
    pub(super) meta: Meta,
}

/// The only place where anything below the root is opened by its name.
pub(super) fn open_below(directory: impl AsFd, name: &[u8], flags: OFlags, mode: Mode, crossing: bool) -> Result<OwnedFd, Errno> {
    let resolve = if crossing { BELOW } else { BELOW | ResolveFlags::NO_XDEV };
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    patiently(|| openat2(&directory, name, flags, mode, resolve))
}

/// Directories are read without leaving a trace in their access times, where that is allowed.
pub(super) fn open_directory(directory: impl AsFd, name: &[u8], crossing: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    match open_below(&directory, name, flags | OFlags::NOATIME, Mode::empty(), crossing) {
        Err(Errno::PERM) => open_below(&directory, name, flags, Mode::empty(), crossing),
        opened => opened,
    }
}

fn patiently<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 1..ATTEMPTS {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    call()
}

/// The name of an open or held thing for calls that take a path only. The kernel does not look further than the thing itself.
pub(super) fn by_number(fd: BorrowedFd<'_>) -> Vec<u8> {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes()
}

/// `/proc/self/fd`, held: from here a thing is reached by its number alone, without the way through /proc each time.
fn numbers() -> Result<&'static OwnedFd, Errno> {
    static NUMBERS: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(held) = NUMBERS.get() {
        return Ok(held);
    }
    let held = open("/proc/self/fd", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(NUMBERS.get_or_init(|| held))
}

impl Pin {
    pub(super) fn take(directory: impl AsFd, name: &Name, crossing: bool) -> Result<Pin, Errno> {
        let fd = open_below(directory, name.as_bytes(), OFlags::PATH, Mode::empty(), crossing)?;
        let meta = meta::ask(&fd, b"")?;
        Ok(Pin { fd, meta })
    }

    /// Opens the regular file that is held.
    pub(super) fn open_file(&self, flags: OFlags) -> Result<File, Errno> {
        debug_assert_eq!(self.meta.kind, Kind::File);
        let (numbers, number) = (numbers()?, DecInt::from_fd(&self.fd));
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        Ok(File::from(patiently(|| openat(numbers, number.as_c_str(), flags, Mode::empty()))?))
    }

    /// Opens the directory that is held.
    pub(super) fn open_directory(&self) -> Result<OwnedFd, Errno> {
        open_directory(&self.fd, b".", false)
    }

    /// Gives the owner these bits of the mode, where we are the owner and lack one of the accesses: read, write, and for
    /// directories search.
    pub(super) fn unlock(&self) -> Result<(), Errno> {
        let path = by_number(self.fd.as_fd());
        let (access, bits) = match self.meta.kind {
            Kind::Directory => (Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK, 0o700),
            _ => (Access::READ_OK | Access::WRITE_OK, 0o600),
        };
        if self.meta.uid != geteuid().as_raw() || self.meta.kind == Kind::Symlink {
            return Ok(());
        }
        match accessat(CWD, path.as_slice(), access, AtFlags::EACCESS) {
            Err(Errno::ACCESS) => change_mode(self.fd.as_fd(), self.meta.mode | bits),
            _ => Ok(()),
        }
    }
}

/// Sets the mode of what is open or held, which must be no symbolic link.
pub(super) fn change_mode(fd: BorrowedFd<'_>, mode: u16) -> Result<(), Errno> {
    chmodat(CWD, by_number(fd).as_slice(), Mode::from_raw_mode(mode.into()), AtFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_says_again_is_made_again_but_not_for_ever() {
        let mut calls = 0;
        let third = patiently(|| {
            calls += 1;
            if calls < 3 { Err(Errno::AGAIN) } else { Ok(calls) }
        });
        assert_eq!(third, Ok(3));
        let mut calls = 0;
        let never: Result<(), Errno> = patiently(|| {
            calls += 1;
            Err(Errno::AGAIN)
        });
        assert_eq!((never, calls), (Err(Errno::AGAIN), ATTEMPTS));
    }
}
