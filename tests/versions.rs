//! Two versions on two ends: what version 1.0 wrote is read for ever, and what is newer is refused by its name.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;
mod vectors;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use common::apply::{APPLY, Bed, DIFF};
use common::nights::Nights;
use common::{complaint, piped};
use siphon::host::record::RecordFile;
use siphon::source::resumed;
use siphon::state::{Checkpoint, Class, Mark, Pause, RESUME, Receipt, Run, StateList};

/// BLAKE3 of each file of tests/frozen/1.0.
const FROZEN: [(&str, &str); 7] = [
    ("fine.manifest", "30ca07e1b93730d1d891ea462ee72ff1d122beb1cdf3ecb9ad639ce6662005dc"),
    ("increment.stream", "76d756cc089cd47111541f242c8544a181d55b15d2a67c0faaad33f4cf569d94"),
    ("receipt.json", "e11d3a98649cf7529af5f31a7568900d537a2b32cc2f6a00f6bc4d41359ee53b"),
    ("record.json", "376c298908d6a2dc1816562b17047348a298417ff674231efd6820a6cc91ec2c"),
    ("records", "41fc2865c8876b6962210380a4422ef96ddfed3be15e34052be089139474c677"),
    ("states", "434eec972a2970e018adc4b43684e67362b0848eec3f7eb990c9ee7666e484b0"),
    ("whole.stream", "0e25fc14cd0379c1ee839a3bc392040d3798083d3bb9f3a1fd778a4495e5d207"),
];
/// BLAKE3 of tests/vectors/FROZEN, which holds those of all vectors of version 1.0.
const VECTORS: &str = "32bddcc31c1299e4df449f8b43d2908d957c90ae4788d42e390c58bac5058c0c";
/// BLAKE3 of the images that the frozen streams make, and their content root.
const MONDAY: &str = "6d331a0d92571ab29d303b6b956fac77f269d54b768160f94374b01e31c47a43";
const TUESDAY: &str = "96fe8797ab7958f7f7f4851a41989a937e66650014eb21e67b6851b5551e367a";
const TUESDAY_ROOT: &str = "1353fb8b839bd777450b1a264c91fd2947c04020a39063bfa2bb19b05c13cdda";

const DIGEST: &str = env!("CARGO_BIN_EXE_extent-digest");
const INSPECT: &str = env!("CARGO_BIN_EXE_extent-inspect");

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/frozen/1.0").join(name)
}

fn frozen(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}

fn text(name: &str) -> String {
    String::from_utf8(frozen(name)).unwrap()
}

fn hash(bytes: impl AsRef<[u8]>) -> String {
    blake3::hash(bytes.as_ref()).to_string()
}

#[test]
fn what_version_1_0_wrote_is_as_it_was_written() {
    let files: BTreeSet<String> =
        fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let names = FROZEN.iter().map(|(name, _)| *name).chain(["README.md"]).map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(files, names);
    for (name, digest) in FROZEN {
        assert_eq!(hash(frozen(name)), digest, "{name} was changed; what another version writes has a folder of its own");
    }
    // New vectors may come. Those that were there stay as they are.
    assert_eq!(hash(vectors::text("FROZEN")), VECTORS, "tests/vectors/FROZEN was changed");
    let list: BTreeSet<String> = vectors::list().into_iter().collect();
    let mut count = 0;
    for line in vectors::text("FROZEN").lines() {
        let (digest, name) = line.split_once("  ").unwrap();
        assert!(list.contains(name) || name.ends_with(".tsv"), "{name} is no longer in LIST");
        assert_eq!(hash(vectors::text(name)), digest, "{name} was changed");
        count += 1;
    }
    println!("{count} frozen vectors");
}

#[test]
fn streams_of_version_1_0_are_taken() {
    let bed = Bed::new();
    bed.accept(&frozen("whole.stream"), &[]);
    assert_eq!(hash(bed.content()), MONDAY);
    let receipt = bed.accept(&frozen("increment.stream"), &[]);
    assert_eq!(hash(bed.content()), TUESDAY);
    let told = Receipt { target: receipt.target.clone(), ..Receipt::parse(frozen("receipt.json").as_slice()).unwrap() };
    assert_eq!(receipt, told, "the receipt says what it said then");
    for name in ["whole.stream", "increment.stream"] {
        let output = piped(INSPECT, &["--check"], &frozen(name));
        assert!(output.status.success(), "{name}: {}", complaint(&output));
    }
    // A whole stream and its increment, run together by a filter, too.
    let output = piped(
        env!("CARGO_BIN_EXE_extent-merge"),
        &[path("whole.stream").to_str().unwrap(), path("increment.stream").to_str().unwrap()],
        b"",
    );
    assert!(output.status.success(), "{}", complaint(&output));
    let root = piped(DIGEST, &["--root"], &output.stdout);
    assert_eq!(String::from_utf8(root.stdout).unwrap().trim(), TUESDAY_ROOT);
}

#[test]
fn state_lists_of_version_1_0_are_taken_and_the_answer_is_a_name() {
    let bed = Bed::new();
    for stream in ["whole.stream", "increment.stream"] {
        bed.accept(&frozen(stream), &[]);
    }
    let answer = piped(APPLY, &["--common", bed.target.to_str().unwrap()], &frozen("states"));
    assert!(answer.status.success(), "{}", complaint(&answer));
    assert_eq!(answer.stdout, b"tuesday.img\n");
    assert_eq!(StateList::parse(frozen("states").as_slice()).unwrap().to_text(), text("states"), "and written as then");
}

