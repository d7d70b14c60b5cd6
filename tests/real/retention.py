#!/usr/bin/python3
"""Sixty nights of retention on real ZFS and real RBD: each night exactly what the model of tests/retention_model.py keeps is left.

The guest's clock is set for each night, so its marks have the dates that a year would give them. Snapshots of RBD get their time
from the cluster, which has the host's clock: there either the rules are in seconds, or the list passes a filter that puts in the
time that each name says, and seals it anew. What is removed is really removed, and the lines are those of the README.

Without --full only the first night of a volume is received by zvol-apply, and the others' marks are made as its commit makes them.
"""
import datetime
import functools
import json
import os
import random
import shlex
import subprocess
import sys
import time
from pathlib import Path

if sys.executable != "/usr/bin/python3":  # the system's has librbd's module
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])

import bed
from bed import main, refused, run, same, test, vm
from zvol import VENV, Source, Zvol, prepare

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from retention_model import survivors  # noqa: E402

DAY = 86400
FIRST = 1_767_225_600  # 1 January 2026
MARKS = ["--keep-last", "2", "--keep-daily", "5", "--keep-weekly", "3", "--keep-monthly", "4"]
GRID = ["--keep-grid", "1x1d(keep=all) | 6x1d | 4x1w", "--keep-last", "1"]


def name_at(seconds):
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc):%Y-%m-%dT%H%M%S}Z"


@functools.cache
def zfs():
    """The pool, and a source of small images."""
    prepare()
    Path(bed.work, "slow").mkdir()
    return bed.work


class Target(Zvol):
    """A volume that receives a small image every night."""

    def __init__(self, name):
        zfs()
        super().__init__(name)
        self.source, self.chance, self.last = Source(name), random.Random(f"{bed.options.seed}/{name}"), None
        self.record = None
        self.image = bytearray(self.chance.randbytes(128 << 10))

    def night(self, name=None, at=None):
        """One more mark, received, made when the guest's clock says so."""
        if at is not None:
            vm(f"date -s @{at} >/dev/null")
        name = name or name_at(at)
        self.image[:4096] = self.chance.randbytes(4096)
        self.source.snap(name, bytes(self.image))
        self.apply(self.source.stream(name, self.last))
        self.last = name
        return name

    def quick_night(self, name=None, at=None):
        """One more mark, as a commit makes it: the record of the first one with another state and name; the hold moves on."""
        if self.last is None or bed.options.full and at is not None:
            return self.night(name, at)
        name = name or name_at(at)
        self.record = self.record or self.sh(f"zfs get -Hp -o value siphon:mark {{t}}@{self.last}").out.strip()
        words = dict(word.split("=") for word in self.record.split(" "))
        words.update(state=self.chance.randbytes(16).hex(), name=name)
        record = " ".join(f"{key}={value}" for key, value in words.items())
        self.sh(f"""{f'date -s @{at} >/dev/null;' if at is not None else ''} zfs snapshot -o siphon:mark='{record}' {{t}}@{name}
            zfs hold siphon {{t}}@{name}; zfs release siphon {{t}}@{self.last}""")
        self.last = name
        return name

    def nights(self, *names):
        for name in names:
            self.quick_night(name)
        return self

    def seconds(self):
        """When each snapshot was made."""
        out = self.sh("zfs list -Hp -t snapshot -o name,creation -s createtxg -d 1 {t}").out
        return {name.partition("@")[2]: int(seconds) for name, seconds in (line.split("\t") for line in out.splitlines())}

    def prune(self, *arguments, check=True):
        return self.sh(f"zfs-snapmark prune {shlex.join(arguments)} {{t}}", check=check)

    def reasons(self, *arguments):
        """What a dry run says of each snapshot."""
        before = self.print()
        result = self.prune(*arguments, "--dry-run", "--json")
        same(self.print(), before, "after a dry run")
        return {line["name"]: ", ".join(line["reasons"]) for line in map(json.loads, result.out.splitlines())}


