//! The promises of tree-apply(1), kept by the real program. Hostile streams, faults and users without rights have files of their
//! own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;
mod vectors;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::complaint;
use common::streams::id;
use common::tree_streams::{Bed, Stream, attributes, is_root, symlink};
use siphon::format::{Attributes, Beginning, Node, Object, Origin, Tree, wire};
use siphon::state::{State, StateList};
use vectors::tree::listing_after;
use vectors::{list, load_with};

/// What no file system takes, or a list; each with what is said of it.
const NOT_APPLIED: [(&str, i32, &str); 5] = [
    ("tree_ok_largest_values.vec", 4, "unsupported"),
    ("tree_ok_acl.vec", 0, ""),
    ("tree_ok_list.vec", 4, "unsupported"),
    ("tree_ok_deepest.vec", 4, "wrong-base"),
    ("tree_ok_longest_path.vec", 4, "wrong-base"),
];

/// Makes the record say that the target is in the state that this stream begins from.
fn stand_at_base_of(bed: &Bed, stream: &[u8]) {
    let header = Beginning::read(stream, Tree::known_features()).unwrap().header().clone();
    let mut record: serde_json::Value = serde_json::from_str(&bed.record()).unwrap();
    record["held"]["id"] = header.from.unwrap().to_string().into();
    fs::write(bed.record_file(), record.to_string()).unwrap();
}

/// The target holds what the vector begins from.
fn bring_to_base(bed: &Bed, name: &str) {
    let (vector, base) = load_with(name);
    let Some(base) = base else { return };
    bring_to_base(bed, &base);
    bed.accept(&load_with(&base).0.stream, &["--all"]);
    stand_at_base_of(bed, &vector.stream);
}

#[test]
fn every_good_vector_gives_its_tree() {
    if !is_root() {
        return;
    }
    let (mut applied, mut refused) = (0, 0);
    for name in list().iter().filter(|name| name.starts_with("tree_ok")) {
        let bed = Bed::new();
        let (vector, base) = load_with(name);
        if base.is_none() && name.contains("est") && vector.result.is_none() {
            bed.accept(&Stream::whole(1).end(), &["--all"]);
            stand_at_base_of(&bed, &vector.stream);
        }
        bring_to_base(&bed, name);
        match NOT_APPLIED.iter().find(|(known, ..)| known == name) {
            None => {
                bed.accept(&vector.stream, &["--all"]);
                let listing = bed.listing();
                assert_eq!(Some(blake3::hash(listing.as_bytes()).to_string()), vector.result, "{name}\n{listing}");
                applied += 1;
            }
            // An empty ACL is none: Linux does not keep it.
            Some((_, 0, _)) => _ = bed.accept(&vector.stream, &["--all"]),
            Some((_, code, class)) => {
                bed.refuse(&vector.stream, &["--all"], *code, class);
                refused += 1;
            }
        }
        assert!(!bed.target.join(".siphon-taken").exists(), "{name}");
    }
    println!("applied {applied}, refused by name {refused}");
    assert!(applied >= 24);
}

/// What the refused increments may begin from.
fn bases() -> [Vec<u8>; 7] {
    let whole = || Stream::whole(9);
    let rest = |stream: Stream| stream.file("b", b"y").file("c", b"z").end();
    [
        rest(whole().dir("a", Origin::New).file("a/b", b"x")),
        rest(whole().file("a", b"")),
        rest(whole().entry("a", Origin::New, symlink("/etc"))),
        rest(whole().entry("a", Origin::New, symlink("/"))),
        whole().file("a", b"").file("b", b"").end(),
        whole().file("a", b"").end(),
        whole().end(),
    ]
}

