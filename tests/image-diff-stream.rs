//! The promises of image-diff-stream(1), kept by the real program and by the library.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::complaint;
use common::loop_device::Loop;
use proptest::prelude::*;
use siphon::filter::Normal;
use siphon::flow::{Source, copy};
use siphon::format::Data;
use siphon::sink::{Encoder, Memory};
use siphon::source::{Decoder, ImageFile, ImageOptions};
use siphon::state::{Class, ContentRoot, StateList, file_source, file_state};
use tempfile::TempDir;

const TOOL: &str = env!("CARGO_BIN_EXE_image-diff-stream");

fn run(args: &[&str]) -> Output {
    Command::new(TOOL).args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A stream that must be whole, applied to a base.
fn applied(stream: &[u8], base: &[u8]) -> Vec<u8> {
    copy(&mut Decoder::open(stream).unwrap(), Memory::new(base.to_vec())).unwrap()
}

fn sent(args: &[&str]) -> Vec<u8> {
    let output = run(args);
    assert!(output.status.success(), "{}", complaint(&output));
    output.stdout
}

fn root_id(content: &[u8]) -> siphon::format::Id {
    let mut root = ContentRoot::new(content.len() as u64);
    root.data(&Data::new(0, content.to_vec()));
    file_state(root.finish())
}

/// Writes only what is not zero, so that the rest are holes.
fn sparse(path: &Path, content: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(content.len() as u64).unwrap();
    for (at, block) in content.chunks(4096).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, at as u64 * 4096).unwrap();
        }
    }
}

struct Pair {
    dir: TempDir,
    old: PathBuf,
    new: PathBuf,
}

fn pair(old: &[u8], new: &[u8]) -> Pair {
    let dir = TempDir::new().unwrap();
    let (old_path, new_path) = (dir.path().join("old.img"), dir.path().join("new.img"));
    sparse(&old_path, old);
    sparse(&new_path, new);
    Pair { dir, old: old_path, new: new_path }
}

/// How to make an image of an odd size: runs of one byte each, zero among them.
type Recipe = (usize, Vec<(usize, usize, u8)>);

fn recipe() -> impl Strategy<Value = Recipe> {
    (0_usize..400_000, prop::collection::vec((0_usize..400_000, 1_usize..60_000, 0_u8..3), 0..12))
}

fn image((size, runs): &Recipe) -> Vec<u8> {
    let mut image = vec![0; *size];
    for (start, len, byte) in runs {
        let (start, end) = (*start.min(size), (start + len).min(*size));
        image[start..end].fill(*byte);
    }
    image
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(120) })]

    #[test]
    fn what_is_sent_makes_the_new_image(old in recipe(), new in recipe(), read_holes in any::<bool>()) {
        let (old, new) = (image(&old), image(&new));
        let pair = pair(&old, &new);
        let options = &ImageOptions { read_holes, ..ImageOptions::default() };
        let mut whole = ImageFile::whole(&pair.new, options).unwrap();
        prop_assert!(copy(&mut whole, Normal::new(Memory::new(vec![9; 5000]))).unwrap() == new);
        let mut increment = ImageFile::since(&pair.old, &pair.new, options, || {}).unwrap();
        prop_assert_eq!(increment.header().from, Some(root_id(&old)));
        prop_assert!(copy(&mut increment, Normal::new(Memory::new(old.clone()))).unwrap() == new);
        // The piped result is the same, passes every check of a reader, and says the state that was reached.
        let mut stream = Vec::new();
        let mut again = ImageFile::since(&pair.old, &pair.new, options, || {}).unwrap();
        let sealed = copy(&mut again, Normal::new(Encoder::new(&mut stream))).unwrap();
        prop_assert_eq!(sealed.trailer.to, Some(root_id(&new)));
        prop_assert!(applied(&stream, &old) == new);
    }
}

/// 1.3 MiB with a hole, zeros that are written, a ragged end, and its edited successor.
fn sample() -> (Vec<u8>, Vec<u8>) {
    let mut old: Vec<u8> = (0..1_300_001_u32).map(|at| u8::try_from(at / 4096 % 200).unwrap() + 1).collect();
    old[100_000..400_000].fill(0);
    let mut new = old.clone();
    new[50_000] ^= 1;
    new[200_000] = 5;
    new[600_000..800_000].fill(0);
    new.truncate(1_200_003);
    (old, new)
}

#[test]
fn an_increment_holds_what_differs_and_no_more() {
    let (old, new) = sample();
    let pair = pair(&old, &new);
    let stream = sent(&["--base", text(&pair.old), text(&pair.new)]);
    assert_eq!(applied(&stream, &old), new);
    // Two grains of data, and the two ragged edges of what became zero.
    assert!(stream.len() < 6 * 4096, "{} bytes", stream.len());
    assert_eq!(applied(&sent(&[text(&pair.new)]), &[]), new);
}

