"""What the nightly tests share: images, the nightly lines as they are documented, and a look at both sides.

    @test
    def no_base_left_on_the_source_is_no_common():
        image = Image(16 * MiB)
        image.noise(0, 4 * MiB)                  # a day's work
        image.night()                            # the nightly lines; both sides are equal
        image.remove_snapshot(image.nights[0])
        image.bad_night(4, "no-common")          # the nightly lines; refused, and the target is as it was
        image.by_hand("--replace")               # as the refusal advises; both sides are equal
"""
import contextlib
import functools
import hashlib
import itertools
import os
import random
import re
import subprocess
import time
from pathlib import Path

import bed
from bed import refused, run, same, vm

MiB = 1 << 20

# The contract. Nothing in it knows that it is tested: `date` and `ssh` come from a directory on PATH.
LINES = """set -eu -o pipefail
snap=$(date -u +%Y-%m-%dT%H%MZ); rbd snap create "rbd/vm1@$snap"
base=$(rbd-diff-stream --states rbd/vm1 | ssh nas zfs-snapmark common tank/vm1)     # empty only for a new target; an error stops here
rbd-diff-stream ${base:+--from "$base"} "rbd/vm1@$snap" | ssh nas zvol-apply --mark tank/vm1
"""

# In the guest: SHA-256 of the first SIZE bytes of a device, past every cache of it.
HASH = """
import hashlib, mmap, os, sys
device, size, at = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT), int(sys.argv[2]), 0
block, sum = mmap.mmap(-1, 1 << 20), hashlib.sha256()
while at < size:
    got = os.preadv(device, [block], at)
    assert got > 0, "the device ends at %d" % at
    sum.update(memoryview(block)[:min(got, size - at)])
    at += got
print(sum.hexdigest())
"""

SSH = """#!/bin/bash
# GATE: the stream waits until that file is there. DEAD: no connection.
if [ -n "${GATE:-}" ] && [[ "$*" = *zvol-apply* ]]; then
  : >"$GATE.$NIGHT"
  until [ -e "$GATE" ]; do sleep 0.05; done
fi
exec /usr/bin/ssh -F CONFIG ${DEAD:+-o ControlPath=none -o Port=1} "$@"
"""


@functools.cache
def lab():
    """Moves into the bed's network, connects, prepares both ends; gives librbd's module and a pool."""
    bed.enter_ceph()
    there = os.environ["LAB_DIR"]
    programs, config = Path(bed.work, "bin"), Path(bed.work, "ssh_config")
    programs.mkdir()
    config.write_text(Path(there, "ssh_config").read_text().replace("Host vm\n", "Host nas\n"))
    for name, text in {"ssh": SSH.replace("CONFIG", str(config)), "date": '#!/bin/sh\necho "$NIGHT"\n'}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    os.environ["PATH"] = f"{programs}:{bed.options.bin}:{os.environ['PATH']}:/usr/sbin"
    Path(bed.work, "hash.py").write_text(HASH)
    bed.tank()
    vm(f"ln -sf /host{bed.options.bin}/{{zvol-apply,zfs-snapmark}} /usr/bin/; modprobe rbd")
    import rados
    import rbd
    cluster = rados.Rados(conffile=os.environ["CEPH_CONF"])
    cluster.connect()
    return rbd, cluster


MADE = []  # the images of the test that runs


def test(function):
    """Marks a function as a test, and removes the images that it made; after a failure they stay, to be looked at."""
    @functools.wraps(function)
    def whole_story():
        MADE.clear()
        function()
        for image in reversed(MADE):  # children before their parents
            image.drop()
    return bed.test(whole_story)


NUMBERS = itertools.count(1)
FEATURES = 1 | 4 | 8 | 16 | 32  # layering, exclusive-lock, object-map, fast-diff, deep-flatten


