#!/usr/bin/python3
"""A ZFS file system as a target of trees: tree-apply --dataset. It is committed as a snapshot or not at all, whatever ends the run."""
import ast
import os
import random
import re
from pathlib import Path

import bed
from bed import main, refused, same, test, vm
from tree_changes import Life
from tree_judge import differences, listing

JUDGE = f"python3 /host{Path(__file__).resolve().parent}/tree_judge.py"  # in the guest
POOL = f"tank/trees{os.getpid()}"  # not the pool itself: a bed may see many runs
DAYS = []

# In the guest: a part of the stream at once, the rest slowly, so that the run is caught with entries under way.
PUMP = """
import sys, time
data = open(sys.argv[1], "rb").read()
out, begin = sys.stdout.buffer, int(len(data) * float(sys.argv[2]))
out.write(data[:begin]); out.flush()
for at in range(begin, len(data), len(data) // 50 + 1):
    time.sleep(0.2)
    out.write(data[at:at + len(data) // 50 + 1]); out.flush()
"""

# Earlier on the PATH: does what is asked, or not, and waits there to be killed.
SLOW_ZFS = """#!/bin/bash
case "$*" in STEP) AFTER; echo $$ >SLOW; exec sleep 1000 ;; esac
exec /usr/sbin/zfs "$@"
"""
# One byte of a file, in its old size, with its old times: scribble PATH-IN-HEX ROOT
SCRIBBLE = """
import os, sys
path = os.path.join(os.fsencode(sys.argv[2]), bytes.fromhex(sys.argv[1]))
meta = os.lstat(path)
with open(path, "r+b") as file:
    file.seek(meta.st_size // 2)
    old = file.read(1)
    file.seek(-1, 1)
    file.write(bytes([old[0] ^ 1]))
os.utime(path, ns=(meta.st_atime_ns, meta.st_mtime_ns))
"""

# What a killed run began of zfs goes on, and keeps the next run out until it has ended.
SETTLED = "[ ! -d /{t} ] || flock -w 60 /{t} true"

# What zfs is called for from the first change of a target on.
STEPS = ("set siphon:receiving=*", "set readonly=off *", "set readonly=on *", "snapshot *", "hold *", "release *", "inherit *")


def days(count):
    """The tree on its first days: directories that do not change any more."""
    if not DAYS:
        bed.tank()
        vm(f"zfs create -o mountpoint=/{POOL} {POOL}")
        Path(bed.work, "pump").write_text(PUMP)
        root = Path(bed.work, "live")
        root.mkdir()
        days.life = Life(root, None, random.Random(bed.options.seed))
        days.life.steps(150)
        (root / "plain").mkdir()
        (root / "plain/file").write_text("of a name that a dataset may have, too")
    while len(DAYS) < count:
        DAYS.append(Path(bed.work, f"d{len(DAYS)}"))
        bed.run(f"cp -a --sparse=always {Path(bed.work, 'live')} {DAYS[-1]}")
        days.life.steps(20)
    return DAYS


def stream(to, base=None):
    """From one day to another, as a file."""
    trees = days(max(to, base or 0) + 1)
    file = Path(bed.work, f"stream.{base}-{to}")
    if not file.exists():
        bed.run(f"{bed.options.bin}/tree-diff-stream {f'--base {trees[base]}' if base is not None else ''} {trees[to]} >{file}")
    return file


