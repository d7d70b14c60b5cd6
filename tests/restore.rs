//! scripts/restore-zvol-to-rbd, with programs in place of ssh and our own tools: what it says when something fails.
//! What it does on real systems is tests/real/recovery.py.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "common/stage.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod stage;

use std::fs::{self, File};

use stage::{Stage, code, err};

/// `ssh`: reads all that it is given, as ssh does; what the NAS answers is said by files of $STAGE.
const SSH: &str = r#"#!/bin/bash
shift 2
cat >>"$STAGE/eaten"
case "$1 $2" in
  "zfs-snapmark last") . "$STAGE/last" ;;
  "zvol-diff-stream --states") . "$STAGE/states" ;;
  "zvol-diff-stream "*) . "$STAGE/stream" ;;
esac
"#;
/// `rbd-apply`: what has no end is refused.
const APPLY: &str = r#"#!/bin/bash
[[ $(cat) = *end ]] || { echo 'rbd-apply: x: error: no end [truncated]' >&2; exit 3; }
if [[ $* = *--common* ]]; then echo base; else . "$STAGE/apply"; fi
"#;
const DIGEST: &str = r#"#!/bin/bash
[[ $(cat) = *end ]] || exit 3
if [ "$1" = --root ]; then echo root; else . "$STAGE/expect"; fi
"#;

fn stage() -> Stage {
    let source = "#!/bin/bash\necho end\n";
    let stage = Stage::of(&[("ssh", SSH), ("rbd-apply", APPLY), ("extent-digest", DIGEST), ("rbd-diff-stream", source)]);
    stage.put("last", "echo tank/vm1@mon");
    stage.put("states", "echo end");
    stage.put("stream", "echo end");
    stage.put("apply", r#"echo '{"snapshot":"mon"}'"#);
    stage.put("expect", "");
    stage
}

#[test]
fn exit_codes_are_those_of_the_tools_or_a_connection() {
    let broken = "error: ssh ended with 255";
    let table = [
        ("last", "exit 255", 1, broken),
        ("last", "exit 127", 2, "zfs-snapmark is not in the PATH"),
        ("last", "echo 'zfs-snapmark: t: error: none [not-found]' >&2; exit 4", 4, "[not-found]"),
        ("states", "exit 255", 1, broken),
        ("stream", "echo half; exit 255", 1, broken),
        ("stream", "echo half; exit 4", 4, ""),
        ("stream", "echo half", 3, "[truncated]"),
        ("apply", "echo 'rbd-apply: x: error: other [busy]' >&2; exit 6", 6, "[busy]"),
        ("expect", "exit 5", 5, ""),
    ];
    for (place, answer, exit, said) in table {
        let stage = stage();
        stage.put(place, answer);
        let output = stage.command("restore-zvol-to-rbd", &["nas", "tank/vm1", "rbd/vm1"]).output().unwrap();
        assert!(code(&output) == exit && err(&output).contains(said), "{place} {answer}: {output:?}");
    }
}

#[test]
fn a_list_that_it_is_called_for_is_not_read_by_ssh() {
    let stage = stage();
    stage.put("list", "one\ntwo\n");
    let mut command = stage.command("restore-zvol-to-rbd", &["nas", "tank/vm1", "rbd/vm1"]);
    let output = command.stdin(File::open(stage.path("list")).unwrap()).output().unwrap();
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(fs::read_to_string(stage.path("eaten")).unwrap(), "");
}
