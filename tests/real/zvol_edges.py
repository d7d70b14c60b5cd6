#!/usr/bin/python3
"""The volume as a device: zeros, sizes, space, and who else has it open."""
import contextlib
import time

import bed
from bed import changed, content, main, refused, same, test, vm
from zvol import NODE, SIZE, Source, Zvol, half_way, images, source, volume

ODD = 10_485_761
BLOCKS = (16384, 65536)


def prepared(*snapshots):
    """A source with these images: s0, s1 …"""
    source("s0")
    of = Source(f"edge{time.monotonic_ns()}")
    for n, image in enumerate(snapshots):
        of.snap(f"s{n}", image)
    return of


def ragged(image, block):
    """The image with zeros that begin and end in the middle of blocks, each way there is."""
    out = bytearray(image)
    for n, (lead, length) in enumerate([(4096, 4096), (4096, block), (0, block + 4096), (block - 4096, 8192),
                                        (4096, 3 * block), (block - 4096, 3 * block + 8192), (0, 4096)]):
        start = n * 8 * block + lead
        out[start:start + length] = bytes(length)
    out[len(out) - 5000:] = bytes(5000)
    return bytes(out)


# --- zeros

@test
def a_whole_stream_defines_every_byte_of_a_volume_full_of_ff():
    image = content(ODD)
    of = prepared(image)
    for block in BLOCKS if bed.options.full else BLOCKS[1:]:
        t = Zvol(f"ff{block}")
        t.sh(f"zfs create -s -V 12M -b {block} {{t}}")
        t.write(0, 12 << 20, 0xFF)
        refused(t.apply(of.stream("s0"), check=False), 4, "foreign")
        t.apply(of.stream("s0"), "--mark --replace")
        t.at(image)


@test
def the_remains_of_a_cut_whole_stream_are_gone():
    old = content(ODD)
    new = bytearray(changed(old, salt=1))
    new[1 << 20:4 << 20] = bytes(3 << 20)
    of = prepared(old, bytes(new))
    t = Zvol("remains").cut(of.stream("s0"), 0.9)
    t.nightly(of, "s1")
    t.at(bytes(new))


@test
def ragged_zeros_are_exact():
    for block in BLOCKS if bed.options.full else BLOCKS[:1]:
        full = bytes(content(2 << 20).replace(b"\0", b"\1")) * 3
        images_here = [full, ragged(full, block), full, ragged(full, 4 * block)]
        of, t = prepared(*images_here), Zvol(f"ragged{block}")
        for n, image in enumerate(images_here):
            t.apply(of.stream(f"s{n}", f"s{n - 1}" if n else None), f"--mark -b {block}")
            t.at(image)
        same(t.get("volblocksize"), str(block), "volblocksize")


# --- sizes

@test
def odd_sizes_grow_shrink_and_grow_again():
    a = content(ODD)
    b = changed(a, ODD + 4097, salt=2)
    c = changed(b, 5_000_001, salt=3)
    d = changed(c, ODD + 70_000, salt=4)
    of = prepared(a, b, c, d)
    # Without --shrink nightly.py does the same.
    for option in ("", "--shrink") if bed.options.full else ("--shrink",):
        t = Zvol(f"odd{option}")
        for n, image in enumerate((a, b, c, d)):
            t.apply(of.stream(f"s{n}", f"s{n - 1}" if n else None), f"--mark {option}")
            t.at(image)
            if n == 2:
                size = 5_013_504 if option else 10_502_144
                same(int(t.get("volsize")), size, "volsize")


@test
def what_was_cut_off_between_two_states_does_not_come_back():
    """The image shrank and grew again between two snapshots: a source sends what was cut off as zero."""
    a = content(ODD)
    b = a[:3_000_000] + bytes(ODD - 3_000_000)
    of, t = prepared(a, b), Zvol("regrown")
    for to in ("s0", "s1"):
        t.nightly(of, to)
    t.at(b)