class Target:
    """A file system that is not there yet."""

    def __init__(self, name, *received):
        self.name, base = f"{POOL}/{name}", None
        days(1)
        for day in received:
            self.apply(stream(day, base))
            base = day

    def sh(self, command, **more):
        return vm(command.replace("{t}", self.name), **more)

    def apply(self, file, options="--all --mark", check=True):
        return self.sh(f"tree-apply {options} --dataset {{t}} <{file}", check=check)

    def snapshots(self):
        """Oldest first, but for the check of a run."""
        names = self.sh("zfs list -Hp -t snapshot -o name -s createtxg -d 1 {t}").out.replace(self.name + "@", "").split()
        return [name for name in names if not name.startswith("siphon-check-")]

    def get(self, name):
        return self.sh(f"zfs get -Hp -o value {name} {{t}}").out.strip()

    def print(self):
        """What must stay as it is when something is refused."""
        return self.sh("zfs list -Hp -t snapshot -o name,guid,userrefs -d 1 {t}; zfs get -Hp -o value siphon:receiving,readonly,mounted {t}", check=False).out

    def at(self, day, live=True):
        """Its newest mark holds this day's tree, and so does what is mounted; nothing was written since."""
        if live:
            snapshot = re.search(r" is at ([^,]*)", self.sh("zfs-snapmark verify {t}").out)[1].strip()
        else:
            snapshot = self.sh("zfs-snapmark last {t}").out.strip().split("@")[1]
        for place in [f"/{self.name}/.zfs/snapshot/{snapshot}"] + [f"/{self.name}"] * live:
            equal(days(day + 1)[day], place)
        return self


def there(place):
    """What stands in the guest."""
    return ast.literal_eval(vm(f"{JUDGE} {place}").out)


def equal(tree, place):
    """A tree here, and one in the guest."""
    told = list(differences(listing(os.fsencode(tree)), there(place)))
    assert not told, f"{place} is not {tree}:\n" + "\n".join(told[:20])


@test
def days_in_a_row_come_out_equal():
    count = 30 if bed.options.full else 2
    target = Target("days")
    for day in range(count):
        result = target.apply(stream(day, day - 1 if day else None))
        assert '"marked":true' in result.out, str(result)
        target.at(day)
    same(len(target.snapshots()), count)
    before = target.print()
    result = target.apply(stream(count - 1, count - 2))
    assert '"already":true' in result.out and '"marked":true' in result.out, str(result)
    same(target.print(), before)
    states = bed.run(f"{bed.options.bin}/tree-diff-stream --states {days(count)[count - 2]}").out
    for command in ("tree-apply --common --dataset {t}", "zfs-snapmark common {t}"):
        same(target.sh(command, input=states).out.strip(), f"d{count - 2}")


@test
def it_is_read_only_between_runs():
    target = Target("closed", 0)
    refused_to_write = target.sh("touch /{t}/x", check=False)
    assert "Read-only" in refused_to_write.err, str(refused_to_write)
    target.apply(stream(1, 0), "--all --mark --writable")
    target.sh("touch /{t}/x; rm /{t}/x")
    # A run that fails closes it, too.
    target.sh("zfs rollback {t}@d1")
    target.sh(f"head -c 5000 {stream(2, 1)} | tree-apply --all --mark --dataset {{t}}", check=False)
    same(target.get("readonly"), "on")


@test
def what_others_wrote_is_seen_at_any_depth():
    target = Target("others", 0)
    # The same size and times: no name, no time tells.
    file = max(days(1)[0].glob("*/**/*"), key=lambda path: (path.is_file() and not path.is_symlink(), path.lstat().st_size)).relative_to(days(1)[0])
    Path(bed.work, "scribble").write_text(SCRIBBLE)
    target.sh(f"zfs set readonly=off {{t}}; python3 {bed.work}/scribble {os.fsencode(file).hex()} /{{t}}; zfs set readonly=on {{t}}")
    before = target.print()
    refused(target.apply(stream(1, 0), check=False), 4, "written-since")
    refused(target.apply(stream(1, 0), "--all --dry-run", check=False), 4, "written-since")
    refused(target.sh("zfs-snapmark verify {t}", check=False), 5, "differs")
    same(target.print(), before)
    result = target.apply(stream(1, 0), "--all --mark --rollback")
    assert "going back to d0" in result.err, str(result)
    target.at(1)
    # Of this zfs diff says nothing: a file whose first name is gone, changed by its other one.
    linked = Target("linked")
    linked.sh("zfs create -o atime=off -o acltype=posix -o xattr=sa {t}; mkdir /{t}/one /{t}/two; echo 1 >/{t}/one/f; ln /{t}/one/f /{t}/two/g; rm /{t}/two/g")
    tree = Path(bed.work, "linked")
    bed.run(f"mkdir -p {tree}/one; echo 1 >{tree}/one/f; ln {tree}/one/f {tree}/g; {bed.options.bin}/tree-diff-stream {tree} >{tree}.whole")
    linked.apply(f"{tree}.whole", "--all --mark --replace")
    linked.sh("zfs set readonly=off {t}; rm /{t}/g; zfs rollback {t}@linked; echo 2 >>/{t}/one/f; zfs set readonly=on {t}")
    refused(linked.apply(f"{tree}.whole", check=False), 4, "written-since")


