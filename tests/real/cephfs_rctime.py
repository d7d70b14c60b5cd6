#!/usr/bin/python3
"""Changes at the worst moments of rctime: none is missed by runs that believe it; a walk that simply prunes by it misses many.

usage: tests/real/cephfs_rctime.py [--full] [--only WORD]... [--seed N] [--bin DIR]

Two clients: ceph-fuse here, and the kernel's in the guest, whose clock is behind. Every snapshot has changes just before it, at the
very moment, and just after it. Each pair of snapshots goes through cephfs-changed (which never walks over all), tree-diff-stream and
tree-apply; a listing of our own of both snapshots says what was changed, and one of the target what was missed.
"""
import json
import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import bed
from bed import main, run, same, test, vm
from cephfs_acts import Player
from cephfs_lab import listing, mounted, own_bed, rctime

PLANNED = 500
# Of each kind, at one snapshot; with --full four times as many.
BURST = {"around": 6, "buffered": 5, "slow": 5, "future": 3, "remote": 3, "moved": 3}
FEWEST_MISSED_BY_THE_NAIVE = 20
BEHIND = 15  # seconds that the guest's clock is behind
MARGIN = 20  # seconds: more than that, and so few that rctime is really asked
FUTURE = 1_900_000_000
# Pruned by rctime in every run: never all walked over.
# The kernel's client keeps what was written for 30 s and more.
BELIEVE = f"--rctime-margin {MARGIN} --settle 45 --full-every 1000000"


class Guest:
    """The kernel's client, and somebody there who acts."""

    def __init__(self, fs):
        vm(f"date -s @$(($(date +%s) - {BEHIND})) >/dev/null; mkdir -p /mnt/ceph; "
           f"mount -t ceph {os.environ['CEPH_MON']}:/ /mnt/ceph -o name=admin,secret={os.environ['CEPH_ADMIN_KEY']}")
        agent = f"python3 /host{Path(__file__).parent}/cephfs_acts.py /mnt/ceph{fs}"
        line = ["ssh", "-F", os.environ["LAB_DIR"] + "/ssh_config", "vm", agent]
        self.agent = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        same(self.agent.stdout.readline(), "ready\n", "the agent")

    def start(self, acts):
        print(json.dumps(acts), file=self.agent.stdin, flush=True)
        return lambda: json.loads(self.agent.stdout.readline())

    def leave(self):
        self.agent.stdin.close()
        self.agent.wait()
        vm("umount /mnt/ceph")


