//! The promises of image-apply(1), kept by the real program.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "common/loop_device.rs"]
mod loop_device;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use loop_device::Loop;
use siphon::filter::Normal;
use siphon::flow::{Ending, Source, copy};
use siphon::format::{Change, Data, Header, Id, Image, Names};
use siphon::sink::Encoder;
use siphon::source::{ImageFile, ImageOptions};
use siphon::state::{Fault, Receipt, State, StateList};
use tempfile::TempDir;

const APPLY: &str = env!("CARGO_BIN_EXE_image-apply");
const DIFF: &str = env!("CARGO_BIN_EXE_image-diff-stream");

/// Large counts run with SIPHON_FULL=1; otherwise every `step`th.
fn step(sampled: usize) -> usize {
    if std::env::var_os("SIPHON_FULL").is_some() { 1 } else { sampled }
}

struct Bed {
    dir: TempDir,
    target: PathBuf,
}

impl Bed {
    fn new() -> Bed {
        let dir = TempDir::new().unwrap();
        let target = dir.path().join("copy.img");
        Bed { dir, target }
    }

    fn record_file(&self) -> PathBuf {
        self.dir.path().join("copy.img.siphon")
    }

    fn record(&self) -> String {
        fs::read_to_string(self.record_file()).unwrap_or_default()
    }

    fn is_receiving(&self) -> bool {
        self.record().contains("\"receiving\"")
    }

    fn apply(&self, stream: &[u8], options: &[&str]) -> Output {
        apply(stream, options, &self.target)
    }

    /// Applies a stream that must be accepted, and gives the receipt.
    fn accept(&self, stream: &[u8], options: &[&str]) -> Receipt {
        let output = self.apply(stream, options);
        assert!(output.status.success(), "{}", complaint(&output));
        Receipt::parse(output.stdout.as_slice()).unwrap()
    }

    /// Applies a stream that must be refused with this exit code and class.
    fn refuse(&self, stream: &[u8], options: &[&str], code: i32, class: &str) -> String {
        let output = self.apply(stream, options);
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(&format!("[{class}]")), "{class}: {said}");
        assert!(output.stdout.is_empty());
        said
    }

    fn content(&self) -> Vec<u8> {
        fs::read(&self.target).unwrap()
    }

    /// A fresh bed again.
    fn clear(&self) {
        for file in [&self.target, &self.record_file()] {
            let _ = fs::remove_file(file);
        }
    }
}

fn apply(stream: &[u8], options: &[&str], target: &Path) -> Output {
    let mut command = Command::new(APPLY);
    command.args(options).arg(target).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tool = command.spawn().unwrap();
    // A refusal closes the pipe early.
    let _ = tool.stdin.take().unwrap().write_all(stream);
    tool.wait_with_output().unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Streams of an image file, and since another.
fn whole(image: &[u8]) -> Vec<u8> {
    stream_of(None, image)
}

fn since(base: &[u8], image: &[u8]) -> Vec<u8> {
    stream_of(Some(base), image)
}

fn stream_of(base: Option<&[u8]>, image: &[u8]) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let (old, new) = (dir.path().join("old.img"), dir.path().join("new.img"));
    fs::write(&new, image).unwrap();
    let mut source = match base {
        None => ImageFile::whole(&new, ImageOptions::default()).unwrap(),
        Some(base) => {
            fs::write(&old, base).unwrap();
            ImageFile::since(&old, &new, ImageOptions::default(), || {}).unwrap()
        }
    };
    encoded(&mut source)
}

fn encoded(source: &mut impl Source) -> Vec<u8> {
    let mut stream = Vec::new();
    copy(source, Normal::new(Encoder::new(&mut stream))).unwrap();
    stream
}

/// A source whose states have ids of their own, as snapshots do.
struct Snapshots {
    header: Header,
    image: Image,
    changes: std::vec::IntoIter<Change>,
}

fn id(n: u8) -> Id {
    Id::derive("test", &[&[n]])
}

