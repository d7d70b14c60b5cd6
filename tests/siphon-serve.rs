//! siphon-serve(1): what a key may not say is refused, whoever says it how.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};

use common::complaint;

const SERVE: &str = env!("CARGO_BIN_EXE_siphon-serve");
const PUSH: [&str; 4] = ["--dataset", "tank/backup/pve1", "--allow", "common,apply"];
const TREES: [&str; 4] = ["--dataset", "tank/backup/pve1", "--allow", "common,apply,all"];
const PULL: [&str; 4] = ["--pool", "rbd", "--allow", "list,states,stream,snap,prune"];

/// Tools that only say that they were run, and with what; siphon-serve lies beside them.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        std::fs::hard_link(SERVE, dir.path().join("siphon-serve"))
            .or_else(|_| std::fs::copy(SERVE, dir.path().join("siphon-serve")).map(drop))
            .unwrap();
        for tool in [
            "zfs-snapmark",
            "zvol-apply",
            "zvol-diff-stream",
            "tree-apply",
            "tree-diff-stream",
            "rbd-diff-stream",
            "rbd",
            "sh",
            "bash",
            "id",
            "touch",
        ] {
            let script = "#!/bin/sh\necho \"RAN ${0##*/}\"; for word do echo \"<$word>\"; done; env >&2\n";
            let file = dir.path().join(tool);
            std::fs::write(&file, script).unwrap();
            std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        Host(dir)
    }

    fn ask(&self, rights: &[&str], line: &[u8]) -> Output {
        Command::new(self.0.path().join("siphon-serve"))
            .args(rights)
            .current_dir(self.0.path())
            .env("SSH_ORIGINAL_COMMAND", OsStr::from_bytes(line))
            .env("LD_PRELOAD", "")
            .env("CEPH_ARGS", "--id admin")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

#[test]
fn an_allowed_line_is_run_as_it_is_in_an_environment_of_its_own() {
    let host = Host::new();
    for (rights, line, ran) in [
        (&PUSH[..], "zvol-apply --mark tank/backup/pve1/vm1", "RAN zvol-apply\n<--mark>\n<tank/backup/pve1/vm1>\n"),
        (&PUSH, "zfs-snapmark common tank/backup/pve1/vm1", "RAN zfs-snapmark\n<common>\n<tank/backup/pve1/vm1>\n"),
        (
            &PUSH,
            "tree-apply --mark --dataset tank/backup/pve1/home",
            "RAN tree-apply\n<--mark>\n<--dataset>\n<tank/backup/pve1/home>\n",
        ),
        (
            &TREES,
            "tree-apply --all --mark --dataset tank/backup/pve1/home",
            "RAN tree-apply\n<--all>\n<--mark>\n<--dataset>\n<tank/backup/pve1/home>\n",
        ),
        (&PULL, "rbd snap create rbd/vm1@tue", "RAN rbd\n<snap>\n<create>\n<rbd/vm1@tue>\n"),
        (&PULL, "rbd-diff-stream --from mon rbd/vm1@tue", "RAN rbd-diff-stream\n<--from>\n<mon>\n<rbd/vm1@tue>\n"),
    ] {
        let output = host.ask(rights, line.as_bytes());
        assert_eq!(String::from_utf8_lossy(&output.stdout), ran, "{}", complaint(&output));
        let environment = complaint(&output);
        for name in ["SSH_ORIGINAL_COMMAND", "LD_PRELOAD", "CEPH_ARGS"] {
            assert!(!environment.contains(name), "{environment}");
        }
    }
    // What the administrator fixed stands before what the client says.
    let output = host.ask(&[&PULL[..], &["--id", "backup", "--conf", "/etc/x"]].concat(), b"rbd ls rbd");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "RAN rbd\n<--id>\n<backup>\n<--conf>\n</etc/x>\n<ls>\n<rbd>\n");
}

