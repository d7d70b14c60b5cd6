//! A tree and what may happen to it in a night: everything that a stream can say, many times.

use std::collections::BTreeMap;

use siphon::format::{Change, Data, Node, Origin, TreeChange, TreePath};

use super::tree_streams::{Stream, file, path, symlink};

const FILES: u64 = 24;

fn size(dir: u64, n: u64) -> u64 {
    1000 + 700 * n + 13 * dir
}

fn name(dir: u64, n: u64) -> String {
    format!("d{dir:02}/f{n:02}")
}

fn content(seed: u64, size: u64) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at / 100 + seed) % 251).unwrap()).collect()
}

/// Twelve directories of files, and links.
pub fn evening() -> Stream {
    let mut stream = Stream::whole(1);
    for dir in 0..12 {
        stream = stream.dir(&format!("d{dir:02}"), Origin::New);
        for n in 0..FILES {
            stream = stream.file(&name(dir, n), &content(100 * dir + n, size(dir, n)));
        }
        stream = stream.entry(&format!("d{dir:02}/s"), Origin::New, symlink("there"));
    }
    stream
}

enum Said {
    Entry(Origin, Node, Vec<(u64, Vec<u8>)>),
    /// Taken from here.
    From(String, Node, Vec<(u64, Vec<u8>)>),
    Link(String),
}

#[derive(Default)]
struct Night {
    /// By path: whether it comes back.
    gone: BTreeMap<TreePath, bool>,
    said: BTreeMap<TreePath, Said>,
}

impl Night {
    fn gone(&mut self, at: &str) {
        self.gone.insert(path(at), false);
    }

    fn say(&mut self, at: &str, said: Said) {
        if let Said::From(from, ..) = &said {
            self.gone.insert(path(from), true);
        }
        self.said.insert(path(at), said);
    }

    fn dir(&mut self, at: &str, origin: Origin) {
        self.say(at, Said::Entry(origin, Node::Directory, vec![]));
    }

    fn stream(self) -> Stream {
        let mut stream = Stream::since(1, 2);
        let (mut numbers, mut last) = (BTreeMap::new(), 0);
        for (path, comes_back) in self.gone.into_iter().rev() {
            last += u64::from(comes_back);
            let number = comes_back.then_some(last);
            numbers.insert(path.to_string(), last);
            stream = stream.say(TreeChange::Gone { path, number });
        }
        for (path, said) in self.said {
            let at = path.to_string();
            let (origin, node, extents) = match said {
                Said::Link(to) => {
                    stream = stream.link(&at, &to);
                    continue;
                }
                Said::Entry(origin, node, extents) => (origin, node, extents),
                Said::From(from, node, extents) => (Origin::Taken(numbers[&from]), node, extents),
            };
            stream = stream.entry(&at, origin, node);
            for (offset, bytes) in extents {
                stream = stream.say(TreeChange::Extent(Change::Data(Data::new(offset, bytes))));
            }
        }
        stream
    }
}

/// The same size, other content in its first block.
fn edited(old: u64, new: u64, seed: u64) -> (Node, Vec<(u64, Vec<u8>)>) {
    (Node::File { size: new, old_size: old }, vec![(0, content(seed, new.min(4096)))])
}

/// What the next morning begins with.
pub fn night() -> Stream {
    let mut night = Night::default();
    night.dir("", Origin::Kept);
    // Three directories change places, and what is in them changes.
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        night.say(&format!("d{to:02}"), Said::From(format!("d{from:02}"), Node::Directory, vec![]));
        for n in (0..FILES).step_by(3) {
            let (node, extents) = edited(size(from, n), size(from, n), 7 * n + from);
            night.say(&name(to, n), Said::Entry(Origin::Kept, node, extents));
        }
    }
    for dir in [3, 4, 6, 7, 8, 10, 11] {
        night.dir(&format!("d{dir:02}"), Origin::Kept);
    }
    for n in 0..FILES {
        // Files swap their names by twos.
        let kept = |dir| Node::File { size: size(dir, n), old_size: size(dir, n) };
        night.say(&name(3, n ^ 1), Said::From(name(3, n), kept(3), vec![]));
        night.gone(&name(4, n));
        // Half of what was in a directory is saved from it.
        if n % 2 == 0 {
            night.say(&format!("new/g{n:02}"), Said::From(name(5, n), kept(5), vec![]));
        }
        let (node, extents) = edited(size(6, n), size(6, n) + 9000, n);
        night.say(&name(6, n), Said::Entry(Origin::Kept, node, extents));
        night.gone(&name(7, n));
        let fresh = content(n + 50, size(7, n) / 2);
        night.say(&name(7, n), Said::Entry(Origin::New, file(fresh.len() as u64), vec![(0, fresh)]));
        night.say(&format!("d08/a{n:02}"), Said::Link(name(8, n)));
        night.say(&format!("new/h{n:02}"), Said::Link(name(8, n)));
        night.say(&name(11, n), Said::Entry(Origin::Kept, Node::File { size: 10, old_size: size(11, n) }, vec![]));
        night.say(&format!("d10/p{n:02}"), Said::Entry(Origin::New, Node::Fifo, vec![]));
    }
    let large = content(9, 1 << 20);
    night.say("zz", Said::Entry(Origin::New, file(large.len() as u64), vec![(0, large)]));
    night.say("d10/s", Said::Entry(Origin::Kept, symlink("elsewhere"), vec![]));
    night.gone("d05");
    night.dir("new", Origin::New);
    night.gone("d09");
    night.say("d09", Said::Entry(Origin::New, file(5000), vec![(0, content(3, 5000))]));
    night.stream()
}