@test
def a_stream_that_is_cut_or_damaged_leaves_no_mark_and_the_next_one_heals():
    whole, increment = stream(1).stat().st_size, stream(2, 1).stat().st_size
    chance = random.Random(bed.options.seed)
    new, old = Target("cut"), Target("cut1", 1)
    for n in range(40 if bed.options.full else 2):
        for target, file, size, marks in ((new, stream(1), whole, 0), (old, stream(2, 1), increment, 1)):
            result = target.sh(f"head -c {chance.randrange(200, size - 1)} {file} | tree-apply --all --mark --dataset {{t}}", check=False)
            refused(result, 3, "truncated")
            same(len(target.snapshots()), marks)
    at = increment // 2
    bent = Path(bed.work, "bent")
    data = bytearray(stream(2, 1).read_bytes())
    data[at] ^= 1
    bent.write_bytes(data)
    result = old.apply(bent, check=False)
    assert result.code == 3 and len(old.snapshots()) == 1, str(result)
    new.apply(stream(1))
    result = old.apply(stream(2, 1))
    assert "giving up an unfinished run" in result.err, str(result)
    new.at(1)
    old.at(2)


@test
def killed_anywhere_it_is_not_marked_and_the_next_run_ends_equal():
    planned, fired = 200 if bed.options.full else 4, 0
    chance = random.Random(bed.options.seed)
    target, day = Target("killed", 0), 0
    for n in range(planned):
        if n % 4 == 3:  # a first, whole stream
            target = Target(f"killed{n}")
        last = day if target.sh("zfs list {t}", check=False).code == 0 else None
        day = (day + 1) % 6
        file, marks = stream(day, last), 0 if last is None else len(target.snapshots())
        target.sh(f"""python3 {bed.work}/pump {file} {chance.uniform(0, 0.9):.3f} | tree-apply --all --mark --dataset {{t}} >/dev/null 2>&1 & 
            sleep {chance.uniform(1, 5):.2f}; pid=$(pidof tree-apply) && kill -9 $pid; wait; {SETTLED}""", check=False)
        left = target.sh("zfs get -H -o value siphon:receiving {t}", check=False).out.strip()
        if left not in ("-", ""):  # else it struck before the beginning, or after the end
            more = len(target.snapshots()) - marks
            if more:  # after the commit, before the end of the record
                target.at(day, live=False)
            same(more, more and 1, "marks after a kill")
            fired += not more
        target.apply(file)
        target.at(day)
    print(f"    killed while receiving: {fired} of {planned}", flush=True)
    assert fired * 2 > planned, "most kills struck before or after the run"


@test
def a_roll_back_by_hand_in_mid_run_is_warned_of_or_seen():
    source, target = Target("rolled.source"), Target("rolled")
    source.sh("zfs create -o atime=off {t}")
    for day, since in (("a", ""), ("b", "--from a")):
        source.sh(f"head -c 3000000 /dev/urandom >/{{t}}/{day}; zfs snapshot {{t}}@{day}; tree-diff-stream {since} --dataset {{t}}@{day} >{bed.work}/rolled.{day}")
    target.apply(f"{bed.work}/rolled.a")
    for option in ("", "-r"):
        half, file = 1500000, f"{bed.work}/rolled.b"
        target.sh(f"""rm -f go code; {{ head -c {half} {file}; until [ -e go ]; do sleep 0.1; done; tail -c +{half + 1} {file}; }} |
            {{ tree-apply --all --mark --dataset {{t}} >/root/out 2>&1; echo $? >code; }} &
            for _ in $(seq 100); do [ "$(zfs get -H -o value readonly {{t}})" != off ] || break; sleep 0.1; done; sleep 1
            zfs rollback {option} {{t}}@a 2>said; touch go; wait""")
        said = target.sh("cat code; cat said /root/out").out
        # What it has open is gone (io), or it comes to its end and is refused (written-since).
        assert said[0] in "14" if option else said[0] == "0" and "more recent snapshots" in said, said
        same(target.snapshots(), ["a"] if option else ["a", "b"], said)
        if not option:
            target.sh("zfs release siphon {t}@b; zfs rollback -r {t}@a; zfs hold siphon {t}@a")
    result = target.apply(f"{bed.work}/rolled.b", check=False)
    if result.code:
        refused(result, 4, "written-since")
        target.apply(f"{bed.work}/rolled.b", "--all --mark --rollback")
    same(target.sh("zfs-snapmark verify {t} >&2; cmp /{t}/b /%s/b && ls /{t}" % source.name).out.split(), ["a", "b"])


