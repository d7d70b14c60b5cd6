#!/usr/bin/python3
"""zvol-diff-stream on real volumes and real send streams: what comes back is what was there, and goes back as what it was."""
import json
import random
from pathlib import Path

import bed
from bed import changed, content, main, refused, same, sha256, test, vm
from zvol import POOL, Plain, gaps, images, volume

SIZE = 6 << 20


def header(stream):
    """The first line of extent-inspect, and its last."""
    lines = vm(f"extent-inspect --json {stream}").out.splitlines()
    return json.loads(lines[0]), json.loads(lines[-1])


def restored(name, *commands):
    """The sha256 of a file in the guest that these streams were applied to, one after the other."""
    file = f"/root/{name}.img"
    vm(f"rm -f {file}*; set -e -o pipefail; " + "; ".join(f"{command} | image-apply {file} >/dev/null" for command in commands))
    return vm(f"sha256sum <{file}").out.split()[0]


@test
def a_mark_goes_back_as_the_state_that_was_received():
    of, t = volume("back", "s0", "s1", "s2")
    for base, to in ((None, "s2"), ("s0", "s1"), ("s1", "s2")):
        own = of.stream(to, base)
        back = f"{bed.work}/back.{to}"
        t.sh(f"zvol-diff-stream {f'--from {base}' if base else ''} {{t}}@{to} >{back}")
        (theirs, end), (ours, our_end) = header(own), header(back)
        same([ours[key] for key in ("source", "from", "to", "stream")], [theirs[key] for key in ("source", "from", "to", "stream")], to)
        same(our_end["to"], end["to"])
    same(restored("back", f"zvol-diff-stream {t}@s0", f"zvol-diff-stream --from s0 {t}@s1", f"zvol-diff-stream --from s1 {t}@s2"),
         sha256(images["s2"]))
    # Its list has both ids of a mark, so whoever holds either has a state in common.
    listed = t.sh("zvol-diff-stream --states {t}").out.splitlines()
    same([line.split("\t")[3] for line in listed[:-1]], ["@s0", "s0", "@s1", "s1", "@s2", "s2"])
    assert t.sh(f"zvol-diff-stream --states {{t}} | zfs-snapmark common {{t}}").out.strip() == "s2"
    # From a mark as itself: the same content under its other id, and on to the next one.
    for base, to in (("@s2", "s2"), ("@s1", "s2")):
        back = f"{bed.work}/itself.{base[1:]}"
        t.sh(f"zvol-diff-stream --from {base} {{t}}@{to} >{back}")
        ours, end = header(back)
        assert ours["from"] not in (None, ours["to"]) and (end["data_extents"] == 0) == (base == "@s2"), f"{ours} {end}"


@test
def a_volume_of_others_is_sent_whole_and_since_with_discards_and_sizes():
    for block in ("4K", "16K", "128K"):
        plain = Plain(f"plain{block}", f"-b {block}")
        image = content(SIZE, salt=block)
        plain.snap(image)
        for n, size in enumerate((SIZE, SIZE + (2 << 20), SIZE - (1 << 20), SIZE + (1 << 20))):
            image = gaps(changed(image, size, salt=n), n)
            plain.snap(image)
        t = plain.t
        steps = [f"zvol-diff-stream {t}@g0"] + [f"zvol-diff-stream --from g{n} {t}@g{n + 1}" for n in range(4)]
        same(restored("plain", *steps), sha256(plain.images[-1]), f"blocks of {block}")
        same(restored("plain", f"zvol-diff-stream {t}@g3"), sha256(plain.images[3]), f"whole, blocks of {block}")
        root = t.sh("zvol-diff-stream {t}@g2 | extent-digest --root").out.strip()
        file = f"/root/g2.{block}"
        same(vm(f"cp {bed.work}/{t.name.replace('/', '-')}-g2 {file}; extent-digest --image {file} --expect {root}").code, 0)