#[test]
fn same_input_gives_the_same_bytes_wherever_it_lies() {
    let (old, new) = sample();
    let (one, two) = (pair(&old, &new), pair(&old, &new));
    for way in [&["--base"][..], &[]] {
        let arguments = |pair: &Pair| -> Vec<String> {
            let base = way.iter().map(|word| (*word).to_owned()).chain(way.iter().map(|_| text(&pair.old).to_owned()));
            base.chain([text(&pair.new).to_owned()]).collect()
        };
        let streams = [&one, &one, &two].map(|pair| {
            let arguments = arguments(pair);
            sent(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        });
        assert!(streams[0] == streams[1] && streams[0] == streams[2], "{way:?}");
    }
    // In a whole stream holes and written zeros are the same thing.
    fs::write(&two.new, &new).unwrap();
    assert!(sent(&[text(&one.new)]) == sent(&[text(&two.new)]));
    assert!(sent(&[text(&one.new)]) == sent(&["--no-trust-holes", text(&one.new)]));
}

#[test]
fn equal_images_give_an_empty_increment() {
    let (old, _) = sample();
    let pair = pair(&old, &old);
    let mut source = Decoder::open(std::io::Cursor::new(sent(&["--base", text(&pair.old), text(&pair.new)]))).unwrap();
    assert_eq!(source.change().unwrap(), None);
    assert_eq!(source.finish().unwrap().to, source.header().from);
    assert_eq!(source.header().source, file_source());
}

#[test]
fn holes_are_not_read() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("huge.img");
    let file = File::create(&path).unwrap();
    if file.set_len(1 << 40).is_err() {
        println!("skipped: this file system takes no file of 1 TiB");
        return;
    }
    file.write_all_at(b"here", 500 << 30).unwrap();
    let base = dir.path().join("base.img");
    File::create(&base).unwrap().set_len(1 << 40).unwrap();
    let begun = Instant::now();
    for arguments in [vec![text(&path)], vec!["--base", text(&base), text(&path)]] {
        let stream = sent(&arguments);
        assert!(stream.len() < 8192);
        let mut source = Decoder::open(stream.as_slice()).unwrap();
        assert_eq!(source.change().unwrap().unwrap().offset(), 500 << 30);
        assert_eq!(source.change().unwrap(), None);
    }
    assert!(begun.elapsed() < Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 5 }), "{:?}", begun.elapsed());
}

/// Starts the tool on an image that is larger than a pipe holds, lets it stop in the middle, does something, reads the rest.
fn disturbed(content: &[u8], arguments: &[&str], act: impl FnOnce(&Path)) -> (Output, Vec<u8>) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("changing.img");
    fs::write(&path, content).unwrap();
    let mut tool = Command::new(TOOL).args(arguments).arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = tool.stdout.take().unwrap();
    let mut stream = vec![0; 4096];
    stdout.read_exact(&mut stream).unwrap();
    act(&path);
    stdout.read_to_end(&mut stream).unwrap();
    (tool.wait_with_output().unwrap(), stream)
}

#[test]
fn an_image_that_changes_while_it_is_read_is_refused_and_never_sealed() {
    let content = vec![7; 8 << 20];
    let write = |path: &Path, at: u64| OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"!", at).unwrap();
    type Act<'a> = (&'a str, Class, Box<dyn FnOnce(&Path) + 'a>);
    let acts: Vec<Act> = vec![
        ("written to, before", Class::Changed, Box::new(|path| write(path, 0))),
        ("written to, behind", Class::Changed, Box::new(|path| write(path, 7 << 20))),
        ("cut", Class::Changed, Box::new(|path| OpenOptions::new().write(true).open(path).unwrap().set_len(9).unwrap())),
        ("grown", Class::Changed, Box::new(|path| OpenOptions::new().append(true).open(path).unwrap().write_all(b"x").unwrap())),
        ("removed", Class::Changed, Box::new(|path| fs::remove_file(path).unwrap())),
        (
            "replaced by an equal one",
            Class::Changed,
            Box::new(|path| {
                fs::write(path.with_extension("2"), vec![7; 8 << 20]).unwrap();
                fs::rename(path.with_extension("2"), path).unwrap();
            }),
        ),
    ];
    for (label, class, act) in acts {
        let (output, stream) = disturbed(&content, &[], act);
        assert_eq!(output.status.code(), Some(4), "{label}: {}", complaint(&output));
        assert!(complaint(&output).contains(&format!("[{}]", class.word())), "{label}: {}", complaint(&output));
        assert!(copy(&mut Decoder::open(stream.as_slice()).unwrap(), Memory::default()).is_err(), "{label}: sealed");
    }
    let (output, _) = disturbed(&content, &[], |_| {});
    assert!(output.status.success(), "nothing happened, and it was refused: {}", complaint(&output));
}

#[test]
fn live_sends_what_changes_but_no_state() {
    let (output, stream) = disturbed(&vec![7; 8 << 20], &["--live"], |path| {
        OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"!", 0).unwrap();
    });
    assert!(output.status.success(), "{}", complaint(&output));
    let mut source = Decoder::open(stream.as_slice()).unwrap();
    while source.change().unwrap().is_some() {}
    assert_eq!((source.header().to, source.finish().unwrap().to), (None, None));
}