class Image:
    """An RBD image and the volume it is sent to every night."""

    def __init__(self, size=24 * MiB, *, namespace="", name=None, create=True, **how):
        self.rbd, cluster = lab()
        self.pool = cluster.open_ioctx("rbd")
        self.pool.set_namespace(namespace)
        number = next(NUMBERS)
        self.name, self.namespace = name or f"vm{number}-{os.getpid()}", namespace
        self.target = f"tank/vm{number}-{os.getpid()}"
        self.chance = random.Random(f"{bed.options.seed}/{number}")
        self.nights = []
        self.day = 0
        MADE.append(self)
        if create:
            self.create(size, **how)

    @property
    def path(self):
        return "/".join(filter(None, ["rbd", self.namespace, self.name]))

    def at(self, night):
        return f"{self.path}@{night}"

    def open(self, snapshot=None):
        return self.rbd.Image(self.pool, self.name, snapshot, read_only=snapshot is not None)

    def create(self, size, **how):
        how.setdefault("features", FEATURES)
        self.rbd.RBD().create(self.pool, self.name, size, old_format=False, **how)

    def remove(self):
        """Removes the image, its snapshots first."""
        with self.open() as image:
            for snapshot in list(image.list_snaps()):
                if image.is_protected_snap(snapshot["name"]):
                    image.unprotect_snap(snapshot["name"])
                image.remove_snap(snapshot["name"])
        self.rbd.RBD().remove(self.pool, self.name)

    def drop(self):
        """Removes the image, if it is still there, and the volume."""
        if self.name in self.rbd.RBD().list(self.pool):
            self.remove()
        vm(f"""newest=$(zfs list -Ht snapshot -o name -s createtxg -d 1 {self.target} | tail -n 1)
            zfs release siphon $newest; zfs destroy -r {self.target}""", check=False)

    def child(self):
        """A clone of the image as it is now."""
        child = Image(create=False)
        self.snapshot("golden")
        with self.open() as image:
            image.protect_snap("golden")
        self.rbd.RBD().clone(self.pool, self.name, "golden", child.pool, child.name, features=FEATURES)
        return child

    # --- a day's work

    def noise(self, offset, length):
        with self.open() as image:
            image.write(self.chance.randbytes(length), offset)

    def resize(self, size):
        with self.open() as image:
            image.resize(size)

    def discard(self, offset, length):
        with self.open() as image:
            image.discard(offset, length)

    def snapshot(self, name):
        with self.open() as image:
            image.create_snap(name)

    def remove_snapshot(self, *names):
        with self.open() as image:
            for name in names:
                image.remove_snap(name)

    def roll_back(self, name):
        with self.open() as image:
            image.rollback_to_snap(name)

    def small_writes(self, count, start=0, end=None):
        with self.open() as image:
            end = end or image.size()
            for _ in range(count):
                image.write(self.chance.randbytes(4096), self.chance.randrange(start, end - 4096))

    def discards(self, count, start=0, end=None, unit=4 * MiB):
        """Each begins before an object's edge and ends behind it."""
        with self.open() as image:
            end = end or image.size()
            edges = list(range(start - start % -unit, end, unit))[1:]
            for _ in range(count):
                edge = self.chance.choice(edges)
                first = max(start, edge - self.chance.randrange(1, 3 * MiB))
                last = min(end, edge + self.chance.randrange(1, 3 * MiB))
                self.chance.choice([image.discard, image.discard, image.write_zeroes])(first, last - first)

    # --- a night

    def script(self):
        return LINES.replace("rbd/vm1", self.path).replace("tank/vm1", self.target)

    def night_name(self):
        self.day += 1
        return f"2026-11-{self.day:02}T0200Z"

    def start(self, **environment):
        """The nightly lines, begun."""
        name = self.night_name()
        environment = {**os.environ, "NIGHT": name, **environment}
        return name, subprocess.Popen(["bash", "-c", self.script()], env=environment, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def lines(self, check=True, **environment):
        """The nightly lines, as written."""
        name, started = self.start(**environment)
        out, err = started.communicate(timeout=600)
        result = bed.Result(self.script(), started.returncode, out, err)
        assert not check or (result.code == 0 and '"marked":true' in out), result
        self.nights.append(name)
        return result

    def night(self):
        """The nightly lines; then both sides are equal and the volume is at that mark. In a short run only the first increment
        of an image is asked for the latter."""
        result = self.lines()
        closely = bed.options.full or len(self.nights) == 2
        marks = self.equal(self.nights[-1], first=f"zfs-snapmark verify {self.target}" if closely else ":")
        same(marks[-1][3], self.nights[-1], "newest mark")
        return result

    def bad_night(self, code, word):
        """The nightly lines are refused; the target is as it was."""
        with self.untouched():
            return refused(self.lines(check=False), code, word)

    @contextlib.contextmanager
    def untouched(self):
        """Whatever happens inside, the target stays as it was: its marks, and nothing written since."""
        marks = self.marks()
        yield
        same(self.marks(first=f"zfs-snapmark verify {self.target}"), marks, "marks")

    def by_hand(self, options, *base):
        """The newest night once more, by hand, as a refusal advised; then both sides are equal."""
        self.send(*base, self.at(self.nights[-1]), options=options)
        self.equal(self.nights[-1])

    def send(self, *arguments, options="", check=True):
        """A transfer by hand."""
        return run(f"set -eu -o pipefail; rbd-diff-stream {' '.join(arguments)} | ssh nas zvol-apply --mark {options} {self.target}",
                   check=check, timeout=600)

    def states(self):
        """id, seconds, bytes, name of each state that can be sent."""
        return [line.split("\t") for line in run(f"rbd-diff-stream --states {self.path}").out.splitlines()[:-1]]

    def marks(self, first=":"):
        """id, seconds, bytes, name of each mark, once a command for the guest succeeded."""
        listed = vm(f"set -e; {first} >&2; zfs-snapmark list {self.target}").out
        return [line.split("\t") for line in listed.splitlines()[:-1]]

    def size(self, night=None):
        with self.open(night) as image:
            return image.size()

    def setting(self, name):
        """What ZFS says of the volume."""
        return vm(f"zfs get -Hpo value {name} {self.target}").out.strip()

    def sum(self, night):
        """SHA-256 of the RBD snapshot, to its last byte."""
        sum = hashlib.sha256()
        with self.open(night) as image:
            for at in range(0, image.size(), 4 * MiB):
                sum.update(image.read(at, min(4 * MiB, image.size() - at)))
        return sum.hexdigest()

    def equal(self, night, mark=None, first=":"):
        """A command for the guest succeeds; the mark holds what the RBD snapshot holds, byte for byte, and knows its exact size."""
        state, size = {line[3]: line for line in self.states()}[night], self.size(night)
        # In one command: to begin one in the guest is dear.
        look = f"set -e; {first} >&2; zfs-snapmark list {self.target}\n{clone(self.target, mark or night, sha256(size))}"
        *marks, _, there = vm(look, timeout=600).out.splitlines()
        marks = [line.split("\t") for line in marks]
        found = {line[3]: line for line in marks}[mark or night]
        same(found[0], state[0], "id of the mark")
        same(int(found[2]), size, "size in the mark")
        same(there, self.sum(night), f"SHA-256 of {self.at(night)}")
        return marks


def sha256(size):
    """A command for the guest: the SHA-256 of the first bytes of $device."""
    return f"python3 {bed.work}/hash.py $device {size}"


def clone(target, mark, command):
    """A command for the guest that looks at a mark through a clone, as $device."""
    return f"""set -e
zfs clone -o volmode=dev {target}@{mark} tank/look
trap 'zfs destroy tank/look || {{ sleep 1; zfs destroy tank/look; }}' EXIT
device=/dev/zvol/tank/look
udevadm settle; for n in {{1..100}}; do [ ! -b $device ] || break; sleep 0.1; done
{command}"""


def in_guest(image, command):
    """Runs a command in the guest with the image mapped by its kernel, as $device."""
    return vm(f"""set -e
echo "$0 name=admin,secret=$1 rbd {image.name} -" >/sys/bus/rbd/add_single_major
trap 'echo 0 >/sys/bus/rbd/remove_single_major' EXIT
device=/dev/rbd0; for n in {{1..100}}; do [ ! -b $device ] || break; sleep 0.1; done
{command}""".replace("$0", os.environ["CEPH_MON"]).replace("$1", os.environ["CEPH_ADMIN_KEY"]), timeout=600)


def wait_for(what, seconds=60):
    """Until it is true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def counted(done, planned):
    print(f"    {done} of {planned}", flush=True)


def word(result):
    """The class word of the last message."""
    found = re.findall(r"\[([a-z-]+)\]$", result.err, re.M)
    return found[-1] if found else None