@test
def what_is_written_where_a_run_was_given_up_is_not_given_up_with_it():
    # Of snapshots, whose streams say at their beginning where they lead.
    source = Target("givenup.source")
    source.sh("zfs create -o atime=off {t}")
    for day in "abc":
        since = "" if day == "a" else f"--from {chr(ord(day) - 1)}"
        source.sh(f"head -c 3000000 /dev/urandom >/{{t}}/{day}; zfs snapshot {{t}}@{day}; tree-diff-stream {since} --dataset {{t}}@{day} >{bed.work}/{day}.stream")
    for option, closed in (("", "on"), ("--writable", "off")):
        target = Target(f"givenup{closed}")
        for day in "ab":
            target.apply(f"{bed.work}/{day}.stream")
        target.sh(f"""python3 {bed.work}/pump {bed.work}/c.stream 0.5 | tree-apply --all --mark --dataset {{t}} >/dev/null 2>&1 &
            for _ in $(seq 100); do [ "$(zfs get -H -o value readonly {{t}})" != off ] || break; sleep 0.1; done
            pid=$(pidof tree-apply) && kill -9 $pid; wait; {SETTLED}""", check=False)
        assert target.get("siphon:receiving") != "-" and target.get("readonly") == "off", "it was killed too early or too late"
        # The transfer of the day before, once more.
        result = target.apply(f"{bed.work}/b.stream", f"--all --mark {option}")
        assert '"already":true' in result.out and "giving up an unfinished run" in result.err, str(result)
        same((target.get("siphon:receiving"), target.get("readonly")), ("-", closed))
        same(target.sh("ls /{t}").out.split(), ["a", "b"])
        target.sh("zfs set readonly=off {t}; echo theirs >/{t}/theirs")
        before = target.print()
        refused(target.apply(f"{bed.work}/c.stream", check=False), 4, "written-since")
        same(target.print(), before)
        same(target.sh("cat /{t}/theirs").out, "theirs\n")


@test
def killed_at_any_call_of_zfs_the_next_run_ends_equal():
    target, day, fired = Target("steps", 0), 0, 0
    rounds = [(step, done) for step in STEPS for done in ("/usr/sbin/zfs \"$@\"", "true")]
    for step, done in rounds if bed.options.full else rounds[::7]:
        day += 1
        slow = Path(bed.work, "slow")
        slow.unlink(missing_ok=True)
        # In bash a pattern's spaces must be quoted.
        pattern = "*".join(f'"{part}"' if part else "" for part in step.split("*"))
        vm(f"mkdir -p /tmp/slow; cat >/tmp/slow/zfs; chmod +x /tmp/slow/zfs", input=SLOW_ZFS.replace("STEP", pattern).replace("AFTER", done).replace("SLOW", str(slow)))
        target.sh(f"""PATH=/tmp/slow:$PATH; tree-apply --all --mark --dataset {{t}} <{stream(day, day - 1)} >/dev/null 2>&1 & pid=$!
            for _ in $(seq 300); do [ ! -s {slow} ] || break; sleep 0.1; done; kill -9 $pid $(cat {slow}); wait; {SETTLED}""", check=False)
        fired += slow.exists()
        target.apply(stream(day, day - 1))
        target.at(day)
        same(target.get("siphon:receiving"), "-", step)
        held = target.sh("zfs list -Hp -t snapshot -o name,userrefs -d 1 {t}").out.split()
        same([name.split("@")[1] for name, holds in zip(held[::2], held[1::2]) if holds != "0"], [f"d{day}"], f"held after {step}")
    print(f"    killed at {fired} calls", flush=True)
    assert fired == day, "not every call was met"


