//! extent-inspect(1), the real program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod vectors;

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

fn tool() -> Command {
    Command::new(env!("CARGO_BIN_EXE_extent-inspect"))
}

/// Runs it with a stream on standard input, through a pipe.
fn run(args: &[&str], stream: &[u8]) -> Output {
    let mut child = tool().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let stream = stream.to_vec();
    // It may refuse before it has read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&stream)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const TEXT: &str = "\
stream  52dee50df2b7891a0937959425fa1215 increment, payload at most 1048576
source  d289f310fb7fa00d76b6959f363d2d08 vm1
from    065e86712c8bce7048eec35abc1452e6 mon
to      069b65384b0e542b82ed35078297fd5b tue
image   16384 bytes, before 16384, grain 4096
data                 0       4096
zero              4096       4096 hole
data             12288       4096
end     data 8192 bytes in 2, zero 4096 bytes in 1
reached 069b65384b0e542b82ed35078297fd5b
digest  a8b32e60c6170161b9e96dfe3bad3b6953625348249a35d1d1bedc9bedf5f598
";

const JSON: &str = r#"{"item":"header","stream":"52dee50df2b7891a0937959425fa1215","source":"d289f310fb7fa00d76b6959f363d2d08","from":"065e86712c8bce7048eec35abc1452e6","to":"069b65384b0e542b82ed35078297fd5b","names":["vm1","mon","tue"],"max_payload":1048576}
{"item":"image","old_size":16384,"new_size":16384,"grain":4096}
{"item":"data","offset":0,"len":4096}
{"item":"zero","offset":4096,"len":4096,"may_deallocate":true}
{"item":"data","offset":12288,"len":4096}
{"item":"end","to":"069b65384b0e542b82ed35078297fd5b","data_extents":2,"zero_extents":1,"data_bytes":8192,"zero_bytes":4096,"digest":"a8b32e60c6170161b9e96dfe3bad3b6953625348249a35d1d1bedc9bedf5f598"}
"#;

#[test]
fn a_stream_is_listed_as_text_and_as_json() {
    let stream = vectors::load("ok_increment.vec").stream;
    for (args, wanted) in [
        (&[][..], TEXT),
        (&["--json"], JSON),
        (&["--check"], "ok: increment to 069b65384b0e542b82ed35078297fd5b, data 8192 bytes, zero 4096 bytes\n"),
    ] {
        let output = run(args, &stream);
        assert_eq!((output.status.code(), text(&output.stdout), text(&output.stderr)), (Some(0), wanted, ""), "{args:?}");
    }
}

const TREE_TEXT: &str = "\
stream  db26c5176d5a2bc69a98e088fe84a691 increment, payload at most 1048576
source  214da1f409ecb90f3e773a38560b34d0 home
from    065e86712c8bce7048eec35abc1452e6 mon
to      069b65384b0e542b82ed35078297fd5b tue
tree    grain 4096
gone    d taken=1
entry   kept     dir     0755 1000:1000 1763800000+000000000 .
entry   taken=1  dir     0755 1000:1000 1763800000+000000000 z
entry   kept     file    0644 1000:1000 1763800000+000000000 z/f 10000 bytes, before 10000
data                 0       4096
end     data 4096 bytes in 1, zero 0 bytes in 0
reached 069b65384b0e542b82ed35078297fd5b
digest  96fc92db3ac999b789494c7e566e917f0169851b0c7afc04cc54e1d3f952cad8
";

const TREE_JSON: &str = r#"{"item":"header","stream":"db26c5176d5a2bc69a98e088fe84a691","source":"214da1f409ecb90f3e773a38560b34d0","from":"065e86712c8bce7048eec35abc1452e6","to":"069b65384b0e542b82ed35078297fd5b","names":["home","mon","tue"],"max_payload":1048576}
{"item":"tree","grain":4096,"list":false}
{"item":"gone","path":"d","number":1}
{"item":"entry","path":".","type":"dir","origin":"kept","number":null,"mode":493,"uid":1000,"gid":1000,"seconds":1763800000,"nanoseconds":0,"old_size":null,"size":null,"target":null,"device":null,"xattrs":{}}
{"item":"entry","path":"z","type":"dir","origin":"taken","number":1,"mode":493,"uid":1000,"gid":1000,"seconds":1763800000,"nanoseconds":0,"old_size":null,"size":null,"target":null,"device":null,"xattrs":{}}
{"item":"entry","path":"z/f","type":"file","origin":"kept","number":null,"mode":420,"uid":1000,"gid":1000,"seconds":1763800000,"nanoseconds":0,"old_size":10000,"size":10000,"target":null,"device":null,"xattrs":{}}
{"item":"data","offset":0,"len":4096}
{"item":"end","to":"069b65384b0e542b82ed35078297fd5b","data_extents":1,"zero_extents":0,"data_bytes":4096,"zero_bytes":0,"digest":"96fc92db3ac999b789494c7e566e917f0169851b0c7afc04cc54e1d3f952cad8"}
"#;

#[test]
fn a_tree_and_a_list_are_listed_as_text_and_as_json() {
    let stream = vectors::load("tree_ok_renamed_directory.vec").stream;
    for (args, wanted) in [(&[][..], TREE_TEXT), (&["--json"], TREE_JSON)] {
        let output = run(args, &stream);
        assert_eq!((output.status.code(), text(&output.stdout), text(&output.stderr)), (Some(0), wanted, ""), "{args:?}");
    }
    let list = run(&[], &vectors::load("tree_ok_list.vec").stream);
    assert!(text(&list.stdout).contains("\ntree    list of changes, grain 4096\n"), "{}", text(&list.stdout));
    // All kinds of entries, their targets and attributes; each is one line.
    let all = run(&[], &vectors::load("tree_ok_small.vec").stream);
    for wanted in [
        "entry   new      dir     0755 1000:1000 1763800000+000000000 .",
        "entry   new      dir     0755 1000:1000 1763800000+000000000 d",
        "entry   new      file    0644 1000:1000 1763800000+000000000 d/f 10000 bytes user.a=1 user.b=",
        "entry   new      dir     1777 1000:1000 1763800000+000000000 d/g",
        "entry   new      fifo    0644 1000:1000 1763800000+000000000 d/g/fifo",
        "entry   new      file    4755 0:1000 1763800000+000000000 d/h 5 bytes",
        "entry   new      dir     0555 1000:1000 1763800000+000000000 e",
        "link    e/link d/f",
        "entry   new      char    0666 0:0 1763800000+000000000 null 1:3",
        "entry   new      block   0660 0:1000 1763800000+000000000 sda 8:0",
        "entry   new      socket  0644 1000:1000 1763800000+000000000 socket",
        "entry   new      symlink 0777 1000:1000 -1+999999999 symlink -> /etc/passwd",
    ] {
        assert!(text(&all.stdout).lines().any(|line| line == wanted), "{wanted}: {}", text(&all.stdout));
    }
    for name in ["tree_ok_names_of_any_bytes.vec", "tree_ok_acl.vec"] {
        let output = run(&[], &vectors::load(name).stream);
        let is_plain = |byte: &u8| (b' '..0x7f).contains(byte) || *byte == b'\n';
        assert!(output.status.success() && output.stdout.iter().all(is_plain), "{}", output.stdout.escape_ascii());
    }
}

#[test]
fn a_file_is_read_as_a_pipe_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.siphon");
    std::fs::write(&file, vectors::load("ok_increment.vec").stream).unwrap();
    let output = tool().arg(&file).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), TEXT));
    let output = tool().arg("--check").arg(folder.path().join("absent")).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).trim_end().ends_with("[not-found]"), "{}", text(&output.stderr));
}

