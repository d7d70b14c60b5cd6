//! scripts/siphon-all and scripts/rbd-to-zvol, with programs in place of rbd, ssh and our own tools.
//! What they do on real systems is tests/real/forty.py.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "common/stage.rs"]
mod stage;

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use stage::{Stage, code, err, out};

/// `rbd`: images, groups and metadata are files below $STAGE; what would be changed is written to its log.
const RBD: &str = r#"#!/bin/bash
while [[ $1 = --* ]]; do shift; done
echo "rbd $*" >>"$STAGE/log"
case "$1 $2" in
  "ls "*) cat "$STAGE/images" ;;
  "group ls") [ ! -e "$STAGE/groups" ] || cat "$STAGE/groups" ;;
  "group image") cat "$STAGE/group.${4##*/}" ;;
  "image-meta get") cat "$STAGE/skip.${3##*/}" 2>/dev/null || exit 2 ;;
  "snap create") [ ! -e "$STAGE/no-snapshot" ] || { rm "$STAGE/no-snapshot"; echo "rbd: no" >&2; exit 17; } ;;
  "snap rm") ;;
  *) echo "rbd $*: what?" >&2; exit 99 ;;
esac
"#;

/// `rbd-diff-stream`: a list of the snapshots, or a stream that is its own arguments.
const SOURCE: &str = r#"#!/bin/bash
echo "rbd-diff-stream $*" >>"$STAGE/log"
[ ! -e "$STAGE/source" ] || . "$STAGE/source"
[ "$1" != --states ] || { printf 'list\n'; exit; }
echo "stream $*"
"#;

/// `ssh`: what the NAS answers is said by files of $STAGE.
const SSH: &str = r#"#!/bin/bash
[ "$1" = -- ] && shift 2
echo "ssh $*" >>"$STAGE/log"
volume=${!#}; volume=${volume##*/}
case "$1 $2" in
  "zfs-snapmark common") cat >/dev/null; . "$STAGE/common" ;;
  "zfs-snapmark manifest") echo "a manifest" ;;
  "zvol-apply "*) cat >/dev/null; if [ -e "$STAGE/apply.$volume" ]; then . "$STAGE/apply.$volume"; else . "$STAGE/apply"; fi ;;
esac
"#;
/// `snap-prune`: without --match it is only asked what it thinks of a policy.
const PRUNE: &str = r#"#!/bin/bash
[[ $* != *=0* ]] || { echo 'snap-prune: error: 0 [usage]' >&2; exit 2; }
[[ $* = *--match* ]] || exit 3
echo "snap-prune $*" >>"$STAGE/log"
cat >/dev/null
cat "$STAGE/prune" 2>/dev/null || true
"#;
/// `rbd-group-snap`: a class to fail with is in a file; a name that is taken is so for a moment.
const GROUP: &str = r#"#!/bin/bash
echo "rbd-group-snap $*" >>"$STAGE/log"
class=$(cat "$STAGE/group-fails" 2>/dev/null) || exit 0
[ "$class" != exists ] || rm "$STAGE/group-fails"
echo "rbd-group-snap: x: error: no [$class]" >&2
exit 4
"#;
const GOOD: &str =
    r#"echo '{"receipt":1,"tool":"zvol-apply","data_bytes":4096,"zero_bytes":8192,"snapshot":"mark","marked":true}'"#;

/// A pool and a NAS.
impl Stage {
    fn new(images: &[&str]) -> Stage {
        let stage = Stage::of(&[
            ("rbd", RBD),
            ("rbd-diff-stream", SOURCE),
            ("ssh", SSH),
            ("snap-prune", PRUNE),
            ("rbd-group-snap", GROUP),
        ]);
        stage.put("images", &images.iter().map(|name| format!("{name}\n")).collect::<String>());
        stage.put("common", "echo base");
        stage.put("apply", GOOD);
        stage
    }

    fn all(&self, options: &[&str]) -> Output {
        self.command("siphon-all", &[options, &["rbd", &self.host(), "tank/backup"]].concat()).output().unwrap()
    }

    fn one(&self, options: &[&str]) -> Output {
        let _ = fs::remove_file(self.path("record"));
        let record = self.path("record").to_str().unwrap().to_owned();
        self.command("rbd-to-zvol", &[options, &["--record", &record, "rbd/vm1", &self.host(), "tank/vm1"]].concat())
            .output()
            .unwrap()
    }
}

// ---- one image