class Change:
    """Something that is done to a slot of its own, and the paths below the root where it has to be seen."""

    def __init__(self, kind, number, chance):
        self.kind, self.number, self.chance = kind, number, chance
        self.slot = f"root/g{number // 20:02}/s{number:03}"
        self.at = f"{self.slot}/a/b"
        self.by_guest = kind == "slow" or kind in ("around", "buffered") and number % 2 == 0
        self.pair = None  # in which it was seen
        getattr(self, f"plan_{kind}")()

    def sees(self, *paths):
        self.watched = [os.fsencode(path.removeprefix("root/")) for path in paths]

    def plan_any(self):
        self.what, path, argument = self.chance.choice([
            ("append", "f", "more"), ("lazy_append", "f", "more"), ("create", "new", "new"), ("mode", "f", None), ("rename", "f", f"{self.at}/to"),
            ("remove", "f", None), ("truncate", "f", None), ("directory", "new", None), ("overwrite", "f", "new bytes")])
        self.path, self.argument = f"{self.at}/{path}", argument
        self.sees(argument if self.what == "rename" else self.path)

    def plan_around(self):
        self.when = self.chance.uniform(-0.4, 0.4)
        self.plan_any()

    def plan_slow(self):
        # Soon after a snapshot, so that it is older by that clock.
        self.when = self.chance.choice([-1, 0.3, 1, 2])
        self.plan_any()

    def plan_buffered(self):
        self.when = self.chance.choice([-1.5, -0.3, 0.4, 1.5])
        self.what, self.argument = self.chance.choice([("hold_append", "more"), ("hold_overwrite", "new bytes"), ("lazy_append", "more")])
        self.path = f"{self.at}/f"
        self.sees(self.path)

    def plan_future(self):
        self.when = self.chance.choice([-1, 0.5])
        self.what, self.argument = self.chance.choice([("hold_append", "more"), ("hold_overwrite", "new bytes"), ("overwrite", "new bytes"), ("append", "more")])
        self.path = f"{self.at}/f"
        self.sees(self.path)

    def plan_remote(self):
        """By its first name, elsewhere: outside of the root, or in another directory of the slot."""
        self.when = self.chance.choice([-1, 0.5])
        self.what, self.argument = self.chance.choice([("append", "more"), ("lazy_append", "more"), ("overwrite", "new bytes"), ("mode", None)])
        self.path = f"outside/{self.number}" if self.number % 2 else f"{self.slot}/first"
        self.sees(f"{self.at}/remote")

    def plan_moved(self):
        """A tree that was not changed for long comes to stand where it did not."""
        self.when = self.chance.choice([-1, 0.5])
        self.how = self.chance.choice(["in", "within", "swapped"])
        if self.how == "in":
            self.what, self.path, self.argument = "rename", f"outside/{self.number}", f"{self.at}/tree"
            self.sees(f"{self.at}/tree/x/y/f")
        elif self.how == "within":
            self.what, self.path, self.argument = "rename", f"{self.at}/one", f"{self.slot}/one"
            self.sees(f"{self.slot}/one/x/y/f", f"{self.at}/one/x/y/f")
        else:
            self.what, self.path, self.argument = "swap", f"{self.at}/one", f"{self.at}/two"
            self.sees(f"{self.at}/one/x/y/f", f"{self.at}/two/x/y/f")

    def prepare(self, fs):
        there = fs / self.at
        there.mkdir(parents=True)
        (there / "f").write_bytes(b"some bytes")
        if self.kind == "future":
            os.utime(there / "f", (FUTURE, FUTURE))
        elif self.kind == "remote":
            (fs / self.path).write_bytes(b"some bytes")
            os.link(fs / self.path, there / "remote")
        elif self.kind == "moved":
            trees = [fs / self.path] if self.how == "in" else [there / "one", there / "two"]
            for tree in trees:
                (tree / "x/y").mkdir(parents=True)
                (tree / "x/y/f").write_bytes(tree.name.encode())

    def act(self, moment):
        return [moment + self.when, self.what, self.path, self.argument]


class Naive:
    """Which directories somebody walks into who believes rctime at once: later than the old snapshot, by no margin."""

    def __init__(self, root, old, new):
        since = float(os.getxattr(root / ".snap" / old, "ceph.snap.btime"))
        self.new, self.walked = root / ".snap" / new, set()
        way = [self.new]
        while way:
            there = way.pop()
            if rctime(there) > since:
                self.walked.add(os.fsencode(there))
                way += [Path(entry) for entry in os.scandir(there) if entry.is_dir(follow_symlinks=False)]

    def sees(self, path):
        """Compares what stands at this path: walks into all directories above it, as far as they are still there."""
        there = os.path.dirname(os.path.join(os.fsencode(self.new), path))
        while not os.path.isdir(there):
            there = os.path.dirname(there)
        return there in self.walked


def differing(one, other):
    return {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}


