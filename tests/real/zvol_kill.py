#!/usr/bin/python3
"""SIGKILL of the sender, of ssh or of the receiver while the target is receiving, and of the receiver between commit and mark: the same
nightly lines then end equal and marked, with no hand. A kill counts only when it struck where it was meant to."""
import os
import random
import signal
import time
from pathlib import Path

import bed
from bed import changed, main, run, same, test, vm
from zvol import Zvol, images, receiving, source, ssh, start, volume

# A part of the stream at once, the rest slowly: so the run is caught with bytes under way.
PUMP = """
import sys, time
data = open(sys.argv[1], "rb").read()
out = sys.stdout.buffer
begin, piece = int(len(data) * float(sys.argv[2])), len(data) // 400 + 1
out.write(data[:begin]); out.flush()
for at in range(begin, len(data), piece):
    time.sleep(0.3)
    out.write(data[at:at + piece]); out.flush()
"""

# In the guest, earlier on the PATH: waits where a commit becomes a mark.
SLOW_ZFS = """#!/bin/bash
case "$*" in STEP) echo $$ >$SLOW; exec sleep 1000 ;; esac
exec /usr/sbin/zfs "$@"
"""


# What a commit still needs to become a mark.
STEPS = ("rename *", "hold *", "release *", "set *siphon:receiving=-*")


def kill_while_receiving(t, stream, who, chance):
    """Starts a run, kills one part of it at a random point; whether it struck a target that was receiving."""
    pids = {name: Path(bed.work, "pid." + name) for name in ("sender", "ssh")}
    line = (f"{{ echo $BASHPID >{pids['sender']}; exec python3 {bed.work}/pump {stream} {chance.uniform(0.1, 0.8):.3f}; }} | "
            f"{{ echo $BASHPID >{pids['ssh']}; exec {ssh(t)}; }}")
    vm("rm -f /root/receiver")
    process = start(line)
    end = time.monotonic() + 60
    while not receiving(t) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    time.sleep(chance.random() * 4)
    fired = receiving(t) and process.poll() is None
    if who == "receiver":
        vm("kill -9 $(cat /root/receiver)", check=False)
    else:
        try:
            os.kill(int(pids[who].read_text()), signal.SIGKILL)
        except ProcessLookupError:
            fired = False
    process.communicate(timeout=60)
    return fired


def settle_down(t):
    """Until nobody of the killed run is left: a receiver notices the end of its input by itself."""
    vm("pid=$(cat /root/receiver); for _ in $(seq 300); do kill -0 $pid 2>/dev/null || exit 0; sleep 0.1; done; exit 1")


@test
def killed_anywhere_while_receiving_the_next_nightly_run_heals():
    planned, fired = 200 if bed.options.full else 5, 0
    chance = random.Random(bed.options.seed)
    of, t, image = source("s0"), Zvol("killed"), images["s0"]
    Path(bed.work, "pump").write_text(PUMP)
    newest = None
    for n in range(planned):
        # Every fourth time a first, whole stream to a new volume.
        if n % 4 == 3:
            t, newest = Zvol(f"killed{n}"), None
        image = changed(image, salt=n)
        of.snap(f"k{n}", image)
        who = ("sender", "ssh", "receiver")[n % 3]
        fired += kill_while_receiving(t, of.stream(f"k{n}", newest), who, chance)
        settle_down(t)
        # The next night has a new snapshot; now and then the same one is sent again.
        if chance.random() < 0.7:
            image = changed(image, salt=1000 + n)
            of.snap(f"k{n}a", image)
        newest = list(of.order)[-1]
        t.nightly(of, newest)
        t.at(image, newest)
        assert not receiving(t), "still receiving"
        of.keep(newest)
    print(f"  killed while receiving: {fired}/{planned}")
    assert fired >= 0.8 * planned, "too few kills struck a target that was receiving"


def killed_at(step, t, stream):
    """Holds a run up where it calls zfs so, and kills it there; the newest snapshot then, if it came so far, and what it said."""
    slow, flag = Path(bed.work, "slow"), Path(bed.work, f"flag.{time.monotonic_ns()}")
    slow.mkdir(exist_ok=True)
    (slow / "zfs").touch(0o755)
    (slow / "zfs").write_text(SLOW_ZFS.replace("STEP", step.replace(" ", "\\ ")))
    command = f"zvol-apply {t}; exec zfs-snapmark mark --committed" if "rename" in step else "exec zvol-apply --mark"
    process = start(f"{ssh(t, f'export SLOW={flag} PATH={slow}:$PATH;', command)} <{stream}".replace(
        f"PATH=/host{bed.options.bin}:$PATH", f"PATH={slow}:/host{bed.options.bin}:$PATH"))
    for _ in range(600):
        if flag.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    newest = t.snapshots()[-1] if flag.exists() else None
    vm(f"kill -9 $(cat /root/receiver); kill -9 $(cat {flag})", check=False)
    return newest, process.communicate(timeout=60)[0]


@test
def killed_between_commit_and_mark_the_next_nightly_run_heals():
    planned, fired = 52 if bed.options.full else 4, 0
    of, t = volume("unmarked", "s0")
    image, newest = images["s0"], "s0"
    for n in range(planned):
        image = changed(image, salt=n)
        of.snap(f"m{n}", image)
        # Held up where it names, holds, moves the hold on, or ends its record: this step is the one that sleeps.
        step = STEPS[n % len(STEPS)]
        at, out = killed_at(step, t, of.stream(f"m{n}", newest))
        fired += at is not None and (at.startswith("siphon-pending-") if "rename" in step else at == f"m{n}")
        # What is committed is committed: tonight's snapshot is a base, or is there already.
        again = n % 2 == 0
        if not again:
            image = changed(image, salt=2000 + n)
            of.snap(f"m{n}a", image)
        newest = list(of.order)[-1]
        said = t.nightly(of, newest)
        t.at(image, newest)
        assert not any(name.startswith("siphon-pending-") for name in t.snapshots()), f"{t.snapshots()} {out}{said}"
        assert not receiving(t) and t.get("volmode") == "none", "not let go"
        of.keep(newest)
    print(f"  killed between commit and mark: {fired}/{planned}")
    assert fired >= 0.8 * planned, "too few kills struck between commit and mark"


@test
def killed_on_its_way_back_or_at_its_beginning_the_next_nightly_run_heals():
    of, t = volume("on_its_way", "s0")
    names = list(images)
    for n, step in enumerate(("rollback *", "snapshot *siphon-check-*", "set siphon:receiving=* check=*", "destroy *siphon-check-*")):
        base, to = names[n], names[n + 1]
        # The check that stands is in the way, so the run that is cut has one.
        t.cut(of.stream(to, base))
        assert killed_at(step, t, of.stream(to, base))[0], f"it was not killed at {step}"
        t.nightly(of, to)
        t.at(images[to], to)


@test
def what_is_written_after_a_kill_between_commit_and_mark_is_not_given_up():
    of, t = volume("written_after", "s0")
    assert killed_at("hold *", t, of.stream("s1", "s0"))[0] == "s1", "it was not killed between commit and mark"
    t.write(65536, 4096)
    bed.refused(t.nightly(of, "s2", check=False), 4, "written-since")
    t.apply(of.stream("s2", "s1"), "--mark --rollback")
    t.at(images["s2"])


if __name__ == "__main__":
    main("zfs")
