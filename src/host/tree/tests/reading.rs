use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};
use rustix::io::Errno;

use super::super::*;
use super::{as_nobody, is_root, name, root, without};
use crate::format::{Attributes, Node, Time};
use crate::state::Class;

#[test]
fn names_are_bytes_in_their_order_without_the_two_dots() {
    let place = tempfile::tempdir().unwrap();
    let mut wanted: Vec<Vec<u8>> = vec![b"b".to_vec(), b"a\nb".to_vec(), vec![0xff, 0xfe], b"...".to_vec(), vec![b'x'; 255]];
    wanted.extend((0..5000).map(|n| format!("file-{n}").into_bytes()));
    for name in &wanted {
        fs::write(place.path().join(OsStr::from_bytes(name)), "").unwrap();
    }
    wanted.sort();
    let mut directory = root(place.path());
    for _ in 0..2 {
        let found: Vec<Vec<u8>> = directory.names().unwrap().iter().map(|name| name.as_bytes().to_vec()).collect();
        assert_eq!(found, wanted, "also when it is listed again");
    }
    assert_eq!(directory.again().unwrap().names().unwrap().len(), wanted.len());
}

#[test]
fn each_kind_is_known_and_not_followed() {
    if !is_root("each_kind_is_known_and_not_followed") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    fs::write(path("file"), "12345").unwrap();
    fs::create_dir(path("directory")).unwrap();
    symlink("file", path("link")).unwrap();
    let kinds = [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("char", FileType::CharacterDevice, makedev(1, 3)),
        ("block", FileType::BlockDevice, makedev(259, 70_000)),
    ];
    for (name, kind, number) in kinds {
        mknodat(CWD, path(name), kind, Mode::from_raw_mode(0o600), number).unwrap();
    }
    let directory = root(place.path());
    let look = |text: &str| directory.look(&name(text)).unwrap().unwrap();
    assert_eq!(look("file").node(None), Node::File { size: 5, old_size: 0 });
    assert_eq!(look("directory").node(None), Node::Directory);
    let target = directory.read_link(&name("link")).unwrap();
    assert_eq!(look("link").node(Some(target)), Node::Symlink { target: b"file".to_vec() });
    assert_eq!(look("fifo").node(None), Node::Fifo);
    assert_eq!(look("socket").node(None), Node::Socket);
    assert_eq!(look("char").node(None), Node::Device { is_block: false, major: 1, minor: 3 });
    assert_eq!(look("block").node(None), Node::Device { is_block: true, major: 259, minor: 70_000 });
    assert_eq!(directory.look(&name("missing")).unwrap(), None);
    assert_eq!(directory.read_link(&name("missing")).unwrap_err().class, Class::NotFound);
    assert_eq!(directory.read_link(&name("file")).unwrap_err().class, Class::Changed);
}

#[test]
fn what_is_said_of_a_file_is_what_stat_says() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("file");
    fs::write(&path, vec![1; 10_000]).unwrap();
    fs::hard_link(&path, place.path().join("other")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o2751)).unwrap();
    let stat = fs::metadata(&path).unwrap();
    let directory = root(place.path());
    let meta = directory.look(&name("file")).unwrap().unwrap();
    assert_eq!((u32::from(meta.mode), meta.uid, meta.gid), (0o2751, stat.uid(), stat.gid()));
    assert_eq!((meta.size, meta.blocks, meta.links), (10_000, stat.blocks(), 2));
    assert_eq!((meta.inode, meta.device), (stat.ino(), stat.dev()));
    let time = |seconds, nanoseconds: i64| Time { seconds, nanoseconds: nanoseconds.try_into().unwrap() };
    assert_eq!(meta.modified, time(stat.mtime(), stat.mtime_nsec()));
    assert_eq!(meta.changed, time(stat.ctime(), stat.ctime_nsec()));
    let xattrs = BTreeMap::from([(b"user.a".to_vec(), vec![])]);
    let wanted = Attributes { mode: 0o2751, uid: meta.uid, gid: meta.gid, modified: meta.modified, xattrs: xattrs.clone() };
    assert_eq!(meta.attributes(xattrs), wanted);
    assert!(meta.is_same(&directory.look(&name("other")).unwrap().unwrap()));
    assert!(!meta.is_same(&directory.meta().unwrap()) && !meta.is_mount);
}

#[test]
fn a_link_is_never_gone_through() {
    let (place, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("secret"), "s").unwrap();
    symlink(outside.path(), place.path().join("away")).unwrap();
    symlink(outside.path().join("secret"), place.path().join("file")).unwrap();
    symlink("/proc/self/cwd", place.path().join("magic")).unwrap();
    symlink(".", place.path().join("here")).unwrap();
    let directory = root(place.path());
    for link in ["away", "file", "magic", "here"] {
        assert_eq!(directory.open(&name(link)).unwrap_err().class, Class::Changed, "{link}");
        assert_eq!(directory.open_file(&name(link)).unwrap_err().class, Class::Changed, "{link}");
        assert!(directory.xattrs(&name(link)).unwrap().keys().all(|name| !name.starts_with(b"user.")));
    }
}

#[test]
fn only_a_regular_file_is_opened_and_nothing_waits() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("file"), "content").unwrap();
    fs::create_dir(place.path().join("directory")).unwrap();
    mknodat(CWD, place.path().join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let directory = root(place.path());
    let (mut file, meta) = directory.open_file(&name("file")).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), file.metadata().unwrap().ino()), ("content", meta.inode));
    assert_eq!(directory.open_file(&name("fifo")).unwrap_err().class, Class::Changed, "and it has not hung");
    assert_eq!(directory.open_file(&name("directory")).unwrap_err().class, Class::Changed);
    assert_eq!(directory.open_file(&name("missing")).unwrap_err().class, Class::NotFound);
    assert_eq!(directory.open(&name("file")).unwrap_err().class, Class::Changed);
    assert_eq!(directory.open(&name("missing")).unwrap_err().class, Class::NotFound);
}

