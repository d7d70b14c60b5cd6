//! Real directory trees, looked at and changed by other means than those of the tools.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr, lremovexattr, lsetxattr,
    major, minor, mknodat, renameat_with, utimensat,
};

use super::vectors::tree::hex;

/// What stands in a directory, in the form of tests/vectors/README.md.
pub fn listing(root: &Path) -> String {
    let mut first = HashMap::new();
    let mut out = String::new();
    for (names, path) in walk(root) {
        let meta = fs::symlink_metadata(&path).unwrap();
        let shown = names.iter().map(|name| hex(name.as_bytes())).collect::<Vec<_>>().join("/");
        let kind = meta.file_type();
        let group = match kind.is_dir() {
            true => shown.clone(),
            false => first.entry((meta.dev(), meta.ino())).or_insert_with(|| shown.clone()).clone(),
        };
        let device = || format!("{}:{}", major(meta.rdev()), minor(meta.rdev()));
        let (number, what) = match kind {
            kind if kind.is_file() => (1, {
                let content = fs::read(&path).unwrap();
                format!("{}:{}", content.len(), blake3::hash(&content))
            }),
            kind if kind.is_dir() => (2, "-".to_owned()),
            kind if kind.is_symlink() => (3, hex(fs::read_link(&path).unwrap().as_os_str().as_bytes())),
            kind if kind.is_fifo() => (4, "-".to_owned()),
            kind if kind.is_socket() => (5, "-".to_owned()),
            kind if kind.is_char_device() => (6, device()),
            _ => (7, device()),
        };
        let (mode, uid, gid, seconds, nanoseconds) =
            (meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
        let xattrs = xattrs(&path).iter().map(|(name, value)| format!("{}={}", hex(name), hex(value))).collect::<Vec<_>>();
        let xattrs = xattrs.join(",");
        writeln!(out, "/{shown} /{group} {number} {mode:o} {uid} {gid} {seconds} {nanoseconds} {what} {xattrs}").unwrap();
    }
    out
}

/// All that stands in a directory, itself first, in the order of names.
pub fn walk(root: &Path) -> Vec<(Vec<OsString>, PathBuf)> {
    let mut found = vec![(Vec::new(), root.to_owned())];
    let mut at = 0;
    while at < found.len() {
        let (names, path) = found[at].clone();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            for entry in fs::read_dir(&path).unwrap().map(Result::unwrap) {
                found.push(([names.as_slice(), &[entry.file_name()]].concat(), entry.path()));
            }
        }
        at += 1;
    }
    found.sort();
    found
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut buffer = vec![0; 1 << 16];
    let len = llistxattr(path, &mut buffer[..]).unwrap();
    let mut found: Vec<(Vec<u8>, Vec<u8>)> = buffer[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let len = lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..len].to_vec())
        })
        .collect();
    found.sort();
    found
}

/// `cp -a`.
pub fn copy(from: &Path, to: &Path) {
    let output = Command::new("cp").args(["-a", "--"]).args([from, to]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Sets the time of modification.
pub fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let modified = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: modified, last_modification: modified };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap_or_else(|error| panic!("{name} of {}: {error}", path.display()));
}

/// A POSIX ACL as Linux takes it: the owner and user 7 may read and write.
pub fn acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] = [(1, 6, u32::MAX), (2, 6, 7), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 4, u32::MAX)];
    let mut out = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(permissions.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

pub fn make_fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
}

/// Whether this may be done here: only root may.
pub fn make_device(path: &Path, is_block: bool, number: (u32, u32)) -> bool {
    let kind = if is_block { FileType::BlockDevice } else { FileType::CharacterDevice };
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), rustix::fs::makedev(number.0, number.1)).is_ok()
}

pub fn make_socket(path: &Path) {
    // The path of a socket is short: bound elsewhere, and moved.
    let near = path.parent().unwrap().join("s");
    drop(UnixListener::bind(&near).unwrap_or_else(|error| panic!("{}: {error}", near.display())));
    fs::rename(near, path).unwrap();
}

/// Holes are holes, as `(size, [(offset, bytes)])`.
pub fn sparse(path: &Path, size: u64, parts: &[(u64, &[u8])]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (offset, bytes) in parts {
        file.write_all_at(bytes, *offset).unwrap();
    }
}

/// Splitmix64.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ z >> 31) >> 2).unwrap() % bound
    }

    pub fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { all.get(self.below(all.len())) }
    }
}