@test
def a_full_file_system_keeps_what_it_had():
    target = Target("full", 0)
    target.sh("zfs set quota=$(( $(zfs get -Hp -o value used {t}) + 3000000 )) {t}")
    tree = days(1)[0]
    big = Path(bed.work, "big")
    bed.run(f"cp -a {tree} {big}; head -c 20000000 /dev/urandom >{big}/large")
    file = Path(bed.work, "stream.big")
    bed.run(f"{bed.options.bin}/tree-diff-stream --base {tree} {big} >{file}")
    refused(target.apply(file, check=False), 1, "no-space")
    same(target.snapshots(), ["d0"])
    target.sh("zfs set quota=none {t}")
    assert "going back to d0" in target.apply(file).err
    equal(big, f"/{target.name}")


@test
def targets_that_are_none_are_refused_by_name():
    days(1)
    # Each is made, and its refusal.
    cases = (
        ("volume", "zfs create -s -V 10M {t}", 4, "unsupported", "zvol-apply"),
        ("atime", "zfs create {t}", 4, "unsupported", "zfs set atime=off"),
        ("unmounted", "zfs create -o atime=off {t}; zfs umount {t}", 4, "not-found", "zfs mount"),
        ("nowhere", "zfs create -o atime=off -o mountpoint=legacy {t}", 4, "not-found", "zfs mount"),
        ("content", "zfs create -o atime=off {t}; touch /{t}/theirs", 4, "foreign", "--replace"),
        ("snapshots", "zfs create -o atime=off {t}; zfs snapshot {t}@theirs", 4, "foreign", "--replace"),
        ("no/parent", "true", 4, "not-found", ""),
    )
    for name, make, code, word, hint in cases:
        target = Target(name)
        target.sh(make)
        before = target.print()
        result = refused(target.apply(stream(0), check=False), code, word)
        assert hint in result.err, str(result)
        same(target.print(), before, name)
    content = Target("content")
    result = refused(content.apply(stream(0), "--all --mark --replace", check=False), 1, "permission")
    assert "acltype=posix" in result.err, str(result)
    content.sh("zfs set acltype=posix {t}")
    content.apply(stream(0), "--all --mark --replace")
    content.at(0)
    # An empty one that somebody made is as good as a new one.
    empty = Target("empty")
    empty.sh("zfs create -o atime=off -o acltype=posix {t}")
    same(empty.sh("zfs-snapmark common {t}", input=bed.run(f"{bed.options.bin}/tree-diff-stream --states {days(1)[0]}").out, check=False).out, "")
    empty.apply(stream(0))
    empty.at(0)


@test
def what_is_mounted_over_it_is_not_written_to():
    target = Target("over", 0)
    target.sh("mount -t tmpfs none /{t}")
    before = target.print()
    refused(target.apply(stream(1, 0), check=False), 4, "mounted")
    same(target.sh("ls -A /{t}").out, "")
    target.sh("umount /{t}")
    same(target.print(), before)
    # Below it, where the stream has something of its own.
    target = Target("child")
    target.sh("zfs create -o atime=off {t}; zfs create {t}/plain; touch /{t}/plain/theirs")
    result = target.apply(stream(0), check=False)
    assert result.code == 4 and target.sh("ls /{t}/plain").out == "theirs\n", str(result)
    same(target.snapshots(), [])


@test
def a_directory_of_it_that_is_mounted_elsewhere_is_not_taken_for_it():
    target = Target("bound", 0)
    there = f"/tmp/part{os.getpid()}"
    target.sh(f"mkdir {there}; mount --bind /{{t}}/plain {there}; umount /{{t}}")
    before = target.print()
    refused(target.apply(stream(1, 0), check=False), 4, "not-found")
    same((target.print(), target.sh(f"ls -A {there}").out), (before, "file\n"))
    # Behind it in the list of mounts.
    target.sh("mount -t zfs -o zfsutil,ro {t} /{t}")
    target.apply(stream(1, 0))
    same(target.sh(f"ls -A {there}").out, "file\n")
    # And in its very place.
    target.sh("mount --bind /{t}/plain /{t}")
    refused(target.apply(stream(2, 1), check=False), 4, "not-found")
    same(target.sh("ls -A /{t}").out, "file\n")
    target.sh(f"umount /{{t}}; umount {there}")
    target.at(1)


