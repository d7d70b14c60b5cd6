//! scripts/cephfs-to-zfs, with programs in place of ssh and our own tools, and a plain directory for CephFS.
//! What it does on real systems is tests/real/cephfs_to_zfs.py.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "common/stage.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod stage;

use std::fs;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use stage::{Stage, code, err};

const SCRIPT: &str = "cephfs-to-zfs";
/// `cephfs-changed`: its list is its own arguments; its memory is the snapshot.
const CHANGED: &str = r#"#!/bin/bash
echo "cephfs-changed $*" >>"$STAGE/log"
if [ "$1" = --help ]; then
  for option in {1..200}; do echo "      --other-$option"; done
  [ ! -e "$STAGE/needs" ] || echo "      --needs"
  exit
fi
memory='' needs=''
for word; do
  case $word in --memory=*) memory=${word#*=} ;; --needs) needs=yes ;; --states) echo list; exit "$(cat "$STAGE/states-code" 2>/dev/null || echo 0)" ;; esac
done
[ -z "$needs" ] || { cat "$STAGE/needs"; exit; }
[ ! -e "$STAGE/list" ] || . "$STAGE/list"
[ -z "$memory" ] || echo "${!#}" >"$memory"
echo "list $*"
[ ! -e "$STAGE/list-end" ] || . "$STAGE/list-end"
"#;
/// `tree-diff-stream --changes -`.
const FILL: &str = r#"#!/bin/bash
echo "tree-diff-stream $*" >>"$STAGE/log"
cat
[ ! -e "$STAGE/fill" ] || . "$STAGE/fill"
"#;
/// `ssh`: what the NAS answers is said by files of $STAGE.
const SSH: &str = r#"#!/bin/bash
[ "$1" = -- ] && shift 2
echo "ssh $*" >>"$STAGE/log"
case "$1 $2" in
  "zfs-snapmark common") cat >/dev/null; . "$STAGE/common" ;;
  "tree-apply "*) cat >"$STAGE/received"; . "$STAGE/apply" ;;
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
/// `date`: each night is another one.
const DATE: &str = r#"#!/bin/bash
echo >>"$STAGE/nights"
printf '2026-12-%02dT020000Z\n' "$(wc -l <"$STAGE/nights")"
"#;
const GOOD: &str =
    r#"echo '{"receipt":1,"tool":"tree-apply","data_bytes":4096,"zero_bytes":8192,"snapshot":"mark","marked":true}'"#;
const NO_COMMON: &str = "echo 'zfs-snapmark: t: error: none [no-common]' >&2; exit 4";

/// A directory on CephFS, and a NAS.
impl Stage {
    fn new() -> Stage {
        let programs =
            [("cephfs-changed", CHANGED), ("tree-diff-stream", FILL), ("ssh", SSH), ("snap-prune", PRUNE), ("date", DATE)];
        let stage = Stage::of(&programs);
        fs::create_dir_all(stage.path("a dir/.snap")).unwrap();
        stage.put("common", "echo base");
        stage.put("apply", GOOD);
        stage
    }

    fn arguments(&self, options: &[&str]) -> Vec<String> {
        let memory = format!("--memory={}", self.path("memory").display());
        let record = format!("--record={}", self.path("record").display());
        let dir = self.path("a dir").display().to_string();
        let host = self.host();
        let all = [&[memory.as_str(), &record], options, &[&dir, &host, "tank/home"]].concat();
        all.into_iter().map(str::to_owned).collect()
    }

