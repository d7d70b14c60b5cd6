use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::super::*;
use super::{NOBODY, as_nobody, is_root, name, root};
use crate::format::{Attributes, Node, Time};

const TIME: Time = Time { seconds: 1_000_000_000, nanoseconds: 123_456_789 };
const BEFORE_1970: Time = Time { seconds: -5, nanoseconds: 999_999_999 };

fn xattrs(pairs: &[(&str, &[u8])]) -> Xattrs {
    pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
}

/// A POSIX ACL as xattrs hold it: owner, one more user, group, mask and others, with these permissions.
fn acl(permissions: [u16; 5]) -> Vec<u8> {
    let who = [(1, u32::MAX), (2, 1234), (4, u32::MAX), (16, u32::MAX), (32, u32::MAX)];
    let mut value = 2_u32.to_le_bytes().to_vec();
    for ((tag, id), permission) in who.into_iter().zip(permissions) {
        value.extend(u16::to_le_bytes(tag));
        value.extend(permission.to_le_bytes());
        value.extend(u32::to_le_bytes(id));
    }
    value
}

/// `security.capability`, version 2: may open raw sockets.
const CAPABILITY: &[u8] = &[0, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn read(directory: &Dir, name: &crate::format::Name) -> Attributes {
    directory.look(name).unwrap().unwrap().attributes(directory.xattrs(name).unwrap())
}

#[test]
fn everything_is_set_on_every_kind_and_then_nothing_more() {
    if !is_root("everything_is_set_on_every_kind_and_then_nothing_more") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let directory = root(place.path());
    directory.make_file(&name("file")).unwrap();
    directory.make_dir(&name("directory")).unwrap();
    directory.make_symlink(&name("link"), b"file").unwrap();
    directory.make_node(&name("fifo"), &Node::Fifo).unwrap();
    directory.make_node(&name("socket"), &Node::Socket).unwrap();
    directory.make_node(&name("device"), &Node::Device { is_block: false, major: 1, minor: 3 }).unwrap();
    let acl = acl([7, 6, 5, 5, 0]);
    let file = xattrs(&[
        ("security.capability", CAPABILITY),
        ("system.posix_acl_access", &acl),
        ("trusted.t", b"\0\xff"),
        ("user.empty", b""),
        ("user.u", &[5; 1000]),
    ]);
    let of_directory = xattrs(&[("system.posix_acl_access", &acl), ("system.posix_acl_default", &acl), ("user.u", b"1")]);
    let trusted = xattrs(&[("trusted.t", b"t")]);
    for (text, mode, modified, xattrs) in [
        ("file", 0o6750, TIME, file),
        ("directory", 0o3750, BEFORE_1970, of_directory),
        ("link", 0o777, TIME, trusted.clone()),
        ("fifo", 0o640, BEFORE_1970, trusted.clone()),
        ("socket", 0o4644, TIME, trusted.clone()),
        ("device", 0o620, TIME, trusted),
    ] {
        let wanted = Attributes { mode, uid: 1001, gid: 1002, modified, xattrs };
        let name = name(text);
        assert_eq!(directory.set_attributes(&name, &wanted, true).unwrap(), [], "{text}");
        assert_eq!(read(&directory, &name), wanted, "{text}");
        let before = directory.look(&name).unwrap().unwrap();
        assert_eq!(directory.set_attributes(&name, &wanted, true).unwrap(), [], "{text}");
        assert_eq!(directory.look(&name).unwrap().unwrap(), before, "not even st_ctime moves: {text}");
        let again = Attributes { uid: 1003, gid: 1004, ..wanted };
        assert_eq!(directory.set_attributes(&name, &again, true).unwrap(), [], "{text}");
        assert_eq!(read(&directory, &name), again, "a new owner takes nothing away: {text}");
        let bare = Attributes { mode: if text == "link" { 0o777 } else { 0o604 }, xattrs: Xattrs::new(), ..again };
        assert_eq!(directory.set_attributes(&name, &bare, true).unwrap(), [], "{text}");
        assert_eq!(read(&directory, &name), bare, "what is not wanted is gone: {text}");
    }
}

#[test]
fn a_directory_itself_and_an_open_file_are_set_in_the_same_way() {
    let place = tempfile::tempdir().unwrap();
    let directory = root(place.path());
    let file = directory.make_file(&name("file")).unwrap();
    let inner = directory.make_dir(&name("inner")).unwrap();
    let own = directory.meta().unwrap();
    let wanted = Attributes { mode: 0o751, uid: own.uid, gid: own.gid, modified: TIME, xattrs: xattrs(&[("user.u", b"1")]) };
    directory.rename(&name("file"), &directory, &name("renamed")).unwrap();
    assert_eq!(set_file_attributes(&file, &wanted, false).unwrap(), []);
    assert_eq!(inner.set_own_attributes(&wanted, false).unwrap(), []);
    assert_eq!(read(&directory, &name("renamed")), wanted);
    assert_eq!(inner.meta().unwrap().attributes(inner.own_xattrs().unwrap()), wanted);
    assert_eq!(read(&directory, &name("inner")), wanted);
}

#[test]
fn a_link_is_set_itself_and_what_it_points_to_is_left() {
    let (place, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("file"), "").unwrap();
    symlink(outside.path().join("file"), place.path().join("link")).unwrap();
    let before = root(outside.path()).look(&name("file")).unwrap();
    let directory = root(place.path());
    let own = directory.meta().unwrap();
    let wanted = Attributes { mode: 0o640, uid: own.uid, gid: own.gid, modified: TIME, xattrs: xattrs(&[("user.u", b"1")]) };
    let unset = directory.set_attributes(&name("link"), &wanted, true).unwrap();
    assert_eq!(unset.len(), 1, "a link has no mode, and no attributes of users: {unset:?}");
    assert_eq!((&unset[0].attribute, unset[0].error.is_some()), (&Attribute::Xattr(b"user.u".to_vec()), true));
    assert_eq!(directory.look(&name("link")).unwrap().unwrap().modified, TIME);
    assert_eq!(root(outside.path()).look(&name("file")).unwrap(), before);
}

#[test]
fn what_belongs_to_the_file_system_is_never_set() {
    let place = tempfile::tempdir().unwrap();
    let directory = root(place.path());
    directory.make_file(&name("file")).unwrap();
    let foreign = xattrs(&[("ceph.quota.max_bytes", b"1"), ("system.nfs4_acl", b"1"), ("x", b"1")]);
    let wanted = Attributes { xattrs: foreign.clone(), ..read(&directory, &name("file")) };
    let unset = directory.set_attributes(&name("file"), &wanted, true).unwrap();
    let never: Vec<Unset> = foreign.into_keys().map(|name| Unset { attribute: Attribute::Xattr(name), error: None }).collect();
    assert_eq!(unset, never, "not even tried");
}

#[test]
fn a_time_that_the_file_system_cannot_keep_is_told() {
    let place = tempfile::tempdir().unwrap();
    let directory = root(place.path());
    directory.make_file(&name("file")).unwrap();
    let wanted = Attributes { modified: Time { seconds: i64::MAX, nanoseconds: 0 }, ..read(&directory, &name("file")) };
    let unset = directory.set_attributes(&name("file"), &wanted, true).unwrap();
    assert_eq!(unset, [Unset { attribute: Attribute::Modified, error: None }]);
}

#[test]
fn without_privileges_what_is_the_users_is_set_and_the_rest_told() {
    if !is_root("without_privileges_what_is_the_users_is_set_and_the_rest_told") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let directory = root(place.path());
    for text in ["by_root", "by_nobody"] {
        directory.make_file(&name(text)).unwrap();
        let had = Attributes { mode: 0o400, uid: NOBODY, gid: NOBODY, modified: TIME, xattrs: xattrs(&[("user.old", b"1")]) };
        assert_eq!(directory.set_attributes(&name(text), &had, true).unwrap(), []);
    }
    let acl = acl([4, 4, 4, 4, 0]);
    let all =
        xattrs(&[("security.capability", CAPABILITY), ("system.posix_acl_access", &acl), ("trusted.t", b"t"), ("user.u", b"u")]);
    let wanted = Attributes { mode: 0o4440, uid: 0, gid: 0, modified: BEFORE_1970, xattrs: all };
    let told = |unset: Vec<Unset>| {
        assert!(unset.iter().all(|unset| unset.error.is_none()), "{unset:?}");
        unset.iter().map(|unset| unset.attribute.to_string()).collect::<Vec<_>>()
    };
    let set = |text: &str| told(root(place.path()).set_attributes(&name(text), &wanted, false).unwrap());
    let never = ["owner", "group", "set-id bits", "security.capability", "trusted.t"];
    assert_eq!(set("by_root"), never, "not tried, though we could");
    as_nobody(|| assert_eq!(set("by_nobody"), never));
    for text in ["by_root", "by_nobody"] {
        let xattrs = xattrs(&[("system.posix_acl_access", &acl), ("user.u", b"u")]);
        let is = Attributes { mode: 0o440, uid: NOBODY, gid: NOBODY, modified: BEFORE_1970, xattrs };
        assert_eq!(read(&directory, &name(text)), is, "{text}");
    }
}

#[test]
fn a_mode_that_shuts_its_owner_out_is_no_obstacle() {
    if !is_root("a_mode_that_shuts_its_owner_out_is_no_obstacle") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("file");
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(&path, "").unwrap();
    let directory = root(place.path());
    let at = name("file");
    let shut = |xattrs| Attributes { mode: 0, uid: NOBODY, gid: NOBODY, modified: TIME, xattrs };
    assert_eq!(directory.set_attributes(&at, &shut(xattrs(&[("user.a", b"1")])), true).unwrap(), []);
    for wanted in [xattrs(&[("user.a", b"2")]), xattrs(&[("user.b", b"1")]), Xattrs::new()].map(shut) {
        as_nobody(|| assert_eq!(root(place.path()).set_attributes(&at, &wanted, false).unwrap(), []));
        assert_eq!(read(&directory, &at), wanted);
    }
}

#[test]
fn what_the_system_refuses_is_told_with_its_reason() {
    if !is_root("what_the_system_refuses_is_told_with_its_reason") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(place.path().join("file"), "").unwrap();
    fs::set_permissions(place.path().join("file"), PermissionsExt::from_mode(0o644)).unwrap();
    let before = fs::metadata(place.path().join("file")).unwrap();
    as_nobody(|| {
        let directory = root(place.path());
        let acl = acl([6, 4, 4, 4, 0]);
        let all = xattrs(&[("system.posix_acl_access", &acl), ("trusted.t", b"t"), ("user.u", b"u")]);
        let wanted = Attributes { mode: 0o4640, uid: 1, gid: 1, modified: TIME, xattrs: all };
        let unset = directory.set_attributes(&name("file"), &wanted, true).unwrap();
        let told: Vec<String> = unset.iter().map(Unset::to_string).collect();
        let named =
            ["owner", "group", "mode", "set-id bits", "modification time", "trusted.t", "user.u", "system.posix_acl_access"];
        assert_eq!(told.len(), named.len(), "{told:?}");
        for (told, named) in told.iter().zip(named) {
            assert!(
                told.starts_with(&format!("{named}: ")) && told.contains("not permitted") | told.contains("denied"),
                "{told}"
            );
        }
    });
    let after = fs::metadata(place.path().join("file")).unwrap();
    assert_eq!((before.ctime(), before.ctime_nsec()), (after.ctime(), after.ctime_nsec()));
}

#[test]
fn a_label_of_the_targets_own_is_no_difference() {
    if !is_root("a_label_of_the_targets_own_is_no_difference") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let directory = root(place.path());
    directory.make_file(&name("file")).unwrap();
    let plain = read(&directory, &name("file"));
    let labelled = Attributes { xattrs: xattrs(&[("security.selinux", b"a label")]), ..plain.clone() };
    assert_eq!(directory.set_attributes(&name("file"), &labelled, true).unwrap(), []);
    // Nobody may remove it; and where a stream knows of none, nothing is missing without rights, either.
    for privileged in [true, false] {
        assert_eq!(directory.set_attributes(&name("file"), &plain, privileged).unwrap(), []);
        assert_eq!(read(&directory, &name("file")), labelled);
    }
}