#[test]
fn the_record_says_how_each_night_went() {
    let stage = Stage::new(&[]);
    // What the NAS answers, options, how, from, class, exit, held.
    type Night = (
        &'static str,
        &'static str,
        &'static [&'static str],
        &'static str,
        Option<&'static str>,
        Option<&'static str>,
        i32,
        &'static str,
    );
    let table: [Night; 9] = [
        ("", GOOD, &[], "new", None, None, 0, "yes"),
        ("echo base", GOOD, &[], "increment", Some("base"), None, 0, "yes"),
        ("echo resume:1,2=3", GOOD, &[], "resumed", Some("resume:1,2=3"), None, 0, "yes"),
        ("echo 'zfs-snapmark: t: error: none [no-common]' >&2; exit 4", GOOD, &[], "", None, Some("no-common"), 4, "no"),
        ("echo 'zfs-snapmark: t: error: none [no-common]' >&2; exit 4", GOOD, &["--resync"], "resync", None, None, 0, "yes"),
        ("echo 'zfs-snapmark: t: error: none [no-common]' >&2; exit 4", GOOD, &["--replace"], "replace", None, None, 0, "yes"),
        (
            "echo base",
            "echo 'zvol-apply: t: error: \\ and \"quotes\" [written-since]' >&2; echo 'zvol-apply: hint: say \"this\" \\' >&2; exit 4",
            &[],
            "increment",
            Some("base"),
            Some("written-since"),
            4,
            "no",
        ),
        ("echo base", "exit 255", &[], "increment", Some("base"), Some("io"), 1, "maybe"),
        ("exit 127", GOOD, &[], "", None, Some("usage"), 2, "no"),
    ];
    for (common, apply, options, how, from, class, exit, held) in table {
        stage.put("common", common);
        stage.put("apply", apply);
        let output = stage.one(options);
        let case = format!("{common} / {apply} / {options:?}: {}", err(&output));
        assert_eq!(code(&output), exit, "{case}");
        let record = stage.record();
        assert_eq!(record.len(), 1, "{case}");
        let line = &record[0];
        let text = |name: &str| line.get(name).unwrap_or_else(|| panic!("no {name}")).as_str();
        assert_eq!(
            (text("image"), text("host"), text("dataset")),
            (Some("rbd/vm1"), Some(stage.host().as_str()), Some("tank/vm1")),
            "{case}"
        );
        assert_eq!((text("how").unwrap_or(""), text("from"), text("class")), (how, from, class), "{case}");
        assert_eq!((line["exit"].as_i64(), text("held")), (Some(i64::from(exit)), Some(held)), "{case}");
        let bytes = if exit == 0 { (Some(4096), Some(8192)) } else { (Some(0), Some(0)) };
        assert_eq!((line["data_bytes"].as_u64(), line["zero_bytes"].as_u64()), bytes, "{case}");
        assert!(line["seconds"].is_u64() && text("snapshot").unwrap().ends_with('Z'), "{case}");
        if apply.contains("hint") {
            assert_eq!(text("hint"), Some("say \"this\" \\"), "{case}");
        }
    }
}

#[test]
fn no_whole_transfer_that_nobody_asked_for() {
    let stage = Stage::new(&[]);
    stage.put("common", "echo 'zfs-snapmark: t: error: none [no-common]' >&2; exit 4");
    let output = stage.one(&[]);
    assert!(code(&output) == 4 && err(&output).contains("--resync"), "{output:?}");
    assert!(!stage.log().contains("zvol-apply"), "{}", stage.log());
    stage.one(&["--resync"]);
    let log = stage.log();
    assert!(
        log.contains("ssh zfs-snapmark manifest --fine tank/vm1") && log.contains("rbd-diff-stream --base-manifest="),
        "{log}"
    );
    assert!(log.contains("ssh zvol-apply --mark tank/vm1") && !log.contains("--replace"), "{log}");
    stage.one(&["--replace"]);
    assert!(stage.log().contains("ssh zvol-apply --mark --replace tank/vm1"), "{}", stage.log());
    // With a base, --replace and --resync change nothing.
    stage.put("common", "echo base");
    stage.put("log", "");
    stage.one(&["--replace", "--resync"]);
    assert!(
        stage.log().contains("--from=base") && !stage.log().contains("--replace") && !stage.log().contains("manifest"),
        "{}",
        stage.log()
    );
}