@test
def the_way_to_the_snapshots_is_no_content():
    # As it is listed, in a new one, an increment, a whole tree again; and as a source.
    target = Target("visible")
    target.apply(stream(0), "--all --mark -o snapdir=visible")
    assert ".zfs" in target.sh("ls -A /{t}").out.split()
    target.apply(stream(1, 0))
    target.sh("zfs snapshot {t}@theirs; ls /{t}/.zfs/snapshot/theirs >/dev/null; umount /{t}/.zfs/snapshot/theirs")
    target.apply(stream(2), "--all --mark --replace")
    same(target.snapshots(), ["d0", "d1", "theirs", "d2"])
    target.sh("zfs set snapdir=hidden {t}")
    target.at(2)
    # A directory is a target in the same way, and a source. (Its record lies beside it.)
    directory = f"/{target.name}.dir"
    target.sh(f"zfs create -o mountpoint={directory} -o acltype=posix -o snapdir=visible {{t}}.dir; zfs snapshot {{t}}.dir@theirs")
    target.sh(f"tree-apply --all {directory} <{stream(0)}; tree-apply --all --replace {directory} <{stream(2)}")
    target.sh(f"tree-diff-stream {directory} >{bed.work}/source; tree-apply --all --dataset {{t}}.copy <{bed.work}/source; zfs set snapdir=hidden {{t}}.dir")
    equal(days(3)[2], directory)
    equal(days(3)[2], f"/{target.name}.copy")


@test
def no_stream_reaches_the_snapshots_of_its_target():
    trees = {"base": "theirs", "gone": ".", "allgone": ".", "made": "theirs made"}
    root = lambda name: Path(bed.work, f"names.{name}")
    for name, inside in trees.items():
        bed.run(f"mkdir -p {root(name)}; cd {root(name)}; for each in {inside}; do mkdir -p .zfs/snapshot/$each; done; [ {name} != allgone ] || rm -r .zfs")
        bed.run(f"{bed.options.bin}/tree-diff-stream --base {root('base')} {root(name)} >{root(name)}.stream")
    for name, of in (("whole", "base"), ("empty", "allgone")):
        bed.run(f"{bed.options.bin}/tree-diff-stream {root(of)} >{root(name)}.stream")
    # That a target holds the base is a lie in its record.
    state = bed.run(f"{bed.options.bin}/tree-diff-stream --states {root('base')}").out.split()[0]
    target = Target("hostile")
    target.sh("zfs create -o atime=off -o acltype=posix {t}; zfs snapshot {t}@theirs; zfs create -o mountpoint=/{t}.dir {t}.dir; zfs snapshot {t}.dir@theirs")
    target.apply(f"{root('empty')}.stream", "--all --mark --replace")
    mark = target.snapshots()[1]
    target.sh(f"zfs set \"siphon:mark=$(zfs get -H -o value siphon:mark {{t}}@{mark} | sed 's/ state=[0-9a-f]*/ state={state}/')\" {{t}}@{mark}")
    for shown in ("hidden", "visible"):
        target.sh(f"zfs set snapdir={shown} {{t}}; zfs set snapdir={shown} {{t}}.dir")
        for name in ("gone", "allgone", "made", "whole"):
            options = "--all --replace" if name == "whole" else "--all"
            said = refused(target.apply(f"{root(name)}.stream", options, check=False), 4, "exists")
            assert "the stream has an entry .zfs" in said.err, str(said)
            same(target.snapshots(), ["theirs", mark], name)
            said = target.sh(f"""tree-apply --all --replace /{{t}}.dir <{root("empty")}.stream >/dev/null
                sed -i 's/"id": "[0-9a-f]*"/"id": "{state}"/' /{{t}}.dir.siphon
                tree-apply {options} /{{t}}.dir <{root(name)}.stream""", check=False)
            assert "the stream has an entry .zfs" in refused(said, 4, "exists").err, str(said)
            same(target.sh("zfs list -H -t snapshot -o name -d 1 {t}.dir").out.split("@")[1:], ["theirs\n"], name)