def clock_right():
    vm(f"date -s @{int(time.time())} >/dev/null")


def counted(done, planned):
    print(f"    {done} of {planned}", flush=True)


def sixty_nights_of_marks(label, policy):
    """Night by night; holds, clones and snapshots of others are there, and stay."""
    planned, nights = 60, 60 if bed.options.full else 5
    t = Target(label)
    at, left, foreign, held, cloned = FIRST + 7200, [], [], set(), set()
    try:
        for n in range(nights):
            name = t.quick_night(at=at)
            chance = t.chance
            if n == 1 or chance.random() < 0.1:
                foreign.append(f"autosnap-{n}")
                t.sh(f"zfs snapshot {{t}}@autosnap-{n}")
            if n == 2 or chance.random() < 0.05:
                held.add(name)
                t.sh(f"zfs hold {chance.choice(['backup', 'siphon-keep'])} {{t}}@{name}")
            if n == 3 or chance.random() < 0.04:
                cloned.add(name)
                t.sh(f"zfs clone {{t}}@{name} {{t}}-clone{n}")
            seconds = t.seconds()
            assert 0 <= seconds[name] - at < 300, f"the clock of the guest: {seconds[name]}, {at}"
            left.append((name, seconds[name]))
            stay = survivors(left, ["--match", ".*", *policy]) | held | cloned
            gone = [state[0] for state in left if state[0] not in stay]
            left = [state for state in left if state[0] in stay]
            said = t.prune(*policy).out.split()
            same(said, [f"{t}@{name}" for name in gone], f"destroyed in night {n}")
            same(sorted(t.snapshots()), sorted(foreign + [name for name, _ in left]), f"left after night {n}")
            # Most nights come; some do not, and once the clock is set back.
            at += DAY * (chance.choice([1, 1, 1, 2, 9]) if bed.options.full else chance.choice([1, 2, 9])) + chance.randrange(-600, 600)
            if n == nights // 2:
                at -= 20 * DAY
        t.sh("zfs-snapmark verify {t}")
        same(t.sh("zfs-snapmark list {t} | grep -v '^#end' | cut -f 4").out.split(), [name for name, _ in left], "marks")
        assert held <= set(t.snapshots()) and cloned <= set(t.snapshots())
    finally:
        clock_right()
    counted(nights, planned)


@test
def sixty_nights_of_marks_by_calendar():
    sixty_nights_of_marks("calendar", MARKS)


@test
def sixty_nights_of_marks_by_grid():
    sixty_nights_of_marks("grid", GRID)


@test
def what_stands_against_it_is_said_of_each():
    t = Target("reasons").nights("a", "b", "c", "d", "e")
    t.sh("zfs snapshot {t}@mine; zfs hold x {t}@a; zfs-snapmark hold {t}@a; zfs clone {t}@b {t}-b")
    said = t.reasons("--keep-last", "1", "--keep", "c")
    same(said, {"a": "held: " + said["a"].removeprefix("held: "), "b": f"has clones: {t}-b", "c": "named", "d": "no rule keeps it",
                "e": said["e"], "mine": "not ours"}, "reasons")
    same(sorted(said["a"].removeprefix("held: ").split(", ")), ["siphon-keep", "x"], "tags")
    assert said["e"].startswith("the newest, last"), said["e"]
    # --match narrows it: the newest mark of all stays, whatever its name.
    same(t.reasons("--keep-last", "1", "--match", "[abc]")["e"].split(", ")[:2], ["not ours", "the newest"], "the newest of all")
    refused(t.prune("--keep-last", "1", "--keep", "z", check=False), 4, "not-found")
    refused(t.prune("--keep", "a", check=False), 2, "usage")
    # A table for people, and nothing on standard output.
    dry = t.prune("--keep-last", "1", "--dry-run")
    same((dry.out, len(dry.err.splitlines())), ("", 6), "dry run")
    same(t.prune("--keep-last", "1", "--at-most", "1").out, f"{t}@c\n", "at most one")
    same(t.prune("--keep-last", "1").out, f"{t}@d\n", "the rest")
    same(t.snapshots(), ["a", "b", "e", "mine"], "left")


