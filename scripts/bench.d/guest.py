"""The part of gate d that runs in the guest: guest.py DIR-OF-TOOLS DIR-OF-INPUTS PAIRS. Prints costs as JSON."""
import json
import os
import subprocess
import sys
from pathlib import Path

from measure import Side, alternate

POOL, INPUTS = "bench", Path("/bench-inputs")
SYNC = ["zpool", "sync", POOL]


def main():
    tools, source, pairs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    gone()
    inputs(source)
    sh(f"zpool create -f -O compression=off -O mountpoint=none {POOL} /dev/ubda")
    try:
        size = (INPUTS / "one").stat().st_size
        costs = measure(tools + "/zvol-apply", size, pairs)
    finally:
        gone()
    print(json.dumps({"costs": {name: [(run.wall, run.cpu, run.peaks) for run in cost.runs] for name, cost in costs.items()}}))


def gone():
    """Neither pool nor inputs are there. udev may still look at a volume."""
    sh(f"for i in $(seq 20); do zpool list {POOL} && ! zpool destroy {POOL} || break; sleep 1; done; umount {INPUTS}", check=False)


def inputs(source):
    """Copies the inputs to the second disk: the host's files are slow to read from here."""
    sh(f"mkfs.ext4 -qF -m 0 /dev/ubdb && mkdir -p {INPUTS} && mount /dev/ubdb {INPUTS} && cp {source}/* {INPUTS} && sync")


def measure(apply, size, pairs):
    def fresh():
        destroy("whole", "new")
        settle()

    def made():
        """What zvol-apply does before its first write, dd's user does, too."""
        return ["sh", "-c", f"zfs create -s -V {size} -b 16k {POOL}/new && udevadm settle && {dd('one', 'new')} && {' '.join(SYNC)}"]

    def dd(name, volume):
        return f"dd if={INPUTS}/{name} of=/dev/zvol/{POOL}/{volume} bs=1M oflag=direct conv=fsync,notrunc status=none"

    def back_and_forth(volume):
        """From the one image to the other by turns; only the newest snapshot stays, as after a nightly run."""
        turns = {"at": "one"}

        def prepare():
            only_newest(volume)
            settle()
            turns["at"] = "two" if turns["at"] == "one" else "one"
            return turns["at"]
        return prepare

    ours, theirs = back_and_forth("ours"), back_and_forth("theirs")
    sh(f"{apply} --mark --no-hold {POOL}/ours <{INPUTS}/whole >/dev/null")
    sh(f"zfs create -s -V {size} -b 16k {POOL}/theirs && udevadm settle && {dd('one', 'theirs')} && zfs snapshot {POOL}/theirs@first")
    increment = Side([apply, "--mark", "--no-hold", f"{POOL}/ours"], then=SYNC)
    again = Side(["sh", "-c", ""], then=SYNC)

    def before_increment():
        increment.stdin = str(INPUTS / ("there" if ours() == "two" else "back"))

    def before_again():
        again.stages = [["sh", "-c", dd(theirs(), "theirs")]]
        sh(f"zfs snapshot {POOL}/theirs@at{os.urandom(4).hex()}")

    increment.before, again.before = before_increment, before_again
    nothing = Side([apply, "--mark", "--no-hold", f"{POOL}/empty"], stdin=empty(apply), then=SYNC, before=lambda: destroy("empty"))
    return alternate({
        "zvol-apply, new volume": Side([apply, "--mark", "--no-hold", f"{POOL}/whole"], stdin=INPUTS / "whole", then=SYNC, before=fresh),
        "zvol-apply, increment": increment,
        "zfs create, dd, new volume": Side(made(), before=fresh),
        "dd, over every block": again,
        "zvol-apply, empty stream": nothing,
    }, pairs)


def empty(apply):
    """The stream of an image without data."""
    path = INPUTS / "empty"
    sh(f"truncate -s 1M {INPUTS}/hole && {Path(apply).parent}/image-diff-stream {INPUTS}/hole >{path}")
    return path


def destroy(*volumes):
    for volume in volumes:
        sh(f"zfs destroy -r {POOL}/{volume}", check=False)


def only_newest(volume):
    names = sh(f"zfs list -H -o name -t snapshot -s createtxg -d 1 {POOL}/{volume}").split()
    for name in names[:-1]:
        sh(f"zfs destroy {name}")


def settle():
    """What was freed is free, so that it is not done while the other side is measured."""
    sh(f"zpool sync {POOL}; zpool wait -t free {POOL}; zpool sync {POOL}")


def sh(command, check=True):
    done = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f"{command}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


main()
