#!/usr/bin/python3
"""The nightly lines on real systems: an RBD image, over ssh, onto a ZFS volume, and both are equal after each night.

tests/real/nightly.py [--full] [--only WORD] [--seed N]; prints a line for each promise. `n of N`: a sample without --full.
"""
import os
import sys

if sys.executable != "/usr/bin/python3":  # the system's has librbd's module
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])

import bed
from bed import main, run, same, vm
from nightly_lab import FEATURES, Image, MiB, clone, counted, in_guest, lab, test

# --- a Debian, for twelve generations

ROOT = 384 * MiB  # the file system; what lies behind it is free for raw writes
NIGHTS = 12

# A day in the file system: files go, files come, one grows, one is written in its middle, and fstrim tells the image.
DAY = """
mkdir -p /mnt/root; mount -o discard $device /mnt/root; cd /mnt/root
find usr -xdev -type f | sort | awk 'NR % 101 == DAY * 7 % 101' | xargs -r -d '\\n' rm -f
cp -a etc var/tmp/etc.DAY; rm -rf var/tmp/etc.$((DAY - 3)) var/tmp/new.$((DAY - 2))
head -c $((3000000 + DAY * 4321)) /dev/urandom >var/tmp/new.DAY
date >>var/log/days; dd if=/dev/urandom of=var/lib/dpkg/status bs=1000 seek=$((DAY * 3)) count=2 conv=notrunc status=none
mkdir -p home/user.DAY; ln -s ../user.1 home/user.DAY/link; chown -R 1000:1000 home/user.DAY
cd /; sync -f /mnt/root
[ $((DAY % 2)) = 0 ] || fstrim /mnt/root
umount /mnt/root
"""

FILES = """
e2fsck -fn $device
mkdir -p /mnt/copy; mount $device /mnt/copy
[ -e /mnt/copy/etc/passwd ] && [ -d /mnt/copy/usr/bin ] && [ "$(stat -c %u /mnt/copy/home/user.1)" = 1000 ]
find /mnt/copy -type f -print0 | xargs -0 cat | wc -c
umount /mnt/copy
"""


@test
def twelve_generations_of_a_debian_are_equal():
    # Before lab(): the bed's network has no mirror of Debian in it.
    root = run("scripts/lab/debian-root", cwd=bed.ROOT, timeout=900, check=False)
    if root.code == 77:
        raise bed.Skipped(root.err.strip())
    assert root.code == 0, root
    root = root.out.strip()
    print("    file system:", root.rsplit("/", 1)[-1], flush=True)
    lab()
    image = Image(create=False)
    run(f"rbd import --no-progress {root} {image.path}")
    image.resize(ROOT + 24 * MiB + 12345)
    nights = NIGHTS if bed.options.full else 2
    for day in range(1, nights + 1):
        if day > 1:
            in_guest(image, DAY.replace("DAY", str(day - 1)))
            # Shorter each fourth day, longer by an odd number on others.
            image.resize(image.size() + (-7_654_321 if day % 4 == 0 else 1_234_567 if day % 2 == 0 else 0))
            image.discards(2, start=ROOT)
        image.small_writes(60, start=ROOT)
        image.night()
    found = vm(clone(image.target, image.nights[-1], FILES), timeout=600).out
    assert int(found.split()[-1]) > 50 * MiB, found
    same(len(image.marks()), nights, "marks")
    same(image.setting("volmode"), "none", "volmode between the nights")
    counted(nights, NIGHTS)


# --- other shapes of images

def nights(image, count, work=None, **more):
    """A whole stream and `count - 1` increments, with writes, discards and what `work` does in between."""
    image.noise(MiB + 77, 9 * MiB)
    for day in range(count):
        if day:
            image.small_writes(12)
            image.discards(3, **more)
        if work:
            work(day)
        image.night()


def generations(short=3):
    """How many nights a shape of image has."""
    return 5 if bed.options.full else short


@test
def a_clone_with_a_parent_is_equal():
    parent = Image(20 * MiB + 4321)
    parent.noise(0, 14 * MiB)
    child = parent.child()
    child.night()  # nothing is its own yet

    def work(day):
        if day == 1:
            child.discard(4 * MiB, 4 * MiB)  # a whole object, over the parent's data
            child.resize(10 * MiB + 100)  # the parent's part is cut …
            child.resize(24 * MiB)  # … and does not come back
    nights(child, generations() - 1, work)