@test
def an_unfinished_run_and_an_unnamed_commit_keep_what_they_need():
    t = Target("unfinished")
    t.night("a"), t.night("b")
    t.image[:64 << 10] = t.chance.randbytes(64 << 10)
    t.source.snap("c", bytes(t.image))
    t.cut(t.source.stream("c", "b"))
    said = t.reasons("--keep-regex", "nothing")
    assert said["b"].startswith("the newest, an unfinished run needs it") and said["a"] == "no rule keeps it", said
    t.prune("--keep-regex", "nothing")
    assert t.snapshots()[0] == "b", t.snapshots()
    t.apply(t.source.stream("c", "b"))
    t.source.snap("d", bytes(t.image))
    t.apply(t.source.stream("d", "c"), "")
    said = t.reasons("--keep-regex", "nothing")
    pending = [reasons for name, reasons in said.items() if name.startswith("siphon-pending-")]
    same(pending, ["the newest, not yet named"], "a commit without a name")
    t.prune("--keep-regex", "nothing")
    t.sh("zfs-snapmark mark --committed {t}")
    # The hold of c moved on only now.
    same(t.prune("--keep-regex", "nothing").code, 0, "prune")
    same(t.snapshots(), ["d"], "left")
    nothing = Zvol("others")
    nothing.sh("zfs create -V 1M {t}; zfs snapshot {t}@a; zfs snapshot {t}@b")
    refused(nothing.sh("zfs-snapmark prune --keep-last 1 {t}", check=False), 4, "not-found")
    same(nothing.snapshots(), ["a", "b"], "snapshots of others")


@test
def what_changes_while_it_waits_is_seen():
    t = Target("paced").nights("a", "b", "c", "d", "e", "f")
    t.sh("""zfs-snapmark prune --keep-last 1 --pace 4s {t} >/root/out 2>/root/err & pid=$!
        for n in $(seq 300); do [ ! -s /root/out ] || break; sleep 0.1; done
        zfs destroy {t}@b; zfs rename {t}@d b; zfs snapshot {t}@d; zfs hold x {t}@c; wait $pid""")
    same(t.sh("cat /root/out").out, f"{t}@a\n{t}@e\n", "destroyed")
    same(t.snapshots(), ["c", "b", "f", "d"], "left; b is what d was, and d is of others")
    err = t.sh("cat /root/err").out
    assert "b is kept: changed meanwhile" in err and "c is kept: held: x" in err and "d is kept: changed meanwhile" in err, err


@test
def a_mark_that_became_the_newest_meanwhile_stays():
    t = Target("back").nights("a", "b", "c", "d")
    t.sh("""zfs-snapmark prune --keep-last 1 --pace 4s {t} >/root/out 2>/root/err & pid=$!
        for n in $(seq 300); do [ ! -s /root/out ] || break; sleep 0.1; done
        zfs release siphon {t}@d; zfs rollback -r {t}@b; wait $pid""")
    same((t.sh("cat /root/out").out, t.snapshots()), (f"{t}@a\n", ["b"]), "destroyed, left")
    assert "b is kept: the newest" in t.sh("cat /root/err").out


@test
def one_that_cannot_be_destroyed_does_not_stop_the_others():
    t = Target("failing").nights("a", "b", "c", "d")
    wrapper = Path(zfs(), "slow/zfs")
    wrapper.write_text('#!/bin/bash\ncase "$*" in destroy*@b) echo "cannot destroy: no luck" >&2; exit 1 ;; esac\nexec /usr/sbin/zfs "$@"\n')
    wrapper.chmod(0o755)
    result = t.sh(f"PATH={bed.work}/slow:$PATH zfs-snapmark prune --keep-last 1 {{t}}", check=False)
    refused(result, 1, "io")
    assert "b: cannot destroy: no luck" in result.err, result
    same(result.out, f"{t}@a\n{t}@c\n", "destroyed")
    same(t.snapshots(), ["b", "d"], "left")


