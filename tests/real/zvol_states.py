#!/usr/bin/python3
"""Target states on real ZFS: what the next stream may do (siphon(7), "TARGET STATES"), what `common` answers, when a commit becomes a mark."""
from pathlib import Path

import bed
from bed import main, refused, same, test
from zvol import Zvol, file_stream, images, receipt, source, volume

# --- the table: state × next stream × (nothing / --rollback / --replace), one word: all three alike

STREAMS = [(None, "s3"), (None, "s2"), ("s2", "s3"), ("s2", "s4"), ("s1", "s3"), ("s0", "s3"), ("s2", "s2")]
SAMPLE = [STREAMS[0], STREAMS[2], STREAMS[4]]
OPTIONS = ("", "--rollback", "--replace")
HAS = "has-states/has-states/ok"
SINCE = "written-since/ok/written-since"
ABOVE = "foreign-snapshot/ok/foreign-snapshot"
OLDER = "wrong-base/ok/wrong-base"
ROWS = {
    "new": ("", "ok ok wrong-base wrong-base wrong-base wrong-base wrong-base"),
    "blank": ("zfs create -s -V 3M {t}", "ok ok wrong-base wrong-base wrong-base wrong-base wrong-base"),
    "foreign": ("zfs create -s -V 3M {t}; WRITE", "foreign/foreign/ok foreign/foreign/ok foreign foreign foreign foreign foreign"),
    "at_s2": ("AT", f"{HAS} already ok ok {OLDER} wrong-base already"),
    "at_s2_snapshot_above": ("AT; zfs snapshot {t}@auto", f"{HAS} already ok ok {OLDER} wrong-base already"),
    "written_since_s2": ("AT; WRITE",
                         f"{HAS} written-since/already/ok {SINCE} {SINCE} {OLDER} wrong-base written-since/already/written-since"),
    "receiving_s2_s3": ("AT; CUT s2 s3", f"{HAS} already/already/ok ok ok {OLDER} wrong-base already"),
    "receiving_s2_s3_snapshot_above": ("AT; CUT s2 s3; zfs snapshot {t}@auto",
                                       f"{HAS} foreign-snapshot/already/ok {ABOVE} {ABOVE} {OLDER} wrong-base "
                                       "foreign-snapshot/already/foreign-snapshot"),
    "receiving_whole_s3": ("CUT - s3", "ok ok wrong-base wrong-base wrong-base wrong-base wrong-base"),
}


def set_up(of, t, steps):
    """Brings the volume into the state; `AT` only goes back there, as an admin would by hand."""
    for step in steps.split("; "):
        word, *rest = step.split(" ", 1)
        if word == "AT":
            have = t.print()
            if "@s1" not in have:
                t.apply(of.stream("s1"))
            back = "s2" if "@s2" in have else "s1"
            t.sh("for s in $(zfs list -H -o name -t snapshot {t}); do zfs release siphon $s 2>/dev/null; done; "
                 f"zfs rollback -r {{t}}@{back}; zfs hold siphon {{t}}@{back}; zfs inherit siphon:receiving {{t}}")
            if back == "s1":
                t.apply(of.stream("s2", "s1"))
        elif word == "WRITE":
            t.write(8192, 4096)
        elif word == "CUT":
            base, to = rest[0].split()
            t.cut(of.stream(to, None if base == "-" else base))
        elif step:
            t.sh(step)


def row(name):
    """Every stream against one state. What is refused must leave the volume as it is, so the state is made anew only after what went in."""
    of, t, ready = source(), Zvol(name), False
    steps, outcomes = ROWS[name]
    cells = []
    sample = SAMPLE[:2] if name.endswith("above") else SAMPLE
    for stream, words in zip(STREAMS, outcomes.split()):
        plain, *allowed = words.split("/")
        for option, want in zip(OPTIONS, [plain, *(allowed or [plain, plain])]):
            # Without --full: a whole stream, an increment from the newest mark and, where no snapshot stands above, one from the
            # mark before; of those that are refused each option that lets them in.
            if bed.options.full or stream in sample and (not option or want == "ok" != plain):
                cells.append((want in ("ok", "already"), stream, option, want))
    for goes_in, (base, to), option, want in sorted(cells, key=lambda cell: cell[0]):
        if not ready:
            if "AT" not in steps:
                t.sh("for s in $(zfs list -H -o name -t snapshot {t} 2>/dev/null); do zfs release siphon $s; done; zfs destroy -r {t}",
                     check=False)
            set_up(of, t, steps)
        before = t.print()
        result = t.apply(of.stream(to, base), f"--mark {option}", check=False)
        what = f"{name}, {base}→{to} {option}, expected {want}\n{result}"
        if goes_in:
            same(result.code, 0, what)
            same(receipt(result).get("already", False), want == "already", what)
            t.at(images[to])
        else:
            assert result.code == 4 and f"[{want}]" in result.err, what
            same(t.print(), before, what)
        # One that was rolled back looks the same and is not.
        ready = not goes_in or not option and t.print() == before
    print(f"  {name}: {len(cells)} of {len(STREAMS) * len(OPTIONS)} combinations")