class Play:
    """A directory, what is done to it, and what follows it."""

    def __init__(self, name, kinds, bursts):
        self.fs = mounted() / name
        self.root, self.target, self.memory = self.fs / "root", Path(bed.work, name), Path(bed.work, f"{name}.memory")
        self.root.mkdir(parents=True)
        (self.fs / "outside").mkdir()
        self.chance = random.Random(f"{bed.options.seed}/{name}")
        self.bursts = [[Change(kind, n * len(kinds) + i, self.chance) for i, kind in enumerate(kinds)] for n in range(bursts)]
        for change in self.changes():
            change.prepare(self.fs)
        self.here, self.guest = Player(self.fs), Guest(f"/{name}")
        self.naive, self.naively_missed, self.missed = [], [], []
        run(f"sync -f {self.root}")
        time.sleep(MARGIN + 10)  # else all of it was changed just now
        self.tree(0).mkdir()
        self.follow(0)

    def changes(self):
        return [change for burst in self.bursts for change in burst]

    def tree(self, number):
        return self.root / ".snap" / f"s{number}"

    def burst(self, number, changes):
        """Takes a snapshot, with these changes around it."""
        moment = 2
        began = time.monotonic()
        by_guest = [change.act(moment) for change in changes if change.by_guest]
        snapshot = [moment, "snapshot", f"root/.snap/s{number}", None]
        # Also by the client whose clock is behind.
        by_guest += [snapshot] if number % 4 == 2 else []
        guest = self.guest.start([[0, "close", "", None]] + by_guest)
        self.here.close()
        here = self.here.start([change.act(moment) for change in changes if not change.by_guest] + ([] if number % 4 == 2 else [snapshot]), began)
        while not self.tree(number).is_dir():
            time.sleep(0.01)
        if number % 4 == 2:
            behind = time.time() - float(os.getxattr(self.tree(number), "ceph.snap.btime"))
            print(f"    snapshot {number} was taken by the other client: {behind:.0f} s ago, says its time", flush=True)
        self.naive = Naive(self.root, f"s{number - 1}", f"s{number}")
        failed = here() + guest()
        assert not failed, failed

    def follow(self, number, options=BELIEVE):
        since = f"--from s{number - 1}" if number else ""
        result = run(f"set -o pipefail; PATH={bed.options.bin}:$PATH; cephfs-changed {since} --memory {self.memory} {options} {self.root}@s{number} | "
                     f"tree-diff-stream --changes - | tree-apply --all {self.target}", timeout=600)
        assert "walking over all" not in result.err, result
        return result

    def judge(self, number):
        """What of the planned changes was seen between the last two snapshots, and who missed what."""
        self.follow(number)
        old, new, target = listing(self.tree(number - 1)), listing(self.tree(number)), listing(self.target)
        truth, wrong = differing(old, new), differing(new, target)
        # A snapshot that is not yet what it will be when it is read is missed as well.
        wrong |= differing(self.last, old) if number > 1 else set()
        self.last = new
        for change in self.changes():
            if change.pair is None and truth.intersection(change.watched):
                change.pair = number
                if wrong.intersection(change.watched):
                    self.missed.append(change)
                if not all(self.naive.sees(path) for path in truth.intersection(change.watched)):
                    self.naively_missed.append(change)
        return wrong


@test
def none_of_the_changes_at_the_worst_moments_is_missed():
    kinds = [kind for kind, count in BURST.items() for _ in range(count * (4 if bed.options.full else 1))]
    bursts = PLANNED // len(kinds) if bed.options.full else 1
    play = Play("worst", kinds, bursts)
    wrong = []
    for number in range(1, bursts + 2):
        play.burst(number, play.bursts[number - 1] if number <= bursts else [])
        wrong += sorted(play.judge(number))
        if wrong:
            print(f"    wrong after snapshot {number}: {wrong[:20]}", flush=True)
    planned = Counter(change.kind for change in play.changes())
    fired = Counter(change.kind for change in play.changes() if change.pair)
    missed, naive = Counter(change.kind for change in play.missed), Counter(change.kind for change in play.naively_missed)
    for kind in BURST:
        print(f"    {kind}: {fired[kind]}/{planned[kind]} fired, {missed[kind]} missed, {naive[kind]} missed by the naive walk", flush=True)
    print(f"    {fired.total()}/{planned.total()} of {PLANNED} fired in {bursts + 1} pairs of snapshots, {missed.total()} missed, "
          f"{naive.total()} missed by the naive walk; seed {bed.options.seed}", flush=True)
    same(fired, planned, "changes that were seen")
    same((missed.total(), wrong), (0, []), "missed")
    assert naive.total() * PLANNED >= FEWEST_MISSED_BY_THE_NAIVE * planned.total(), "the control misses too few: the moments are not bad enough"
    # And the walk over all finds nothing that was left out.
    number = bursts + 2
    play.burst(number, [])
    run(f"PATH={bed.options.bin}:$PATH; cephfs-changed --from s{number - 1} --memory {play.memory} --cross-check --settle 0 --rctime-margin {MARGIN} {play.root}@s{number} >/dev/null", timeout=600)
    play.guest.leave()


if __name__ == "__main__":
    own_bed()
    main("ceph", "zfs")
