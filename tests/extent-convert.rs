//! extent-convert(1): nothing is lost on the way out and back, and nothing that is cut is sealed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::process::Output;

use common::streams::{Given, data, encoded, id, since, whole};
use common::{complaint, piped};
use siphon::flow::copy;
use siphon::format::Change;
use siphon::sink::Memory;
use siphon::source::Decoder;
use siphon::state::{State, StateList};

fn convert(args: &[&str], input: &[u8]) -> Output {
    piped(env!("CARGO_BIN_EXE_extent-convert"), args, input)
}

fn ok(output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{}", complaint(&output));
    output.stdout
}

fn applied(stream: &[u8], base: &[u8]) -> Option<Vec<u8>> {
    copy(&mut Decoder::open(stream).ok()?, Memory::new(base.to_vec())).ok()
}

fn image(salt: u8) -> Vec<u8> {
    let mut image: Vec<u8> = (0..3_000_123_u32).map(|n| u8::try_from(n / 4096 % 250).unwrap()).collect();
    image[usize::from(salt) * 100_000..][..50_000].fill(salt);
    image[1_000_000..2_000_000].fill(0);
    image
}

#[test]
fn a_whole_stream_goes_through_every_format_and_comes_back() {
    let (image, size) = (image(3), image(3).len().to_string());
    let stream = whole(&image);
    let raw = ok(convert(&["--to", "raw"], &stream));
    assert!(raw == image);
    let back = ok(convert(&["--from", "raw", "--size", &size], &raw));
    assert!(applied(&back, b"").unwrap() == image);
    for (format, snap) in [("rbd-diff-v1", None), ("rbd-diff-v2", Some("new.img"))] {
        let diff = ok(convert(&["--to", format], &stream));
        let snap = snap.map(|snap| ["--snap", snap]);
        let args = ["--from", format].into_iter().chain(snap.into_iter().flatten()).collect::<Vec<_>>();
        assert!(applied(&ok(convert(&args, &diff)), b"").unwrap() == image, "{format}");
    }
    let missing = convert(&["--from", "rbd-diff-v2", "--snap", "other"], &ok(convert(&["--to", "rbd-diff-v2"], &stream)));
    assert_eq!(missing.status.code(), Some(4));
    assert!(complaint(&missing).contains("it holds: new.img"), "{}", complaint(&missing));
}

#[test]
fn an_increment_keeps_its_names_and_gets_its_ids_from_a_list() {
    let changes = vec![data(4096, vec![7; 4096]), Change::Zero { offset: 65536, len: 8192, may_deallocate: true }];
    let mut source = Given::new(1, 2, (1 << 20, 1 << 20), changes);
    source.header.names.from = b"mon".to_vec();
    source.header.names.to = b"tue".to_vec();
    let stream = encoded(&mut source);
    let diff = ok(convert(&["--to", "rbd-diff-v1"], &stream));
    assert!(diff.starts_with(b"rbd diff v1\nf\x03\0\0\0mont\x03\0\0\0tues\0\0\x10\0\0\0\0\0"));
    let refused = convert(&["--from", "rbd-diff-v1"], &diff);
    assert_eq!(refused.status.code(), Some(4));
    assert!(complaint(&refused).contains("--states FILE"));
    let state = |n: u8, name: &str| State { id: id(n), seconds: 0, bytes: 1 << 20, name: name.as_bytes().to_vec() };
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&list, StateList { states: vec![state(1, "mon"), state(2, "tue")] }.to_text()).unwrap();
    let back = ok(convert(&["--from", "rbd-diff-v1", "--states", list.path().to_str().unwrap()], &diff));
    let header = Decoder::open(back.as_slice()).unwrap();
    let header = siphon::flow::Source::header(&header);
    assert_eq!((header.from, header.to), (Some(id(1)), Some(id(2))));
    let base = vec![0x55; 1 << 20];
    assert!(applied(&back, &base) == applied(&stream, &base));
    // Format 2 begins from nothing, and plain bytes are a whole image.
    for format in ["rbd-diff-v2", "raw"] {
        let output = convert(&["--to", format], &stream);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(4), 0), "{format}");
    }
}

#[test]
fn a_list_that_knows_another_size_of_a_snapshot_is_of_another_one() {
    let mut source = Given::new(1, 2, (1 << 20, 2 << 20), vec![data(4096, vec![7; 4096])]);
    source.header.names.from = b"mon".to_vec();
    source.header.names.to = b"tue".to_vec();
    let diff = ok(convert(&["--to", "rbd-diff-v1"], &encoded(&mut source)));
    let state = |n, name: &str, bytes| State { id: id(n), seconds: 0, bytes, name: name.into() };
    let list = tempfile::NamedTempFile::new().unwrap();
    for (bytes, fits) in [(2 << 20, true), (3 << 20, false)] {
        let states = StateList { states: vec![state(1, "mon", 1 << 20), state(2, "tue", bytes)] };
        std::fs::write(&list, states.to_text()).unwrap();
        let output = convert(&["--from", "rbd-diff-v1", "--states", list.path().to_str().unwrap()], &diff);
        assert_eq!(
            (output.status.success(), complaint(&output).contains("[wrong-base]")),
            (fits, !fits),
            "{}",
            complaint(&output)
        );
    }
}