# --- RBD

# The last of the nightly lines, as the README has it.
LINE = """set -eu -o pipefail
rbd-diff-stream --states rbd/vm1 | snap-prune --keep-last 3 ${base:+--keep "$base"} | xargs -r -I{} rbd snap rm rbd/vm1@{}
"""

# Stands before the real one on the PATH: a state was made when its name says.
DATED = f"""#!{VENV}
import datetime, subprocess, sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[1])!r})
from retention_model import sealed
out = subprocess.run(["BIN/rbd-diff-stream", *sys.argv[1:]], stdout=subprocess.PIPE, check=True).stdout.decode()
lines = [line.split("\\t") for line in out.splitlines()[:-1]]
for line in lines:
    try:
        line[1] = int(datetime.datetime.strptime(line[3] + "+0000", "%Y-%m-%dT%H%M%SZ%z").timestamp())
    except ValueError:
        pass
sys.stdout.buffer.write(sealed(lines))
"""


@functools.cache
def ceph():
    """Moves into the bed's network; gives librbd's module and the pool."""
    bed.enter_ceph()
    dated = Path(bed.work, "dated")
    dated.mkdir()
    (dated / "rbd-diff-stream").write_text(DATED.replace("BIN", bed.options.bin))
    (dated / "rbd-diff-stream").chmod(0o755)
    os.environ["PATH"] = f"{bed.options.bin}:{os.environ['PATH']}:/usr/sbin"
    import rados
    import rbd
    cluster = rados.Rados(conffile=os.environ["CEPH_CONF"])
    cluster.connect()
    return rbd, cluster.open_ioctx("rbd")


class Image:
    """An image of 4 MiB with snapshots."""

    def __init__(self, name):
        self.rbd, self.pool = ceph()
        self.name = f"{name}-{os.getpid()}"
        self.rbd.RBD().create(self.pool, self.name, 4 << 20, old_format=False)

    def open(self):
        return self.rbd.Image(self.pool, self.name)

    def snap(self, name):
        with self.open() as image:
            image.create_snap(name)

    def snaps(self):
        with self.open() as image:
            return [snap["name"] for snap in sorted(image.list_snaps(), key=lambda snap: snap["id"])]

    def states(self):
        """(name, seconds) as the source lists them."""
        lines = run(f"rbd-diff-stream --states rbd/{self.name}").out.splitlines()[:-1]
        return [(line[3], int(line[1])) for line in (line.split("\t") for line in lines)]

    def line(self, base, policy="--keep-last 3", check=True):
        """The line, of this image, with this policy."""
        line = LINE.replace("rbd/vm1", f"rbd/{self.name}").replace("--keep-last 3", policy)
        return run(line, check=check, env={**os.environ, "base": base})