    fn night(&self, options: &[&str]) -> Output {
        let _ = fs::remove_file(self.path("record"));
        let _ = fs::remove_file(self.path("log"));
        let arguments = self.arguments(options);
        self.command(SCRIPT, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    }

    /// Of the night: a line.
    fn told(&self) -> Value {
        let [line] = self.record().try_into().unwrap();
        line
    }

    fn snapshots(&self) -> Vec<String> {
        let names =
            fs::read_dir(self.path("a dir/.snap")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

#[test]
fn the_record_says_how_each_night_went() {
    // What the NAS answers, options, how, from, class, exit, held, whether the snapshot stays.
    type Night = (
        &'static str,
        &'static str,
        &'static [&'static str],
        &'static str,
        Option<&'static str>,
        Option<&'static str>,
        i32,
        &'static str,
        bool,
    );
    let refused = "echo 'tree-apply: t: error: \\ and \"quotes\" [written-since]' >&2; echo 'tree-apply: hint: say \"this\" \\' >&2; exit 4";
    let table: [Night; 11] = [
        ("", GOOD, &[], "new", None, None, 0, "yes", true),
        ("echo base", GOOD, &[], "increment", Some("base"), None, 0, "yes", true),
        ("echo base", GOOD, &["--whole"], "replace", None, None, 0, "yes", true),
        (NO_COMMON, GOOD, &[], "", None, Some("no-common"), 4, "no", false),
        (NO_COMMON, GOOD, &["--replace"], "replace", None, None, 0, "yes", true),
        ("echo base", refused, &[], "increment", Some("base"), Some("written-since"), 4, "no", false),
        ("echo base", "exit 255", &[], "increment", Some("base"), Some("io"), 1, "maybe", true),
        ("echo base", "exit 127", &[], "increment", Some("base"), Some("usage"), 2, "no", false),
        ("exit 127", GOOD, &[], "", None, Some("usage"), 2, "no", false),
        ("exit 255", GOOD, &[], "", None, Some("io"), 1, "no", false),
        ("echo base", "echo '{}'", &[], "increment", Some("base"), None, 3, "maybe", true),
    ];
    for (common, apply, options, how, from, class, exit, held, stays) in table {
        let stage = Stage::new();
        stage.put("common", common);
        stage.put("apply", apply);
        let output = stage.night(options);
        let case = format!("{common} / {apply} / {options:?}: {}", err(&output));
        assert_eq!(code(&output), exit, "{case}");
        let line = stage.told();
        let text = |name: &str| line.get(name).unwrap_or_else(|| panic!("no {name}")).as_str();
        let dir = stage.path("a dir").canonicalize().unwrap().display().to_string();
        assert_eq!((text("directory"), text("dataset")), (Some(dir.as_str()), Some("tank/home")), "{case}");
        assert_eq!((text("how").unwrap_or(""), text("from")), (how, from), "{case}");
        assert!(exit == 3 || text("class") == class, "{case}: {:?}", text("class"));
        assert_eq!((line["exit"].as_i64(), text("held")), (Some(i64::from(exit)), Some(held)), "{case}");
        let bytes = if exit == 0 { (Some(4096), Some(8192)) } else { (Some(0), Some(0)) };
        assert_eq!((line["data_bytes"].as_u64(), line["zero_bytes"].as_u64()), bytes, "{case}");
        let snapshot = text("snapshot").unwrap();
        assert!(line["seconds"].is_u64() && snapshot.starts_with("siphon-20") && snapshot.ends_with('Z'), "{case}");
        assert_eq!(stage.snapshots().contains(&snapshot.to_owned()), stays, "{case}");
        if apply.contains("hint") {
            assert_eq!(text("hint"), Some("say \"this\" \\"), "{case}");
        }
    }
}

#[test]
fn the_nightly_lines_are_those_of_the_page() {
    let stage = Stage::new();
    let output = stage.night(&["--settle", "3", "--no-trust-rctime", "--full-every=5"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let (log, snap) = (stage.log(), stage.told()["snapshot"].as_str().unwrap().to_owned());
    let dir = stage.path("a dir").canonicalize().unwrap().display().to_string();
    let memory = stage.path("memory").display().to_string();
    for line in [
        format!("cephfs-changed --states {dir}"),
        "ssh zfs-snapmark common tank/home".to_owned(),
        format!("cephfs-changed --from=base --memory={memory}.next --settle=3 --no-trust-rctime --full-every=5 {dir}@{snap}"),
        "tree-diff-stream --changes -".to_owned(),
        "ssh tree-apply --all --mark --dataset tank/home".to_owned(),
    ] {
        assert!(log.lines().any(|said| said == line), "{line}\n{log}");
    }
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    let told = format!("{dir}@{snap} -> {}:tank/home@mark: since base, 4096 bytes of data, 8192 bytes of zeros\n", stage.host());
    assert_eq!(said, told);
    stage.night(&["--no-all"]);
    assert!(stage.log().contains("ssh tree-apply --mark --dataset tank/home\n"), "{}", stage.log());
    stage.night(&["--whole"]);
    assert!(stage.log().contains("ssh tree-apply --all --mark --replace --dataset tank/home\n"), "{}", stage.log());
    assert!(!stage.log().contains("--from"), "{}", stage.log());
}

#[test]
fn what_is_remembered_is_what_the_target_has() {
    let stage = Stage::new();
    stage.put("memory", "last\n");
    let memory = || fs::read_to_string(stage.path("memory")).unwrap();
    stage.put("apply", "echo 'tree-apply: t: error: x [written-since]' >&2; exit 4");
    assert_eq!(code(&stage.night(&[])), 4);
    assert!(memory() == "last\n" && !stage.path("memory.next").exists());
    stage.put("apply", GOOD);
    // The list begins from what was remembered.
    stage.put("list", "cp \"$memory\" \"$STAGE/seen\"");
    assert_eq!(code(&stage.night(&[])), 0);
    assert_eq!(fs::read_to_string(stage.path("seen")).unwrap(), "last\n");
    assert!(memory().trim_end().ends_with(stage.told()["snapshot"].as_str().unwrap()), "{}", memory());
    assert!(!stage.path("memory.next").exists());
}

#[test]
fn only_what_snap_prune_prints_and_only_ours_is_removed() {
    let stage = Stage::new();
    let night = |day: u8| format!("siphon-2026-11-{day:02}T020000Z");
    let all = [
        night(1),
        night(2),
        night(3),
        "mine".to_owned(),
        "2026-11-01T020000Z".to_owned(),
        "siphon2-2026-11-01T020000Z".to_owned(),
        "_siphon-2026-11-01T020000Z_1099511627776".to_owned(),
    ];
    for name in &all {
        fs::create_dir(stage.path("a dir/.snap").join(name)).unwrap();
    }
    // Whatever it prints.
    stage.put("prune", &format!("{}\n", all.join("\n")));
    stage.put("needs", &format!("{}\nother\n", night(2)));
    let output = stage.night(&[]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let snap = stage.told()["snapshot"].as_str().unwrap().to_owned();
    let mut left: Vec<String> = all.iter().filter(|name| **name != night(1) && **name != night(3)).cloned().collect();
    left.push(snap.clone());
    left.sort();
    assert_eq!(stage.snapshots(), left);
    let call = stage.log().lines().find(|line| line.starts_with("snap-prune")).unwrap().to_owned();
    let ours = "siphon-[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{6}Z";
    assert_eq!(call, format!("snap-prune --keep-last=3 --match={ours} --keep={snap} --keep=base"));
    let memory = stage.path("memory").display().to_string();
    assert!(stage.log().contains(&format!("cephfs-changed --memory={memory} --needs")), "{}", stage.log());
    // One that does not know the option is not asked.
    fs::remove_file(stage.path("needs")).unwrap();
    stage.put("prune", &format!("{}\nsiphon2-2026-11-01T020000Z\n", night(2)));
    assert_eq!(code(&stage.night(&["--prefix=siphon2", "--keep-daily", "7"])), 0);
    assert!(stage.log().contains("snap-prune --keep-daily=7 --match=siphon2-[0-9]{4}") && !stage.log().contains("--needs"));
    assert!(stage.snapshots().contains(&night(2)) && !stage.snapshots().contains(&all[5]), "{:?}", stage.snapshots());
    // Not when told so, and not after a night that failed.
    assert_eq!(code(&stage.night(&["--keep-all"])), 0);
    assert!(!stage.log().contains("snap-prune"), "{}", stage.log());
    stage.put("apply", "exit 1");
    stage.night(&[]);
    assert!(!stage.log().contains("snap-prune"), "{}", stage.log());
}

#[test]
fn what_cannot_be_removed_is_said_and_no_failure() {
    let stage = Stage::new();
    let old = "siphon-2026-11-01T020000Z";
    fs::create_dir_all(stage.path("a dir/.snap").join(old).join("not empty")).unwrap();
    stage.put("prune", &format!("{old}\n"));
    let output = stage.night(&[]);
    assert!(code(&output) == 0 && err(&output).contains("not all older snapshots could be removed"), "{output:?}");
    // Without the names that are needed nothing is removed.
    fs::remove_dir(stage.path("a dir/.snap").join(old).join("not empty")).unwrap();
    fs::create_dir(stage.path("needs")).unwrap();
    stage.put("list", "true");
    let output = stage.night(&[]);
    assert!(code(&output) == 0 && err(&output).contains("not all older snapshots could be removed"), "{output:?}");
    assert!(stage.snapshots().contains(&old.to_owned()));
}

#[test]
fn a_night_that_tells_of_missed_ones_is_marked_and_exits_with_5() {
    let stage = Stage::new();
    stage.put("list-end", "echo 'cephfs-changed: d: error: f was changed [differs]' >&2; exit 5");
    stage.put("prune", "siphon-2026-11-01T020000Z\n");
    let output = stage.night(&[]);
    assert!(code(&output) == 5 && err(&output).contains("--whole sends all"), "{output:?}");
    let record = stage.told();
    assert_eq!((&record["class"], &record["held"]), (&Value::from("differs"), &Value::from("yes")));
    assert_eq!(stage.snapshots().len(), 1, "the target has it");
    assert!(stage.path("memory").exists(), "what is known is remembered");
    // It is said every night until all was sent anew: meanwhile snapshots do not pile up.
    assert!(stage.log().contains("snap-prune"), "{}", stage.log());
    // A night that failed besides is one that failed.
    stage.put("apply", "echo 'tree-apply: t: error: x [no-space]' >&2; exit 1");
    let output = stage.night(&[]);
    assert_eq!((code(&output), &stage.told()["class"]), (1, &Value::from("no-space")), "{output:?}");
}

#[test]
fn the_one_that_failed_first_is_the_one_that_is_named() {
    let cut = "echo 'tree-apply: t: error: stream ends [truncated]' >&2; exit 3";
    let gone = "echo 'cephfs-changed: s: error: gone [vanished]' >&2; exit 4";
    let fill = "echo 'tree-diff-stream: s: error: list ends [truncated]' >&2; exit 3";
    let unreadable = "echo 'tree-diff-stream: s: error: f changed [changed]' >&2; exit 4";
    for (list, filled, apply, exit, class) in [
        (gone, fill, cut, 4, "vanished"),
        ("true", unreadable, cut, 4, "changed"),
        ("true", "true", cut, 3, "truncated"),
        ("true", unreadable, GOOD, 4, "changed"),
        ("true", "exit 1", "echo 'tree-apply: t: error: x [written-since]' >&2; exit 4", 4, "written-since"),
    ] {
        let stage = Stage::new();
        stage.put("list-end", list);
        stage.put("fill", filled);
        stage.put("apply", apply);
        let output = stage.night(&[]);
        assert_eq!((code(&output), &stage.told()["class"]), (exit, &Value::from(class)), "{output:?}");
    }
    // A list without its end is refused over there; the reason is here.
    let stage = Stage::new();
    stage.put("states-code", "4");
    stage.put("common", "echo 'zfs-snapmark: t: error: no end [list]' >&2; exit 3");
    assert_eq!(code(&stage.night(&[])), 4);
}

#[test]
fn a_whole_that_the_target_says_it_has_is_no_success() {
    let stage = Stage::new();
    fs::create_dir(stage.path("a dir/.snap/last")).unwrap();
    stage.put("memory", "of the last night");
    stage.put("apply", &GOOD.replace("\"marked\":true", "\"marked\":true,\"already\":true"));
    let output = stage.night(&["--whole", "--snapshot=last"]);
    assert!(code(&output) == 4 && err(&output).contains("[has-states]"), "{output:?}");
    assert_eq!((&stage.told()["held"], &stage.told()["class"]), (&Value::from("yes"), &Value::from("has-states")));
    assert_eq!(fs::read_to_string(stage.path("memory")).unwrap(), "of the last night", "what is known is not forgotten");
}

#[test]
fn no_whole_transfer_that_nobody_asked_for() {
    let stage = Stage::new();
    stage.put("common", NO_COMMON);
    let output = stage.night(&[]);
    assert!(code(&output) == 4 && err(&output).contains("--replace"), "{output:?}");
    assert!(!stage.log().contains("tree-apply"), "{}", stage.log());
    // With a base, --replace changes nothing.
    stage.put("common", "echo base");
    stage.night(&["--replace"]);
    assert!(stage.log().contains("--from=base") && !stage.log().contains("--replace"), "{}", stage.log());
    stage.put("common", "echo resume:1,2=3");
    let output = stage.night(&[]);
    assert!(code(&output) == 4 && err(&output).contains("[unfinished]"), "{output:?}");
}

#[test]
fn a_given_snapshot_is_neither_taken_nor_removed() {
    let stage = Stage::new();
    fs::create_dir(stage.path("a dir/.snap/together")).unwrap();
    assert_eq!(code(&stage.night(&["--snapshot", "together"])), 0);
    assert_eq!(stage.told()["snapshot"], "together");
    stage.put("apply", "echo 'tree-apply: t: error: x [busy]' >&2; exit 6");
    assert_eq!(code(&stage.night(&["--snapshot=together"])), 6);
    assert_eq!(stage.snapshots(), ["together"]);
}

#[test]
fn one_run_at_a_time() {
    let stage = Stage::new();
    stage.put("apply", &format!("touch \"$STAGE/began\"; until [ -e \"$STAGE/go\" ]; do sleep 0.05; done; {GOOD}"));
    let arguments = stage.arguments(&[]);
    let mut first = stage.command(SCRIPT, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while !stage.path("began").exists() {
        assert!(Instant::now() < end, "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = stage.night(&[]);
    stage.put("go", "");
    assert!(code(&second) == 6 && err(&second).contains("[busy]"), "{second:?}");
    assert!(first.wait_with_output().unwrap().status.success());
    assert_eq!(stage.snapshots().len(), 1, "the second took none");
}

#[test]
fn a_policy_that_says_nothing_is_refused_before_the_night() {
    let stage = Stage::new();
    assert_eq!(code(&stage.night(&["--keep-last=0"])), 2);
    assert_eq!((&stage.told()["class"], &stage.told()["held"]), (&Value::from("usage"), &Value::from("no")));
    assert!(stage.snapshots().is_empty() && !stage.log().contains("tree-apply"), "{}", stage.log());
}

#[test]
fn a_dry_run_changes_nothing() {
    let stage = Stage::new();
    let output = stage.night(&["--dry-run", "--keep-last=1"]);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(code(&output) == 0 && said.contains("would send: increment, since base"), "{output:?}");
    let log = stage.log();
    assert!(!["tree-apply", "tree-diff-stream", "snap-prune"].iter().any(|word| log.contains(word)), "{log}");
    assert!(stage.snapshots().is_empty() && !stage.path("record").exists());
}

#[test]
fn names_that_a_shell_over_there_would_read_are_refused() {
    let stage = Stage::new();
    let dir = stage.path("a dir").display().to_string();
    for arguments in [
        &[dir.as_str(), "nas", "tank/home;id"][..],
        &[&dir, "nas", "tank"],
        &[&dir, "nas", "-o/x"],
        &[&dir, "-oProxyCommand=id", "tank/home"],
        &[&dir, "nas nas", "tank/home"],
        &["--snapshot=a b", &dir, "nas", "tank/home"],
        &["--prefix=a.b", &dir, "nas", "tank/home"],
        &["--prefix=../x", &dir, "nas", "tank/home"],
        &["--keep-all", "--keep-last=1", &dir, "nas", "tank/home"],
        &["/no/such/directory", "nas", "tank/home"],
        &[&dir, "nas"],
        &["--what", &dir, "nas", "tank/home"],
    ] {
        let output = stage.command(SCRIPT, arguments).output().unwrap();
        assert!(code(&output) == 2 && err(&output).contains("[usage]"), "{arguments:?}: {output:?}");
    }
    assert!(stage.log().is_empty() && stage.snapshots().is_empty());
    assert!(stage.command(SCRIPT, &["--help"]).output().unwrap().status.success());
}