/// From snapshot `from` (0: whole) to `to`.
fn snapshots(from: u8, to: u8, sizes: (u64, u64), changes: Vec<Change>) -> Vec<u8> {
    let names = Names { source: b"vm1".to_vec(), from: vec![], to: format!("s{to}").into_bytes() };
    let header = Header::new(id(200), (from > 0).then(|| id(from)), Some(id(to)), names);
    encoded(&mut Snapshots { header, image: Image::new(sizes.0, sizes.1), changes: changes.into_iter() })
}

fn data(offset: u64, len: usize, byte: u8) -> Change {
    Change::Data(Data::new(offset, vec![byte; len]))
}

impl Source for Snapshots {
    fn header(&self) -> &Header {
        &self.header
    }
    fn image(&self) -> &Image {
        &self.image
    }
    fn change(&mut self) -> Result<Option<Change>, Fault> {
        Ok(self.changes.next())
    }
    fn finish(&mut self) -> Result<Ending, Fault> {
        Ok(Ending { to: self.header.to, digest: None })
    }
}

/// Generations of one image: edited, cut, grown again, mostly zero, empty.
fn generations() -> Vec<Vec<u8>> {
    let mut first: Vec<u8> = (0..1_300_001_u32).map(|at| u8::try_from(at / 4096 % 200).unwrap() + 1).collect();
    first[100_000..900_000].fill(0);
    let mut edited = first.clone();
    edited[50_000] ^= 1;
    edited[1_000_000..1_200_000].fill(0);
    let cut = edited[..70_000].to_vec();
    let mut regrown = cut.clone();
    regrown.resize(2_000_003, 0);
    regrown[1_999_990..].fill(9);
    vec![first, edited, cut, regrown, vec![], vec![7; 5000]]
}

#[test]
fn every_generation_comes_out_equal_and_sparse() {
    let bed = Bed::new();
    let generations = generations();
    bed.accept(&whole(&generations[0]), &[]);
    assert!(bed.content() == generations[0]);
    let meta = bed.target.metadata().unwrap();
    assert!(meta.blocks() * 512 < 700_000, "{} bytes allocated", meta.blocks() * 512);
    for pair in generations.windows(2) {
        let receipt = bed.accept(&since(&pair[0], &pair[1]), &[]);
        assert!(bed.content() == pair[1]);
        assert_eq!(receipt.size, pair[1].len() as u64);
        assert!(!receipt.already && !bed.is_receiving());
    }
}

#[test]
fn a_whole_stream_defines_every_byte_of_what_it_replaces() {
    for image in generations() {
        for before in [vec![0xff; 3_000_000], vec![0xff; 9]] {
            let bed = Bed::new();
            fs::write(&bed.target, before).unwrap();
            bed.refuse(&whole(&image), &[], 4, "foreign");
            bed.accept(&whole(&image), &["--replace"]);
            assert!(bed.content() == image);
        }
    }
}

#[test]
fn a_blank_file_takes_a_whole_stream_without_asking() {
    let bed = Bed::new();
    File::create(&bed.target).unwrap().set_len(1 << 30).unwrap();
    bed.refuse(&since(b"a", b"b"), &[], 4, "wrong-base");
    bed.accept(&whole(b"content"), &[]);
    assert_eq!(bed.content(), b"content");
}

#[test]
fn the_same_stream_twice_writes_nothing_and_says_so() {
    let bed = Bed::new();
    let generations = generations();
    let streams = [whole(&generations[0]), since(&generations[0], &generations[1])];
    for (stream, content) in streams.iter().zip(&generations) {
        assert!(!bed.accept(stream, &[]).already);
        let before = bed.target.metadata().unwrap();
        let receipt = bed.accept(stream, &[]);
        let after = bed.target.metadata().unwrap();
        assert!(receipt.already && bed.content() == *content);
        assert_eq!((before.ctime(), before.ctime_nsec()), (after.ctime(), after.ctime_nsec()));
    }
    // Where the stream says at its beginning where it leads, too.
    let bed = Bed::new();
    let stream = snapshots(0, 1, (0, 8192), vec![data(0, 4096, 1)]);
    assert_eq!([bed.accept(&stream, &[]).already, bed.accept(&stream, &[]).already], [false, true]);
    // Damage is found even where nothing is written.
    bed.refuse(&stream[..stream.len() - 1], &[], 3, "truncated");
    assert_eq!([bed.accept(&stream, &[]).already, bed.is_receiving()], [true, false]);
}