@test
def a_volume_grown_by_hand_is_what_it_was():
    old = content(SIZE).replace(b"\0", b"\1")
    of, t = prepared(old, changed(old, salt=1)), Zvol("grown")
    t.apply(of.stream("s0"))
    t.sh("zfs set volsize=8M {t}")
    t.nightly(of, "s1")
    t.at(of.images["s1"])
    # ZFS sends holes of no known age once more where their pointers were rewritten, and that cannot be told from freed data.
    of, t = volume("grown_holes", "s1")
    t.sh("zfs set volsize=8M {t}")
    if t.nightly(of, "s2", check=False).code:
        refused(t.nightly(of, "s2", check=False), 4, "written-since")
        t.apply(of.stream("s2", "s1"), "--mark --rollback")
    t.at(images["s2"])


@test
def a_volume_shrunk_by_hand_is_not_what_it_was():
    # Without holes: a hole that is sent once more, which ZFS does, would give it away.
    old = content(SIZE).replace(b"\0", b"\1")
    of, t = prepared(old, changed(old, salt=1)), Zvol("shrunk")
    t.apply(of.stream("s0"))
    t.sh("zfs set volsize=1M {t}")
    same(t.sh("zfs-snapmark verify {t}", check=False).code, 5, "verify")
    refused(t.nightly(of, "s1", check=False), 4, "written-since")
    t.sh("zfs set volsize=4M {t}")
    refused(t.nightly(of, "s1", check=False), 4, "written-since")
    t.apply(of.stream("s1", "s0"), "--mark --rollback")
    t.at(of.images["s1"])


# --- other users of the device

@test
def the_device_is_hidden_between_runs_unless_told_otherwise():
    of = source()
    t, shown = Zvol("hide"), Zvol("show")
    node = "udevadm settle; test -e /dev/zvol/{t}"
    t.apply(of.stream("s1"))
    assert t.get("volmode") == "none" and t.sh(node, check=False).code, "still there"
    t.cut(of.stream("s2", "s1"))
    assert t.get("volmode") == "none" and t.sh(node, check=False).code, "still there after a refusal"
    t.nightly(of, "s2")
    t.at(images["s2"])
    shown.apply(of.stream("s1"), "--mark -o volmode=dev")
    shown.sh(node)
    for volmode in ("none", "full", "dev"):
        shown.sh(f"zfs set volmode={volmode} {{t}}")
        shown.nightly(of, {"none": "s2", "full": "s3", "dev": "s4"}[volmode])
        same(shown.get("volmode"), volmode, "volmode")
    shown.at(images["s4"])


@test
def a_volume_hidden_by_the_dataset_above_stays_so():
    of, family, t = source(), Zvol("hiding"), Zvol("hiding/child")
    family.sh("zfs create -o volmode=none {t}")
    t.sh("zfs create -s -V 3M {t}")
    for to in ("s1", "s2"):
        t.nightly(of, to)
        same(t.sh("zfs get -Hp -o value,source volmode {t}").out.strip(), f"none\tinherited from {family}", "volmode")
        assert t.sh("udevadm settle; test -e /dev/zvol/{t}", check=False).code, "the device is there"
    t.at(images["s2"])


@test
def a_volume_set_read_only_is_refused():
    of, t = volume("readonly", "s1")
    t.sh("zfs set readonly=on {t}")
    refused(t.nightly(of, "s2", check=False), 1, "permission")
    same(t.get("siphon:receiving"), "-", "receiving")
    t.sh("zfs set readonly=off {t}")
    t.nightly(of, "s2")
    t.at(images["s2"])


@test
def a_passphrase_is_not_read_from_the_stream():
    of, t = source(), Zvol("secret")
    refused(t.apply(of.stream("s1"), "--mark -o encryption=on -o keyformat=passphrase", check=False), 2, "usage")
    assert t.sh("zfs list {t}", check=False).code, "a volume was made"


@test
def a_mounted_volume_is_refused():
    of, t = prepared(content(8 << 20), content(8 << 20, 1)), Zvol("mounted")
    t.apply(of.stream("s0"), "--mark -o volmode=dev")
    t.sh(NODE + "\nmkfs.ext4 -q /dev/zvol/{t}; mkdir -p /mnt/t; mount /dev/zvol/{t} /mnt/t")
    try:
        assert "/mnt/t" in refused(t.nightly(of, "s1", check=False), 4, "mounted").err
    finally:
        t.sh("umount /mnt/t")
    refused(t.nightly(of, "s1", check=False), 4, "written-since")
    t.apply(of.stream("s1", "s0"), "--mark --rollback")
    t.at(of.images["s1"])