def state_test(name):
    function = lambda: row(name)
    function.__name__ = f"state_{name}"
    test(function)


for name in ROWS:
    state_test(name)


# --- common, and the ends of the pipe

@test
def common_tells_a_new_target_from_every_error():
    of, t = source(), Zvol("common")
    same((t.common(of).code, t.common(of).out), (0, ""), "new")
    t.cut(of.stream("s1"))
    same((t.common(of).code, t.common(of).out), (0, ""), "unfinished first run")
    t.apply(of.stream("s1"))
    same(t.common(of).out, "s1\n", "base")
    refused(t.common(source("s4", "s5")), 4, "no-common")
    refused(t.nightly(source("s4", "s5"), "s5", check=False), 4, "no-common")
    foreign = Zvol("strange")
    foreign.sh("zfs create -s -V 1M {t}")
    foreign.write(0, 4096)
    refused(foreign.common(of), 4, "foreign")
    lost = Zvol("x")
    lost.name = "nosuchpool/x"
    refused(lost.common(of), 4, "not-found")
    refused(lost.apply(of.stream("s1"), check=False), 4, "not-found")
    lost = Zvol("nosuchparent/x")
    refused(lost.common(of), 4, "not-found")
    files = Zvol("files")
    files.sh("zfs create -o mountpoint=/{t} {t}")
    refused(files.apply(of.stream("s1"), check=False), 4, "unsupported")
    # An empty one is new, to trees.
    files.sh("head -c 100000 /dev/urandom >/{t}/theirs; zpool sync")
    refused(files.common(of), 4, "foreign")


