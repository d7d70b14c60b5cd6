//! tree-apply(1) without rights: what can be set comes out right, and what cannot is told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;
mod vectors;

use std::fs;
use std::os::unix::fs::chown;
use std::process::Output;

use common::complaint;
use common::tree_streams::{APPLY, Bed, Stream, attributes, is_root, listing};
use siphon::format::{Attributes, Node, Origin, Time};
use siphon::state::Receipt;
use vectors::tree::listing_after;

const USER: u32 = 4321;

/// A bed that belongs to a user who may do nothing else.
struct Users(Bed);

impl Users {
    fn new() -> Users {
        let bed = Bed::new();
        chown(bed.dir.path(), Some(USER), Some(USER)).unwrap();
        // The user may not go where it was built.
        fs::copy(APPLY, bed.dir.path().join("tree-apply")).unwrap();
        Users(bed)
    }

    fn apply(&self, stream: &[u8], options: &[&str]) -> Output {
        let user = USER.to_string();
        let (tool, target) = (self.0.dir.path().join("tree-apply"), self.0.target.clone());
        let setpriv = ["--reuid", &user, "--regid", &user, "--clear-groups", tool.to_str().unwrap()];
        common::piped("setpriv", &[&setpriv, options, &[target.to_str().unwrap()]].concat(), stream)
    }

    fn accept(&self, stream: &[u8]) -> (Receipt, String) {
        let output = self.apply(stream, &[]);
        assert!(output.status.success(), "{}", complaint(&output));
        (Receipt::parse(output.stdout.as_slice()).unwrap(), complaint(&output))
    }
}

/// Owned by the user, or by somebody else.
fn owned(mine: bool, mode: u16) -> Attributes {
    let uid = if mine { USER } else { 1000 };
    let modified = Time { seconds: 1_600_000_000 + i64::from(mode & 0o777), nanoseconds: 987_654_321 };
    Attributes { uid, gid: uid, modified, ..attributes(mode) }
}

/// `mine`: as it comes out.
fn first(mine: bool) -> Stream {
    let own = |mode| owned(mine, mode);
    let content = |stream: Stream, at: &str, mode| {
        stream.with(at, Origin::New, common::tree_streams::file(5000), own(mode)).data(0, vec![6; 5000])
    };
    let mut stream = Stream::whole(1).with("locked", Origin::New, Node::Directory, own(0o555));
    stream = content(stream, "locked/a", 0o444);
    stream = content(stream, "locked/b", 0o000);
    stream = stream.with("locked/deep", Origin::New, Node::Directory, own(0o500));
    stream = content(stream, "locked/deep/c", 0o400);
    if !mine {
        stream = stream.with("null", Origin::New, Node::Device { is_block: false, major: 1, minor: 3 }, own(0o666));
    }
    stream = stream.with("shut", Origin::New, Node::Directory, own(0o000));
    stream = content(stream, "shut/d", 0o200);
    stream = stream.with("shut/moves", Origin::New, Node::Directory, own(0o111));
    stream = content(stream, "shut/moves/e", 0o000);
    stream = content(stream, "suid", if mine { 0o755 } else { 0o4755 });
    let mut with_xattrs = owned(mine, 0o600);
    with_xattrs.xattrs.insert(b"user.kept".to_vec(), b"1".to_vec());
    if !mine {
        with_xattrs.xattrs.insert(b"trusted.not".to_vec(), b"2".to_vec());
        with_xattrs.xattrs.insert(b"security.not".to_vec(), b"3".to_vec());
    }
    stream.with("xattrs", Origin::New, common::tree_streams::file(0), with_xattrs)
}

fn second(mine: bool) -> Stream {
    let own = |mode| owned(mine, mode);
    let kept = Node::File { size: 5000, old_size: 5000 };
    let mut stream = Stream::since(1, 2).taken("shut/moves");
    if !mine {
        stream = stream.gone("null");
    }
    stream = stream.gone("locked/b").with("", Origin::Kept, Node::Directory, own(0o555));
    stream = stream.with("locked", Origin::Kept, Node::Directory, own(0o550));
    stream = stream.with("locked/a", Origin::Kept, kept.clone(), own(0o040)).data(0, vec![7; 4096]);
    stream = stream.with("locked/deep/c", Origin::Kept, kept.clone(), own(0o000)).data(0, vec![8; 4096]);
    stream = stream.with("locked/here", Origin::Taken(1), Node::Directory, own(0o001));
    stream = stream.with("locked/here/e", Origin::Kept, kept.clone(), own(0o004)).data(0, vec![9; 4096]);
    stream = stream.with("locked/new", Origin::New, common::tree_streams::file(0), own(0o000));
    stream = stream.with("shut", Origin::Kept, Node::Directory, own(0o000));
    stream.with("shut/d", Origin::Kept, kept, own(0o000))
}