@test
def a_volume_claimed_by_device_mapper_is_refused():
    of, t = volume("claimed", "s1")
    t.sh("zfs set volmode=dev {t}\n" + NODE + """
        echo "0 $(blockdev --getsz /dev/zvol/{t}) linear $(readlink -f /dev/zvol/{t}) 0" | dmsetup create claim""")
    try:
        refused(t.nightly(of, "s2", check=False), 4, "claimed")
        same(t.get("siphon:receiving"), "-", "receiving")
    finally:
        t.sh("udevadm settle; dmsetup remove claim")
    t.nightly(of, "s2")
    t.at(images["s2"])


@test
def a_second_run_is_turned_away_and_the_first_is_not_disturbed():
    of, t = volume("busy", "s1")
    with half_way(t, of.stream("s2", "s1")):
        refused(t.apply(of.stream("s2", "s1"), check=False), 6, "busy")
        refused(t.apply(of.stream("s3", "s1"), check=False), 6, "busy")
    t.at(images["s2"])
    assert t.get("volmode") == "none" and t.sh("test -e /dev/zvol/{t}", check=False).code, "the device is still there"


@test
def a_name_taken_by_others_in_mid_run_is_gone_round():
    of, t = volume("name_taken", "s1")
    with half_way(t, of.stream("s2", "s1")):
        t.sh("zfs snapshot {t}@s2")
    names = t.snapshots()
    assert names[:2] == ["s1", "s2"] and names[2].startswith("s2."), names
    t.at(images["s2"])


@test
def a_volume_shrunk_by_hand_in_mid_run_is_no_state():
    old = content(SIZE).replace(b"\0", b"\1")
    new = bytes(reversed(old[:1 << 19])) + old[1 << 19:]
    of, t = prepared(old, new), Zvol("shrunk_meanwhile")
    t.apply(of.stream("s0"))
    with half_way(t, of.stream("s1", "s0"), code=4):
        t.sh("zfs set volsize=1M {t}")
    same(t.snapshots(), ["s0"])
    t.nightly(of, "s1")
    t.at(new)