#[test]
fn a_reader_that_goes_away_is_met_with_silence_and_failure() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("image");
    fs::write(&path, vec![7; 8 << 20]).unwrap();
    let mut tool = Command::new(TOOL).arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(tool.stdout.take());
    let output = tool.wait_with_output().unwrap();
    assert_eq!((output.status.code(), complaint(&output).as_str()), (Some(1), ""));
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let qcow2 = dir.path().join("disk.qcow2");
    fs::write(&qcow2, [b"QFI\xfb\0\0\0\x03".as_slice(), &[1; 9000]].concat()).unwrap();
    let missing = dir.path().join("missing");
    for (path, code, words) in [
        (dir.path(), 4, "directory"),
        (&fifo, 4, "FIFO"),
        (Path::new("/dev/null"), 4, "character device"),
        (&qcow2, 4, "qcow2"),
        (&missing, 4, "not-found"),
    ] {
        let output = run(&[text(path)]);
        assert_eq!(output.status.code(), Some(code), "{}: {}", path.display(), complaint(&output));
        assert!(complaint(&output).contains(words), "{}", complaint(&output));
        assert!(output.stdout.is_empty());
    }
    assert_eq!(applied(&sent(&["--raw", text(&qcow2)]), &[]), fs::read(&qcow2).unwrap());
    assert_eq!(run(&[]).status.code(), Some(2));
}

#[test]
fn the_one_state_of_a_file_is_listed() {
    let (old, _) = sample();
    let pair = pair(&old, &old);
    let list = StateList::parse(sent(&["--states", text(&pair.new)]).as_slice()).unwrap();
    let [state] = list.states.as_slice() else { panic!("{list:?}") };
    assert_eq!((state.id, state.bytes, state.name.as_slice()), (root_id(&old), old.len() as u64, &b"new.img"[..]));
    assert!(state.seconds > 1_600_000_000);
}

#[test]
fn a_receipt_says_what_was_sent() {
    let (old, new) = sample();
    let pair = pair(&old, &new);
    let file = pair.dir.path().join("receipt");
    let stream = sent(&["--receipt", text(&file), "--base", text(&pair.old), text(&pair.new)]);
    let receipt = siphon::state::Receipt::parse(File::open(&file).unwrap()).unwrap();
    let mut source = Decoder::open(stream.as_slice()).unwrap();
    while source.change().unwrap().is_some() {}
    let ending = source.finish().unwrap();
    assert_eq!(receipt.from, Some(root_id(&old).to_string()));
    assert_eq!(receipt.to, ending.to.map(|id| id.to_string()));
    assert_eq!(Some(receipt.digest), ending.digest.map(|digest| digest.to_string()));
    assert_eq!(receipt.size, new.len() as u64);
}

#[test]
fn help_has_examples_and_a_terminal_gets_no_stream() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(help.contains("Examples:") && help.contains("--base"), "{help}");
    // script(1) gives the tool a terminal.
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("image");
    fs::write(&path, [1; 5000]).unwrap();
    let command = format!("{TOOL} {}; echo code=$?", path.display());
    match Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output() {
        Ok(output) => {
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(shown.contains("terminal") && shown.contains("code=2"), "{shown}");
        }
        Err(error) => println!("skipped: script(1): {error}"),
    }
}

#[test]
fn a_device_in_use_is_refused_and_one_at_rest_is_sent() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("disk");
    let content: Vec<u8> = (0..3_u32 << 20).map(|at| u8::try_from(at / 512 % 251).unwrap()).collect();
    fs::write(&path, &content).unwrap();
    let Some(device) = Loop::over(&path) else { return };
    assert_eq!(applied(&sent(&[&device.0]), &[]), content);
    // Whoever holds a device exclusively is what a mount, LVM and md look like.
    let flags = rustix::fs::OFlags::EXCL.bits().cast_signed();
    let holder = std::os::unix::fs::OpenOptionsExt::custom_flags(OpenOptions::new().read(true), flags).open(&device.0).unwrap();
    let output = run(&[&device.0]);
    assert!(matches!(output.status.code(), Some(4 | 6)), "{}", complaint(&output));
    assert!(complaint(&output).contains("--live") && output.stdout.is_empty(), "{}", complaint(&output));
    assert_eq!(applied(&sent(&["--live", &device.0]), &[]), content);
    drop(holder);
    // A writer without a claim cannot be kept out, but is noticed.
    let mut tool = Command::new(TOOL).arg(&device.0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = tool.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 4096]).unwrap();
    let writer = OpenOptions::new().write(true).open(&device.0).unwrap();
    writer.write_all_at(b"!", 5).unwrap();
    writer.sync_all().unwrap();
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    let output = tool.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", complaint(&output));
    assert!(complaint(&output).contains("[changed]"), "{}", complaint(&output));
}
