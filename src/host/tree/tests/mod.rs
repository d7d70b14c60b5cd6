//! Promises of this layer, kept on a temporary directory.

mod attributes;
mod mounts;
mod reading;
mod removing;
mod writing;

use std::fs;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_res_uid;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use super::Dir;
use crate::format::Name;

/// A user without rights.
const NOBODY: u32 = 65534;

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn root(path: &Path) -> Dir {
    Dir::root(path).unwrap()
}

/// Some tests need to make nodes or owners.
fn is_root(test: &str) -> bool {
    let is = geteuid().is_root();
    if !is {
        println!("{test}: skipped, needs root");
    }
    is
}

/// Runs this in a thread of a user without rights.
fn as_nobody(test: impl FnOnce() + Send) {
    let nobody = Uid::from_raw(NOBODY);
    in_thread(|| set_thread_res_uid(nobody, nobody, nobody).unwrap(), test);
}

/// Runs this in a thread for which a system call gives an error.
fn without(call: i64, error: Errno, test: impl FnOnce() + Send) {
    let error = SeccompAction::Errno(error.raw_os_error().unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new([(call, Vec::new())].into(), SeccompAction::Allow, error, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    in_thread(|| apply_filter(&program).unwrap(), test);
}

/// What is given up there is given up for that thread only.
fn in_thread(give_up: impl FnOnce() + Send, test: impl FnOnce() + Send) {
    let result = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            give_up();
            test();
        });
        thread.join()
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Gives a place and all in it to the user without rights.
fn give(path: &Path) {
    let meta = fs::symlink_metadata(path).unwrap();
    if meta.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path()));
    }
    std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}