@test
def a_second_run_waits_outside():
    target = Target("two", 0)
    result = target.sh(f"""python3 {bed.work}/pump {stream(1, 0)} 0 | tree-apply --all --mark --dataset {{t}} >/dev/null & 
        for _ in $(seq 100); do [ "$(zfs get -H -o value siphon:receiving {{t}})" = - ] || break; sleep 0.1; done
        tree-apply --all --mark --dataset {{t}} <{stream(1, 0)}; code=$?; wait; exit $code""", check=False)
    refused(result, 6, "busy")
    target.at(1)


@test
def snapshots_of_others_stay_and_are_never_a_state():
    target = Target("sanoid", 0)
    target.sh("zfs snapshot {t}@autosnap1")
    target.apply(stream(1, 0))
    target.at(1)
    # One that was taken in the middle of a run stands in the way back.
    target.sh(f"head -c {stream(2, 1).stat().st_size * 2 // 3} {stream(2, 1)} | tree-apply --all --mark --dataset {{t}}", check=False)
    target.sh("zfs snapshot {t}@autosnap2")
    before = target.print()
    refused(target.apply(stream(2, 1), check=False), 4, "foreign-snapshot")
    same(target.print(), before)
    target.apply(stream(2, 1), "--all --mark --rollback")
    target.at(2)
    same(target.snapshots(), ["d0", "autosnap1", "d1", "d2"])


@test
def a_roll_back_by_hand_and_a_replica_are_what_they_hold():
    target = Target("back", 0, 1, 2)
    target.sh("zfs release siphon {t}@d2; zfs rollback -r {t}@d1")
    refused(target.apply(stream(3, 2), check=False), 4, "wrong-base")
    target.apply(stream(3, 1))
    target.at(3)
    refused(target.apply(stream(4, 1), check=False), 4, "wrong-base")
    target.apply(stream(4, 1), "--all --mark --rollback")
    target.at(4)
    same(target.snapshots(), ["d0", "d1", "d4"])
    # Records travel with a replica, and say nothing there.
    replica = Target("replica")
    vm(f"zfs send -R {target.name}@d4 | zfs recv {replica.name}; zfs set atime=off {replica.name}")
    refused(replica.apply(stream(5, 4), check=False), 4, "foreign")
    same(replica.snapshots(), ["d0", "d1", "d4"])


@test
def a_user_without_rights_takes_increments():
    target = Target("user")
    target.sh("""zfs create -o atime=off -o acltype=posix -o xattr=sa {t}; chown nobody /{t}; chmod a+rw /dev/zfs
        zfs allow nobody snapshot,hold,release,rollback,send,destroy,mount,readonly,userprop {t}
        install -m 755 "$(command -v tree-apply)" /run/tree-apply""")  # the checkout may lie where nobody may look
    as_nobody = "setpriv --reuid nobody --regid nogroup --clear-groups /run/tree-apply --mark --dataset {t}"
    target.sh(f"{as_nobody} <{stream(0)}")
    target.sh(f"head -c {stream(1, 0).stat().st_size // 2} {stream(1, 0)} | {as_nobody}", check=False)
    result = target.sh(f"{as_nobody} <{stream(1, 0)}")
    assert "giving up an unfinished run" in result.err and '"unset":' in result.out, str(result)
    same(target.snapshots(), ["d0", "d1"])
    assert "Read-only" in target.sh("touch /{t}/x", check=False).err
    same(there(f"/{target.name}").keys(), listing(os.fsencode(days(2)[1])).keys())


@test
def nothing_happens_in_a_dry_run():
    target = Target("dry")
    assert "would create" in target.apply(stream(0), "--dry-run").out
    assert target.sh("zfs list {t}", check=False).code != 0
    target.apply(stream(0))
    before = target.print()
    assert "would apply" in target.apply(stream(1, 0), "--all --dry-run").out
    same(target.print(), before)
    target.at(0)


main("zfs")
