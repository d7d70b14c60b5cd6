//! Streams of trees, made by hand, and real directories as listings: see tests/vectors/README.md.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Output;

use siphon::format::{
    Attributes, Change, Data, Entry, Header, Name, Names, Node, Origin, Time, Tree, TreeChange, TreePath, Writer,
};

use siphon::state::Receipt;
use tempfile::TempDir;

use super::streams::id;
use super::{complaint, piped};

pub const APPLY: &str = env!("CARGO_BIN_EXE_tree-apply");

/// A stream that is being put together.
#[derive(Clone)]
pub struct Stream {
    header: Header,
    changes: Vec<TreeChange>,
    number: u64,
}

/// `a/b` as a path.
pub fn path(text: &str) -> TreePath {
    let names = text.split('/').filter(|name| !name.is_empty()).map(|name| Name::new(name.as_bytes()).unwrap());
    TreePath::new(names.collect()).unwrap()
}

pub fn file(size: u64) -> Node {
    Node::File { size, old_size: 0 }
}

pub fn symlink(target: &str) -> Node {
    Node::Symlink { target: target.as_bytes().to_vec() }
}

pub fn attributes(mode: u16) -> Attributes {
    let modified = Time { seconds: 1_700_000_000, nanoseconds: 123_456_789 };
    Attributes { mode, uid: 1000, gid: 1000, modified, xattrs: BTreeMap::new() }
}

impl Stream {
    /// A whole one, its root already said.
    pub fn whole(to: u8) -> Stream {
        Stream::begin(None, to).dir("", Origin::New)
    }

    /// What changed since a state.
    pub fn since(from: u8, to: u8) -> Stream {
        Stream::begin(Some(from), to)
    }

    fn begin(from: Option<u8>, to: u8) -> Stream {
        let names = Names { source: b"home".to_vec(), from: vec![], to: format!("s{to}").into_bytes() };
        let mut header = Header::new(id(201), from.map(id), Some(id(to)), names);
        Tree::mark(&mut header);
        Stream { header, changes: Vec::new(), number: 0 }
    }

    pub fn say(mut self, change: TreeChange) -> Stream {
        self.changes.push(change);
        self
    }

    pub fn gone(self, at: &str) -> Stream {
        self.say(TreeChange::Gone { path: path(at), number: None })
    }

    /// Gone, with the next number.
    pub fn taken(mut self, at: &str) -> Stream {
        self.number += 1;
        let number = Some(self.number);
        self.say(TreeChange::Gone { path: path(at), number })
    }

    pub fn entry(self, at: &str, origin: Origin, node: Node) -> Stream {
        // Linux gives symbolic links this mode, and never changes it.
        let mode = if matches!(node, Node::Symlink { .. }) { 0o777 } else { 0o644 };
        self.with(at, origin, node, attributes(mode))
    }

    pub fn with(self, at: &str, origin: Origin, node: Node, attributes: Attributes) -> Stream {
        self.say(TreeChange::Entry(Box::new(Entry { path: path(at), origin, node, attributes })))
    }

    pub fn dir(self, at: &str, origin: Origin) -> Stream {
        self.with(at, origin, Node::Directory, attributes(0o755))
    }

    pub fn link(self, at: &str, to: &str) -> Stream {
        self.say(TreeChange::Link { path: path(at), to: path(to) })
    }

    pub fn data(self, offset: u64, bytes: Vec<u8>) -> Stream {
        self.say(TreeChange::Extent(Change::Data(Data::new(offset, bytes))))
    }

    /// A new file with this content.
    pub fn file(self, at: &str, content: &[u8]) -> Stream {
        let stream = self.entry(at, Origin::New, file(content.len() as u64));
        if content.is_empty() { stream } else { stream.data(0, content.to_vec()) }
    }

    /// Its bytes.
    pub fn end(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&mut bytes, &self.header, &Tree::new()).unwrap();
        self.changes.iter().for_each(|change| writer.change(change).unwrap());
        writer.finish(self.header.to).unwrap();
        bytes
    }
}

/// A real directory as a listing (tests/vectors/README.md).
pub fn listing(root: &Path) -> String {
    let mut out = String::new();
    let mut first = HashMap::new();
    list(root, "", &mut first, &mut out);
    out
}

