use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use super::super::*;
use super::{NOBODY, as_nobody, give, is_root, name, root};
use crate::format::Node;
use crate::state::Class;

#[test]
fn removing_one_is_not_removing_many() {
    let place = tempfile::tempdir().unwrap();
    let directory = root(place.path());
    directory.make_dir(&name("directory")).unwrap().make_file(&name("file")).unwrap();
    assert!(directory.remove(&name("directory")).is_err());
    assert!(directory.remove_dir(&name("directory")).is_err());
    directory.open(&name("directory")).unwrap().remove(&name("file")).unwrap();
    directory.remove_dir(&name("directory")).unwrap();
    assert_eq!(directory.remove(&name("directory")).unwrap_err().class, Class::NotFound);
}

#[test]
fn all_of_a_tree_goes_and_nothing_outside_it() {
    let (place, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("file"), "").unwrap();
    let directory = root(place.path());
    directory.make_file(&name("beside")).unwrap();
    let tree = directory.make_dir(&name("tree")).unwrap();
    tree.make_symlink(&name("away"), outside.path().to_str().unwrap().as_bytes()).unwrap();
    tree.make_node(&name("fifo"), &Node::Fifo).unwrap();
    let wide = tree.make_dir(&name("wide")).unwrap();
    for n in 0..10_000 {
        wide.make_file(&name(&format!("file-{n}"))).unwrap();
    }
    directory.remove_all(&name("tree")).unwrap();
    directory.remove_all(&name("tree")).unwrap();
    directory.make_symlink(&name("tree"), outside.path().to_str().unwrap().as_bytes()).unwrap();
    directory.remove_all(&name("tree")).unwrap();
    let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["beside"]);
    assert!(outside.path().join("file").exists());
}

/// Makes directories in one another; at each tenth, a file, and a name that removal itself uses.
fn make_deep(directory: &Dir, depth: usize) {
    let mut here = directory.make_dir(&name("deep")).unwrap();
    for n in 0..depth {
        if n % 10 == 0 {
            here.make_file(&name("file")).unwrap();
            here.make_file(&name(&format!(".removed-{}", n / 10))).unwrap();
        }
        here = here.make_dir(&name("d")).unwrap();
    }
}

#[test]
fn a_tree_of_any_depth_goes_with_few_descriptors() {
    let depth = 3000;
    let place = tempfile::tempdir().unwrap();
    let directory = root(place.path());
    make_deep(&directory, depth);
    let done = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(open_below(place.path()));
            }
            most
        });
        directory.remove_all(&name("deep")).unwrap();
        done.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    });
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    println!("{depth} deep, {most} descriptors");
    assert!((1..=40).contains(&most), "{most}");
}

/// Our open descriptors below a path. The kernel spells no path longer than a page.
fn open_below(path: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| fs::read_link(entry.path()));
    let deep = |error: &std::io::Error| error.raw_os_error() == Some(Errno::NAMETOOLONG.raw_os_error());
    links.filter(|link| link.as_ref().map_or_else(deep, |link| link.starts_with(path))).count()
}

#[test]
fn what_its_owner_has_closed_goes_as_well() {
    if !is_root("what_its_owner_has_closed_goes_as_well") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    make_deep(&root(place.path()), 100);
    close(&place.path().join("deep"));
    give(place.path());
    as_nobody(|| root(place.path()).remove_all(&name("deep")).unwrap());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

fn close(path: &Path) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| close(&entry.unwrap().path()));
    }
    fs::set_permissions(path, PermissionsExt::from_mode(0o000)).unwrap();
}

#[test]
fn what_may_not_be_removed_is_an_error_that_says_where() {
    if !is_root("what_may_not_be_removed_is_an_error_that_says_where") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    fs::create_dir_all(place.path().join("tree/of_root")).unwrap();
    fs::write(place.path().join("tree/of_root/file"), "").unwrap();
    std::os::unix::fs::lchown(place.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    as_nobody(|| {
        let fault = root(place.path()).remove_all(&name("tree")).unwrap_err();
        assert_eq!(fault.class, Class::Permission);
        assert!(fault.what.contains("tree/of_root"), "{fault}");
    });
    assert!(place.path().join("tree/of_root/file").exists());
}