/// Names that are all too similar, and some that are odd. (No `s`, which sockets are born as.)
const NAMES: [&[u8]; 16] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"f",
    b"a-b",
    b"a.b",
    b"A",
    b"\x01",
    b"new\nline",
    b"\xff\xfe\x80",
    b"-rf",
    b" ",
    b"a b",
    b"\xc3\xa4",
];

/// A tree that changes by chance.
pub struct Wild<'a> {
    pub root: PathBuf,
    pub chance: &'a mut Chance,
    pub log: Vec<String>,
}

impl Wild<'_> {
    /// A tree of so many things.
    pub fn grow(&mut self, things: usize) {
        fs::create_dir_all(&self.root).unwrap();
        for _ in 0..things {
            self.make();
        }
    }

    /// One change.
    pub fn step(&mut self) {
        match self.chance.below(20) {
            0..3 => self.make(),
            3..6 => self.write(),
            6..10 => self.rename(),
            10 => self.swap(),
            11 => self.link(),
            12 => self.break_link(),
            13 => self.delete(),
            14 => self.replace(),
            15..18 => self.attribute(),
            18 => self.retouch(),
            _ => self.remake(),
        }
    }

    fn all(&self) -> Vec<PathBuf> {
        walk(&self.root).into_iter().skip(1).map(|(_, path)| path).collect()
    }

    fn some(&mut self, wanted: impl Fn(&fs::Metadata) -> bool) -> Option<PathBuf> {
        let all: Vec<PathBuf> = self.all().into_iter().filter(|path| wanted(&fs::symlink_metadata(path).unwrap())).collect();
        self.chance.of(&all).cloned()
    }

    fn directory(&mut self) -> PathBuf {
        if self.chance.one_in(4) {
            self.root.clone()
        } else {
            self.some(fs::Metadata::is_dir).unwrap_or_else(|| self.root.clone())
        }
    }

    /// A name, which may be taken.
    fn place(&mut self) -> PathBuf {
        let name = match self.chance.one_in(40) {
            true => vec![b'x'; 255],
            false => NAMES[self.chance.below(NAMES.len())].to_vec(),
        };
        self.directory().join(OsStr::from_bytes(&name))
    }

    fn said(&mut self, what: &str, paths: &[&Path]) {
        let paths: Vec<String> = paths
            .iter()
            .map(|path| path.strip_prefix(&self.root).unwrap().as_os_str().as_bytes().escape_ascii().to_string())
            .collect();
        self.log.push(format!("{what} {}", paths.join(" ")));
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.chance.below(12) {
            0 => 0,
            1 => 1 << 20,
            2 => 70_000,
            _ => self.chance.below(20_000),
        };
        let byte = u8::try_from(self.chance.below(3)).unwrap();
        vec![byte; len]
    }

    fn make(&mut self) {
        let place = self.place();
        if place.symlink_metadata().is_ok() {
            return;
        }
        self.make_at(&place);
    }

    fn make_at(&mut self, place: &Path) {
        self.said("make", &[place]);
        match self.chance.below(12) {
            0..4 => fs::create_dir(place).unwrap(),
            4 => symlink(OsStr::from_bytes(NAMES[self.chance.below(NAMES.len())]), place).unwrap(),
            5 => make_fifo(place),
            6 if self.chance.one_in(2) => {
                _ = make_device(place, self.chance.one_in(2), (1, u32::try_from(self.chance.below(4)).unwrap()))
            }
            6 if place.as_os_str().len() < 90 => make_socket(place),
            7 => {
                let size = 4096 * self.chance.below(60) as u64;
                let part = (4096 * self.chance.below(60) as u64, &b"here"[..]);
                sparse(place, size.max(part.0 + 4), &[part]);
            }
            _ => fs::write(place, self.bytes()).unwrap(),
        }
    }

    fn write(&mut self) {
        let Some(path) = self.some(fs::Metadata::is_file) else { return };
        self.said("write", &[&path]);
        let bytes = self.bytes();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let size = file.metadata().unwrap().len();
        match self.chance.below(4) {
            0 => file.write_all_at(&bytes, size).unwrap(),
            1 => file.set_len(self.chance.below(30_000) as u64).unwrap(),
            2 => file.write_all_at(&bytes[..bytes.len().min(5000)], self.chance.below(40_000) as u64).unwrap(),
            _ => file.write_all_at(&[9], self.chance.below(usize::try_from(size).unwrap() + 1) as u64).unwrap(),
        }
        // Only the content tells.
        if self.chance.one_in(5) {
            let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
            file.set_modified(modified).unwrap();
        }
    }

    /// Onto a name that may be taken.
    fn rename(&mut self) {
        let Some(from) = self.some(|_| true) else { return };
        let to = self.place();
        if to.starts_with(&from) || from.starts_with(&to) {
            return;
        }
        self.said("rename", &[&from, &to]);
        match to.symlink_metadata() {
            Ok(there) if there.is_dir() => fs::remove_dir_all(&to).unwrap(),
            Ok(_) if from.symlink_metadata().unwrap().is_dir() => fs::remove_file(&to).unwrap(),
            _ => {}
        }
        fs::rename(&from, &to).unwrap();
    }

    fn swap(&mut self) {
        let (Some(one), Some(two)) = (self.some(|_| true), self.some(|_| true)) else { return };
        if one.starts_with(&two) || two.starts_with(&one) {
            // One goes into the other.
            let (outer, inner) = if one.starts_with(&two) { (two, one) } else { (one, two) };
            if outer != inner && inner.is_dir() && !inner.is_symlink() {
                self.said("turn inside out", &[&outer, &inner]);
                let aside = self.root.join("aside");
                fs::rename(&inner, &aside).unwrap();
                let into = aside.join("inner");
                if into.symlink_metadata().is_err() {
                    fs::rename(&outer, &into).unwrap();
                    fs::rename(&aside, &outer).unwrap();
                } else {
                    fs::rename(&aside, &inner).unwrap();
                }
            }
            return;
        }
        self.said("swap", &[&one, &two]);
        renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE).unwrap();
    }

    fn link(&mut self) {
        let (Some(from), to) = (self.some(|meta| !meta.is_dir()), self.place()) else { return };
        if to.symlink_metadata().is_ok_and(|there| there.is_dir()) || from == to {
            return;
        }
        self.said("link", &[&from, &to]);
        let _ = fs::remove_file(&to);
        if from.symlink_metadata().is_ok() {
            fs::hard_link(&from, &to).unwrap();
        }
    }

    fn break_link(&mut self) {
        let Some(path) = self.some(|meta| meta.is_file() && meta.nlink() > 1) else { return };
        self.said("break", &[&path]);
        self.by_copy(&path);
    }

    /// Another inode with the same content and attributes, as an editor leaves it.
    fn by_copy(&mut self, path: &Path) {
        let aside = self.root.join("aside");
        copy(path, &aside);
        fs::rename(&aside, path).unwrap();
    }

    fn replace(&mut self) {
        let Some(path) = self.some(fs::Metadata::is_file) else { return };
        self.said("replace", &[&path]);
        self.by_copy(&path);
        if self.chance.one_in(2) {
            OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
        }
    }

    fn delete(&mut self) {
        let Some(path) = self.some(|_| true) else { return };
        self.said("delete", &[&path]);
        if path.symlink_metadata().unwrap().is_dir() {
            fs::remove_dir_all(&path).unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
    }

    fn attribute(&mut self) {
        let Some(path) = self.some(|_| true) else { return };
        let meta = path.symlink_metadata().unwrap();
        self.said("attribute", &[&path]);
        let number = u32::try_from(self.chance.below(3)).unwrap();
        match self.chance.below(5) {
            0 if !meta.is_symlink() => {
                fs::set_permissions(&path, fs::Permissions::from_mode([0o600, 0o755, 0o4711][number as usize])).unwrap()
            }
            1 => set_time(&path, [0, -5, 2_000_000_000][number as usize], [0, 999_999_999, 5][number as usize]),
            2 if meta.is_file() || meta.is_dir() => {
                set_xattr(&path, ["user.a", "user.b", "trusted.c"][number as usize], &self.bytes()[..0])
            }
            3 if meta.is_file() || meta.is_dir() => _ = lremovexattr(&path, ["user.a", "user.b", "trusted.c"][number as usize]),
            4 if rustix::process::geteuid().is_root() => lchown(&path, Some(number), Some(number)).unwrap(),
            _ => {}
        }
    }

    /// A directory that is made anew around what was in it.
    fn retouch(&mut self) {
        let Some(path) = self.some(fs::Metadata::is_dir) else { return };
        self.said("anew", &[&path]);
        let aside = self.root.join("aside");
        fs::create_dir(&aside).unwrap();
        for entry in fs::read_dir(&path).unwrap().map(Result::unwrap) {
            fs::rename(entry.path(), aside.join(entry.file_name())).unwrap();
        }
        fs::remove_dir(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        let _ = chown(&path, None, None);
    }

    /// Something else in its place.
    fn remake(&mut self) {
        let Some(path) = self.some(|_| true) else { return };
        self.said("remake", &[&path]);
        if path.symlink_metadata().unwrap().is_dir() {
            fs::remove_dir_all(&path).unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
        self.make_at(&path);
    }
}
