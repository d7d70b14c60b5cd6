"""Gate g: a night of forty images onto the guest, against one after another, and against a loop of export-diff and import-diff."""
import os
import random
import re
import subprocess
from pathlib import Path

from ceph import inside, rbd
from measure import MIB, Cost, Side, alternate

POOL, THEIRS, PLACE = "bench-fleet", "bench-theirs", "benchfleet"
TICK = os.sysconf("SC_CLK_TCK")

# What people write today: the increment since yesterday's snapshot, into a copy of the image in another pool. It is run on the
# NAS by the rbd program of this machine, whose root the guest sees.
LOOP = r"""set -eu -o pipefail
night=$1 before=$2
for image in $(rbd ls POOL); do
  rbd snap create "POOL/$image@$night" 2>/dev/null
  rbd export-diff --no-progress ${before:+--from-snap "$before"} "POOL/$image@$night" - |
    SSH vm "chroot /host rbd -c CONF import-diff --no-progress - THEIRS/$image" >/dev/null
  [ -z "$before" ] || rbd snap rm --no-progress "POOL/$image@$before"
done
"""


def nights(options, report):
    """One pool of images, a day's change, and the three ways to bring it over."""
    count, size, change = (6, 32 * MIB, MIB) if options.quick else (40, 256 * MIB, 4 * MIB)
    fleet = Fleet(options, count, size, change)
    try:
        report.head(f"g: a night of {count} images over ssh into the guest, {change / MIB:g} MiB of changes in each, 4 KiB to 256 KiB at a place")
        report.note("CPU s: this machine's processes, the shared ssh connection, the OSD, and the guest's one processor, together; rbd_cache off "
                    "here, on in the loop (rbd's default); both marks and snapshots are durable")
        costs = alternate({
            "siphon-all -P 4": fleet.side(fleet.siphon("p4", 4)),
            "siphon-all, one after another": fleet.side(fleet.siphon("p1", 1)),
            "rbd export-diff | ssh | import-diff": fleet.side(fleet.loop),
        }, options.pairs)
        report.costs(costs)
        four, one, loop = costs.values()
        report.at_most("g -P 4: wall, of one after another", four.median("wall") / one.median("wall"), 1.0, "x", band=False)
        report.at_most("g -P 4: wall, of the loop", four.median("wall") / loop.median("wall"), 1.0, "x", band=False)
    finally:
        fleet.gone()


class Fleet:
    def __init__(self, options, count, size, change):
        self.there, self.size, self.change = os.environ["LAB_DIR"], size, change
        self.ssh = f"ssh -F {self.there}/ssh_config"
        self.bin, self.scripts = options.bin, options.root / "scripts"
        self.images = [f"vm{number:02}" for number in range(count)]
        self.days, self.chance = 0, random.Random(1)
        self.loops = []
        self.gone()
        for pool in (POOL, THEIRS):
            subprocess.run(inside("ceph", "osd", "pool", "create", pool, "8"), check=True, capture_output=True)
            subprocess.run(inside("rbd", "pool", "init", pool), check=True, capture_output=True)
        for image in self.images:
            rbd("create", "--size", f"{size}B", f"{POOL}/{image}")
            rbd("create", "--size", f"{size}B", f"{THEIRS}/{image}")
        # Not from this machine's files, which are slow to read from there.
        tools = " ".join(f"/host{self.bin}/{tool}" for tool in ("zfs-snapmark", "zvol-apply"))
        self.guest(f"cp {tools} /usr/bin")
        self.guest(f"zpool create -f -O compression=off -O mountpoint=none {PLACE} /dev/ubda; zfs create {PLACE}/p1; zfs create {PLACE}/p4")

    def gone(self):
        self.guest(f"for n in 1 2 3 4 5; do zpool list {PLACE} && ! zpool destroy {PLACE} || break; sleep 1; done", check=False)
        for pool in (POOL, THEIRS):
            subprocess.run(inside("ceph", "osd", "pool", "rm", pool, pool, "--yes-i-really-really-mean-it"), capture_output=True)

    def guest(self, command, check=True):
        done = subprocess.run([*self.ssh.split(), "vm", command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if check and done.returncode:
            raise SystemExit(f"bench: in the guest: {command}\n{done.stderr}")
        return done.stdout

    def day(self):
        """The images change, once for all rivals."""
        self.days += 1
        for image in self.images:
            script = bytearray(b"rbd diff v1\ns" + self.size.to_bytes(8, "little"))
            left = self.change
            while left > 0:
                length = min(left, self.chance.choice((4096, 4096, 16384, 65536, 262144)))
                offset = self.chance.randrange((self.size - length) // 4096) * 4096
                script += b"w" + offset.to_bytes(8, "little") + length.to_bytes(8, "little") + self.chance.randbytes(length)
                left -= length
            rbd("import-diff", "--no-progress", "-", f"{POOL}/{image}", input=bytes(script) + b"e")

    def side(self, command):
        return Night(self, command)

    def siphon(self, place, parallel):
        def command():
            return inside("env", f"PATH={self.bin}:{self.scripts}:{os.environ['PATH']}", f"SIPHON_SSH={self.ssh}", self.scripts / "siphon-all",
                          "-P", parallel, POOL, "vm", f"{PLACE}/{place}")
        return command

    def loop(self):
        self.loops.append(f"night{len(self.loops)}")
        before = self.loops[-2] if len(self.loops) > 1 else ""
        text = LOOP.replace("THEIRS", THEIRS).replace("POOL", POOL).replace("SSH", self.ssh).replace("CONF", os.environ["CEPH_CONF"])
        return inside("bash", "-c", text, "loop", self.loops[-1], before)

    def elsewhere(self):
        """CPU seconds of who is not a child of ours: the shared connection, the OSD, the guest."""
        check = subprocess.run([*self.ssh.split(), "-O", "check", "vm"], capture_output=True, text=True).stderr
        pids = re.findall(r"pid=(\d+)", check) + [Path(self.there, "ceph/run/osd.0.pid").read_text().strip()]
        ticks = 0
        for pid in pids:
            fields = Path("/proc", pid, "stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        guest = self.guest("head -n 1 /proc/stat").split()[1:]
        return ticks / TICK + sum(int(guest[n]) for n in (0, 1, 2, 5, 6)) / 100


class Night(Side):
    """One rival: a command that is another one each night."""

    def __init__(self, fleet, command):
        super().__init__()
        self.fleet, self.command, self.nights = fleet, command, 0

    def run(self):
        # The first of a round makes the day.
        self.nights += 1
        if self.nights > self.fleet.days:
            self.fleet.day()
        self.fleet.guest(f"zpool sync {PLACE}")
        self.stages = [self.command()]
        before = self.fleet.elsewhere()
        cost = super().run()
        return Cost(cost.wall, cost.cpu + self.fleet.elsewhere() - before, cost.peaks)