#[test]
fn what_does_not_fit_is_refused_and_touches_nothing() {
    let bed = Bed::new();
    let generations = generations();
    bed.refuse(&since(&generations[0], &generations[1]), &[], 4, "wrong-base");
    assert!(!bed.target.exists() && !bed.record_file().exists());
    bed.accept(&whole(&generations[0]), &[]);
    bed.refuse(&since(&generations[1], &generations[2]), &[], 4, "wrong-base");
    bed.refuse(&whole(&generations[1]), &[], 4, "has-states");
    bed.refuse(b"no stream at all, but long enough to look at", &[], 3, "not-a-stream");
    bed.refuse(b"", &[], 3, "empty");
    assert!(bed.content() == generations[0]);
    bed.accept(&since(&generations[0], &generations[1]), &[]);
    for target in ["/dev/null", "/tmp"] {
        let output = apply(&whole(b"x"), &["--replace"], Path::new(target));
        assert_eq!(output.status.code(), Some(4), "{target}: {}", complaint(&output));
    }
}

#[test]
fn what_others_did_to_the_target_is_noticed() {
    let (old, new) = (vec![1; 20_000], vec![2; 20_000]);
    type Act = fn(&Path);
    let acts: [(&str, &str, Act); 6] = [
        ("written", "written-since", |path| OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"!", 5).unwrap()),
        ("written, time set back", "written-since", |path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            let time = file.metadata().unwrap().modified().unwrap();
            file.write_all_at(b"!", 5).unwrap();
            file.set_modified(time).unwrap();
        }),
        ("truncated", "written-since", |path| OpenOptions::new().write(true).open(path).unwrap().set_len(9).unwrap()),
        ("emptied", "written-since", |path| OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap()),
        ("replaced", "foreign", |path| {
            fs::copy(path, path.with_extension("2")).unwrap();
            fs::rename(path.with_extension("2"), path).unwrap();
        }),
        ("record damaged", "list", |path| fs::write(path.with_extension("img.siphon"), "{").unwrap()),
    ];
    for (label, class, act) in acts {
        let bed = Bed::new();
        bed.accept(&whole(&old), &[]);
        act(&bed.target);
        let code = if class == "list" { 3 } else { 4 };
        let said = bed.refuse(&since(&old, &new), &[], code, class);
        assert!(said.contains("hint:"), "{label}: {said}");
        if code == 4 {
            bed.accept(&whole(&new), &["--replace"]);
            assert!(bed.content() == new, "{label}");
        }
    }
    // Removed with its record left behind: a new target.
    let bed = Bed::new();
    bed.accept(&whole(&old), &[]);
    fs::remove_file(&bed.target).unwrap();
    bed.refuse(&since(&old, &new), &[], 4, "wrong-base");
    bed.accept(&whole(&new), &[]);
}

#[test]
fn the_user_may_know_that_nobody_wrote() {
    let (old, new) = (vec![1; 20_000], vec![2; 20_000]);
    let bed = Bed::new();
    bed.accept(&whole(&old), &[]);
    // A copy restored from elsewhere: another inode, other times, the same content.
    fs::copy(&bed.target, bed.dir.path().join("restored")).unwrap();
    fs::rename(bed.dir.path().join("restored"), &bed.target).unwrap();
    bed.refuse(&since(&old, &new), &[], 4, "foreign");
    bed.accept(&since(&old, &new), &["--trust"]);
    assert!(bed.content() == new);
    // The size gives it the lie.
    OpenOptions::new().write(true).open(&bed.target).unwrap().set_len(9).unwrap();
    bed.refuse(&since(&new, &old), &["--trust"], 4, "written-since");
}