#[test]
fn an_older_base_than_the_newest_mark_resyncs_only_when_asked() {
    let stage = Stage::new(&[]);
    let refuse_increments = format!(
        "if [ -e \"$STAGE/once\" ]; then {GOOD}; else touch \"$STAGE/once\"; echo 'zvol-apply: t: error: x [wrong-base]' >&2; exit 4; fi"
    );
    stage.put("apply", &refuse_increments);
    assert_eq!(code(&stage.one(&[])), 4);
    assert_eq!(stage.record()[0]["class"], "wrong-base");
    fs::remove_file(stage.path("once")).unwrap();
    assert_eq!(code(&stage.one(&["--resync"])), 0);
    assert_eq!((&stage.record()[0]["how"], &stage.record()[0]["class"]), (&Value::from("resync"), &Value::Null));
}

#[test]
fn a_given_snapshot_is_neither_taken_nor_removed() {
    let stage = Stage::new(&[]);
    assert_eq!(code(&stage.one(&["--snapshot", "together"])), 0);
    assert_eq!(stage.record()[0]["snapshot"], "together");
    stage.put("apply", "echo 'zvol-apply: t: error: x [busy]' >&2; exit 6");
    assert_eq!(code(&stage.one(&["--snapshot=together"])), 6);
    assert_eq!(stage.record()[0]["held"], "no");
    assert!(!stage.log().contains("rbd snap"), "{}", stage.log());
    // One that the run took goes again.
    assert_eq!(code(&stage.one(&[])), 6);
    assert!(stage.log().contains("rbd snap rm"), "{}", stage.log());
}

#[test]
fn only_what_snap_prune_prints_and_only_ours_is_removed() {
    let stage = Stage::new(&[]);
    stage.put("prune", "2026-11-01T020000Z\nbefore-upgrade\n2026-11-02T0200Z\n2026-11-03T020000Z\n2026-11-04T020000Z extra\n");
    assert_eq!(code(&stage.one(&["--keep-last", "3", "--keep-daily=7"])), 0);
    let log = stage.log();
    let removed: Vec<&str> = log.lines().filter(|line| line.starts_with("rbd snap rm")).collect();
    assert_eq!(
        removed,
        ["rbd snap rm --no-progress rbd/vm1@2026-11-01T020000Z", "rbd snap rm --no-progress rbd/vm1@2026-11-03T020000Z"]
    );
    let snap = stage.record()[0]["snapshot"].as_str().unwrap().to_owned();
    assert!(log.contains(&format!("snap-prune --keep-last=3 --keep-daily=7 --keep=base --match=[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9]{{6}}Z --keep={snap}")), "{log}");
    // Not without being told, and not after a night that failed.
    stage.put("log", "");
    stage.one(&[]);
    stage.put("apply", "exit 1");
    stage.one(&["--keep-last", "1"]);
    assert!(!stage.log().contains("snap-prune"), "{}", stage.log());
    // What a run that went on began from may be the only state that both sides have, but for the newest.
    stage.put("apply", GOOD);
    stage.put("common", "echo resume:1,2=3");
    stage.one(&["--keep-last", "1"]);
    assert!(stage.log().contains("--keep=resume:1,2=3"), "{}", stage.log());
}

#[test]
fn a_policy_that_says_nothing_is_refused_before_the_night() {
    let stage = Stage::new(&["vm1"]);
    assert_eq!(code(&stage.one(&["--keep-last=0"])), 2);
    assert_eq!((&stage.record()[0]["class"], &stage.record()[0]["held"]), (&Value::from("usage"), &Value::from("no")));
    let output = stage.all(&["--keep-last=0"]);
    assert!(code(&output) == 2 && out(&output).is_empty() && err(&output).contains("[usage]"), "{output:?}");
    let log = stage.log();
    assert!(!log.contains("snap create") && !log.contains("zvol-apply"), "{log}");
}

#[test]
fn a_name_that_another_run_took_this_second_is_no_failure() {
    let stage = Stage::new(&["a"]);
    stage.put("no-snapshot", "");
    assert_eq!(code(&stage.one(&[])), 0);
    let log = stage.log();
    let taken: Vec<&str> = log.lines().filter(|line| line.starts_with("rbd snap create")).collect();
    assert!(matches!(taken[..], [first, second] if first < second), "{log}");
    assert!(taken[1].ends_with(stage.record()[0]["snapshot"].as_str().unwrap()), "{log}");
    stage.put("groups", "pair\n");
    stage.put("group.pair", "rbd/a\n");
    stage.put("group-fails", "exists");
    assert_eq!(code(&stage.all(&[])), 0);
    assert_eq!(stage.log().matches("rbd-group-snap").count(), 2, "{}", stage.log());
}

