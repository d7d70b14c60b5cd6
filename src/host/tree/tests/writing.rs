use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use rustix::io::Errno;

use super::super::*;
use super::{as_nobody, give, is_root, name, root, without};
use crate::format::Node;
use crate::state::Class;

const FIFO: Node = Node::Fifo;

#[test]
fn what_is_made_is_its_owners_alone() {
    let place = tempfile::tempdir().unwrap();
    let directory = root(place.path());
    directory.make_file(&name("file")).unwrap().write_all(b"x").unwrap();
    directory.make_dir(&name("directory")).unwrap().make_file(&name("inner")).unwrap();
    directory.make_symlink(&name("link"), b"nowhere/\xff").unwrap();
    directory.make_node(&name("fifo"), &FIFO).unwrap();
    directory.make_node(&name("socket"), &Node::Socket).unwrap();
    let look = |text: &str| directory.look(&name(text)).unwrap().unwrap();
    for (text, kind, mode) in [
        ("file", Kind::File, 0o600),
        ("directory", Kind::Directory, 0o700),
        ("fifo", Kind::Fifo, 0o600),
        ("socket", Kind::Socket, 0o600),
    ] {
        assert_eq!((look(text).kind, look(text).mode), (kind, mode), "{text}");
    }
    assert_eq!(directory.read_link(&name("link")).unwrap(), b"nowhere/\xff");
    assert_eq!(directory.make_node(&name("x"), &Node::Directory).unwrap_err().class, Class::Unsupported);
    if is_root("devices") {
        let device = Node::Device { is_block: true, major: 7, minor: 300 };
        directory.make_node(&name("device"), &device).unwrap();
        assert_eq!(look("device").node(None), device);
    }
}

#[test]
fn what_is_there_is_not_replaced_nor_followed_to_outside() {
    let (place, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink(outside.path().join("new"), place.path().join("link")).unwrap();
    fs::write(place.path().join("file"), "").unwrap();
    let directory = root(place.path());
    for taken in ["link", "file"].map(name) {
        let refused = [
            directory.make_file(&taken).unwrap_err(),
            directory.make_dir(&taken).unwrap_err(),
            directory.make_symlink(&taken, b"x").unwrap_err(),
            directory.make_node(&taken, &FIFO).unwrap_err(),
            directory.link(&name("file"), &directory, &taken).unwrap_err(),
            directory.rename(&name("file"), &directory, &taken).unwrap_err(),
        ];
        for fault in refused {
            assert_eq!(fault.class, Class::Exists, "{fault}");
        }
    }
    assert_eq!(directory.open_to_write(&name("link")).unwrap_err().class, Class::Changed);
    assert_eq!(directory.open_to_change(&name("link")).unwrap_err().class, Class::Changed);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_file_is_opened_for_writing_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("file"), "content").unwrap();
    let mut file = root(place.path()).open_to_write(&name("file")).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    assert_eq!(root(place.path()).open_to_write(&name("missing")).unwrap_err().class, Class::NotFound);
}

#[test]
fn an_owner_without_rights_is_let_in_and_keeps_other_bits() {
    if !is_root("an_owner_without_rights_is_let_in_and_keeps_other_bits") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    fs::create_dir(path("directory")).unwrap();
    fs::write(path("file"), "").unwrap();
    fs::write(path("fine"), "").unwrap();
    for (name, mode) in [("directory", 0o055), ("file", 0o044), ("fine", 0o640)] {
        fs::set_permissions(path(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    give(place.path());
    let before = fs::metadata(path("fine")).unwrap();
    as_nobody(|| {
        let directory = root(place.path());
        directory.open_to_write(&name("file")).unwrap();
        directory.open_to_write(&name("fine")).unwrap();
        directory.open_to_change(&name("directory")).unwrap().make_file(&name("new")).unwrap();
    });
    let mode = |name: &str| fs::metadata(path(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("directory"), mode("file"), mode("fine")), (0o755, 0o644, 0o640));
    assert_eq!(before.ctime_nsec(), fs::metadata(path("fine")).unwrap().ctime_nsec(), "nothing was changed");
    chown(path("file"), Some(0), Some(0)).unwrap();
    fs::set_permissions(path("file"), PermissionsExt::from_mode(0o444)).unwrap();
    as_nobody(|| assert_eq!(root(place.path()).open_to_write(&name("file")).unwrap_err().class, Class::Permission));
}

#[test]
fn a_link_to_a_link_is_the_link_itself() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("file"), "").unwrap();
    let directory = root(place.path());
    let other = directory.make_dir(&name("other")).unwrap();
    directory.make_symlink(&name("link"), b"file").unwrap();
    directory.link(&name("link"), &other, &name("again")).unwrap();
    let (link, again) = (directory.look(&name("link")).unwrap().unwrap(), other.look(&name("again")).unwrap().unwrap());
    assert!(link.is_same(&again) && again.kind == Kind::Symlink && again.links == 2);
    assert_eq!(directory.link(&name("missing"), &other, &name("x")).unwrap_err().class, Class::NotFound);
}

/// Also where the file system does not know the flag: as ZFS 2.1 and FUSE say it.
#[test]
fn a_rename_takes_no_name_that_is_taken() {
    let rename = || {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("file"), "1").unwrap();
        fs::hard_link(place.path().join("file"), place.path().join("same")).unwrap();
        symlink("nowhere", place.path().join("dangling")).unwrap();
        let directory = root(place.path());
        let other = directory.make_dir(&name("other")).unwrap();
        for taken in ["other", "same", "dangling", "file"] {
            let fault = directory.rename(&name("file"), &directory, &name(taken)).unwrap_err();
            assert_eq!(fault.class, Class::Exists, "{fault}");
        }
        directory.rename(&name("file"), &other, &name("moved")).unwrap();
        assert_eq!(fs::read(place.path().join("other/moved")).unwrap(), b"1");
        assert!(!place.path().join("file").exists());
        assert_eq!(directory.rename(&name("file"), &other, &name("x")).unwrap_err().class, Class::NotFound);
    };
    rename();
    without(libc::SYS_renameat2, Errno::INVAL, rename);
}