#[test]
fn stream_cut_or_flipped_anywhere_is_refused_and_never_held() {
    // ZERO and DATA, in a few hundred bytes.
    let (old, new) = (vec![1; 9000], [vec![0; 8192], vec![3; 60]].concat());
    let bed = Bed::new();
    bed.accept(&whole(&old), &[]);
    let (at_old, record) = (bed.content(), bed.record());
    for (stream, base) in [(whole(&new), None), (since(&old, &new), Some(&at_old))] {
        let reset = || {
            bed.clear();
            if let Some(base) = base {
                // The same inode, so that the record speaks of this file; its times are vouched for.
                fs::write(&bed.target, base).unwrap();
                fs::write(bed.record_file(), with_inode(&record, bed.target.metadata().unwrap().ino())).unwrap();
            }
        };
        let trial = |damaged: &[u8], label: &str| {
            reset();
            let output = bed.apply(damaged, &["--trust"]);
            assert_eq!(output.status.code(), Some(3), "{label}: {}", complaint(&output));
            assert!(output.stdout.is_empty(), "{label}");
            // Untouched, or known to be unfinished.
            let untouched = base.is_none_or(|base| bed.content() == *base) && !bed.is_receiving();
            assert!(untouched || bed.is_receiving(), "{label}");
            assert!(base.is_some() || !bed.record().contains("\"held\""), "{label}");
        };
        let (cuts, flips) = (stream.len(), stream.len() * 8);
        let mut tried = (0, 0);
        for cut in (0..cuts).step_by(step(13)) {
            trial(&stream[..cut], &format!("cut at {cut}"));
            tried.0 += 1;
        }
        for bit in (0..flips).step_by(step(101)) {
            let mut damaged = stream.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            trial(&damaged, &format!("bit {bit}"));
            tried.1 += 1;
        }
        trial(&[stream.as_slice(), b"x"].concat(), "a byte behind the end");
        println!("refused: {} of {cuts} cuts, {} of {flips} flipped bits", tried.0, tried.1);
        // What damage left behind is healed by a whole stream, with no option.
        trial(&stream[..cuts - 1], "the last byte missing");
        bed.accept(&whole(&new), &["--trust"]);
        assert!(bed.content() == new);
    }
}

/// A record, of another file with the same content.
fn with_inode(record: &str, inode: u64) -> String {
    let mut record: serde_json::Value = serde_json::from_str(record).unwrap();
    record["seen"]["file"]["inode"] = inode.into();
    record.to_string()
}

#[test]
fn a_cut_increment_goes_on_from_its_beginning_or_gives_way_to_a_whole_stream() {
    let sizes = (64 << 10, 80 << 10);
    let first = snapshots(0, 1, (0, 64 << 10), vec![data(0, 64 << 10, 1)]);
    let second = snapshots(1, 2, sizes, vec![data(4096, 4096, 2), data(40960, 40960, 2)]);
    let other = snapshots(1, 3, sizes, vec![data(8192, 4096, 3)]);
    let bed = Bed::new();
    bed.accept(&first, &[]);
    bed.refuse(&second[..second.len() - 50], &[], 3, "truncated");
    assert!(bed.is_receiving());
    bed.refuse(&other, &[], 4, "unfinished");
    bed.accept(&second, &[]);
    let mut expected = vec![1; 64 << 10];
    expected.resize(80 << 10, 0);
    expected[4096..8192].fill(2);
    expected[40960..].fill(2);
    assert!(bed.content() == expected);
    // An image file says only at its end where it leads: the same increment again could be another one.
    let bed = Bed::new();
    let generations = generations();
    let increment = since(&generations[0], &generations[1]);
    bed.accept(&whole(&generations[0]), &[]);
    bed.refuse(&increment[..increment.len() - 50], &[], 3, "truncated");
    bed.refuse(&increment, &[], 4, "unfinished");
    bed.accept(&whole(&generations[1]), &[]);
    assert!(bed.content() == generations[1]);
}

