use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::super::*;
use super::{is_root, name, root};
use crate::state::Class;

/// Runs itself once more, where a directory with a file is mounted in the tree.
#[test]
fn a_mount_is_not_gone_through() {
    if let Some(place) = std::env::var_os("SIPHON_TEST_MOUNT") {
        return in_front_of_a_mount(Path::new(&place));
    }
    if !is_root("a_mount_is_not_gone_through") {
        return;
    }
    if !Command::new("unshare").args(["--mount", "true"]).status().unwrap().success() {
        println!("a_mount_is_not_gone_through: skipped, nothing can be mounted in a namespace of its own");
        return;
    }
    let (place, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(place.path().join("tree/mount")).unwrap();
    fs::write(place.path().join("tree/bound"), "").unwrap();
    fs::write(outside.path().join("file"), "kept").unwrap();
    let script = "mount --bind \"$2\" \"$1\"/tree/mount && mount --bind \"$2\"/file \"$1\"/tree/bound && exec \"$0\" --exact --nocapture \"$3\"";
    let this = format!("{}::a_mount_is_not_gone_through", module_path!().split_once("::").unwrap().1);
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .args([std::env::current_exe().unwrap().as_path(), place.path(), outside.path(), Path::new(&this)])
        .env("SIPHON_TEST_MOUNT", place.path())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"kept");
    assert_eq!(fs::metadata(outside.path().join("file")).unwrap().mode() & 0o7777, 0o644);
    assert!(place.path().join("done").exists(), "it has run there");
}

fn in_front_of_a_mount(place: &Path) {
    let top = root(place);
    let tree = top.open(&name("tree")).unwrap();
    let (mount, bound) = (name("mount"), name("bound"));
    assert!(tree.look(&mount).unwrap().unwrap().is_mount && tree.look(&bound).unwrap().unwrap().is_mount);
    let wanted = crate::format::Attributes { mode: 0o777, ..Default::default() };
    let refused = [
        tree.open(&mount).unwrap_err(),
        tree.open_to_change(&mount).unwrap_err(),
        tree.open_file(&bound).unwrap_err(),
        tree.open_to_write(&bound).unwrap_err(),
        tree.set_attributes(&mount, &wanted, true).unwrap_err(),
        tree.set_attributes(&bound, &wanted, true).unwrap_err(),
        tree.link(&bound, &tree, &name("new")).unwrap_err(),
    ];
    for fault in refused {
        assert_eq!(fault.class, Class::Mounted, "{fault}");
    }
    assert!(tree.rename(&mount, &tree, &name("new")).is_err());
    assert!(tree.remove(&bound).is_err() && top.remove_all(&name("tree")).is_err());
    let crossing = Dir::root_to_read(place, true).unwrap().open(&name("tree")).unwrap();
    assert_eq!(crossing.open(&mount).unwrap().names().unwrap(), [name("file")], "for readers that are told to");
    assert!(crossing.open_file(&bound).is_ok());
    // It shows a directory of a file system, and no more.
    assert!(!crossing.open(&mount).unwrap().mounted_from().unwrap().is_whole);
    assert!(root(Path::new("/proc")).mounted_from().unwrap().is_whole);
    fs::write(place.join("done"), "").unwrap();
}