#[test]
fn modes_and_times_come_out_right_and_what_cannot_be_set_is_told() {
    if !is_root() {
        return;
    }
    let bed = Users::new();
    let (sent, expected) = (first(false), first(true));
    let (receipt, said) = bed.accept(&sent.end());
    // The root is said by the helper of the streams, in the name of others, too.
    let root = |listing: &str| listing.replace("/ / 2 755 1000 1000", &format!("/ / 2 755 {USER} {USER}"));
    assert_eq!(listing(&bed.0.target), root(&listing_after(&[&expected.end()])));
    assert_eq!(receipt.unset, 13, "{said}");
    for told in
        ["note: locked/b: owner, group\n", "note: suid: owner, group, set-id bits\n", "note: null: a device\n", "note: .: owner"]
    {
        assert!(said.contains(told), "{told}: {said}");
    }
    assert!(said.contains("trusted.not") && said.contains("security.not") && !said.contains("user.kept"), "{said}");
    let (receipt, said) = bed.accept(&second(false).end());
    assert_eq!(listing(&bed.0.target), root(&listing_after(&[&expected.end(), &second(true).end()])));
    assert_eq!(receipt.unset, 9, "{said}");
    // The same once more is nothing; and what is unfinished is healed without rights, too.
    assert!(bed.accept(&second(false).end()).0.already);
}

#[test]
fn root_gives_no_rights_unless_told_to() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let (sent, later) = (first(false).end(), second(false).end());
    for (stream, expected) in [(&sent, vec![first(true).end()]), (&later, vec![first(true).end(), second(true).end()])] {
        let receipt = bed.accept(stream, &[]);
        let expected: Vec<&[u8]> = expected.iter().map(Vec::as_slice).collect();
        let as_root = listing_after(&expected).replace(&format!(" {USER} {USER} "), " 0 0 ");
        assert_eq!(bed.listing(), as_root.replace("/ / 2 755 1000 1000", "/ / 2 755 0 0"));
        assert!(receipt.unset > 0);
    }
}

#[test]
fn what_was_left_unset_is_told_until_a_whole_stream_sets_it() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let accept = |stream: Stream, options: &[&str]| {
        let output = bed.apply(&stream.end(), options);
        assert!(output.status.success(), "{}", complaint(&output));
        complaint(&output).contains("what runs without --all left unset stays so")
    };
    let whole = || Stream::whole(1).file("of-somebody", b"1");
    let next = |from| Stream::since(from, from + 1).dir("", Origin::Kept).file(&format!("new{from}"), b"2");
    assert!(!accept(whole(), &[]), "nothing is known before it");
    assert!(!accept(whole(), &[]), "what is not wanted");
    assert!(accept(whole(), &["--all"]), "it is there already");
    for from in [1, 2] {
        assert!(accept(next(from), &["--all"]), "the increment from {from} says nothing of it");
    }
    assert!(!accept(next(3), &[]), "what is not wanted");
    assert!(!accept(whole(), &["--all", "--replace"]));
    assert!(!accept(next(1), &["--all"]), "all is set");
}

#[test]
fn what_cannot_be_set_is_an_error_where_all_is_wanted() {
    if !is_root() {
        return;
    }
    let bed = Users::new();
    let output = bed.apply(&first(false).end(), &["--all"]);
    assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
    assert!(complaint(&output).contains("[permission]") && complaint(&output).contains("hint: without --all"));
    assert!(bed.0.is_receiving());
    bed.accept(&first(false).end());
}

#[test]
fn a_broken_run_is_healed_without_rights() {
    if !is_root() {
        return;
    }
    let (sent, expected) = (second(false).end(), listing_after(&[&first(true).end(), &second(true).end()]));
    for share in [20, 35, 50, 65, 80, 95] {
        let bed = Users::new();
        bed.accept(&first(false).end());
        let output = bed.apply(&sent[..sent.len() * share / 100], &[]);
        assert_eq!(output.status.code(), Some(3), "{}", complaint(&output));
        bed.accept(&sent);
        assert_eq!(listing(&bed.0.target), expected, "{share} %");
    }
}

#[test]
fn a_long_list_is_cut() {
    if !is_root() {
        return;
    }
    let stream = (0..40).fold(Stream::whole(1), |stream, n| stream.file(&format!("f{n:02}"), b""));
    let bed = Users::new();
    let (receipt, said) = bed.accept(&stream.end());
    assert_eq!(receipt.unset, 41);
    assert_eq!(said.lines().count(), 22, "{said}");
    assert!(said.contains("41 entries") && said.contains("and 21 more"), "{said}");
}
