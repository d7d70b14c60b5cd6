#!/usr/bin/python3
"""rbd-group-snap on a real cluster: snapshots of one moment, while somebody writes.

tests/real/group_snap.py [--full] [--only WORD] [--seed N] [--bin DIR]
"""
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

if sys.executable != "/usr/bin/python3":  # the system's has librbd's module
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])

import bed
from bed import main, refused, run, same
from rbd_target import Image, MiB, librbd, monitor, test, wait_for  # noqa: F401

SNAPSHOTS = 30

# A client of its own: step n writes n to the first image, and when that is durable n to the second, and so on.
WRITER = """
import os, rados, rbd, struct, sys
cluster = rados.Rados(conffile=os.environ["CEPH_CONF"])
cluster.connect()
pool = cluster.open_ioctx("rbd")
images = [rbd.Image(pool, name) for name in sys.argv[1:]]
step = 0
while True:
    step += 1
    for image in images:
        image.write(struct.pack("<Q", step) + bytes(504), 0)
        image.flush()
    if step % 50 == 1:
        print(step, flush=True)
"""


class Group:
    """A group of images, and who writes to them."""

    def __init__(self, name, count=2, size=8 * MiB, **how):
        self.name = f"{name}-{os.getpid()}"
        self.images = [Image().create(size, **how) for _ in range(count)]
        librbd().RBD().group_create(self.images[0].io, self.name)
        self.group = librbd().Group(self.images[0].io, self.name)
        for image in self.images:
            self.group.add_image(image.io, image.name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        librbd().RBD().group_remove(self.images[0].io, self.name)

    def snap(self, name, options="", check=True):
        return run(f"{bed.options.bin}/rbd-group-snap {options} rbd/{self.name}@{name}", check=check)

    def counters(self, name):
        found = []
        for image in self.images:
            with image.look(name) as at:
                found.append(struct.unpack("<Q", at.read(0, 8))[0])
        return found

    def snapshots(self):
        return [[snap["name"] for snap in image.look().list_snaps()] for image in self.images]


class Writer:
    """The client that writes, in a process of its own."""

    def __init__(self, group):
        script = Path(bed.work, "writer.py")
        script.write_text(WRITER)
        self.process = subprocess.Popen(["/usr/bin/python3", script, *(image.name for image in group.images)], stdout=subprocess.PIPE)

    def __enter__(self):
        assert self.process.stdout.readline(), "the writer ended"
        return self

    def __exit__(self, *_):
        assert self.process.poll() is None, "the writer ended"
        self.process.kill()
        self.process.communicate()


def is_one_moment(counters):
    """Each image is at the step of the one before it, or one step behind; so is the last behind the first."""
    return counters == sorted(counters, reverse=True) and counters[0] - counters[-1] <= 1


@test
def snapshots_of_a_group_are_of_one_moment():
    count = SNAPSHOTS if bed.options.full else 8
    waited, before = [], 0
    with Group("moment") as group, Writer(group):
        for number in range(count):
            # The writer goes on in between, or nothing would be shown.
            wait_for(lambda: struct.unpack("<Q", group.images[0].look().read(0, 8))[0] > before)
            waited.append(json.loads(group.snap(f"s{number}", "--json").out)["seconds_held"])
            counters = group.counters(f"s{number}")
            assert is_one_moment(counters) and counters[0] > before, f"snapshot {number}: {counters}, before {before}"
            before = counters[0]
        # The control: without the locks it does not hold.
        broken = []
        for number in range(SNAPSHOTS):
            run(" && ".join(f"rbd snap create {image.path}@c{number} 2>/dev/null" for image in group.images))
            counters = group.counters(f"c{number}")
            if not is_one_moment(counters):
                broken.append(counters)
                break
        assert broken, "plain snapshots in a row are of one moment, too: the test shows nothing"
    print(f"    {count} of {SNAPSHOTS}; {before} steps; writers waited at most {max(waited):.3f} s; plain snapshots: {broken[0]}", flush=True)


@test
def three_images_without_one_of_them():
    with Group("three", 3) as group:
        left = group.images[1].path
        said = group.snap("s", f"--without {left} --without rbd/another --dry-run").out.split()
        same(group.snapshots(), [[], [], []], "after --dry-run")
        same(group.snap("s", f"--without {left}").out.split(), said)
        same(sorted(said), sorted(f"{image.path}@s" for image in group.images if image.path != left))
        same(group.snapshots(), [["s"], [], ["s"]])
        # They are states that can be sent.
        same(run(f"{bed.options.bin}/rbd-diff-stream --states {group.images[0].path}").out.split("\t")[3].split("\n")[0], "s")


@test
def one_that_cannot_be_taken_takes_the_others_away():
    with Group("quota", 3) as group:
        for image in group.images:
            image.snap("of-others")
        # The last one in the order of the locks, so that there are others before it.
        last = sorted(group.images, key=lambda image: image.name)[-1]
        run(f"rbd snap limit set --limit 1 {last.path}")
        result = group.snap("s", check=False)
        assert result.code != 0 and f"error: {last.path}: taking the snapshot s" in result.err, result
        same(group.snapshots(), [["of-others"]] * 3)
        run(f"rbd snap limit clear {last.path}")
        group.snap("s")


@test
def what_cannot_be_of_one_moment_is_refused_by_name():
    with Group("plain", features=1) as group:
        result = refused(group.snap("s", check=False), 4, "unsupported")
        assert f"{sorted(image.path for image in group.images)[0]}: the image has no exclusive lock" in result.err, result
        same(group.snapshots(), [[], []])
    with Group("taken") as group:
        group.images[1].snap("s")
        refused(group.snap("s", check=False), 4, "exists")
        same(group.snapshots(), [[], ["s"]])
        refused(group.snap("t", " ".join(f"--without {image.path}" for image in group.images), check=False), 4, "not-found")
    refused(run(f"{bed.options.bin}/rbd-group-snap rbd/nothing@s", check=False), 4, "not-found")
    refused(run(f"{bed.options.bin}/rbd-group-snap rbd/nothing", check=False), 2, "usage")


@test
def a_lock_that_is_not_given_away_is_busy():
    with Group("busy") as group:
        with group.images[1].open() as holder:
            holder.lock_acquire(librbd().RBD_LOCK_MODE_EXCLUSIVE)
            refused(group.snap("s", check=False), 6, "busy")
            same(group.snapshots(), [[], []])
            # It has given back what it took.
            group.images[0].noise(0, MiB)
        group.snap("s")


@test
def a_group_in_a_namespace():
    pool = Image().io
    if not librbd().RBD().namespace_exists(pool, "tenant"):
        librbd().RBD().namespace_create(pool, "tenant")
    image = Image(namespace="tenant").create(MiB)
    librbd().RBD().group_create(image.io, "g")
    librbd().Group(image.io, "g").add_image(image.io, image.name)
    same(run(f"{bed.options.bin}/rbd-group-snap rbd/tenant/g@s").out, f"{image.path}@s\n")
    librbd().RBD().group_remove(image.io, "g")


if __name__ == "__main__":
    main("ceph")