@test
def a_roll_back_by_hand_in_mid_run_is_warned_of_or_seen():
    old = content(SIZE).replace(b"\0", b"\1")
    new = bytes(reversed(old))
    of, t = prepared(old, new, changed(new, salt=1)), Zvol("rolled_meanwhile")
    t.apply(of.stream("s0"))
    with half_way(t, of.stream("s1", "s0")):
        assert "more recent snapshots" in t.sh("sleep 2; zfs rollback {t}@s0", check=False).err
    t.at(new)
    same(t.snapshots(), ["s0", "s1"])
    with half_way(t, of.stream("s2", "s1"), code=4):
        t.sh("sleep 2; zfs rollback -r {t}@s1")
    same(t.snapshots(), ["s0", "s1"])
    # All that was written since then is of that run.
    t.nightly(of, "s2")
    t.at(of.images["s2"])
    same(t.snapshots(), ["s0", "s1", "s2"])
    # A run that does not come to its end, either.
    of.snap("s2a", changed(of.images["s2"], salt=2))
    cut = of.stream("s2a", "s2")
    cut.write_bytes(cut.read_bytes()[:-100])
    with half_way(t, cut, code=3):
        t.sh("sleep 2; zfs rollback -r {t}@s2")
    t.nightly(of, "s2a")
    t.at(of.images["s2a"])
    # A whole stream, too, which does not write what it holds no data of.
    holes = bytes(SIZE // 2) + new[SIZE // 2:]
    of.snap("s3", holes)
    with half_way(t, of.stream("s3"), code=4, options="--replace"):
        t.sh("sleep 2; zfs rollback -r {t}@s2a")
    t.apply(of.stream("s3"), "--mark --replace")
    t.at(holes)


@contextlib.contextmanager
def slow_transactions():
    """What is written stays in memory until somebody asks for more, not for five seconds."""
    vm("echo 1000 >/sys/module/zfs/parameters/zfs_txg_timeout; zpool sync")
    try:
        yield
    finally:
        vm("echo 5 >/sys/module/zfs/parameters/zfs_txg_timeout")


@test
def what_others_wrote_but_did_not_sync_is_seen():
    of, t = volume("unsynced", "s1")
    t.sh("zfs set volmode=dev {t}; zfs inherit siphon:hidden {t}")
    with slow_transactions():
        # Through the page cache, and directly within a transaction group.
        for flags in ("conv=notrunc oflag=seek_bytes", "conv=notrunc oflag=seek_bytes,direct"):
            t.write(65536, 4096, flags=flags)
            refused(t.apply(of.stream("s2", "s1"), check=False), 4, "written-since")
            t.sh("zfs rollback {t}@s1")
        # By a writer that still has the device open.
        t.sh(NODE + "\nexec 9<>/dev/zvol/{t}; printf x >&9; zvol-apply --mark {t} <%s 2>/root/err; echo $? >/root/code" % of.stream("s2", "s1"))
    same(vm("cat /root/code").out, "4\n", "a writer with the device open\n" + vm("cat /root/err").out)


@test
def what_comes_through_a_device_that_was_open_when_it_was_hidden_is_seen():
    of, t = volume("unsynced_hidden", "s1")
    with slow_transactions():
        t.sh("zfs set volmode=dev {t}\n" + NODE + "\nexec 9<>/dev/zvol/{t}; zfs set volmode=none {t}; printf x >&9; "
             "zvol-apply --mark {t} <%s 2>/root/err; echo $? >/root/code" % of.stream("s2", "s1"))
    same(vm("cat /root/code").out, "4\n", "a writer with the hidden device open\n" + vm("cat /root/err").out)


@test
def a_blank_volume_with_an_unsynced_write_is_not_blank():
    of = source()
    with slow_transactions():
        for name, flags in (("cached", "conv=notrunc oflag=seek_bytes"), ("direct", "conv=notrunc oflag=seek_bytes,direct")):
            t = Zvol(f"blank_{name}")
            t.sh("zfs create -s -V 3M -o volmode=dev {t}; zpool sync tank")
            t.write(65536, 4096, flags=flags)
            refused(t.apply(of.stream("s1"), check=False), 4, "foreign")
        # By a writer that still has the device open, where ZFS waits for nothing: the last one to close a device waits for
        # the transaction group, and so does the first fsync of all.
        t = Zvol("blank_open")
        t.sh("zfs create -s -V 3M -o volmode=dev -o sync=disabled {t}; zpool sync tank")
        t.sh(NODE + "\nexec 9<>/dev/zvol/{t}; printf x >&9; zvol-apply --mark {t} <%s 2>/root/err; echo $? >/root/code" % of.stream("s1"))
    same(vm("cat /root/code").out, "4\n", "a writer with the device open\n" + vm("cat /root/err").out)


# --- space

@test
def a_full_pool_is_an_error_and_heals():
    """Its own small pool: a file would do, but a volume of another pool is what people have."""
    image, more = content(8 << 20), content(40 << 20, 1)
    of = prepared(image, more)
    vm("zpool create small /dev/ubdb; zfs set compression=off small; zfs set quota=20M small")
    try:
        t = Zvol("x")
        t.name = "small/x"
        t.apply(of.stream("s0"))
        assert "quota" in refused(t.nightly(of, "s1", check=False), 1, "no-space").err  # though the kernel says EIO
        t.at(image, "s0", live=False)
        vm("zfs set quota=none small")
        t.nightly(of, "s1")
        t.at(more)
        # The snapshot that is the commit has no room, where the volume's space is reserved.
        vm("zfs set refreservation=60M small/x; zfs set quota=130M small")
        result = t.nightly(of, "s0", check=False)
        if result.code:
            refused(result, 1, "no-space")
            vm("zfs set quota=none small")
            t.nightly(of, "s0")
        t.at(image)
    finally:
        vm("zpool destroy -f small")


@test
def a_pool_filled_to_the_brim_is_an_error_and_heals():
    image, more = content(8 << 20), content(60 << 20, 1)
    of = prepared(image, more)
    vm("truncate -s 96M /tmp/brim; zpool create -O compression=off brim /tmp/brim")
    try:
        t = Zvol("x")
        t.name = "brim/x"
        t.apply(of.stream("s0"))
        result = t.nightly(of, "s1", check=False)
        refused(result, 1, "no-space")
        of.snap("s1", changed(image, salt=9))
        t.nightly(of, "s1")
        t.at(of.images["s1"])
    finally:
        vm("zpool destroy -f brim; rm /tmp/brim")


if __name__ == "__main__":
    main("zfs")