#[test]
fn a_source_that_fails_is_the_one_that_is_named() {
    let stage = Stage::new(&[]);
    stage.put("source", "[ \"$1\" = --states ] || { echo 'rbd-diff-stream: s: error: gone [vanished]' >&2; exit 4; }");
    stage.put("apply", "echo 'zvol-apply: t: error: stream ends [truncated]' >&2; exit 3");
    assert_eq!(code(&stage.one(&[])), 4);
    assert_eq!(stage.record()[0]["class"], "vanished");
    // A list without its end is refused over there; the reason is here.
    stage.put("source", "echo 'rbd-diff-stream: s: error: no such image [not-found]' >&2; exit 4");
    stage.put("common", "echo 'zfs-snapmark: t: error: no end [list]' >&2; exit 3");
    assert_eq!(code(&stage.one(&[])), 4);
}

// ---- a whole pool

#[test]
fn each_image_has_a_line_and_the_highest_exit_code_wins() {
    let stage = Stage::new(&["vm1", "vm2", "vm3", "vm4"]);
    stage.put("apply.vm2", "echo 'zvol-apply: t: error: x [written-since]' >&2; exit 4");
    stage.put("apply.vm3", "exit 255");
    let record = stage.path("record").to_str().unwrap().to_owned();
    for parallel in ["1", "3"] {
        let _ = fs::remove_file(&record);
        let output = stage.all(&["-P", parallel, "--record", &record]);
        assert_eq!(code(&output), 4, "{}", err(&output));
        let said = out(&output);
        for line in [
            "ok       vm1  increment since base, 4096 bytes of data",
            "FAILED   vm2  [written-since] exit 4",
            "FAILED   vm3  [io] exit 1",
            "ok       vm4",
        ] {
            assert!(said.contains(line), "{line}: {said}{}", err(&output));
        }
        assert!(said.lines().last().unwrap().starts_with("2 ok, 0 skipped, 2 failed"), "{said}");
        let record = stage.record();
        assert_eq!(record.len(), 5);
        let totals = record.last().unwrap();
        for (name, number) in
            [("total", 4), ("ok", 2), ("failed", 2), ("skipped", 0), ("data_bytes", 8192), ("zero_bytes", 16384), ("exit", 4)]
        {
            assert_eq!(totals[name].as_u64(), Some(number), "{name}");
        }
    }
}

#[test]
fn images_are_chosen_by_name_and_metadata() {
    let stage = Stage::new(&["db1", "vm1", "vm2", "vm3", "vm4", "win dows", "x;id"]);
    stage.put("skip.vm2", "yes\n");
    stage.put("skip.vm3", "0\n");
    let record = stage.path("record").to_str().unwrap().to_owned();
    let output = stage.all(&["--only", "vm*", "--only=w*", "--only=x*", "--skip", "vm4", "--record", &record]);
    assert_eq!(code(&output), 2, "{}", err(&output));
    let said = out(&output);
    for line in [
        "ok       vm1",
        "skipped  vm2  backup-skip",
        "ok       vm3",
        "skipped  vm4  by --skip",
        "FAILED   win\\ dows  [usage] exit 2",
        "FAILED   x\\;id",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("db1") && said.contains("2 ok, 2 skipped, 2 failed"), "{said}");
    assert_eq!(stage.record().iter().filter(|line| line["how"] == "skipped").count(), 2);
    assert!(!stage.log().contains("x;id@") && !stage.log().contains("snap create rbd/win"), "{}", stage.log());
}