#[test]
fn every_refused_vector_leaves_the_target_untouched_or_known_to_be_unfinished() {
    let (mut refused, mut untouched, mut unfinished) = (0, 0, 0);
    for name in list().iter().filter(|name| name.starts_with("tree_") && !name.starts_with("tree_ok")) {
        let vector = load_with(name).0;
        // Some damage is seen only where the target is what the stream begins from.
        let is_seen = bases().iter().any(|base| {
            let bed = Bed::new();
            // As root with all rights: nothing but the tool keeps it in.
            let begun = Beginning::read(vector.stream.as_slice(), Tree::known_features()).map(|begun| begun.header().clone());
            if begun.as_ref().is_ok_and(|header| header.from.is_some()) {
                bed.accept(base, &[]);
                stand_at_base_of(&bed, &vector.stream);
            } else {
                fs::create_dir(&bed.target).unwrap();
            }
            let (before, beside, record) = (bed.listing(), bed.beside(), bed.record());
            let output = bed.apply(&vector.stream, &["--all"]);
            let said = complaint(&output);
            assert_eq!(bed.beside(), beside, "{name}");
            assert!(output.stdout.is_empty(), "{name}");
            if bed.is_receiving() {
                unfinished += 1;
            } else {
                assert_eq!((bed.listing(), bed.record()), (before, record), "{name}");
                untouched += 1;
            }
            // A list is refused at once.
            let is_list = begun.is_ok_and(|header| header.has(wire::FEATURE_LIST)) && said.contains("[unsupported]");
            is_list || output.status.code() == Some(3) && said.contains(&format!("[{}]", vector.expect))
        });
        assert!(is_seen, "{name}: {}", vector.expect);
        refused += 1;
    }
    println!("{refused} refused with their classes; targets untouched {untouched}, known to be unfinished {unfinished}");
    assert!(refused > 100);
}

fn generations() -> [Stream; 4] {
    let first = Stream::whole(1)
        .file("a", b"one")
        .dir("d", Origin::New)
        .file("d/f", &[5; 10_000])
        .file("d/g", b"two names")
        .entry("d/s", Origin::New, symlink("f"))
        .dir("e", Origin::New)
        .link("e/g", "d/g")
        .entry("pipe", Origin::New, Node::Fifo);
    let second = Stream::since(1, 2)
        .taken("d/f")
        .gone("a")
        .dir("", Origin::Kept)
        .file("b", b"new")
        .dir("d", Origin::Kept)
        .entry("d/g", Origin::Kept, Node::File { size: 9, old_size: 9 })
        .data(0, b"TWO NAMES".to_vec())
        .dir("e", Origin::Kept)
        .entry("e/f", Origin::Taken(1), Node::File { size: 9_000, old_size: 10_000 });
    let third = Stream::since(2, 3)
        .taken("e")
        .taken("d")
        .dir("", Origin::Kept)
        .dir("d", Origin::Taken(1))
        .dir("e", Origin::Taken(2))
        .entry("e/s", Origin::Kept, symlink("elsewhere"))
        .link("e/t", "b");
    let fourth =
        Stream::since(3, 4).entry("e/g", Origin::Kept, Node::File { size: 9, old_size: 9 }).data(0, b"two names".to_vec());
    [first, second, third, fourth]
}

#[test]
fn every_generation_comes_out_equal() {
    let bed = Bed::new();
    let all: Vec<Vec<u8>> = generations().iter().map(Stream::end).collect();
    for upto in 1..=all.len() {
        let receipt = bed.accept(&all[upto - 1], &["--all"]);
        let streams: Vec<&[u8]> = all[..upto].iter().map(Vec::as_slice).collect();
        assert_eq!(bed.listing(), listing_after(&streams), "generation {upto}");
        assert!(receipt.entries > 0 && receipt.unset == 0 && !receipt.already);
    }
}

#[test]
fn lists_of_access_and_other_attributes_come_out_as_they_were() {
    if !is_root() {
        return;
    }
    let entry = |tag: u8, rights: u8, who: u32| [&[tag, 0, rights, 0], who.to_le_bytes().as_slice()].concat();
    let nobody = u32::MAX;
    let acl = |entries: &[Vec<u8>]| [&[2, 0, 0, 0], entries.concat().as_slice()].concat();
    let access = acl(&[entry(1, 7, nobody), entry(2, 6, 1234), entry(4, 5, nobody), entry(16, 7, nobody), entry(32, 4, nobody)]);
    let default = acl(&[entry(1, 7, nobody), entry(4, 5, nobody), entry(32, 0, nobody)]);
    let with = |mode, xattrs: &[(&str, &[u8])]| Attributes {
        xattrs: xattrs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect(),
        ..attributes(mode)
    };
    let bed = Bed::new();
    let stream = Stream::whole(1)
        .with("d", Origin::New, Node::Directory, with(0o2750, &[("system.posix_acl_default", &default), ("user.a", b"")]))
        .with("d/f", Origin::New, common::tree_streams::file(0), with(0o774, &[("system.posix_acl_access", &access)]))
        .with("d/plain", Origin::New, common::tree_streams::file(0), with(0o4711, &[("security.x", b"1"), ("trusted.x", b"2")]))
        .end();
    bed.accept(&stream, &["--all"]);
    assert_eq!(bed.listing(), listing_after(&[&stream]));
    let without = Stream::since(1, 2)
        .with("d", Origin::Kept, Node::Directory, attributes(0o700))
        .with("d/f", Origin::Kept, common::tree_streams::file(0), with(0o640, &[("user.b", b"new")]))
        .end();
    bed.accept(&without, &["--all"]);
    assert_eq!(bed.listing(), listing_after(&[&stream, &without]));
}

