//! Setting the attributes of an entry: only what differs, in an order in which nothing undoes what was set before.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, fchmod, utimensat};
use rustix::io::Errno;

use super::dir::{failed, spell};
use super::pin::{Pin, by_number, change_mode};
use super::xattrs::{self, At, is_acl, is_carried, is_label};
use super::{Dir, Kind, Meta, meta};
use crate::format::{Attributes, Name, Time};
use crate::state::Fault;

/// Set-user-id and set-group-id.
const SET_ID: u16 = 0o6000;

/// No user and no group: to chown(2) it says "as it is".
const NOBODY: u32 = u32::MAX;

/// One attribute of an entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// User id.
    Owner,
    /// Group id.
    Group,
    /// Permissions and the sticky bit.
    Mode,
    /// The set-user-id and set-group-id bits.
    SetId,
    /// When the content changed.
    Modified,
    /// An extended attribute or ACL, by its full name.
    Xattr(Vec<u8>),
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attribute::Owner => f.write_str("owner"),
            Attribute::Group => f.write_str("group"),
            Attribute::Mode => f.write_str("mode"),
            Attribute::SetId => f.write_str("set-id bits"),
            Attribute::Modified => f.write_str("modification time"),
            Attribute::Xattr(name) => write!(f, "{}", name.escape_ascii()),
        }
    }
}

/// An attribute that is not as it was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unset {
    /// Which.
    pub attribute: Attribute,
    /// Why the system refused. `None`: it was not tried, or the file system keeps something else than what it was told.
    pub error: Option<Errno>,
}

impl fmt::Display for Unset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error {
            Some(error) => write!(f, "{}: {}", self.attribute, std::io::Error::from(error)),
            None => write!(f, "{}", self.attribute),
        }
    }
}

impl Dir {
    /// Sets attributes of what stands at this name, which is not followed. What is as wanted is not touched.
    ///
    /// Not `privileged`: owner, group, set-id bits and attributes below `trusted.` and `security.` stay as they are. What is
    /// then not as wanted is returned, as is what the system does not allow or the file system does not have. The mode of a
    /// symbolic link is nobody's. Times of a directory last until something in it changes.
    pub fn set_attributes(&self, name: &Name, wanted: &Attributes, privileged: bool) -> Result<Vec<Unset>, Fault> {
        let Some(Pin { fd, meta }) = self.pin(name)? else {
            return Err(self.failed("setting attributes of", Some(name), Errno::NOENT));
        };
        set(fd.as_fd(), At::Held(&by_number(fd.as_fd())), meta, wanted, privileged)
    }

    /// The same for this directory itself.
    pub fn set_own_attributes(&self, wanted: &Attributes, privileged: bool) -> Result<Vec<Unset>, Fault> {
        set(self.as_fd(), At::Open(self.as_fd()), self.meta()?, wanted, privileged)
    }

    /// Moves its time of change, which nobody can set; all else stays. Where that is allowed.
    pub fn touch(&self) -> Result<(), Fault> {
        match set_modified(self.as_fd(), self.meta()?.modified) {
            Err(error) if is_refusal(error) => Ok(()),
            done => done.map_err(|error| self.failed("setting the modification time of", None, error)),
        }
    }
}

/// The same for an open file, whatever its name is now.
pub fn set_file_attributes(file: &File, wanted: &Attributes, privileged: bool) -> Result<Vec<Unset>, Fault> {
    let fd = file.as_fd();
    let meta = meta::ask(fd, b"").map_err(|error| failed(&format!("looking at {}", spell(fd, None)), error))?;
    set(fd, At::Open(fd), meta, wanted, privileged)
}

/// The owner comes first: a change of it takes set-id bits and `security.capability` away. The mode comes after the ACLs, which
/// are parts of each other, and is not given before it can be misused. The time is last.
fn set(fd: BorrowedFd<'_>, at: At<'_>, meta: Meta, wanted: &Attributes, privileged: bool) -> Result<Vec<Unset>, Fault> {
    let mut setting = Setting { fd, at, meta, wanted, privileged, is_stale: false, refused: Vec::new(), unset: Vec::new() };
    setting.owner()?;
    setting.xattrs()?;
    setting.mode()?;
    setting.modified()?;
    setting.compare()
}

struct Setting<'a> {
    fd: BorrowedFd<'a>,
    at: At<'a>,
    meta: Meta,
    wanted: &'a Attributes,
    privileged: bool,
    /// Something was changed since `meta` was read.
    is_stale: bool,
    refused: Vec<(Attribute, Errno)>,
    unset: Vec<Unset>,
}

