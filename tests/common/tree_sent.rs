//! What tree-diff-stream sends, by the program and by the library, and what is in it.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use siphon::filter::Normal;
use siphon::flow::{Source, copy};
use siphon::format::{Beginning, Change, Entry, Id, Node, Object, Origin, Tree, TreeChange};
use siphon::sink::Encoder;
use siphon::source::{Decoder, TreeFiles, TreeIdentity, TreeOptions};
use tempfile::TempDir;

use crate::common::complaint;
use crate::trees;
use crate::vectors::tree::{Things, applied, applied_strictly, listing, read};

pub const TOOL: &str = env!("CARGO_BIN_EXE_tree-diff-stream");

pub fn run(args: &[&str]) -> Output {
    Command::new(TOOL).args(args).stdin(Stdio::null()).output().unwrap()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn sent(args: &[&str]) -> Vec<u8> {
    let output = run(args);
    assert!(output.status.success(), "{}", complaint(&output));
    output.stdout
}

pub fn temporary() -> (TempDir, PathBuf, PathBuf) {
    let dir = TempDir::new().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    (dir, old, new)
}

/// From which state to which a stream leads.
pub fn ends(stream: &[u8]) -> (Option<Id>, Option<Id>) {
    let reader = Beginning::read(stream, Tree::known_features()).unwrap().of().unwrap();
    let mut source: Decoder<_, Tree> = Decoder::of(reader);
    while source.change().unwrap().is_some() {}
    (source.header().from, source.finish().unwrap().to)
}

/// A stream of the library's.
pub fn stream(mut source: TreeFiles) -> Vec<u8> {
    let mut out = Vec::new();
    copy(&mut source, Normal::new(Encoder::new(&mut out))).unwrap();
    out
}

pub fn whole(dir: &Path) -> Vec<u8> {
    stream(TreeFiles::whole(dir, &TreeOptions::default()).unwrap())
}

pub fn since(old: &Path, new: &Path, identity: TreeIdentity) -> Vec<u8> {
    stream(TreeFiles::since(old, new, TreeOptions { identity, ..TreeOptions::default() }, || {}).unwrap())
}

/// The tree that a whole stream makes.
pub fn tree(stream: &[u8]) -> Things {
    applied(Things::new(), read(stream).unwrap())
}

pub fn differ(found: &str, wanted: &str) -> Option<String> {
    let lines = |a: &str, b: &str| -> Vec<String> {
        let there: std::collections::HashSet<&str> = b.lines().collect();
        a.lines().filter(|line| !there.contains(line)).map(str::to_owned).collect()
    };
    (found != wanted).then(|| format!("too much: {:#?}\nlacking: {:#?}", lines(found, wanted), lines(wanted, found)))
}

/// Checks both whole streams and the increment; gives the three.
pub fn check(old: &Path, new: &Path, identity: TreeIdentity) -> [Vec<u8>; 3] {
    let (before, after, increment) = (whole(old), whole(new), since(old, new, identity));
    for (dir, stream) in [(old, &before), (new, &after)] {
        assert_eq!(differ(&listing(&tree(stream)), &trees::listing(dir)), None, "whole {}", dir.display());
    }
    let reached = listing(&applied_strictly(tree(&before), read(&increment).unwrap()));
    assert_eq!(differ(&reached, &trees::listing(new)), None, "{:#?}", said(&increment));
    assert_eq!(ends(&increment), (ends(&before).1, ends(&after).1));
    [before, after, increment]
}

/// What a stream says of names, and which bytes it has; an entry of the root is a dot.
pub fn said(stream: &[u8]) -> Vec<String> {
    let shown = |path: &siphon::format::TreePath| if path.names().is_empty() { ".".to_owned() } else { path.to_string() };
    let each = |change: TreeChange| match change {
        TreeChange::Gone { path, number } => {
            format!("gone {}{}", shown(&path), number.map(|n| format!(" {n}")).unwrap_or_default())
        }
        TreeChange::Entry(entry) => {
            let Entry { path, origin, node, .. } = *entry;
            let origin = match origin {
                Origin::New => "new".to_owned(),
                Origin::Kept => "kept".to_owned(),
                Origin::Taken(number) => format!("taken {number}"),
            };
            let size = if let Node::File { size, old_size } = node { format!(" {old_size}..{size}") } else { String::new() };
            format!("{origin} {}{size}", shown(&path))
        }
        TreeChange::Roots { .. } => panic!("no list"),
        TreeChange::Link { path, to } => format!("link {} to {}", shown(&path), shown(&to)),
        TreeChange::Extent(Change::Data(data)) => format!("data {} {}", data.offset(), data.bytes().len()),
        TreeChange::Extent(Change::Zero { offset, len, .. }) => format!("zero {offset} {len}"),
    };
    read(stream).unwrap().into_iter().map(each).collect()
}

/// Which inode of the copy is which one of the original, where nothing was changed yet.
pub fn numbers(original: &Path, copied: &Path) -> TreeIdentity {
    let number = |path: &Path| fs::symlink_metadata(path).unwrap().ino();
    let pairs = trees::walk(original).into_iter().map(|(names, path)| {
        let other = names.iter().fold(copied.to_owned(), |path, name| path.join(name));
        (number(&other), number(&path))
    });
    TreeIdentity::Table(pairs.collect())
}

/// A tree with all that there is.
pub fn everything(root: &Path) {
    fs::create_dir_all(root.join("dir/deeper/empty")).unwrap();
    fs::write(root.join("file"), b"content").unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("large"), (0..3_000_001_u32).map(|at| u8::try_from(at / 5000 % 251).unwrap()).collect::<Vec<u8>>())
        .unwrap();
    trees::sparse(&root.join("sparse"), 10 << 20, &[(5 << 20, b"in the middle".as_slice()), ((10 << 20) - 1, b"!")]);
    trees::sparse(&root.join("hole"), 1 << 20, &[]);
    fs::write(root.join("zeros"), vec![0; 300_000]).unwrap();
    symlink("nowhere/at all", root.join("link")).unwrap();
    symlink(OsStr::from_bytes(b"\xff\n"), root.join("dir/odd link")).unwrap();
    trees::make_fifo(&root.join("fifo"));
    trees::make_socket(&root.join("dir/socket"));
    if !(trees::make_device(&root.join("null"), false, (1, 3)) && trees::make_device(&root.join("dir/ram"), true, (1, 77))) {
        println!("skipped: device nodes, which only root makes");
    }
    for name in [b"new\nline".as_slice(), b"\xff\x80 not UTF-8", b" ", b"-", b"~", &[b'x'; 255], b"\x01", b"a-b", b"a"] {
        fs::write(root.join("dir").join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::create_dir(root.join(OsStr::from_bytes(&[0xfe; 255]))).unwrap();
    fs::hard_link(root.join("file"), root.join("dir/second")).unwrap();
    fs::hard_link(root.join("file"), root.join("zzz")).unwrap();
    fs::hard_link(root.join("fifo"), root.join("dir/fifo too")).unwrap();
    fs::hard_link(root.join("link"), root.join("dir/link too")).unwrap();
    for (name, value) in [("user.empty", &b""[..]), ("user.bytes", b"\0\xff\n"), ("user.large", &[7; 3000])] {
        trees::set_xattr(&root.join("file"), name, value);
        trees::set_xattr(&root.join("dir"), name, value);
    }
    if rustix::process::geteuid().is_root() {
        trees::set_xattr(&root.join("empty"), "trusted.some", b"1");
        trees::set_xattr(&root.join("link"), "trusted.of a link", b"2");
        trees::set_xattr(&root.join("empty"), "security.some", b"3");
        std::os::unix::fs::lchown(root.join("link"), Some(12), Some(4_000_000_000)).unwrap();
        std::os::unix::fs::chown(root.join("empty"), Some(4_000_000_001), Some(13)).unwrap();
    }
    trees::set_xattr(&root.join("empty"), "system.posix_acl_access", &trees::acl());
    trees::set_xattr(&root.join("dir"), "system.posix_acl_default", &trees::acl());
    fs::set_permissions(root.join("large"), fs::Permissions::from_mode(0o6751)).unwrap();
    fs::set_permissions(root.join("dir/deeper"), fs::Permissions::from_mode(0o1777)).unwrap();
    for (n, path) in ["file", "link", "fifo", "dir/deeper/empty", "dir/deeper", "dir", ""].into_iter().enumerate() {
        trees::set_time(&root.join(path), i64::try_from(n).unwrap() * 1_000_000_007 - 1_000_000_000, 999_999_999);
    }
}

pub fn write_at(path: &Path, bytes: &[u8], at: u64) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

pub type Act = fn(&Path);