#[test]
fn what_follows_the_chosen_diff_of_an_export_is_read_to_its_end() {
    let mut export = ok(convert(&["--to", "rbd-diff-v2"], &whole(&image(3))));
    let banner = b"rbd image diffs v2\n";
    let count = export.windows(banner.len()).position(|bytes| bytes == banner).unwrap() + banner.len();
    assert_eq!(export[count..count + 8], 1_u64.to_le_bytes());
    export[count] = 2;
    // From new.img to later, which is as large and changes nothing.
    let field = |tag: u8, body: &[u8]| [&[tag][..], &(body.len() as u64).to_le_bytes(), body].concat();
    let name = |tag, name: &[u8]| field(tag, &[&u32::try_from(name.len()).unwrap().to_le_bytes(), name].concat());
    let parts = [name(b'f', b"new.img"), name(b't', b"later"), field(b's', &3_000_123_u64.to_le_bytes()), b"e".to_vec()];
    export.extend([&b"rbd diff v2\n"[..], &parts.concat()].concat());
    let first = |export: &[u8]| convert(&["--from", "rbd-diff-v2", "--snap", "new.img"], export);
    assert!(applied(&ok(first(&export)), b"").unwrap() == image(3));
    let more = [&export[..], b"x"].concat();
    for damaged in [&export[..export.len() - 1], &export[..export.len() - 40], &more] {
        let output = first(damaged);
        assert_eq!(output.status.code(), Some(3), "{}", complaint(&output));
        assert_eq!(applied(&output.stdout, b""), None, "it is not sealed");
    }
}

#[test]
fn a_whole_diff_speaks_of_every_byte() {
    // The image that it is applied to may hold something: gaps would keep it.
    let image = image(3);
    let diff = ok(convert(&["--to", "rbd-diff-v1"], &whole(&image)));
    let number = |at: usize| u64::from_le_bytes(diff[at..at + 8].try_into().unwrap());
    let (mut at, mut said) = (b"rbd diff v1\n".len(), 0);
    loop {
        let tag = diff[at];
        at += 1;
        match tag {
            b't' => at += 4 + usize::try_from(u32::from_le_bytes(diff[at..at + 4].try_into().unwrap())).unwrap(),
            b's' => at += 8,
            b'w' | b'z' => {
                assert_eq!(number(at), said, "a gap");
                said += number(at + 8);
                at += 16 + if tag == b'w' { usize::try_from(number(at + 8)).unwrap() } else { 0 };
            }
            b'e' => break,
            other => panic!("{other}"),
        }
    }
    assert_eq!((said, at), (image.len() as u64, diff.len()));
}

#[test]
fn what_is_cut_is_not_sealed_on_either_side() {
    let stream = since(&image(1), &image(2));
    let diff = ok(convert(&["--to", "rbd-diff-v1"], &whole(&image(1))));
    for keep in [0, 5, 30, 100, diff.len() / 2, diff.len() - 1] {
        let output = convert(&["--from", "rbd-diff-v1"], &diff[..keep]);
        assert_eq!(output.status.code(), Some(3), "{keep}: {}", complaint(&output));
        assert!(applied(&output.stdout, b"").is_none(), "sealed after {keep} bytes");
    }
    assert_eq!(convert(&["--from", "rbd-diff-v1"], &[diff.as_slice(), b"x"].concat()).status.code(), Some(3));
    for keep in [stream.len() / 2, stream.len() - 1] {
        let output = convert(&["--to", "rbd-diff-v1"], &stream[..keep]);
        assert_eq!(output.status.code(), Some(3));
        assert_ne!(output.stdout.last(), Some(&b'e'), "an end record after {keep} bytes");
    }
    let raw = image(1);
    for size in [raw.len() - 1, raw.len() + 1] {
        let output = convert(&["--from", "raw", "--size", &size.to_string()], &raw);
        assert_eq!(output.status.code(), Some(3));
        assert!(applied(&output.stdout, b"").is_none());
    }
}

#[test]
fn a_call_that_makes_no_sense_says_so() {
    let unused = [
        &["--from", "rbd-diff-v1", "--size", "1M"][..],
        &["--from", "raw", "--size", "1M", "--old-size", "1M"],
        &["--from", "rbd-diff-v1", "--snap", "mon"],
        &["--from", "raw", "--size", "1M", "--states", "/dev/null"],
    ];
    for args in [&[][..], &["--from", "raw"], &["--to", "zfs-send"], &["--from", "raw", "--to", "raw"], &["--from", "qcow"]]
        .into_iter()
        .chain(unused)
    {
        let output = convert(args, &whole(&[1; 5000]));
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", complaint(&output));
    }
}