#[test]
fn names_are_escaped() {
    let output = run(&[], &vectors::load("ok_names_of_any_bytes.vec").stream);
    assert!(output.status.success());
    assert!(output.stdout.iter().all(|byte| (b' '..0x7f).contains(byte) || *byte == b'\n'), "{}", output.stdout.escape_ascii());
}

#[test]
fn a_damaged_stream_exits_with_3_and_its_class() {
    let mut seen = 0;
    for name in vectors::list() {
        let vector = vectors::load(&name);
        // The long ones tell nothing more here, and are read by tests/format.rs.
        if vector.stream.len() > 1 << 20 {
            continue;
        }
        // What images have this feature for is that no reader of images knows it; this one does, and finds something else.
        let says_tree = vector.expect == "feature" && vector.stream[56] & 1 == 1;
        let output = run(&["--check"], &vector.stream);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        if vector.expect == "ok" {
            assert_eq!((output.status.code(), err), (Some(0), ""), "{name}");
            assert!(out.starts_with("ok: ") && out.lines().count() == 1, "{name}: {out}");
        } else {
            assert_eq!((output.status.code(), out), (Some(3), ""), "{name}");
            let first = err.lines().next().unwrap();
            assert!(
                first.starts_with("extent-inspect: error: ") && (says_tree || first.ends_with(&format!(" [{}]", vector.expect))),
                "{name}: {err}"
            );
            assert!(err.lines().skip(1).all(|line| line.starts_with("extent-inspect: hint: ")), "{name}: {err}");
        }
        seen += 1;
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn what_was_good_is_listed_before_the_damage_is_told() {
    let output = run(&[], &vectors::load("truncated_before_end.vec").stream);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), TEXT.split("end ").next().unwrap());
    let wanted = "extent-inspect: error: stream ends after frame 4 (byte 8521), no END frame [truncated]";
    assert_eq!(text(&output.stderr).lines().next(), Some(wanted));
    let json = run(&["--json"], &vectors::load("truncated_before_end.vec").stream);
    assert!(!text(&json.stdout).contains("\"end\""), "no end line without an end");
}