#[test]
fn reading_leaves_access_times_alone() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("file");
    fs::write(&path, "content").unwrap();
    let old = fs::FileTimes::new().set_accessed(std::time::SystemTime::UNIX_EPOCH);
    fs::File::options().write(true).open(&path).unwrap().set_times(old).unwrap();
    let (mut file, _) = root(place.path()).open_file(&name("file")).unwrap();
    file.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().atime(), 0);
}

#[test]
fn the_files_of_others_are_read_where_they_may_be() {
    if !is_root("the_files_of_others_are_read_where_they_may_be") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir(place.path().join("open")).unwrap();
    fs::write(place.path().join("open/file"), "content").unwrap();
    fs::write(place.path().join("closed"), "content").unwrap();
    fs::set_permissions(place.path().join("closed"), PermissionsExt::from_mode(0o600)).unwrap();
    as_nobody(|| {
        let mut directory = root(place.path());
        assert_eq!(directory.names().unwrap().len(), 2);
        assert!(directory.open(&name("open")).unwrap().open_file(&name("file")).is_ok(), "without O_NOATIME, then");
        let refused = directory.open_file(&name("closed")).unwrap_err();
        assert_eq!(refused.class, Class::Permission);
        assert!(refused.what.contains(place.path().to_str().unwrap()), "it says where: {refused}");
    });
}

#[test]
fn attributes_that_belong_to_the_data_are_read_and_no_others() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("file"), "").unwrap();
    fs::create_dir(place.path().join("directory")).unwrap();
    symlink("file", place.path().join("link")).unwrap();
    let set = |path: &str, name: &str, value: &[u8]| lsetxattr(place.path().join(path), name, value, XattrFlags::empty()).is_ok();
    if !set("file", "user.empty", b"") {
        println!("skipped: no extended attributes here");
        return;
    }
    assert!(set("file", "user.large", &[7; 3000]) && set("directory", "user.one", b"1") && set(".", "user.root", b"0"));
    let directory = root(place.path());
    let user = |xattrs: &Xattrs| xattrs.iter().filter(|(name, _)| name.starts_with(b"user.")).count();
    let of_file = directory.xattrs(&name("file")).unwrap();
    assert_eq!(of_file.get(b"user.empty".as_slice()), Some(&vec![]));
    assert_eq!(of_file.get(b"user.large".as_slice()), Some(&vec![7; 3000]));
    assert_eq!(user(&of_file), 2);
    let of_directory = directory.xattrs(&name("directory")).unwrap();
    assert_eq!(of_directory, directory.open(&name("directory")).unwrap().own_xattrs().unwrap());
    assert_eq!(of_directory.get(b"user.one".as_slice()), Some(&b"1".to_vec()));
    assert_eq!(directory.own_xattrs().unwrap().get(b"user.root".as_slice()), Some(&b"0".to_vec()));
    assert_eq!(user(&directory.xattrs(&name("link")).unwrap()), 0, "the link's own, not its target's");
    if is_root("trusted attributes of a link") {
        assert!(set("link", "trusted.link", b"l"));
        assert_eq!(directory.xattrs(&name("link")).unwrap().get(b"trusted.link".as_slice()), Some(&b"l".to_vec()));
    }
    assert_eq!(directory.xattrs(&name("missing")).unwrap_err().class, Class::NotFound);
}

#[test]
fn attributes_of_the_file_system_are_not_the_users() {
    for carried in ["user.x", "trusted.x", "security.capability", "system.posix_acl_access", "system.posix_acl_default"] {
        assert!(is_carried(carried.as_bytes()), "{carried}");
    }
    for left in [
        "trusted.SGI_ACL_FILE",
        "trusted.SGI_ACL_DEFAULT",
        "ceph.dir.layout",
        "ceph.quota.max_bytes",
        "system.nfs4_acl",
        "system.posix_acl",
        "os2.x",
        "username",
        "",
    ] {
        assert!(!is_carried(left.as_bytes()), "{left}");
    }
}

#[test]
fn the_place_of_a_tree_is_known() {
    let place = tempfile::tempdir().unwrap();
    let here = Place::of(&root(place.path())).unwrap();
    assert!(!here.is_read_only && !here.file_system.is_ceph());
    let proc = Place::of(&root(std::path::Path::new("/proc"))).unwrap();
    assert_eq!(proc.file_system, FileSystem::Other);
}

#[test]
fn without_openat2_nothing_is_opened() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("directory")).unwrap();
    fs::write(place.path().join("file"), "").unwrap();
    let open = root(place.path());
    without(libc::SYS_openat2, Errno::NOSYS, || {
        let refused = [
            Dir::root(place.path()).unwrap_err(),
            open.open(&name("directory")).unwrap_err(),
            open.open_file(&name("file")).unwrap_err(),
            open.open_to_write(&name("file")).unwrap_err(),
            open.open_to_change(&name("directory")).unwrap_err(),
            open.make_file(&name("new")).unwrap_err(),
            open.set_attributes(&name("file"), &Attributes::default(), true).unwrap_err(),
            open.remove_all(&name("directory")).unwrap_err(),
        ];
        for fault in refused {
            assert_eq!(fault.class, Class::Unsupported, "{fault}");
        }
    });
    assert!(place.path().join("directory").exists() && !place.path().join("new").exists());
}