impl Setting<'_> {
    fn owner(&mut self) -> Result<(), Fault> {
        let differs = |is: u32, wanted: u32| is != wanted && wanted != NOBODY;
        let uid = differs(self.meta.uid, self.wanted.uid).then(|| Uid::from_raw(self.wanted.uid));
        let gid = differs(self.meta.gid, self.wanted.gid).then(|| Gid::from_raw(self.wanted.gid));
        if !self.privileged || uid.is_none() && gid.is_none() {
            return Ok(());
        }
        let done = chownat(self.fd, "", uid, gid, AtFlags::EMPTY_PATH);
        self.done(done, &[Attribute::Owner, Attribute::Group])
    }

    fn xattrs(&mut self) -> Result<(), Fault> {
        let mut found = xattrs::read(self.at);
        if found == Err(Errno::ACCESS) && self.unlock()? {
            found = xattrs::read(self.at);
        }
        let found = found.map_err(|error| self.failed("reading extended attributes of", error))?;
        let wanted = self.wanted;
        for name in found.keys().filter(|name| !wanted.xattrs.contains_key(*name) && !is_label(name)) {
            self.xattr(name, |at| at.remove(name))?;
        }
        for acls in [false, true] {
            let differs = |(name, value): &(&Vec<u8>, &Vec<u8>)| is_acl(name) == acls && found.get(*name) != Some(value);
            for (name, value) in wanted.xattrs.iter().filter(differs) {
                self.xattr(name, |at| at.set(name, value))?;
            }
        }
        Ok(())
    }

    /// Changes one attribute. To change those below `user.`, one must be allowed to write the file.
    fn xattr(&mut self, name: &[u8], change: impl Fn(At<'_>) -> Result<(), Errno>) -> Result<(), Fault> {
        let attribute = Attribute::Xattr(name.to_vec());
        if !is_carried(name) || !self.privileged && !is_acl(name) && !name.starts_with(b"user.") {
            self.unset.push(Unset { attribute, error: None });
            return Ok(());
        }
        let mut done = change(self.at);
        if done == Err(Errno::ACCESS) && self.unlock()? {
            done = change(self.at);
        }
        match done {
            Ok(()) | Err(Errno::NODATA) => self.is_stale = true,
            Err(error) if is_refusal(error) => self.unset.push(Unset { attribute, error: Some(error) }),
            Err(error) => return Err(self.failed(&format!("setting {attribute} of"), error)),
        }
        Ok(())
    }

    /// Lets the owner, if that is us, read and write until the mode is set; whether that changed anything.
    fn unlock(&mut self) -> Result<bool, Fault> {
        self.refresh()?;
        let bits = if self.meta.kind == Kind::Directory { 0o700 } else { 0o600 };
        let is_ours = self.meta.uid == rustix::process::geteuid().as_raw();
        if !is_ours || self.meta.kind == Kind::Symlink || self.meta.mode & bits == bits {
            return Ok(false);
        }
        self.change_mode(self.meta.mode | bits).map_err(|error| self.failed("setting the mode of", error))?;
        self.is_stale = true;
        Ok(true)
    }

    fn mode(&mut self) -> Result<(), Fault> {
        self.refresh()?;
        let wanted = self.wanted.mode;
        let mode = if self.privileged { wanted } else { wanted & !SET_ID | self.meta.mode & SET_ID };
        if self.meta.kind == Kind::Symlink || mode == self.meta.mode {
            return Ok(());
        }
        let done = self.change_mode(mode);
        self.done(done, &[Attribute::Mode, Attribute::SetId])
    }

    fn modified(&mut self) -> Result<(), Fault> {
        let wanted = self.wanted.modified;
        if self.meta.modified == wanted {
            return Ok(());
        }
        let done = set_modified(self.fd, wanted);
        self.done(done, &[Attribute::Modified])
    }

    fn done(&mut self, done: Result<(), Errno>, attributes: &[Attribute]) -> Result<(), Fault> {
        match done {
            Ok(()) => self.is_stale = true,
            Err(error) if is_refusal(error) => self.refused.extend(attributes.iter().map(|one| (one.clone(), error))),
            Err(error) => {
                let called = attributes.first().map(Attribute::to_string).unwrap_or_default();
                return Err(self.failed(&format!("setting the {called} of"), error));
            }
        }
        Ok(())
    }

    /// What is still not as wanted. Some file systems say yes and do something else.
    fn compare(mut self) -> Result<Vec<Unset>, Fault> {
        self.refresh()?;
        let (is, wanted) = (&self.meta, self.wanted);
        let (mode, set_id) = (is.mode & !SET_ID != wanted.mode & !SET_ID, is.mode & SET_ID != wanted.mode & SET_ID);
        let has_mode = is.kind != Kind::Symlink;
        let differing = [
            (is.uid != wanted.uid, Attribute::Owner),
            (is.gid != wanted.gid, Attribute::Group),
            (has_mode && mode, Attribute::Mode),
            (has_mode && set_id, Attribute::SetId),
            (is.modified != wanted.modified, Attribute::Modified),
        ];
        let mut unset: Vec<Unset> = Vec::new();
        for (_, attribute) in differing.into_iter().filter(|(differs, _)| *differs) {
            let error = self.refused.iter().find(|(refused, _)| *refused == attribute).map(|(_, error)| *error);
            unset.push(Unset { attribute, error });
        }
        unset.append(&mut self.unset);
        Ok(unset)
    }

    fn change_mode(&self, mode: u16) -> Result<(), Errno> {
        match self.at {
            At::Open(fd) => fchmod(fd, Mode::from_raw_mode(mode.into())),
            At::Held(_) | At::Entry(_) => change_mode(self.fd, mode),
        }
    }

    fn refresh(&mut self) -> Result<(), Fault> {
        if self.is_stale {
            self.meta = meta::ask(self.fd, b"").map_err(|error| self.failed("looking at", error))?;
            self.is_stale = false;
        }
        Ok(())
    }

    fn failed(&self, doing: &str, error: Errno) -> Fault {
        failed(&format!("{doing} {}", spell(self.fd, None)), error)
    }
}

fn set_modified(fd: BorrowedFd<'_>, to: Time) -> Result<(), Errno> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: to.seconds, tv_nsec: to.nanoseconds.into() },
    };
    match utimensat(fd, "", &times, AtFlags::EMPTY_PATH) {
        // Before Linux 5.8.
        Err(Errno::INVAL) => utimensat(CWD, by_number(fd).as_slice(), &times, AtFlags::empty()),
        done => done,
    }
}

/// The system does not let us, or the file system does not have it: no reason to stop.
fn is_refusal(error: Errno) -> bool {
    matches!(error, Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP)
}