@test
def a_saved_stream_is_read_however_it_was_packed():
    for pack in ("off", "lz4", "zstd", "gzip-6", "zle", "lzjb"):
        plain = Plain(f"saved-{pack}", f"-b 16K -o compression={pack}")
        image = content(SIZE, salt=pack)
        image = image[:SIZE // 2] + bytes(byte & 3 for byte in image[SIZE // 2:])
        # Blocks that are so small when packed that they stand in their pointer.
        image = image[:65536] + b"tiny".ljust(16384, b"\0") * 4 + image[131072:]
        plain.snap(image)
        plain.snap(gaps(changed(image, salt=1), 1))
        for options in ("", "-c", "-e", "-L", "-c -e -L"):
            t = plain.t
            steps = [f"zfs send {options} {t}@g0 | zvol-diff-stream --size {SIZE} -",
                     f"zfs send {options} -i g0 {t}@g1 | zvol-diff-stream --size {SIZE} -"]
            same(restored("saved", *steps), sha256(plain.images[-1]), f"{pack}, zfs send {options}")


@test
def a_saved_stream_that_was_damaged_is_not_sealed():
    plain = Plain("bent", "-b 16K")
    plain.snap(content(1 << 20) + bytes(SIZE - (1 << 20)))
    file = f"{bed.work}/bent.zfs"
    vm(f"zfs send {plain.t}@g0 >{file}")
    good, chance = Path(file).read_bytes(), random.Random(bed.options.seed)
    tried = 200 if bed.options.full else 40
    for n in range(tried):
        bad = bytearray(good)
        if n % 4 == 0:
            del bad[chance.randrange(len(bad)):]
        else:
            at = chance.randrange(len(bad))
            bad[at] ^= 1 << chance.randrange(8)
        bad_file = Path(bed.work, "bent.bad")
        bad_file.write_bytes(bad)
        result = vm(f"zvol-diff-stream --size {SIZE} - <{bad_file} >/root/bent.out; code=$?; "
                    "extent-inspect --check /root/bent.out 2>/dev/null && exit 99; exit $code", check=False)
        assert result.code in (3, 4), f"case {n}: {result}"
    print(f"    {tried} of {200} bent streams")


@test
def a_bookmark_is_a_base_until_the_volume_is_resized():
    plain = Plain("booked")
    image = content(SIZE)
    plain.snap(image)
    plain.t.sh("zfs bookmark {t}@g0 {t}#b0")
    plain.snap(changed(image, salt=1))
    steps = ["zvol-diff-stream {t}@g0", "zvol-diff-stream --from '#b0' {t}@g1"]
    t = plain.t
    steps = [step.replace("{t}", str(t)) for step in steps]
    same(restored("booked", *steps), sha256(plain.images[1]))
    plain.snap(changed(plain.images[1], SIZE + (1 << 20), salt=2))
    refused(t.sh("zvol-diff-stream --from '#b0' {t}@g2 >/root/x", check=False), 4, "unsupported")
    assert vm("extent-inspect --check /root/x", check=False).code == 3


@test
def other_streams_and_things_are_refused_by_name():
    plain = Plain("named")
    plain.snap(content(1 << 20) + bytes(SIZE - (1 << 20)))
    plain.snap(content(1 << 20, salt=1) + bytes(SIZE - (1 << 20)))
    t = plain.t
    t.sh(f"zfs create {POOL}/files; zfs snapshot {POOL}/files@a; head -c 32 /dev/urandom >/root/key; "
         f"zfs create -s -V 1M -o encryption=on -o keyformat=raw -o keylocation=file:///root/key {POOL}/locked; zfs snapshot {POOL}/locked@a")
    for command, word in ((f"zfs send {POOL}/files@a", "file system"), (f"zfs send -w {POOL}/locked@a", "raw"),
                          (f"zfs send -R {t}@g1", "package"), (f"zfs send -p {t}@g1", "package"), (f"zfs send -I g0 {t}@g1", "package")):
        result = refused(vm(f"set -o pipefail; {command} | zvol-diff-stream --size 6M - >/root/x", check=False), 4, "unsupported")
        assert word in result.err, str(result)
        assert vm("extent-inspect --check /root/x", check=False).code == 3
    refused(vm(f"zvol-diff-stream {POOL}/files@a >/root/x", check=False), 4, "unsupported")
    refused(t.sh("zvol-diff-stream {t}@nothing >/root/x", check=False), 4, "not-found")
    refused(t.sh("zvol-diff-stream --from g1 {t}@g0 >/root/x", check=False), 4, "wrong-base")
    refused(t.sh("zvol-diff-stream {t} >/root/x", check=False), 2, "usage")
    same(t.sh("zvol-diff-stream --from g1 {t}@g1 | extent-inspect --check").out.split()[1], "increment")
    # An encrypted volume whose key is loaded is read as any other.
    vm(f"zvol-diff-stream {POOL}/locked@a | extent-inspect --check")


@test
def a_snapshot_that_is_destroyed_meanwhile_is_not_sealed():
    plain = Plain("gone")
    plain.snap(content(SIZE))
    # The first bytes are taken, and the rest only when the snapshot is gone. zfs send holds on to what it reads.
    line = "zvol-diff-stream {t}@g0 2>/root/words | { head -c 1000; zfs destroy -d {t}@g0; zfs destroy {t}@g0; sleep 1; cat; } >/root/x"
    plain.t.sh(line, check=False)
    gone = plain.t.sh("zfs list {t}@g0", check=False).code != 0
    sealed = vm("extent-inspect --check /root/x", check=False).code == 0
    assert gone != sealed, f"gone {gone}, sealed {sealed}: {vm('cat /root/words').out}"


if __name__ == "__main__":
    main("zfs")