fn list(at: &Path, shown: &str, first: &mut HashMap<(u64, u64), String>, out: &mut String) {
    let meta = at.symlink_metadata().unwrap();
    let group = match meta.is_dir() {
        true => shown.to_owned(),
        false => first.entry((meta.dev(), meta.ino())).or_insert_with(|| shown.to_owned()).clone(),
    };
    let (kind, what) = kind(at, &meta);
    let (mode, uid, gid, seconds, nanoseconds) = (meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
    let xattrs = xattrs(at);
    writeln!(out, "/{shown} /{group} {kind} {mode:o} {uid} {gid} {seconds} {nanoseconds} {what} {xattrs}").unwrap();
    if meta.is_dir() {
        let mut names: Vec<OsString> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            let hex = hex(name.as_bytes());
            let below = if shown.is_empty() { hex } else { format!("{shown}/{hex}") };
            list(&at.join(&name), &below, first, out);
        }
    }
}

fn kind(at: &Path, meta: &Metadata) -> (u8, String) {
    let kind = meta.file_type();
    let device = || format!("{}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    if kind.is_file() {
        let content = fs::read(at).unwrap();
        (1, format!("{}:{}", content.len(), blake3::hash(&content)))
    } else if kind.is_dir() {
        (2, "-".to_owned())
    } else if kind.is_symlink() {
        (3, hex(fs::read_link(at).unwrap().into_os_string().as_bytes()))
    } else if kind.is_fifo() {
        (4, "-".to_owned())
    } else if kind.is_socket() {
        (5, "-".to_owned())
    } else if kind.is_char_device() {
        (6, device())
    } else {
        (7, device())
    }
}

fn xattrs(at: &Path) -> String {
    let mut list = vec![0; 65536];
    let len = rustix::fs::llistxattr(at, &mut list).unwrap_or(0);
    let mut found: Vec<String> = list[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65536];
            let len = rustix::fs::lgetxattr(at, OsStr::from_bytes(name), &mut value).unwrap();
            format!("{}={}", hex(name), hex(&value[..len]))
        })
        .collect();
    found.sort();
    found.join(",")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A directory that is a target, in one of its own, and something beside it that nobody may touch.
pub struct Bed {
    pub dir: TempDir,
    pub target: PathBuf,
    pub outside: PathBuf,
}

impl Bed {
    pub fn new() -> Bed {
        Bed::within(TempDir::new().unwrap())
    }

    /// In memory, if that keeps extended attributes (tmpfs since Linux 6.6): for runs that are broken off by the dozen. Where so
    /// many files were removed a moment ago, ext4 looks long for an inode for each new one.
    pub fn in_memory() -> Bed {
        let keeps = |dir: &TempDir| rustix::fs::setxattr(dir.path(), "user.any", b"1", rustix::fs::XattrFlags::empty()).is_ok();
        TempDir::new_in("/dev/shm").ok().filter(keeps).map_or_else(Bed::new, Bed::within)
    }

    fn within(dir: TempDir) -> Bed {
        let (target, outside) = (dir.path().join("copy"), dir.path().join("outside"));
        fs::create_dir_all(outside.join("etc")).unwrap();
        fs::write(outside.join("etc/passwd"), "root").unwrap();
        fs::write(outside.join("f"), vec![7; 10_000]).unwrap();
        Bed { dir, target, outside }
    }

    pub fn record_file(&self) -> PathBuf {
        self.dir.path().join("copy.siphon")
    }

    pub fn record(&self) -> String {
        fs::read_to_string(self.record_file()).unwrap_or_default()
    }

    pub fn is_receiving(&self) -> bool {
        self.record().contains("\"receiving\"")
    }

    pub fn apply(&self, stream: &[u8], options: &[&str]) -> Output {
        piped(APPLY, &[options, &[self.target.to_str().unwrap()]].concat(), stream)
    }

    /// Applies a stream that must be accepted, and gives the receipt.
    pub fn accept(&self, stream: &[u8], options: &[&str]) -> Receipt {
        let output = self.apply(stream, options);
        assert!(output.status.success(), "{}", complaint(&output));
        assert!(!self.is_receiving());
        Receipt::parse(output.stdout.as_slice()).unwrap()
    }

    /// Applies a stream that must be refused with this exit code and class.
    pub fn refuse(&self, stream: &[u8], options: &[&str], code: i32, class: &str) -> String {
        let output = self.apply(stream, options);
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(&format!("[{class}]")), "{class}: {said}");
        assert!(output.stdout.is_empty());
        said
    }

    pub fn listing(&self) -> String {
        listing(&self.target)
    }

    /// All of what lies beside the target, with its times of change.
    pub fn beside(&self) -> String {
        let mut out = listing(&self.outside);
        for name in ["", "etc", "etc/passwd", "f"] {
            let meta = self.outside.join(name).symlink_metadata().unwrap();
            write!(out, "{name} {} {} {}", meta.ino(), meta.ctime(), meta.ctime_nsec()).unwrap();
        }
        out
    }
}

/// Owners, devices and what else needs rights; and mounts.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: not root");
    }
    root
}
