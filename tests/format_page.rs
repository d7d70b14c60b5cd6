//! extent-stream(5) and siphon-states(5) say what the code does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod vectors;

use std::collections::BTreeMap;

use siphon::format::{Change, Damage, Data, Header, Image, Names, ReadError, Reader, Writer, wire};
use siphon::state::{self, RbdImage, StateList};

fn page(name: &str) -> String {
    std::fs::read_to_string(format!("{}/man/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    rest.split("\n.Sh ").next().unwrap()
}

/// The rows of a section's tables, without mdoc's own words.
fn rows(section: &str) -> Vec<Vec<&str>> {
    section
        .lines()
        .filter_map(|line| line.strip_prefix(".It "))
        .filter(|line| line.contains(" Ta ") && !line.starts_with("Sy "))
        .map(|line| line.split(" Ta ").collect())
        .collect()
}

/// A listing between two comments of a page.
fn listing<'a>(page: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (_, rest) = page.split_once(&format!(".\\\" {name}: begin\n")).unwrap();
    let (text, _) = rest.split_once(&format!(".\\\" {name}: end")).unwrap();
    text.lines().filter(|line| !line.starts_with('.'))
}

#[test]
fn limits_are_those_of_the_code() {
    let page = page("extent-stream.5");
    let trees = self::page("tree-stream.5");
    let both = rows(section(&page, ".Sh LIMITS")).into_iter().chain(rows(section(&trees, ".Sh LIMITS")));
    let told: BTreeMap<&str, u64> = both.map(|row| (row[0], row[1].parse().unwrap())).collect();
    let code: BTreeMap<&str, u64> = [
        ("PREAMBLE_LEN", wire::PREAMBLE_LEN as u64),
        ("FRAME_HEADER_LEN", wire::FRAME_HEADER_LEN as u64),
        ("HEADER_FIXED_LEN", wire::HEADER_FIXED_LEN as u64),
        ("OBJECT_LEN", wire::OBJECT_LEN as u64),
        ("ZERO_LEN", wire::ZERO_LEN as u64),
        ("CHECKPOINT_LEN", wire::CHECKPOINT_LEN as u64),
        ("END_LEN", wire::END_LEN as u64),
        ("LIMIT_HEADER", wire::LIMIT_HEADER.into()),
        ("LIMIT_NAME", wire::LIMIT_NAME as u64),
        ("LIMIT_MIN_PAYLOAD", wire::LIMIT_MIN_PAYLOAD.into()),
        ("LIMIT_MAX_PAYLOAD", wire::LIMIT_MAX_PAYLOAD.into()),
        ("DEFAULT_MAX_PAYLOAD", wire::DEFAULT_MAX_PAYLOAD.into()),
        ("LIMIT_GRAIN", wire::LIMIT_GRAIN.into()),
        ("DEFAULT_GRAIN", wire::DEFAULT_GRAIN.into()),
        ("LIMIT_IMAGE", wire::LIMIT_IMAGE),
        ("BLOCK", wire::BLOCK as u64),
        ("CUT", wire::CUT),
        ("CHECKPOINT_PAYLOAD", wire::CHECKPOINT_PAYLOAD),
        ("CHECKPOINT_FRAMES", wire::CHECKPOINT_FRAMES),
        ("LIMIT_COMPONENT", wire::LIMIT_COMPONENT as u64),
        ("LIMIT_DEPTH", wire::LIMIT_DEPTH as u64),
        ("LIMIT_PATH", wire::LIMIT_PATH as u64),
        ("LIMIT_LINK", wire::LIMIT_LINK as u64),
        ("LIMIT_XATTR", wire::LIMIT_XATTR as u64),
        ("LIMIT_MODE", wire::LIMIT_MODE.into()),
        ("LIMIT_NANOSECONDS", wire::LIMIT_NANOSECONDS.into()),
    ]
    .into();
    assert_eq!(told, code);
    // No number of the wire is missing above.
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/format/wire.rs")).unwrap();
    let elsewhere = [
        "MAGIC",
        "MAJOR",
        "MINOR",
        "MAY_SKIP",
        "SAFE_TO_COPY",
        "ZERO_MAY_DEALLOCATE",
        "OBJECT_IMAGE",
        "OBJECT_TREE",
        "FEATURE_TREE",
        "FEATURE_LIST",
        "RESERVED_INCOMPATIBLE",
    ];
    for line in source.lines().filter_map(|line| line.strip_prefix("pub const ")) {
        let name = line.split(':').next().unwrap();
        assert!(code.contains_key(name) || elsewhere.contains(&name), "{name} is on no table");
    }
}

#[test]
fn magic_versions_flags_and_features_are_those_of_the_code() {
    let page = page("extent-stream.5");
    let magic = wire::MAGIC.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    let preamble = rows(section(&page, ".Sh PREAMBLE"));
    assert_eq!(preamble[0][2], format!("magic: {magic}"));
    assert_eq!(preamble[1][2], format!("major version, {}", wire::MAJOR));
    assert_eq!(preamble[2][2], format!("minor version, {}", wire::MINOR));
    assert_eq!(rows(section(&page, ".Sh ZERO"))[0][..2], [&format!("{:#06x}", wire::ZERO_MAY_DEALLOCATE), "may-deallocate"]);
    assert!(section(&page, ".Sh OBJECT").contains(&format!("kind: {}, an image", wire::OBJECT_IMAGE)));
    let features = rows(section(&page, ".Ss Features"));
    let features: Vec<(String, String)> = features[features.len() - wire::RESERVED_INCOMPATIBLE.len()..]
        .iter()
        .map(|row| (row[0].to_owned(), format!("{} ({})", row[1], row[2])))
        .collect();
    let code: Vec<_> = wire::RESERVED_INCOMPATIBLE.iter().map(|(bit, text)| (bit.to_string(), (*text).to_owned())).collect();
    assert_eq!(features, code);
}

#[test]
fn classes_are_those_of_the_code_in_their_order() {
    let page = page("extent-stream.5");
    let told: Vec<&str> = section(&page, ".Sh WHAT A READER MUST REJECT")
        .split(".Ss Order of checks")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm "))
        .collect();
    assert_eq!(told, Damage::ALL.map(Damage::word));
}

/// A stream with one more frame of this type.
fn with_frame(kind: u16) -> Vec<u8> {
    let mut stream = Vec::new();
    let header = Header::new(state::file_source(), None, None, Names::default());
    Writer::begin(&mut stream, &header, &Image::new(0, 0)).unwrap().finish(None).unwrap();
    let end = stream.split_off(stream.len() - wire::FRAME_HEADER_LEN - wire::END_LEN);
    vectors::frame(&mut stream, kind, 0, 2, 0, b"?");
    let at = stream.len();
    stream.extend(end);
    stream[at + 32..at + 40].copy_from_slice(&3_u64.to_le_bytes());
    vectors::reseal::reseal(&mut stream, true);
    stream
}

#[test]
fn every_type_of_the_page_is_known_skipped_or_refused() {
    let page = page("extent-stream.5");
    let table = rows(section(&page, ".Sh FRAMES"));
    let mut types = BTreeMap::new();
    for row in table.iter().filter(|row| row[0].starts_with("0x") && row[0] != "0x8000" && row[0] != "0x4000") {
        let number = |text: &str| u16::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap();
        let (first, last) = row[0].split_once('-').unwrap_or((row[0], row[0]));
        let name = if row[1] == "\\(en" { None } else { Some(row[1]) };
        for kind in number(first)..=number(last) {
            assert!(types.insert(kind, name).is_none(), "{kind:#x} twice");
        }
    }
    assert_eq!(types.len(), 1 << 14, "each of the 14-bit numbers stands on the page");
    let known: BTreeMap<u16, &str> = types.iter().filter_map(|(kind, name)| Some((*kind, (*name)?))).collect();
    let code = [
        (wire::kind::HEADER, "HEADER"),
        (wire::kind::OBJECT, "OBJECT"),
        (wire::kind::CHECKPOINT, "CHECKPOINT"),
        (wire::kind::END, "END"),
        (wire::kind::DATA, "DATA"),
        (wire::kind::ZERO, "ZERO"),
    ];
    // A reader of images knows no frame of trees.
    let of_trees =
        [(wire::kind::GONE, "GONE"), (wire::kind::ENTRY, "ENTRY"), (wire::kind::LINK, "LINK"), (wire::kind::ROOTS, "ROOTS")];
    assert_eq!(known, code.into_iter().chain(of_trees).collect());
    assert_eq!((wire::MAY_SKIP, wire::SAFE_TO_COPY), (0x8000, 0x4000));
    // All that stand near a border, and a sample of the rest, each with all settings of the two bits.
    let numbers = (0..0x100_u16).chain((0x100..0x4000).step_by(97)).chain([0x3fff]);
    for kind in numbers.flat_map(|number| [0, 0x4000, 0x8000, 0xc000].map(|bits| number | bits)) {
        let stream = with_frame(kind);
        let mut reader = Reader::open(stream.as_slice()).unwrap();
        let class = match reader.change() {
            Ok(None) => None,
            Err(ReadError::Damaged(damaged)) => Some(damaged.class),
            other => panic!("{kind:#x}: {other:?}"),
        };
        let wanted = match (kind & wire::MAY_SKIP != 0, code.iter().any(|(own, _)| *own == kind)) {
            (true, _) => None,
            (false, false) => Some(Damage::UnknownFrame),
            (false, true) => class,
        };
        assert_eq!(class, wanted, "{kind:#x}");
    }
}

#[test]
fn the_worked_example_is_what_the_writer_writes() {
    let page = page("extent-stream.5");
    let mut told = Vec::new();
    for line in listing(&page, "dump").filter(|line| line.starts_with(|c: char| c.is_ascii_digit())) {
        let (offset, bytes) = (&line[..4], &line[6..line.len().min(53)]);
        assert_eq!(usize::from_str_radix(offset, 16).unwrap(), told.len(), "{line}");
        told.extend(bytes.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    let image = RbdImage { fsid: "00000000-0000-0000-0000-000000000001", pool: 2, namespace: "", image_id: "0a1b2c" };
    let names = Names { source: b"vm1".to_vec(), from: b"mon".to_vec(), to: b"tue".to_vec() };
    let header = Header::new(state::rbd_source(image), Some(state::rbd_state(image, 4)), Some(state::rbd_state(image, 7)), names);
    let mut stream = Vec::new();
    let mut writer = Writer::begin(&mut stream, &header, &Image { grain: 16, old_size: 48, new_size: 40 }).unwrap();
    writer.change(&Change::Data(Data::new(0, b"Siphon moves it!".as_slice()))).unwrap();
    writer.change(&Change::Zero { offset: 16, len: 16, may_deallocate: true }).unwrap();
    writer.finish(header.to).unwrap();
    assert_eq!(told, stream);
}

#[test]
fn the_example_of_a_state_list_reads_and_writes_back() {
    let page = page("siphon-states.5");
    let text: String = listing(&page, "list").map(|line| format!("{line}\n")).collect();
    let list = StateList::parse(text.as_bytes()).unwrap();
    assert_eq!(list.to_text(), text);
    let names: Vec<&[u8]> = list.states.iter().map(|state| state.name.as_slice()).collect();
    assert_eq!(names, [b"mon".as_slice(), b"before upgrade", "zürich".as_bytes()]);
    let image = RbdImage { fsid: "00000000-0000-0000-0000-000000000001", pool: 2, namespace: "", image_id: "0a1b2c" };
    assert_eq!(list.states[0].id, state::rbd_state(image, 4));
}