/// What somebody with the key might try: 200 lines and more.
fn hostile() -> Vec<Vec<u8>> {
    let good = ["zvol-apply --mark tank/backup/pve1/vm1", "zfs-snapmark common tank/backup/pve1/vm1"];
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut add = |text: &str| lines.push(text.as_bytes().to_vec());
    // Nothing, and not our tools.
    for text in
        ["", " ", "\n", "sh", "bash -i", "id", "zfs list", "zfs destroy -r tank", "scp -t /", "sftp-server", "rsync --server ."]
    {
        add(text);
    }
    for text in ["./zvol-apply --mark tank/backup/pve1/vm1", "/bin/sh", "../sh", "siphon-serve --dataset tank --allow apply"] {
        add(text);
    }
    // A shell's own characters, before, behind and within.
    for mark in [
        ";", "|", "||", "&", "&&", "`id`", "$(id)", "${IFS}", "$HOME", "<", ">", ">>", "#", "!", "*", "?", "[a]", "{a,b}", "~",
        "\\", "'", "\"", "^", "%00",
    ] {
        for line in good {
            add(&format!("{line}{mark}"));
            add(&format!("{line} {mark} touch pwned"));
            add(&line.replace("vm1", &format!("vm{mark}1")));
        }
    }
    // Blanks that are not one blank.
    for blank in ["\t", "\n", "\r\n", "\u{a0}", "\u{2003}", "\u{b}", "  "] {
        add(&good[0].replacen(' ', blank, 1));
        add(&format!("{}{blank}--rollback", good[0]));
    }
    for (before, behind) in [(" ", ""), ("", " "), ("\n", ""), ("", "\n")] {
        add(&format!("{before}{}{behind}", good[0]));
    }
    // Options, known and not, in every place.
    for option in [
        "--rollback",
        "--replace",
        "--no-sandbox",
        "--worker",
        "--shrink",
        "--no-hold",
        "-b",
        "--manifest",
        "-o",
        "--property=volmode=dev",
        "--help",
        "--version",
        "--completions",
        "--",
        "-",
        "--mark=",
        "--mark --mark",
    ] {
        add(&format!("zvol-apply {option} tank/backup/pve1/vm1"));
        add(&format!("{} {option}", good[0]));
        add(&format!("zvol-apply --mark {option} tank/backup/pve1/vm1"));
    }
    for option in
        ["--all", "--trust", "--writable", "--rollback", "--replace", "--no-hold", "-o setuid=on", "--all --mark", "/", "--"]
    {
        add(&format!("tree-apply {option} --dataset tank/backup/pve1/home"));
        add(&format!("tree-apply --mark {option} --dataset tank/backup/pve1/home"));
        add(&format!("tree-apply --mark --dataset tank/backup/pve1/home {option}"));
    }
    // Paths and places.
    for name in [
        "",
        "/",
        "/etc/passwd",
        "./x",
        "../x",
        "tank",
        "tank/backup",
        "tank/backup/pve1",
        "tank/backup/pve1/",
        "tank/backup/pve1/.",
        "tank/backup/pve1/..",
        "tank/backup/pve1/../pve2/vm1",
        "tank/backup/pve1/a/b",
        "tank/backup/pve1//vm1",
        "tank/backup/pve2/vm1",
        "tank/backup/pve1x/vm1",
        "TANK/backup/pve1/vm1",
        "tank/backup/pve1/-o",
        "tank/backup/pve1/vm1@x",
        "tank/backup/pve1/vm1#x",
        "tank/backup/pve1/vm1%x",
    ] {
        add(&format!("zvol-apply --mark {name}"));
        add(&format!("zfs-snapmark common {name}"));
        add(&format!("tree-apply --mark {name}"));
        add(&format!("tree-apply --mark --dataset {name}"));
    }
    // Verbs and tools that this key has not.
    for text in [
        "zfs-snapmark list tank/backup/pve1/vm1",
        "zfs-snapmark manifest tank/backup/pve1/vm1",
        "zfs-snapmark release tank/backup/pve1/vm1@a",
        "zfs-snapmark prune --keep-last 1 tank/backup/pve1/vm1",
        "zvol-diff-stream tank/backup/pve1/vm1@a",
        "zvol-diff-stream --states tank/backup/pve1/vm1",
        "tree-diff-stream --states --dataset tank/backup/pve1/home",
        "tree-diff-stream --dataset tank/backup/pve1/home@a",
        "tree-diff-stream /etc",
        "rbd ls rbd",
        "rbd-diff-stream --states rbd/vm1",
        "rbd snap rm rbd/vm1@a",
    ] {
        add(text);
    }
    // Other scripts, other cases, more words, and too much.
    for text in [
        "zvol‑apply --mark tank/backup/pve1/vm1",
        "zvol-apply --mark tank/backup/pve1/vｍ1",
        "zvol-apply --mark tank/backup/pve1/vm1\u{202e}",
        "ZVOL-APPLY --mark tank/backup/pve1/vm1",
        "zvol-apply --mark tank/backup/pve1/vm1 tank/backup/pve1/vm2",
        "zvol-apply",
        "zvol-apply --mark",
        "zfs-snapmark",
        "zfs-snapmark common",
    ] {
        add(text);
    }
    add(&format!("zvol-apply --mark tank/backup/pve1/{}", "x".repeat(256)));
    add(&format!("zvol-apply --mark tank/backup/pve1/{}", "x".repeat(100_000)));
    add(&"zvol-apply ".repeat(5000));
    for bytes in [
        &b"zvol-apply --mark tank/backup/pve1/\xff"[..],
        b"\x1b[2Jzvol-apply --mark tank/backup/pve1/vm1",
        b"zvol-apply --mark tank/backup/pve1/vm1\x7f",
        b"\xc0\x80",
        b"zvol-apply --mark tank/backup/pve1/v\x01m",
    ] {
        lines.push(bytes.to_vec());
    }
    lines
}