@test
def a_list_that_is_cut_never_asks_for_a_whole_image():
    of, t = source(), Zvol("listless")
    size = of.states().stat().st_size
    for target in (t, volume("listed", "s1")[1]):
        for left in (0, size // 2, size - 1):
            result = target.sh(f"head -c {left} {of.states()} | zfs-snapmark common {{t}}", check=False)
            refused(result, 3, "list")
            same(result.out, "", "standard output")


@test
def a_dead_ssh_stops_the_nightly_lines():
    of, t = source(), Zvol("dead")
    for ssh in ("false", "ssh -oControlPath=none -oProxyCommand=false"):
        result = t.nightly(of, "s1", check=False, ssh=ssh)
        assert result.code != 0 and "zvol-apply" not in result.err, str(result)
    # One that dies in the middle of its answer.
    of2, t2 = volume("dying", "s1")
    script = Path(bed.work, "dying")
    script.write_text('#!/bin/bash\nssh "$@" | head -c 1; kill -9 $$\n')
    script.chmod(0o755)
    before = t2.print()
    assert t2.nightly(of2, "s2", check=False, ssh=str(script)).code != 0
    same(t2.print(), before, "after a dead ssh")


# --- commit and mark

@test
def what_is_committed_is_named_by_receipt_by_hand_or_by_the_next_run():
    of, t = source(), Zvol("unnamed")
    t.apply(of.stream("s1"))
    told = t.apply(of.stream("s2", "s1"), "")
    assert "marked" not in receipt(told) and t.snapshots()[-1].startswith("siphon-pending-"), t.snapshots()
    same(t.common(of).out, "s2\n", "common")
    for wrong, code in (("", 3), ("{}", 3), (told.out.replace(t.name, "tank/other"), 4),
                        (told.out.replace(str(receipt(told)["snapshot_guid"]), "12345"), 4)):
        same(t.sh("zfs-snapmark mark {t}", input=wrong, check=False).code, code, wrong)
    assert receipt(t.sh("zfs-snapmark mark {t}", input=told.out))["marked"]
    t.apply(of.stream("s3", "s2"), "").code
    same(t.sh("zfs-snapmark mark --committed {t}").out, f"{t}@s3\n", "mark --committed")
    t.apply(of.stream("s4", "s3"), "")
    t.nightly(of, "s5")
    same(t.snapshots(), ["s1", "s2", "s3", "s4", "s5"], "snapshots")
    t.at(images["s5"]).at(images["s4"], "s4", live=False)


@test
def the_hold_moves_on_and_others_stay():
    of, t = volume("held", "s1")
    t.sh("zfs hold backup {t}@s1; zfs-snapmark hold {t}@s1")
    for to in ("s2", "s3"):
        t.nightly(of, to)
    held = t.sh("zfs holds -H $(zfs list -H -o name -t snapshot {t}) | cut -f1,2").out.replace(t.name, "").split()
    same(sorted(zip(held[::2], held[1::2])), [("@s1", "backup"), ("@s1", "siphon-keep"), ("@s3", "siphon")], "holds")
    t.sh("zfs-snapmark release {t}@s1; zfs release backup {t}@s1; zfs destroy {t}@s1; ! zfs destroy {t}@s3 2>/dev/null")
    t.sh("zfs snapshot {t}@auto")
    refused(t.sh("zfs-snapmark hold {t}@auto", check=False), 4, "not-found")


@test
def a_stream_that_leads_to_no_state_leaves_no_mark():
    source()
    t, old, new = Zvol("live"), images["s1"], images["s2"]
    t.apply(file_stream(old))
    same(receipt(t.apply(file_stream(new, old, live=True))).get("to"), None, "to-state")
    same(len(t.snapshots()), 1, "marks")
    same(t.get("siphon:receiving"), "-", "receiving")
    refused(t.apply(file_stream(images["s3"], old), check=False), 4, "written-since")
    t.apply(file_stream(images["s3"], old), "--mark --rollback")
    t.at(images["s3"])


@test
def streams_of_files_go_on_and_start_over():
    source()
    t, a, b, c = Zvol("files_s"), images["s1"], images["s2"], images["s3"]
    t.cut(file_stream(a)).apply(file_stream(b))
    t.at(b)
    t.cut(file_stream(c, b)).apply(file_stream(a, b))
    t.at(a)
    refused(t.apply(file_stream(c, b), check=False), 4, "wrong-base")
    t.apply(file_stream(b), "--mark --replace").code
    t.at(b)
    t.apply(file_stream(c), "--replace")
    t.apply(file_stream(a), "--replace")
    t.at(a, live=False)
    same(len(t.snapshots()), 5, "snapshots")


@test
def a_stream_of_a_file_sent_again_is_there_already():
    source()
    t, a, b, c = Zvol("again"), images["s1"], images["s2"], images["s3"]
    t.apply(file_stream(a)).code
    t.apply(file_stream(b, a))
    before = t.print()
    for stream in (file_stream(b, a), file_stream(b)):
        assert receipt(t.apply(stream))["already"]
        assert "already" not in t.apply(stream, "--dry-run").out
        refused(t.sh(f"head -c -9 {stream} | zvol-apply {{t}}", check=False), 3, "truncated")
    for stream, word in ((file_stream(c, a), "wrong-base"), (file_stream(a), "has-states"), (file_stream(b, a, live=True), "wrong-base")):
        refused(t.apply(stream, check=False), 4, word)
        refused(t.apply(stream, "--dry-run", check=False), 4, word)
    same(t.print(), before, "after streams that were refused")
    t.at(b)
    t.write(0, 512)
    refused(t.apply(file_stream(b, a), check=False), 4, "written-since")


@test
def a_base_of_another_size_is_refused_before_anything_is_given_up():
    of, t = volume("base_size", "s1", "s2")
    of.path.joinpath("s1").write_bytes(images["s1"] + bytes(4096))
    t.write(0, 4096, byte=0xBB)
    before, written = t.print(), t.get("written")
    for options in ("--dry-run --rollback", "--mark --rollback"):
        assert "bytes" in refused(t.apply(of.stream("s3", "s1"), options, check=False), 4, "wrong-base").err
    same((t.print(), t.get("written")), (before, written), "after the refusal")
    of.path.joinpath("s1").write_bytes(images["s1"])
    t.apply(of.stream("s4", "s1"), "--mark --rollback")
    t.at(images["s4"])


@test
def a_dry_run_touches_nothing():
    of, t = source(), Zvol("dry")
    assert t.apply(of.stream("s1"), "--dry-run").err and t.sh("zfs list {t}", check=False).code, "a dry run made the volume"
    t.apply(of.stream("s1"))
    t.cut(of.stream("s2", "s1"))
    before = t.print()
    assert "s1" in t.apply(of.stream("s3", "s1"), "--dry-run").err
    refused(t.apply(of.stream("s3"), "--dry-run", check=False), 4, "has-states")
    same(t.print(), before, "after a dry run")


if __name__ == "__main__":
    main("zfs")
