"""What the tests beside foreign tools share: RBD images of known content, and both ends in one shell.

    image = Rbd(content(5 << 20), "s0")           # an image, and a snapshot of it
    image.snap("s1", changed(image.now, 3 << 20))  # it becomes this, by writes, zeros and another size
    same(image.sum("s1"), sha256(image.at["s1"]))
"""
import functools
import hashlib
import itertools
import os
import random
from pathlib import Path

import bed
import nightly_lab
from bed import changed, run, same, sha256, vm
from nightly_lab import FEATURES, MiB

NUMBERS = itertools.count(1)
LINKED = "zvol-diff-stream,extent-digest,image-apply,image-diff-stream"


@functools.cache
def lab():
    """Both ends, as for the nightly lines; and what goes the other way."""
    found = nightly_lab.lab()
    vm(f"ln -sf /host{bed.options.bin}/{{{LINKED}}} /usr/bin/")
    return found


def sh(command, check=True, **more):
    """On the host: `nas COMMAND` runs it in the guest; any part of a pipe that fails is a failure."""
    lab()
    more.setdefault("timeout", 600)
    return run(f"set -eu -o pipefail; nas() {{ ssh nas \"PATH=/host{bed.options.bin}:\\$PATH; $*\"; }}; {command}", check, **more)


class Rbd:
    """An RBD image whose content is known at each snapshot."""

    def __init__(self, content=None, snapshot=None, features=FEATURES, name=None, **how):
        self.rbd, cluster = lab()
        self.pool = cluster.open_ioctx("rbd")
        self.name = name or f"io{next(NUMBERS)}-{os.getpid()}"
        self.path, self.at, self.now = f"rbd/{self.name}", {}, b""
        self.chance = random.Random(f"{bed.options.seed}/{self.name.split('-')[0]}")
        if content is not None:
            self.rbd.RBD().create(self.pool, self.name, len(content), old_format=False, features=features, **how)
            self.now = bytes(len(content))
            self.become(content)
        if snapshot:
            self.snap(snapshot)

    def __str__(self):
        return self.path

    def open(self, snapshot=None):
        return self.rbd.Image(self.pool, self.name, snapshot, read_only=snapshot is not None)

    def become(self, new):
        """Writes what differs; what became zero is freed, or written as zeros."""
        with self.open() as image:
            if len(new) != len(self.now):
                image.resize(len(new))
            old = self.now[:len(new)].ljust(len(new), b"\0")
            for offset, length in differences(old, new):
                piece = new[offset:offset + length]
                if any(piece) or self.chance.random() < 0.3:
                    image.write(piece, offset)
                else:
                    image.write_zeroes(offset, length)
        self.now = bytes(new)

    def snap(self, name, new=None):
        if new is not None:
            self.become(new)
        with self.open() as image:
            image.create_snap(name)
        self.at[name] = self.now
        return self

    def remove_snap(self, *names):
        with self.open() as image:
            for name in names:
                image.remove_snap(name)

    def snaps(self):
        with self.open() as image:
            return [snapshot["name"] for snapshot in image.list_snaps()]

    def sum(self, snapshot=None):
        """SHA-256, read by librbd."""
        sum = hashlib.sha256()
        with self.open(snapshot) as image:
            for at in range(0, image.size(), 4 * MiB):
                sum.update(image.read(at, min(4 * MiB, image.size() - at)))
        return sum.hexdigest()

    def holds(self, of, *snapshots):
        """Each of these snapshots (all, if none is named) holds what it holds in `of`, a dictionary of contents."""
        for name in snapshots or of:
            same(self.sum(name), sha256(of[name]), f"{self}@{name}")

    def data_objects(self):
        """Names of the RADOS objects that hold its content."""
        with self.open() as image:
            prefix = image.block_name_prefix()
        return sorted(found.key for found in self.pool.list_objects() if found.key.startswith(prefix + "."))


def differences(old, new, grain=4096):
    """Ranges that differ between two images of one size, in multiples of a grain; runs of zeros stand by themselves."""
    found = []
    for at in range(0, len(new), grain):
        piece = new[at:at + grain]
        if piece == old[at:at + grain]:
            continue
        zero = not any(piece)
        if found and found[-1][0] + found[-1][1] == at and found[-1][2] == zero:
            found[-1][1] += len(piece)
        else:
            found.append([at, len(piece), zero])
    return [(at, length) for at, length, _ in found]


def day(image, salt):
    """Scattered changes; half of them at single blocks."""
    chance, out = random.Random(f"{bed.options.seed}/{salt}"), bytearray(changed(image, salt=salt, changes=12))
    for _ in range(40):
        at = chance.randrange(len(out) // 4096 - 1) * 4096
        out[at:at + 4096] = chance.randbytes(4096)
    return bytes(out)


def file_sum(path):
    """SHA-256 of a file on the host."""
    return sha256(Path(path).read_bytes())


def at_mark(volume, mark, size):
    """SHA-256 of the first bytes of a snapshot of a volume, through a clone, past every cache."""
    return vm(nightly_lab.clone(volume, mark, nightly_lab.sha256(size)), timeout=600).out.strip()


def counted(done, planned):
    print(f"    {done} of {planned}", flush=True)