#[test]
fn remains_of_a_cut_whole_stream_are_not_left_in_gaps() {
    let bed = Bed::new();
    let full = whole(&vec![0xff; 2 << 20]);
    bed.refuse(&full[..full.len() - 100], &[], 3, "truncated");
    let trimmed = [vec![1; 4096], vec![0; 1 << 20], vec![1; 100]].concat();
    bed.accept(&whole(&trimmed), &[]);
    assert!(bed.content() == trimmed);
}

#[test]
fn killed_at_any_point_the_next_whole_stream_ends_equal() {
    let image: Vec<u8> = (0..3_u32 << 20).map(|at| u8::try_from(at / 4096 % 255).unwrap() + 1).collect();
    let stream = whole(&image);
    let planned = if step(2) == 1 { 40 } else { 8 };
    let mut fired = 0;
    for point in 1..=planned {
        let bed = Bed::new();
        let mut tool = Command::new(APPLY).arg(&bed.target).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stdin = tool.stdin.take().unwrap();
        stdin.write_all(&stream[..stream.len() * point / (planned + 1)]).unwrap();
        let begun = Instant::now();
        while !bed.is_receiving() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        tool.kill().unwrap();
        tool.wait().unwrap();
        fired += usize::from(bed.is_receiving());
        // An image that is part old, part new is no source either.
        let refused = Command::new(DIFF).arg(&bed.target).output().unwrap();
        assert_eq!(refused.status.code(), Some(4), "{}", complaint(&refused));
        assert!(complaint(&refused).contains("[unfinished]"));
        bed.accept(&stream, &[]);
        assert!(bed.content() == image);
    }
    println!("killed while receiving: {fired} of {planned}");
    assert_eq!(fired, planned);
}

#[test]
fn one_run_at_a_time() {
    let bed = Bed::new();
    bed.accept(&whole(b"one"), &[]);
    let holder = File::open(&bed.target).unwrap();
    rustix::fs::flock(&holder, rustix::fs::FlockOperation::LockExclusive).unwrap();
    bed.refuse(&since(b"one", b"two"), &[], 6, "busy");
    drop(holder);
    bed.accept(&since(b"one", b"two"), &[]);
}