def sixty_nights_of_snapshots(label, policy, dated, nights):
    chance = random.Random(f"{bed.options.seed}/{label}")
    image = Image(label)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{bed.work}/dated:{before}" if dated else before
    at, base, left, gone, planned = FIRST + 7200, "", [], 0, 60
    try:
        for n in range(nights):
            image.snap(name_at(at))
            if n == 1 or chance.random() < 0.1:
                image.snap(f"by-hand-{n}")
            states = image.states()
            if n % 7 == 5 and not dated:
                time.sleep(1)  # the rules are in seconds
            assert [name for name, _ in states] == image.snaps() and states[:len(left)] == left, "the states"
            stay = survivors(states, policy + (["--keep", base] if base else []))
            gone += len(states) - len(stay)
            image.line(base, shlex.join(policy))
            left = [state for state in states if state[0] in stay]
            same(image.snaps(), [name for name, _ in left], f"left after night {n}")
            # Some nights do not reach the target: their base stays the older one.
            base = name_at(at) if chance.random() < 0.8 else base
            at += DAY * chance.choice([1, 1, 1, 2, 9]) + chance.randrange(-600, 600) - (20 * DAY if n == nights // 2 else 0)
        assert gone and any(name.startswith("by-hand") for name, _ in left), left
    finally:
        os.environ["PATH"] = before
    counted(nights, planned)


@test
def sixty_nights_of_snapshots_by_the_line_of_the_readme():
    assert LINE.splitlines()[1] in (bed.ROOT / "README.md").read_text(), "the README has other lines"
    sixty_nights_of_snapshots("readme", ["--keep-last", "3"], False, 60 if bed.options.full else 12)


@test
def sixty_nights_of_snapshots_by_calendar():
    sixty_nights_of_snapshots("dated", MARKS, True, 60 if bed.options.full else 12)


@test
def sixty_nights_of_snapshots_by_grid():
    sixty_nights_of_snapshots("gridded", GRID, True, 60 if bed.options.full else 12)


@test
def sixty_nights_of_snapshots_by_a_grid_of_seconds():
    sixty_nights_of_snapshots("seconds", ["--keep-grid", "1x1s(keep=all) | 3x2s | 3x9s"], False, 60 if bed.options.full else 12)


@test
def a_snapshot_that_cannot_be_removed_does_not_stop_the_others():
    image = Image("protected")
    for n in range(5):
        image.snap(name_at(FIRST + n * DAY))
    first = name_at(FIRST)
    with image.open() as opened:
        opened.protect_snap(first)
    same(image.line("", "--keep-last 2", check=False).code, 123, "exit code of xargs")
    same(image.snaps(), [first, *(name_at(FIRST + n * DAY) for n in (3, 4))], "left")
    with image.open() as opened:
        opened.unprotect_snap(first)


@test
def a_received_snapshot_counts_once():
    image = Image("received")
    policy = "--keep-last 1 --match '.*'"
    first = Image("sent")
    for name in ("a", "b", "c"):
        with first.open() as opened:
            opened.write(os.urandom(4096), 0)
        first.snap(name)
    target = f"rbd/{image.name}-copy"
    for base, to in (("", "a"), ("--from a", "b"), ("--from b", "c")):
        run(f"set -eu -o pipefail; rbd-diff-stream {base} rbd/{first.name}@{to} | rbd-apply {target}")
    copy = f"rbd-diff-stream --states {target} | snap-prune"
    lines = run(f"rbd-diff-stream --states {target}").out.splitlines()
    same([line.split("\t")[3] for line in lines[:-1]], ["@a", "a", "@b", "b", "@c", "c"], "the list")
    same(run(f"{copy} {policy}").out, "a\nb\n", "each once")
    same(run(f"{copy} {policy} --keep @a").out, "b\n", "a base as itself")
    same(run(f"{copy} {policy} | xargs -r -I{{}} rbd snap rm {target}@{{}}; rbd snap ls --format json {target}").out.count('"name":"'), 1, "left")


@test
def a_slow_pace_reaches_the_end_of_the_pipe():
    image = Image("paced")
    for n in range(4):
        image.snap(name_at(FIRST + n * DAY))
    line = LINE.replace("rbd/vm1", f"rbd/{image.name}").replace("--keep-last 3", "--keep-last 1 --pace 3s")
    started = subprocess.Popen(["bash", "-c", line], env={**os.environ, "base": ""}, stdin=subprocess.DEVNULL)
    counts, began = set(), time.monotonic()
    while started.poll() is None:
        counts.add(len(image.snaps()))
        time.sleep(0.1)
    same((started.returncode, sorted(counts | {len(image.snaps())})), (0, [1, 2, 3, 4]), "one after the other")
    assert time.monotonic() - began > 5.5, "all at once"


if __name__ == "__main__":
    main("ceph", "zfs")
