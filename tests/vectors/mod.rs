//! The vectors of this folder, as tests read them (README.md).
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

use std::path::PathBuf;

pub mod reseal;
pub mod tree;

/// One scenario.
pub struct Vector {
    /// The class word with which a reader must refuse it, or `ok`.
    pub expect: String,
    /// The image before it.
    pub base: Vec<u8>,
    /// BLAKE3 of the image after it; `None` where it is too large.
    pub result: Option<String>,
    /// The stream.
    pub stream: Vec<u8>,
}

/// A file of this folder.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

/// A text file of this folder.
pub fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The file names in LIST.
pub fn list() -> Vec<String> {
    text("LIST").lines().map(str::to_owned).collect()
}

/// The rows of a table.
pub fn rows(name: &str) -> Vec<Vec<String>> {
    text(name).lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Reads one vector.
pub fn load(name: &str) -> Vector {
    load_with(name).0
}

/// Reads one vector, and the name of the one whose result it begins from, if it does.
pub fn load_with(name: &str) -> (Vector, Option<String>) {
    let text = text(name);
    let (head, body) = text.split_once("---\n").expect("a line ---");
    let field = |name| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
    let before = field("base").filter(|base| base.ends_with(".vec"));
    let base = match field("base").as_deref() {
        None | Some("none") => Vec::new(),
        Some(_) if before.is_some() => Vec::new(),
        Some(run) => {
            let (byte, count) = run.split_once(" * ").expect("BYTE * COUNT");
            vec![hex(byte)[0]; count.parse().unwrap()]
        }
    };
    assert!(field("comment").is_some(), "{name}: no comment");
    let expect = field("expect").expect("expect:");
    let result = field("result").filter(|text| text != "unbuilt");
    (Vector { expect, base, result, stream: expand(body) }, before)
}

/// Bytes of hexadecimal digits.
pub fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn expand(body: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in body.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "#" => {}
            "fill" => out.resize(out.len() + words[2].parse::<usize>().unwrap(), hex(words[1])[0]),
            "zeros" => {
                let [count, number, offset, len, step] = [1, 2, 3, 4, 5].map(|at| words[at].parse::<u64>().unwrap());
                (0..count).for_each(|n| frame(&mut out, 0x11, 0, number + n, offset + n * step, &len.to_le_bytes()));
            }
            _ => out.extend(hex(line)),
        }
    }
    out
}

/// Appends a frame, its sums right.
pub fn frame(out: &mut Vec<u8>, kind: u16, flags: u16, number: u64, offset: u64, payload: &[u8]) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend(flags.to_le_bytes());
    out.extend((payload.len() as u32).to_le_bytes());
    out.extend(number.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.extend(crc32fast::hash(payload).to_le_bytes());
    let crc = crc32fast::hash(&out[start..]);
    out.extend(crc.to_le_bytes());
    out.extend(payload);
}