#[test]
fn a_dry_run_verifies_and_changes_nothing() {
    let bed = Bed::new();
    let said = |stream: &[u8]| {
        let output = bed.apply(stream, &["--dry-run"]);
        assert!(output.status.success(), "{}", complaint(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said(&whole(b"one")).contains("would create"));
    assert!(!bed.target.exists() && !bed.record_file().exists());
    bed.accept(&whole(b"one"), &[]);
    let before = bed.record();
    assert!(said(&since(b"one", b"two")).contains("would apply"));
    let stream = since(b"one", b"two");
    bed.refuse(&stream[..stream.len() - 1], &["--dry-run"], 3, "truncated");
    bed.refuse(&since(b"two", b"three"), &["--dry-run"], 4, "wrong-base");
    assert_eq!((bed.content().as_slice(), bed.record()), (&b"one"[..], before));
}

#[test]
fn what_has_no_state_leaves_no_state() {
    let bed = Bed::new();
    let image = bed.dir.path().join("live.img");
    fs::write(&image, b"live").unwrap();
    let stream = Command::new(DIFF).arg("--live").arg(&image).output().unwrap().stdout;
    assert_eq!(bed.accept(&stream, &[]).to, None);
    assert_eq!(bed.content(), b"live");
    assert!(!bed.record_file().exists());
    bed.refuse(&whole(b"next"), &[], 4, "foreign");
}

/// `image-apply --common` with these states offered: what it prints, or its exit code.
fn common(bed: &Bed, offered: &[u8]) -> Result<String, Option<i32>> {
    let state = |n: &u8| State { id: id(*n), seconds: 0, bytes: 0, name: format!("s{n}").into_bytes() };
    let list = StateList { states: offered.iter().map(state).collect() };
    let output = bed.apply(list.to_text().as_bytes(), &["--common"]);
    if output.status.success() { Ok(String::from_utf8(output.stdout).unwrap()) } else { Err(output.status.code()) }
}

#[test]
fn common_finds_the_base_of_the_next_increment() {
    let bed = Bed::new();
    let stream = |from, to| snapshots(from, to, if from == 0 { (0, 8192) } else { (8192, 8192) }, vec![data(0, 4096, to)]);
    assert_eq!(common(&bed, &[1, 2]), Ok(String::new()));
    bed.accept(&stream(0, 1), &[]);
    assert_eq!(common(&bed, &[1, 2]), Ok("s1\n".to_owned()));
    assert_eq!(common(&bed, &[2, 3]), Err(Some(4)));
    let next = stream(1, 2);
    bed.refuse(&next[..next.len() - 9], &[], 3, "truncated");
    assert_eq!(common(&bed, &[1, 2]), Ok("s1\n".to_owned()), "the same run once more");
    assert_eq!(common(&bed, &[1, 2, 3]), Ok(String::new()), "only a whole stream can heal it");
    bed.accept(&stream(0, 3), &[]);
    assert_eq!(common(&bed, &[1, 2, 3]), Ok("s3\n".to_owned()));
    fs::write(&bed.target, "by hand").unwrap();
    fs::remove_file(bed.record_file()).unwrap();
    assert_eq!(common(&bed, &[1]), Err(Some(4)));
}

#[test]
fn no_room_is_an_error_that_the_record_remembers() {
    let dir = TempDir::new().unwrap();
    let small = dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&small).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: no file system can be mounted here");
        return;
    }
    let bed = Bed { target: small.join("copy.img"), dir };
    let output = bed.apply(&whole(&vec![5; 3 << 20]), &[]);
    let record = fs::read_to_string(small.join("copy.img.siphon")).unwrap_or_default();
    Command::new("umount").arg(&small).status().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
    assert!(complaint(&output).contains("[no-space]"), "{}", complaint(&output));
    assert!(record.contains("\"receiving\"") && !record.contains("\"held\""), "{record}");
}

/// A block device of this size full of 0xFF, and where records of it go.
fn device(size: u64) -> Option<(TempDir, PathBuf, Loop)> {
    let dir = TempDir::new().unwrap();
    let backing = dir.path().join("disk");
    fs::write(&backing, vec![0xff; usize::try_from(size).unwrap()]).unwrap();
    let device = Loop::over(&backing)?;
    Some((dir, backing, device))
}

#[test]
fn a_device_holds_the_exact_image_and_zeros_behind_it() {
    let Some((dir, backing, device)) = device(3 << 20) else { return };
    let records = dir.path().join("records");
    let records = records.to_str().unwrap();
    let run = |stream: &[u8], more: &[&str]| apply(stream, &[&["--state-dir", records], more].concat(), Path::new(&device.0));
    let holds = |image: &[u8]| {
        let mut expected = image.to_vec();
        expected.resize(3 << 20, 0);
        let mut content = vec![0; 3 << 20];
        // Past the page cache of the device, whatever lies in it.
        let file = File::open(&backing).unwrap();
        file.read_exact_at(&mut content, 0).unwrap();
        content == expected
    };
    let generations = generations();
    let output = run(&whole(&generations[0]), &[]);
    assert!(complaint(&output).contains("[foreign]"), "{}", complaint(&output));
    let output = run(&whole(&generations[0]), &["--replace"]);
    assert!(output.status.success(), "{}", complaint(&output));
    assert!(holds(&generations[0]));
    for pair in generations.windows(2) {
        let output = run(&since(&pair[0], &pair[1]), &[]);
        assert!(output.status.success(), "{}", complaint(&output));
        assert!(holds(&pair[1]));
    }
    let last = generations.last().unwrap();
    // A cut increment that grew, and then a whole stream: nothing of the remains stays.
    let grown = since(last, &vec![6; 2_500_001]);
    assert_eq!(run(&grown[..grown.len() - 9], &[]).status.code(), Some(3));
    let output = run(&whole(&generations[1]), &[]);
    assert!(output.status.success() && holds(&generations[1]), "{}", complaint(&output));
    let output = run(&whole(&vec![1; (3 << 20) + 1]), &["--replace"]);
    assert!(complaint(&output).contains("[too-small]"), "{}", complaint(&output));
    assert!(holds(&generations[1]));
    // A plain writer is noticed.
    OpenOptions::new().write(true).open(&device.0).unwrap().write_all_at(b"!", 5).unwrap();
    Command::new("sync").status().unwrap();
    let output = run(&since(&generations[1], &generations[2]), &[]);
    assert!(complaint(&output).contains("[written-since]"), "{}", complaint(&output));
}

