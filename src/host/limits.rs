//! What this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Allows as many open files as an unprivileged process may: a deep tree is held open from its root to where one is.
pub fn many_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where this cannot be, a tree that is too deep is an error later.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