#[test]
fn memory_stays_bounded_whatever_is_claimed() {
    // 100 MiB of address space hold the program and a payload of 16 MiB, but none of 1 GiB.
    let limited = |stream: &[u8]| {
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -v 102400 && exec \"$0\" --check", env!("CARGO_BIN_EXE_extent-inspect")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let stream = stream.to_vec();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&stream)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        (output.status.code(), text(&output.stderr).to_owned())
    };
    // The same claim with all sums right, 1 GiB instead of 4.
    let mut claim = vectors::load("ok_payload_bound_largest.vec").stream;
    let data = claim.len() - (32 + 88) - (32 + (16 << 20));
    assert_eq!(claim[data..data + 2], [0x10, 0]);
    assert_eq!(limited(&claim), (Some(0), String::new()), "a payload of 16 MiB is read");
    claim[data + 4..data + 8].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    let crc = crc32fast::hash(&claim[data..data + 28]);
    claim[data + 28..data + 32].copy_from_slice(&crc.to_le_bytes());
    for stream in [claim, vectors::load("length_of_header_claimed_4_gib.vec").stream] {
        let (code, message) = limited(&stream);
        assert!(code == Some(3) && message.contains("[length]"), "{message}");
    }
    // So many frames that their list would not fit.
    assert_eq!(limited(&vectors::load("ok_two_checkpoints.vec").stream).0, Some(0));
}

#[test]
fn a_reader_that_goes_away_is_no_news() {
    let stream = vectors::load("ok_checkpoint_not_yet_due.vec").stream;
    for args in [&[][..], &["--json"]] {
        let mut child = tool().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let stream = stream.clone();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&stream)));
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        // The pipe's reading end is closed here.
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), ""), "{args:?}");
    }
}

#[test]
fn a_full_disk_is_told() {
    let stream = vectors::load("ok_increment.vec").stream;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.siphon");
    std::fs::write(&file, stream).unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = tool().arg(&file).stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("[no-space]"), "{}", text(&output.stderr));
}

#[test]
fn a_terminal_is_refused() {
    // `script` gives its child a terminal; where it is missing, this cannot be tried.
    let command = format!("{} --check", env!("CARGO_BIN_EXE_extent-inspect"));
    let Ok(output) = Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output() else {
        eprintln!("skipped: there is no script(1)");
        return;
    };
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("standard input is a terminal"), "{}", text(&output.stdout));
}

#[test]
fn usage_errors_exit_with_2() {
    for args in [&["--json", "--check"][..], &["--nonsense"], &["one", "two"]] {
        let output = run(args, b"");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).trim_end().ends_with("[usage]"), "{}", text(&output.stderr));
    }
}