#[test]
fn manifests_of_version_1_0_are_taken() {
    let bed = Bed::new();
    for stream in ["whole.stream", "increment.stream"] {
        bed.accept(&frozen(stream), &[]);
    }
    let (target, manifest) = (bed.target.to_str().unwrap(), path("fine.manifest"));
    let output = piped(DIGEST, &["--expect", TUESDAY_ROOT, manifest.to_str().unwrap()], b"");
    assert!(output.status.success(), "{}", complaint(&output));
    assert_eq!(piped(DIGEST, &["--fine", "--image", target], b"").stdout, frozen("fine.manifest"), "and written as then");
    let nothing = piped(DIFF, &["--base-manifest", manifest.to_str().unwrap(), target], b"");
    assert!(nothing.status.success() && nothing.stdout.len() < 1000, "{}", complaint(&nothing));
}

#[test]
fn records_of_version_1_0_are_understood() {
    let mut seen = BTreeMap::<String, usize>::new();
    for line in text("records").lines() {
        let (kind, record) = line.split_once(' ').unwrap();
        let again = match kind {
            "mark" => Mark::<u64>::parse(record).map(|mark| mark.to_text()),
            "run" => Run::<u64>::parse(record).map(|run| run.to_text()),
            "pause" => Pause::<u64>::parse(record).map(|pause| pause.to_text()),
            _ => record.strip_prefix(RESUME).and_then(|text| text.parse().ok()).map(|point: Checkpoint| point.token()),
        };
        assert_eq!(again.as_deref(), Some(record), "{kind}");
        *seen.entry(kind.to_owned()).or_default() += 1;
    }
    assert_eq!(seen.values().collect::<Vec<_>>(), [&2, &1, &2, &1], "{seen:?}");
    // The record of a file, and what the page of image-apply(1) calls it.
    let bed = Bed::new();
    fs::copy(path("record.json"), bed.record_file()).unwrap();
    let held = RecordFile::beside(&bed.target).read().unwrap().unwrap().held.unwrap();
    assert_eq!((held.name.as_str(), held.size), ("tuesday.img", 25_389));
}

#[test]
fn a_source_writes_version_1_0_without_features() {
    let bed = Bed::new();
    for stream in ["whole.stream", "increment.stream"] {
        bed.accept(&frozen(stream), &[]);
        let whole = piped(DIFF, &[bed.target.to_str().unwrap()], b"").stdout;
        assert_eq!(whole[..24], frozen("whole.stream")[..24], "the preamble of version 1.0");
        assert_eq!(whole[56..72], [0; 16], "no feature");
    }
}

#[test]
fn what_a_newer_version_wrote_is_refused_by_name() {
    // A stream that needs what this version lacks: the refusal names it, and the sender's option.
    let bed = Bed::new();
    let said = bed.refuse(&vectors::load("feature_with_entry.vec").stream, &[], 3, "feature");
    assert!(said.contains("teleport (--no-teleport)"), "{said}");
    assert!(!bed.target.exists() && !bed.record_file().exists());
    let said = bed.refuse(&vectors::load("version_2.vec").stream, &[], 3, "version");
    assert!(said.contains("version 2"), "{said}");
    // One that is newer and needs nothing is taken.
    bed.accept(&vectors::load("ok_minor_version_7.vec").stream, &[]);

    let list = text("states").replace("#end", "#newer\n#end");
    assert_eq!(StateList::parse(list.as_bytes()).unwrap_err().class, Class::List);

    let receipt = text("receipt.json");
    let fault = Receipt::parse(receipt.replace("\"receipt\":1", "\"receipt\":2").as_bytes()).unwrap_err();
    assert!(fault.class == Class::List && fault.to_string().contains("version 2"), "{fault}");
    let more = receipt.replace("\"size\"", "\"more\":{\"of\":1},\"size\"");
    assert_eq!(Receipt::parse(more.as_bytes()).unwrap(), Receipt::parse(receipt.as_bytes()).unwrap(), "more is passed over");

    let mut manifest = frozen("fine.manifest");
    manifest[16] = 2;
    let sum = crc32fast::hash(&manifest[..52]).to_le_bytes();
    manifest[52..56].copy_from_slice(&sum);
    let output = piped(DIGEST, &["--expect", TUESDAY_ROOT], &manifest);
    let said = complaint(&output);
    assert!(output.status.code() == Some(3) && said.contains("another version") && said.contains("[manifest]"), "{said}");

    let Err(fault) = resumed::open(Nights(vec![vec![1; 4096]]), "resume:2;-,4096=0") else { panic!("a token of version 2") };
    assert_eq!(fault.class, Class::Usage);

    let bed = Bed::new();
    fs::write(bed.record_file(), text("record.json").replace("\"siphon_target\": 1", "\"siphon_target\": 2")).unwrap();
    let fault = RecordFile::beside(&bed.target).read().unwrap_err();
    assert!(fault.class == Class::List && fault.to_string().contains("version 2"), "{fault}");
}