/// Inodes and times of change, of everything.
fn stamps(at: &Path) -> Vec<(String, u64, i64, i64)> {
    let meta = at.symlink_metadata().unwrap();
    let mut found = vec![(at.display().to_string(), meta.ino(), meta.ctime(), meta.ctime_nsec())];
    if meta.is_dir() {
        let mut names: Vec<_> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.iter().for_each(|path| found.extend(stamps(path)));
    }
    found
}

#[test]
fn the_same_stream_twice_changes_nothing_and_says_so() {
    let bed = Bed::new();
    for stream in generations().iter().map(Stream::end) {
        assert!(!bed.accept(&stream, &["--all"]).already);
        let before = (stamps(&bed.target), bed.record());
        assert!(bed.accept(&stream, &["--all"]).already);
        assert_eq!((stamps(&bed.target), bed.record()), before);
        // Damage is found even where nothing is written.
        bed.refuse(&stream[..stream.len() - 1], &["--all"], 3, "truncated");
        assert_eq!((stamps(&bed.target), bed.record()), before);
    }
}

#[test]
fn a_dry_run_verifies_and_changes_nothing() {
    let bed = Bed::new();
    let [first, second, ..] = generations().map(|stream| stream.end());
    let said = |stream: &[u8]| {
        let output = bed.apply(stream, &["--dry-run"]);
        assert!(output.status.success(), "{}", complaint(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said(&first).contains("would create"));
    assert!(!bed.target.exists() && !bed.record_file().exists());
    bed.accept(&first, &[]);
    let before = (stamps(&bed.target), bed.record());
    assert!(said(&second).contains("would apply"));
    bed.refuse(&second[..second.len() - 1], &["--dry-run"], 3, "truncated");
    assert_eq!((stamps(&bed.target), bed.record()), before);
}

#[test]
fn what_does_not_fit_is_refused_and_touches_nothing() {
    let bed = Bed::new();
    let [first, second, third, _] = generations().map(|stream| stream.end());
    bed.refuse(&second, &[], 4, "wrong-base");
    assert!(!bed.target.exists() && !bed.record_file().exists());
    bed.accept(&first, &[]);
    let before = (stamps(&bed.target), bed.record());
    bed.refuse(&third, &[], 4, "wrong-base");
    bed.refuse(&Stream::whole(9).end(), &[], 4, "has-states");
    bed.refuse(b"no stream at all, but long enough to look at", &[], 3, "not-a-stream");
    bed.refuse(b"", &[], 3, "empty");
    let image = common::streams::whole(b"an image");
    bed.refuse(&image, &[], 3, "value");
    let holder = fs::File::open(&bed.target).unwrap();
    rustix::fs::flock(&holder, rustix::fs::FlockOperation::LockExclusive).unwrap();
    bed.refuse(&second, &[], 6, "busy");
    drop(holder);
    assert_eq!((stamps(&bed.target), bed.record()), before);
    bed.accept(&second, &[]);
    for (target, class) in [("/dev/null", "unsupported"), ("/", "unsupported"), ("/nowhere/at/all", "not-found")] {
        let output = common::piped(common::tree_streams::APPLY, &["--replace", target], &first);
        assert!(!output.status.success() && complaint(&output).contains(class), "{target}: {}", complaint(&output));
    }
}

#[test]
fn what_others_put_there_is_replaced_only_if_asked() {
    let bed = Bed::new();
    let [first, second, ..] = generations().map(|stream| stream.end());
    fs::create_dir(&bed.target).unwrap();
    fs::write(bed.target.join("theirs"), "x").unwrap();
    bed.refuse(&first, &["--all"], 4, "foreign");
    assert!(bed.target.join("theirs").exists());
    bed.accept(&first, &["--all", "--replace"]);
    assert_eq!(bed.listing(), listing_after(&[&first]));
    // Something new in the root is noticed; what the user vouches for is not in the way, and stays.
    fs::write(bed.target.join("theirs"), "x").unwrap();
    assert!(bed.refuse(&second, &["--all"], 4, "written-since").contains("--trust"));
    bed.accept(&second, &["--all", "--trust"]);
    assert!(bed.target.join("theirs").exists());
    fs::remove_file(bed.target.join("theirs")).unwrap();
    // Another directory in its place is nobody's: an empty one may be where a disk was not mounted. A removed one is new.
    fs::rename(&bed.target, bed.dir.path().join("moved")).unwrap();
    fs::create_dir(&bed.target).unwrap();
    for stream in [&first, &second] {
        assert!(bed.refuse(stream, &["--all"], 4, "foreign").contains("is the right disk mounted here?"));
    }
    let states = StateList { states: vec![State { id: id(9), seconds: 0, bytes: 0, name: b"s9".to_vec() }] }.to_text();
    assert!(bed.refuse(states.as_bytes(), &["--common"], 4, "foreign").contains("is the right disk mounted here?"));
    bed.accept(&first, &["--all", "--replace"]);
    assert_eq!(bed.listing(), listing_after(&[&first]));
    fs::remove_dir_all(&bed.target).unwrap();
    bed.accept(&first, &["--all"]);
}

#[test]
fn another_directory_of_the_same_number_is_not_the_one_that_a_cut_run_was_in() {
    let bed = Bed::new();
    let [first, ..] = generations().map(|stream| stream.end());
    bed.refuse(&first[..first.len() - 60], &["--all"], 3, "truncated");
    fs::write(bed.target.join("theirs"), "x").unwrap();
    // As if it had been made at another time: the root of another disk, or what was made under a number that was free again.
    let mut record: serde_json::Value = serde_json::from_str(&bed.record()).unwrap();
    let real = record["receiving"]["birth"]["time"][0].take();
    assert!(real.is_u64(), "this file system does not say when a directory was made: {}", bed.record());
    record["receiving"]["birth"]["time"][0] = 1.into();
    fs::write(bed.record_file(), record.to_string()).unwrap();
    bed.refuse(&first, &["--all"], 4, "foreign");
    assert!(bed.target.join("theirs").exists());
    record["receiving"]["birth"]["time"][0] = real;
    fs::write(bed.record_file(), record.to_string()).unwrap();
    bed.accept(&first, &["--all"]);
    assert_eq!(bed.listing(), listing_after(&[&first]));
}

#[test]
fn a_run_without_changes_moves_the_time_that_tells_it_from_a_copy() {
    let bed = Bed::new();
    let [first, ..] = generations().map(|stream| stream.end());
    bed.accept(&first, &["--all"]);
    let before = bed.target.metadata().unwrap();
    bed.accept(&Stream::since(1, 2).end(), &["--all"]);
    let after = bed.target.metadata().unwrap();
    assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
    assert_ne!((before.ctime(), before.ctime_nsec()), (after.ctime(), after.ctime_nsec()));
}

#[test]
fn a_target_that_is_not_the_base_is_refused_and_not_gone_on_with() {
    let (new, kept) = (Origin::New, Origin::Kept);
    let grown = Node::File { size: 20, old_size: 10 };
    let wrong: [(&str, Stream); 9] = [
        ("gone", Stream::since(1, 2).gone("d/nothing").dir("d", kept)),
        ("gone in nothing", Stream::since(1, 2).gone("nothing/x")),
        (
            "taken",
            Stream::since(1, 2).taken("d/nothing").dir("d", kept).entry("d/z", Origin::Taken(1), common::tree_streams::file(0)),
        ),
        ("new", Stream::since(1, 2).dir("d", kept).file("d/f", b"x")),
        ("new directory", Stream::since(1, 2).dir("d", kept).dir("d/f", new)),
        ("kept", Stream::since(1, 2).entry("d/nothing", kept, Node::Fifo)),
        ("kept of another type", Stream::since(1, 2).entry("d/f", kept, Node::Fifo)),
        ("kept of another size", Stream::since(1, 2).entry("d/f", kept, grown)),
        ("link", Stream::since(1, 2).dir("d", kept).link("d/z", "d/nothing")),
    ];
    let [first, second, ..] = generations().map(|stream| stream.end());
    for (label, stream) in wrong {
        let bed = Bed::new();
        bed.accept(&first, &["--all"]);
        let before = bed.listing();
        let stream = stream.end();
        let said = bed.refuse(&stream, &["--all"], 4, "wrong-base");
        // A second time it would take what others put there for its own.
        bed.refuse(&stream, &["--all"], 4, "unfinished");
        bed.refuse(&second, &["--all"], 4, "unfinished");
        assert_eq!(bed.listing().lines().count(), before.lines().count(), "{label}: {said}");
        bed.accept(&first, &["--all", "--replace"]);
        assert_eq!(bed.listing(), before, "{label}");
    }
}

#[test]
fn another_name_of_what_is_missing_is_left_out_only_where_a_device_may_be_meant() {
    let (new, kept) = (Origin::New, Origin::Kept);
    let null = Node::Device { is_block: false, major: 1, minor: 3 };
    let plain = || Stream::whole(1).dir("d", new).file("d/f", b"x");
    let with_device = || plain().entry("d/null", new, null.clone());
    let named = |to: &str| Stream::since(1, 2).dir("d", kept).link("d/z", to);
    let gone = |bed: &Bed| fs::remove_file(bed.target.join("d/f")).unwrap();
    // What others removed far down is not in the record; nothing was left out here.
    let bed = Bed::new();
    bed.accept(&plain().end(), &[]);
    gone(&bed);
    bed.refuse(&named("d/f").end(), &[], 4, "wrong-base");
    bed.refuse(&named("d/f").end(), &[], 4, "unfinished");
    // A device was: in this very stream, and streams before.
    let bed = Bed::new();
    bed.accept(&with_device().link("e", "d/null").end(), &[]);
    assert!(bed.accept(&named("d/null").end(), &[]).unset > 0);
    assert!(!bed.target.join("d/z").exists());
    assert!(bed.accept(&Stream::since(2, 3).dir("", kept).link("y", "d/z").end(), &[]).unset > 0);
    // Directories are never left out; and a whole tree begins anew.
    bed.refuse(&Stream::since(3, 4).dir("", kept).link("x", "nothing/null").end(), &[], 4, "wrong-base");
    bed.accept(&plain().end(), &["--replace"]);
    gone(&bed);
    bed.refuse(&named("d/f").end(), &[], 4, "wrong-base");
}

#[test]
fn common_names_the_state_that_it_holds() {
    let bed = Bed::new();
    let states = (1..=3).map(|n| State { id: id(n), seconds: 0, bytes: 0, name: format!("s{n}").into_bytes() });
    let list = StateList { states: states.collect() }.to_text();
    let said = || {
        let output = bed.apply(list.as_bytes(), &["--common"]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(said(), (Some(0), String::new()));
    for (n, stream) in (1..=3).zip(generations()) {
        bed.accept(&stream.end(), &["--all"]);
        assert_eq!(said(), (Some(0), format!("s{n}\n")));
    }
}

#[test]
fn times_of_directories_that_the_stream_does_not_speak_of_stay() {
    let bed = Bed::new();
    let [first, ..] = generations().map(|stream| stream.end());
    bed.accept(&first, &["--all"]);
    // Something is taken, for which there is a directory of ours in the root for a while.
    let second = Stream::since(1, 2)
        .taken("d/f")
        .dir("d", Origin::Kept)
        .entry("d/renamed", Origin::Taken(1), Node::File { size: 10_000, old_size: 10_000 })
        .end();
    bed.accept(&second, &["--all"]);
    assert_eq!(bed.listing(), listing_after(&[&first, &second]));
    // A hole is one again.
    let sparse = Stream::since(2, 3)
        .entry("d/renamed", Origin::Kept, Node::File { size: 1 << 30, old_size: 10_000 })
        .say(siphon::format::TreeChange::Extent(siphon::format::Change::Zero { offset: 0, len: 8192, may_deallocate: true }))
        .end();
    bed.accept(&sparse, &["--all"]);
    let meta = bed.target.join("d/renamed").metadata().unwrap();
    assert!(meta.len() == 1 << 30 && meta.blocks() * 512 <= 8192, "{} blocks", meta.blocks());
}