#[test]
fn a_device_that_was_attached_anew_proves_nothing() {
    let Some((dir, backing, device)) = device(1 << 20) else { return };
    let records = dir.path().join("records");
    let options = ["--state-dir", records.to_str().unwrap()];
    let (old, new) = (vec![1; 20_000], vec![2; 20_000]);
    let output = apply(&whole(&old), &[&options[..], &["--replace"]].concat(), Path::new(&device.0));
    assert!(output.status.success(), "{}", complaint(&output));
    drop(device);
    let Some(device) = Loop::over(&backing) else { return };
    let output = apply(&since(&old, &new), &options, Path::new(&device.0));
    let said = complaint(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("nothing proves") && said.contains("--trust"), "{said}");
    let output = apply(&since(&old, &new), &[&options[..], &["--trust"]].concat(), Path::new(&device.0));
    assert!(output.status.success(), "{}", complaint(&output));
    // The file below the device is not the way to it.
    let output = apply(&whole(&old), &["--replace"], &backing);
    assert!(complaint(&output).contains("[claimed]"), "{}", complaint(&output));
}

#[test]
fn a_mounted_device_is_refused() {
    let Some((dir, _, device)) = device(4 << 20) else { return };
    let place = dir.path().join("mounted");
    fs::create_dir(&place).unwrap();
    let made = Command::new("mkfs.ext2").args(["-q", &device.0]).status().is_ok_and(|status| status.success());
    if !made || !Command::new("mount").arg(&device.0).arg(&place).status().unwrap().success() {
        println!("skipped: no file system can be made and mounted here");
        return;
    }
    let output = apply(&whole(b"x"), &["--replace"], Path::new(&device.0));
    let read = Command::new(DIFF).arg(&device.0).output().unwrap();
    Command::new("umount").arg(&place).status().unwrap();
    for output in [output, read] {
        assert_eq!(output.status.code(), Some(4), "{}", complaint(&output));
        assert!(complaint(&output).contains("[mounted]"), "{}", complaint(&output));
    }
}

#[test]
fn a_base_on_record_is_not_read_to_learn_its_state() {
    let bed = Bed::new();
    let generations = generations();
    bed.accept(&whole(&generations[0]), &[]);
    let new = bed.dir.path().join("new.img");
    fs::write(&new, &generations[1]).unwrap();
    let stream = |target: &Path| {
        let output = Command::new(DIFF).arg("--base").arg(target).arg(&new).output().unwrap();
        assert!(output.status.success(), "{}", complaint(&output));
        output.stdout
    };
    let by_record = stream(&bed.target);
    // A record with another id, to see that it is what counts as long as it fits …
    let record = bed.record();
    let forged = record.replace(&root_of(&generations[0]), &id(77).to_string());
    assert_ne!(forged, record);
    fs::write(bed.record_file(), &forged).unwrap();
    assert!(stream(&bed.target) != by_record);
    // … and no longer.
    OpenOptions::new().write(true).open(&bed.target).unwrap().write_all_at(&generations[0][..1], 0).unwrap();
    assert!(stream(&bed.target) == by_record);
}

fn root_of(content: &[u8]) -> String {
    let mut root = siphon::state::ContentRoot::new(content.len() as u64);
    root.data(&Data::new(0, content.to_vec()));
    siphon::state::file_state(root.finish()).to_string()
}

#[test]
fn help_has_examples() {
    let help = Command::new(APPLY).arg("--help").output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"));
}