#[test]
fn images_of_a_group_get_one_snapshot() {
    let stage = Stage::new(&["a", "b", "c", "swap"]);
    stage.put("groups", "pair\n");
    stage.put("group.pair", "rbd/b\nrbd/swap\nother/d\nrbd/a\n");
    stage.put("skip.swap", "yes");
    let record = stage.path("record").to_str().unwrap().to_owned();
    let output = stage.all(&["--record", &record]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let snapshot =
        |name: &str| stage.record().iter().find(|line| line["image"] == format!("rbd/{name}")).unwrap()["snapshot"].clone();
    assert_eq!(snapshot("a"), snapshot("b"));
    let log = stage.log();
    let call = log.lines().find(|line| line.starts_with("rbd-group-snap")).unwrap();
    assert_eq!(call, format!("rbd-group-snap --without=rbd/swap --without=other/d rbd/pair@{}", snapshot("a").as_str().unwrap()));
    assert_eq!(log.matches("rbd snap create").count(), 1, "only c has one of its own: {log}");
    // A group that cannot be snapshotted fails as a whole, and alone.
    stage.put("group-fails", "unsupported");
    let output = stage.all(&[]);
    assert_eq!(code(&output), 4);
    assert!(out(&output).contains("FAILED   a  [unsupported] exit 4") && out(&output).contains("ok       c"), "{}", out(&output));
    fs::remove_file(stage.path("group-fails")).unwrap();
    // What the target certainly does not hold goes again.
    stage.put("apply.b", "echo 'zvol-apply: t: error: x [written-since]' >&2; exit 4");
    stage.put("log", "");
    assert_eq!(code(&stage.all(&[])), 4);
    assert_eq!(
        stage.log().lines().filter(|line| line.starts_with("rbd snap rm --no-progress rbd/b@")).count(),
        1,
        "{}",
        stage.log()
    );
}

#[test]
fn who_ends_without_a_word_failed_and_may_have_sent() {
    let stage = Stage::new(&["a", "b"]);
    stage.put("groups", "pair\n");
    stage.put("group.pair", "rbd/a\n");
    let kill = |script: &str, words: &str| format!("pkill -KILL -f '{script} .*{words}'; sleep 60");
    let record = stage.path("record").to_str().unwrap().to_owned();
    // rbd-to-zvol of an image of a group: its snapshot stays.
    stage.put("apply.a", &kill("rbd-to-zvol", &format!("rbd/a {} ", stage.host())));
    let output = stage.all(&["--record", &record]);
    assert_eq!(code(&output), 1, "{}", err(&output));
    assert!(out(&output).contains("FAILED   a  [io] exit 1") && out(&output).contains("ok       b"), "{}", out(&output));
    assert_eq!(stage.record()[0]["held"], "maybe");
    assert!(!stage.log().contains("snap rm"), "{}", stage.log());
    // Nobody can be told.
    fs::remove_file(&record).unwrap();
    stage.put("apply.a", "echo 'zvol-apply: t: error: x [written-since]' >&2; exit 4");
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    let mut command = stage.command("siphon-all", &["--record", &record, "rbd", &stage.host(), "tank/backup"]);
    assert_ne!(command.stdout(full()).stderr(full()).status().unwrap().code(), Some(0));
    let totals = stage.record().pop().unwrap();
    assert_eq!((&totals["total"], &totals["failed"], &totals["exit"]), (&Value::from(2), &Value::from(1), &Value::from(4)));
}

#[test]
fn one_run_at_a_time_and_no_more_images_after_a_signal() {
    let stage = Stage::new(&["vm1", "vm2", "vm3"]);
    stage.put("apply", &format!("touch \"$STAGE/began\"; until [ -e \"$STAGE/go\" ]; do sleep 0.05; done; {GOOD}"));
    let first = stage
        .command("siphon-all", &["rbd", &stage.host(), "tank/backup"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while !stage.path("began").exists() {
        assert!(Instant::now() < end, "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = stage.all(&[]);
    assert!(code(&second) == 6 && err(&second).contains("[busy]") && out(&second).is_empty(), "{second:?}");
    assert!(Command::new("kill").arg(first.id().to_string()).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(200));
    stage.put("go", "");
    let first = first.wait_with_output().unwrap();
    assert_eq!(code(&first), 143, "{first:?}");
    assert!(out(&first).contains("ok       vm1") && !out(&first).contains("vm2"), "{}", out(&first));
}

#[test]
fn a_dry_run_changes_nothing() {
    let stage = Stage::new(&["vm1", "vm2"]);
    stage.put("groups", "pair\n");
    stage.put("group.pair", "rbd/vm1\nrbd/vm2\n");
    let record = stage.path("record").to_str().unwrap().to_owned();
    let output = stage.all(&["--dry-run", "--keep-last=1", "--record", &record]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("ok       vm1  would send: increment, since base"), "{}", out(&output));
    let log = stage.log();
    assert!(
        !["snap create", "snap rm", "zvol-apply", "rbd-group-snap", "snap-prune"].iter().any(|word| log.contains(word)),
        "{log}"
    );
    assert!(stage.record().is_empty());
}

#[test]
fn what_is_no_longer_in_the_pool_is_said_once() {
    let stage = Stage::new(&["vm1", "vm2"]);
    let record = stage.path("record").to_str().unwrap().to_owned();
    stage.all(&["--record", &record]);
    stage.put("images", "vm1\n");
    let note = "rbd/vm2: note: no longer in the pool; its volume tank/backup/vm2 stays";
    assert!(err(&stage.all(&["--record", &record])).contains(note));
    assert!(!err(&stage.all(&["--record", &record])).contains(note));
}