#[test]
fn every_other_line_is_refused_and_runs_nothing() {
    let host = Host::new();
    let lines = hostile();
    let before = std::fs::read_dir(host.0.path()).unwrap().count();
    for line in &lines {
        let output = host.ask(&PUSH, line);
        let said = complaint(&output);
        let shown = String::from_utf8_lossy(line);
        assert_eq!(output.status.code(), Some(4), "{shown:?}: {said}");
        assert!(output.stdout.is_empty() && said.contains("[forbidden]"), "{shown:?}: {said}");
        // What it says back to a terminal is its own.
        assert!(said.bytes().all(|byte| byte == b'\n' || !byte.is_ascii_control()), "{shown:?}");
    }
    assert_eq!(std::fs::read_dir(host.0.path()).unwrap().count(), before);
    println!("{} of {} hostile lines refused", lines.len(), lines.len());
    assert!(lines.len() >= 200);
}

#[test]
fn a_pull_key_reads_and_takes_snapshots_and_no_more() {
    let host = Host::new();
    for line in [
        "rbd snap rm rbd/vm1@mine",
        "rbd snap purge rbd/vm1",
        "rbd rm rbd/vm1",
        "rbd snap create rbd/vm1@--force",
        "rbd ls other",
        "rbd snap create other/vm1@a",
        "rbd snap create rbd/ns/vm1@a",
        "rbd --id admin ls rbd",
        "rbd-diff-stream --id admin rbd/vm1@a",
        "rbd-diff-stream rbd/vm1",
        "rbd-diff-stream --from rbd/vm1@a",
        "rbd-diff-stream --from a --from b rbd/vm1@c",
        "rbd-diff-stream --from resume:x;y rbd/vm1@a",
        "rbd-diff-stream --receipt=/etc/x rbd/vm1@a",
        "rbd export rbd/vm1@a -",
        "zvol-apply --mark rbd/vm1",
        "rbd-diff-stream --base-manifest /etc/shadow rbd/vm1@a",
    ] {
        let output = host.ask(&PULL, line.as_bytes());
        assert_eq!(output.status.code(), Some(4), "{line}: {}", complaint(&output));
    }
    assert!(host.ask(&PULL, b"rbd snap rm rbd/vm1@2026-11-21T0200Z").status.success());
}

#[test]
fn a_line_can_be_tried_without_being_run() {
    let host = Host::new();
    let check = |line: &str| host.ask(&[&PUSH[..], &["--check", line]].concat(), b"zvol-apply --mark tank/backup/pve1/vm1");
    let good = check("zvol-apply --mark tank/backup/pve1/vm1");
    assert!(good.status.success());
    assert_eq!(String::from_utf8_lossy(&good.stdout), "zvol-apply --mark tank/backup/pve1/vm1\n");
    assert_eq!(check("zvol-apply --mark tank/backup/pve2/vm1").status.code(), Some(4));
}

#[test]
fn what_the_administrator_fixes_is_checked() {
    let host = Host::new();
    for rights in [
        &["--allow", "common"][..],
        &["--dataset", "tank/x", "--pool", "rbd", "--allow", "common"],
        &["--dataset", "tank/x"],
        &["--dataset", "tank/x", "--allow", "everything"],
        &["--dataset", "tank/../x", "--allow", "common"],
        &["--dataset", "", "--allow", "common"],
        &["--dataset", "tank/", "--allow", "common"],
        &["--dataset", "tank/x", "--allow", "common", "--id", "admin"],
    ] {
        assert_eq!(host.ask(rights, b"zvol-apply --mark tank/x/vm1").status.code(), Some(2), "{rights:?}");
    }
}