@test
def an_image_rolled_back_to_before_its_first_write_is_equal():
    """The clone reads as its parent again. (Ceph 16 reports this as data, with deep-flatten or without.)"""
    parent = Image(16 * MiB)
    parent.noise(0, 16 * MiB)
    child = parent.child()
    child.night()
    child.noise(3 * MiB, 3 * MiB)
    child.night()
    child.roll_back(child.nights[0])
    child.night()
    same(child.sum(child.nights[2]), child.sum(child.nights[0]), "it was rolled back")


@test
def shrunk_and_regrown_between_two_nights_is_equal():
    image = Image(24 * MiB)
    image.noise(0, 24 * MiB)
    image.night()
    image.resize(9 * MiB + 12345)
    image.resize(24 * MiB)
    image.night()
    image.resize(5 * MiB + 1)
    image.resize(30 * MiB + 7)
    image.noise(30 * MiB, 7)
    image.night()
    if bed.options.full:
        image.resize(0)
        image.resize(11 * MiB + 511)
        image.night()


@test
def a_shrunk_image_keeps_its_volume_and_regrows_as_zeros():
    """One step a night: what was cut off one night must not come back with the growth of another."""
    image = Image(24 * MiB)
    image.noise(0, 24 * MiB)
    image.night()
    volume = int(image.setting("volsize"))
    sizes = [10 * MiB + 4097, 17 * MiB + 3, 24 * MiB, 3 * MiB + 513, 40 * MiB + 1_234_567]
    for size in sizes if bed.options.full else sizes[:2] + sizes[-1:]:
        image.resize(size)
        image.night()
        same(int(image.marks()[-1][2]), size, "size in the mark")
        now = int(image.setting("volsize"))
        assert now >= volume and (size > volume or now == volume), f"volsize {now} of {size} bytes"


@test
def a_striped_image_is_equal():
    image = Image(40 * MiB + 777, stripe_unit=64 << 10, stripe_count=8, features=FEATURES | 2)

    def work(day):
        if day == 2:
            image.resize(21 * MiB + 5)
            image.resize(35 * MiB)
    nights(image, generations(), work, unit=64 << 10)


@test
def an_image_in_a_namespace_with_a_data_pool_is_equal():
    rbd, cluster = lab()
    if not cluster.pool_exists("nightly-data"):
        cluster.create_pool("nightly-data")
        rbd.RBD().pool_init(cluster.open_ioctx("nightly-data"), True)
    pool = cluster.open_ioctx("rbd")
    if not rbd.RBD().namespace_exists(pool, "tenant"):
        rbd.RBD().namespace_create(pool, "tenant")
    image = Image(16 * MiB + 99, namespace="tenant", data_pool="nightly-data")
    nights(image, generations(2))
    same([line[3] for line in image.states()], image.nights, "states")


@test
def fresh_sparse_objects_are_equal_and_cost_what_was_written():
    """Scattered first writes: Ceph reports each object from its beginning to its end."""
    image = Image(64 * MiB)
    image.night()
    image.small_writes(100)
    night = image.night()
    data = int(night.out.split('"data_bytes":')[1].split(",")[0])
    assert data <= 100 * 8192 * 1.05, f"{data} bytes of data for 100 writes of 4 KiB across two blocks each"


@test
def without_an_object_map_it_is_equal():
    image = Image(20 * MiB + 1, features=1 | 4)
    nights(image, generations(2))


@test
def an_object_map_switched_off_and_on_again_is_not_believed():
    image = Image(20 * MiB)
    nights(image, 1)
    with image.open() as it:
        it.update_features(8 | 16, False)
    image.small_writes(10)
    image.night()
    with image.open() as it:
        it.update_features(8 | 16, True)
    image.small_writes(10)
    image.discards(2)
    image.night()


@test
def ragged_zeros_are_equal():
    """Zeros that begin and end inside the volume's blocks: 4 KiB grain in the stream, 16 KiB blocks below."""
    image = Image(8 * MiB)
    image.noise(0, 8 * MiB)
    image.night()
    with image.open() as it:
        for offset, length in ((4096, 40960), (65536, 8192), (86016, 8192), (143360, 16384), (262656, 102400),
                               (4 * MiB - 12288, 20480), (8 * MiB - 20480, 20480), (1 * MiB + 512, 1024)):
            it.write_zeroes(offset, length)
        it.discard(5 * MiB + 4096, 200 << 10)
    image.night()


import nightly_bad  # noqa: E402,F401 the promises about bad nights

if __name__ == "__main__":
    main("ceph", "zfs")
