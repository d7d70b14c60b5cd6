"""What the tests of rbd-diff-stream share: images with their contents at each snapshot, the tool, and a reader of its streams.

The stream is applied by the few lines below, which share nothing with the project's own reader.

    image = Img(24 * MiB)
    image.noise(0, MiB)
    image.snap("a").whole("a")               # what the tool sends is what the snapshot holds
    image.snap("b").step("a", "b")           # … and so is an increment
"""
import functools
import os
import random
import struct
import subprocess
import zlib

import bed
from rbd_target import lab, librbd

MiB = 1 << 20
POOL, DATA = "siphon-test", "siphon-test-data"
TOOL_LIMIT = 120  # seconds: the longest call of the tool takes a tenth of it
RNG = random.Random()


@functools.cache
def pools():
    """The cluster, with two fresh pools in it, which go when all tests are done."""
    _, cluster = lab()

    def clean():
        for pool in (POOL, DATA):
            if cluster.pool_exists(pool):
                cluster.delete_pool(pool)
    clean()
    bed.at_end(clean)
    for pool in (POOL, DATA):
        cluster.create_pool(pool)
        librbd().RBD().pool_init(cluster.open_ioctx(pool), True)
    return cluster


def test(function):
    """Marks a function as a test, and gives it dice of its own: a failure comes back when it is run alone with the same seed."""
    @functools.wraps(function)
    def with_dice():
        pools()
        RNG.seed(f"{bed.options.seed}/{function.__name__}")
        function()
    return bed.test(with_dice)


# --- the stream, read independently (extent-stream(5))

class Cut(Exception):
    pass


def frames(stream):
    """Yields (type, flags, offset, payload); raises Cut where the stream ends without END."""
    def take(n):
        nonlocal at
        if at + n > len(stream):
            raise Cut
        at += n
        return stream[at - n:at]
    at = 0
    head = take(24)
    assert head[:16] == b"\x89SIPHON-EXT\r\n\x1a\n\0" and struct.unpack("<I", head[20:])[0] == zlib.crc32(head[:20])
    number = kind = 0
    while kind != 4:
        header = take(32)
        kind, flags, length, seq, offset, crc, own = struct.unpack("<HHIQQII", header)
        assert own == zlib.crc32(header[:28]) and seq == number
        number += 1
        payload = take(length)
        assert crc == zlib.crc32(payload)
        yield kind, flags, offset, payload
    assert at == len(stream), "bytes after END"


def apply(stream, content=b""):
    """The to-state, and what was seen on the way."""
    image, last, seen = None, 0, {"data": 0, "zero": 0, "free": 0, "extents": []}
    for kind, flags, offset, payload in frames(stream):
        if kind == 1:
            seen["whole"] = payload[32:48] == bytes(16)
            seen["ids"] = payload[16:32], payload[32:48], payload[48:64]
        elif kind == 2:
            _, _, grain, old, new, _ = struct.unpack("<HHIQQQ", payload)
            assert old == (0 if seen["whole"] else len(content))
            image = bytearray(new)
            if not seen["whole"]:
                keep = min(old, new)
                image[:keep] = content[:keep]
        elif kind in (0x10, 0x11):
            size = len(payload) if kind == 0x10 else struct.unpack("<Q", payload)[0]
            end = offset + size
            assert offset >= last and size > 0 and end <= len(image), (offset, size, last)
            assert offset % grain == 0 and (end % grain == 0 or end == len(image))
            assert kind == 0x11 or offset // MiB == (end - 1) // MiB, "cut at 1 MiB"
            last = end
            image[offset:end] = payload if kind == 0x10 else bytes(size)
            seen["data" if kind == 0x10 else "zero"] += size
            seen["free"] += size if kind == 0x11 and flags & 1 else 0
            seen["extents"].append((offset, size, kind == 0x11))
        elif kind == 4:
            assert payload[40:56] == seen["ids"][2]
    return bytes(image), seen


# --- the tool

def tool():
    return os.path.join(bed.options.bin, "rbd-diff-stream")


def run(*args, rc=0, env=None):
    done = subprocess.run([tool(), *args], capture_output=True, env=env, timeout=TOOL_LIMIT)
    assert done.returncode == rc, (args, done.returncode, done.stderr.decode())
    return done.stdout, done.stderr.decode()


def refused(word, *args, rc=4):
    out, err = run(*args, rc=rc)
    assert f"[{word}]" in err and "hint:" in err, err
    try:
        list(frames(out))
        raise AssertionError("an END in spite of a refusal")
    except Cut:
        return err


# --- images

class Img:
    """An image with its contents at each snapshot."""
    made = 0

    def __init__(self, size=0, ns="", open_only=None, **how):
        Img.made += 1
        self.name, self.ns, self.io = open_only or f"i{Img.made}", ns, pools().open_ioctx(POOL)
        self.io.set_namespace(ns)
        if not open_only:
            librbd().RBD().create(self.io, self.name, size, old_format=False, **how)
        self.path = "/".join(filter(None, [POOL, ns, self.name]))
        self.i = librbd().Image(self.io, self.name)
        self.contents = {}
        self.rolled_back = False  # then the object maps are wrong

    def noise(self, offset, size):
        self.i.write(RNG.randbytes(size), offset)

    def snap(self, name):
        self.i.create_snap(name)
        with librbd().Image(self.io, self.name, name, read_only=True) as at:
            self.contents[name] = at.read(0, at.size())
        return self

    def at(self, name):
        return f"{self.path}@{name}"

    def ids(self):
        return {snap["name"]: snap["id"] for snap in self.i.list_snaps()}

    def whole(self, name, *args):
        stream, err = run(*args, self.at(name))
        image, seen = apply(stream)
        assert image == self.contents[name], f"{self.at(name)} whole"
        return seen, stream, err

    def step(self, a, b, *args):
        stream, err = run("--from", a, *args, self.at(b))
        image, seen = apply(stream, self.contents[a])
        assert image == self.contents[b], f"{a}..{b}: first difference at {first(image, self.contents[b])}"
        return seen, stream, err

    def all(self):
        """Every snapshot whole and every pair, without the maps and by them: equal, and the same bytes."""
        names = [snap["name"] for snap in sorted(self.i.list_snaps(), key=lambda snap: snap["id"])]
        for at, name in enumerate(names):
            assert self.whole(name)[1] == self.whole(name, "--no-trust-map")[1]
            for later in names[at + 1:]:
                asked = self.step(name, later)[1]
                assert asked == self.step(name, later, "--no-trust-map", "-j", "3")[1]
                assert self.rolled_back or asked == self.step(name, later, "--trust-map")[1]
        return self

    def remove(self):
        """Its snapshots, and then the image."""
        self.i.close()
        with librbd().Image(self.io, self.name) as i:
            for snap in list(i.list_snaps()):
                i.remove_snap(snap["name"])
        librbd().RBD().remove(self.io, self.name)


def first(a, b):
    return next((n for n, (x, y) in enumerate(zip(a, b)) if x != y), (len(a), len(b)))


def life(image, rounds=4):
    """Snapshots between random writes, discards and zeroing."""
    size = image.i.size()
    for step in range(rounds):
        for _ in range(6):
            at = RNG.randrange(size)
            room = min(RNG.choice([100, 4096, 70_000, 5_000_000]), size - at)
            {0: lambda: image.i.discard(at, room), 1: lambda: image.i.write_zeroes(at, room)}.get(
                RNG.randrange(4), lambda: image.noise(at, room))()
        image.snap(f"s{step}")
    return image
