//! What lies outside of a tree, and whether somebody was there.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// All that stat(2) knows of each thing but access times, and the content of files.
pub type Listing = BTreeMap<PathBuf, (Vec<i64>, Vec<u8>)>;

/// Watched by inotify, every file and directory of it: to open one is an event, and so is all that comes then.
pub struct Outside {
    root: PathBuf,
    watch: OwnedFd,
}

impl Outside {
    /// What is there now is watched.
    pub fn watch(root: &Path) -> Outside {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        let outside = Outside { root: root.to_owned(), watch };
        for path in outside.listing().keys().filter(|path| !path.is_symlink()) {
            inotify::add_watch(&outside.watch, path, WatchFlags::ALL_EVENTS).unwrap();
        }
        outside
    }

    /// What happened since the last time: all that was done, and what of it changed something.
    pub fn events(&self) -> (u64, u64) {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut events = Reader::new(&self.watch, &mut buffer);
        let reads = ReadFlags::OPEN | ReadFlags::ACCESS | ReadFlags::CLOSE_NOWRITE;
        let (mut all, mut changes) = (0, 0);
        loop {
            match events.next() {
                Ok(event) => {
                    let kinds = event.events().difference(ReadFlags::ISDIR);
                    // Each of them is opened first. One of our own listing comes late where another thread forked meanwhile.
                    if kinds == ReadFlags::CLOSE_NOWRITE {
                        continue;
                    }
                    all += 1;
                    changes += u64::from(!kinds.difference(reads).is_empty());
                }
                Err(Errno::AGAIN) => return (all, changes),
                Err(error) => panic!("inotify: {error}"),
            }
        }
    }

    /// Everything there. To look is an event, too: this looks at the events no more.
    pub fn listing(&self) -> Listing {
        fn walk(path: &Path, found: &mut Listing) {
            let meta = fs::symlink_metadata(path).unwrap();
            let numbers = [meta.ino(), meta.nlink(), meta.size(), meta.mode().into(), meta.uid().into(), meta.gid().into()];
            let mut all: Vec<i64> = numbers.iter().map(|number| number.cast_signed()).collect();
            all.extend([meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()]);
            found.insert(path.to_owned(), (all, if meta.is_file() { fs::read(path).unwrap() } else { Vec::new() }));
            if meta.is_dir() {
                fs::read_dir(path).unwrap().for_each(|entry| walk(&entry.unwrap().path(), found));
            }
        }
        let mut found = Listing::new();
        walk(&self.root, &mut found);
        self.events();
        found
    }
}
