#!/usr/bin/env python3
"""A second reader of extent streams, made from extent-stream(5) and tree-stream(5) alone; python3 with `blake3`.

reader.py FILE|-          judges one stream: prints `ok` and what it says (exit 0), or its class (exit 3)
reader.py --tree FILE...  judges streams of one tree that follow each other, and prints what it holds then (tests/vectors/README.md)
reader.py --vectors DIR   judges every vector of DIR and compares (exit 0 or 1)
"""
import io
import os
import struct
import sys
import zlib

from blake3 import blake3

MAGIC, NIL = b"\x89SIPHON-EXT\r\n\x1a\n\0", bytes(16)
HEADER, OBJECT, CHECKPOINT, END, DATA, ZERO, GONE, ENTRY, LINK, ROOTS = 1, 2, 3, 4, 0x10, 0x11, 0x20, 0x21, 0x22, 0x23


class Refused(Exception):
    """The class of what is wrong."""


def must(held, word):
    if not held:
        raise Refused(word)


def stream_id(*parts):
    parts = (b"siphon-stream",) + parts
    return blake3(b"".join(struct.pack("<I", len(p)) + p for p in parts)).digest()[:16]


def leaves(offset, payload):
    cuts = [0, *range(65536 - offset % 65536, len(payload), 65536), len(payload)]
    pieces = [payload[a:b] for a, b in zip(cuts, cuts[1:]) if a < b]
    return b"".join(blake3(p).digest() if any(p) else bytes(32) for p in pieces)


class Rest:
    """A file of which some was read."""

    def __init__(self, begin, file):
        self.begin, self.file = begin, file

    def read(self, length):
        now, self.begin = self.begin[:length], self.begin[length:]
        return now if len(now) == length else now + self.file.read(length - len(now))


class Extents:
    """The rules of the extents of one image, or of one file."""

    def __init__(self, size, grain):
        self.size, self.grain, self.floor = size, grain, 0

    def admit(self, offset, length):
        end = offset + length
        must(length, "value")
        must(end <= self.size, "bounds")
        must(offset >= self.floor, "overlap")
        must(offset % self.grain == 0 and (end % self.grain == 0 or end == self.size), "alignment")
        self.floor = end


class Reader:
    """Reads one stream; `changes` gives (offset, length, bytes or None for zeros), and ends only if all is right."""

    KNOWN, KINDS = 0, (CHECKPOINT, END, DATA, ZERO)

    def __init__(self, file):
        self.file, self.number, self.bound = file, 0, 65536
        head = file.read(24)
        must(head, "empty")
        must(head[:16] == MAGIC[:len(head)], "not-a-stream")
        must(len(head) == 24, "truncated")
        major, _minor, crc = struct.unpack("<HHI", head[16:])
        must(crc == zlib.crc32(head[:20]), "header-crc")
        must(major == 1, "version")
        self.chain = blake3(head)
        self.object(self.header())

    def frame(self):
        head = self.file.read(32)
        must(len(head) == 32, "truncated")
        kind, flags, length, number, offset, pcrc, hcrc = struct.unpack("<HHIQQII", head)
        must(hcrc == zlib.crc32(head[:28]), "header-crc")
        must(number == self.number, "order")
        must(length <= self.bound, "length")
        payload = self.file.read(length)
        must(len(payload) == length, "truncated")
        must(pcrc == zlib.crc32(payload), "payload-crc")
        self.number += 1
        return kind, flags, offset, payload, (head, payload)

    def link(self):
        link = self.chain.digest()
        self.chain, self.since_frames, self.since_bytes = blake3(link), 0, 0
        return link

    def hash(self, head, payload, stands_for=None):
        self.chain.update(head + (payload if stands_for is None else stands_for))
        self.since_frames, self.since_bytes = self.since_frames + 1, self.since_bytes + len(payload)

    def header(self):
        kind, flags, offset, p, raw = self.frame()
        must(kind == HEADER, "order")
        must(not offset | flags, "reserved")
        must(len(p) >= 96, "length")
        incompatible, compatible, source, self.frm, self.to, stream, bound, s, f, t, n, reserved = struct.unpack("<QQ16s16s16s16sIHHHHI", p[:96])
        must(not incompatible & ~self.KNOWN, "feature")
        must(len(p) == 96 + s + f + t + n, "length")
        must(not reserved, "reserved")
        table, last, named = p[96 + s + f + t:], -1, 0
        while table:
            must(len(table) >= 4 and len(table) >= 4 + table[2], "length")
            must(table[0] <= 1 and table[1] <= 63, "value")
            must(not table[3], "reserved")
            place = table[0] * 64 + table[1]
            must(place > last, "value")
            last, named, table = place, named | 1 << place, table[4 + table[2]:]
        must(max(s, f, t) <= 4096 and 4096 <= bound <= 1 << 24, "value")
        must(source != NIL, "identity")
        must(not named & ~(compatible << 64 | incompatible), "value")
        self.features = incompatible
        must(stream == stream_id(source, self.frm, self.to, struct.pack("<Q", incompatible)), "identity")
        self.chain.update(b"".join(raw))
        self.link()
        return bound

    def object(self, bound):
        kind, flags, offset, p, raw = self.frame()
        must(kind == OBJECT, "order")
        must(not offset | flags, "reserved")
        must(len(p) == 32, "length")
        kind, r1, self.grain, self.old, self.new, r2 = struct.unpack("<HHIQQQ", p)
        must(kind == 1, "value")
        must(not r1 | r2, "reserved")
        must(self.grain.bit_count() == 1 and self.grain <= 65536 and max(self.old, self.new) < 1 << 63, "value")
        must(self.frm != NIL or self.old == 0, "value")
        self.one_size(self.to)
        self.bound, self.extents = bound, Extents(self.new, self.grain)
        self.hash(*raw)

    def one_size(self, to):
        must(self.frm == NIL or self.frm != to or self.old == self.new, "identity")

    def close(self):
        """At the end, behind the counts."""

    def changes(self):
        dn, zn, db, zb = 0, 0, 0, 0
        while True:
            before = self.number
            kind, flags, offset, p, raw = self.frame()
            due = self.since_frames >= 65536 or self.since_bytes >= 64 << 20
            must(due == (kind == CHECKPOINT), "checkpoint")
            must(kind not in (HEADER, OBJECT), "order")
            if kind not in self.KINDS:
                must(kind & 0x8000, "unknown-frame")
                self.hash(*raw)
                continue
            must(not flags & ~(kind == ZERO) and (kind in (DATA, ZERO) or not offset), "reserved")
            if kind == CHECKPOINT:
                must(len(p) == 56, "length")
                must(p == struct.pack("<QQQ", before, db, zb) + self.link(), "checkpoint")
            elif kind == END:
                must(len(p) == 88, "length")
                self.chain.update(p[:56])
                must(p[56:] == self.link(), "digest")
                must(p[:40] == struct.pack("<QQQQQ", before, dn, zn, db, zb), "totals")
                self.close()
                must(self.to in (NIL, p[40:56]), "identity")
                self.one_size(p[40:56])
                must(not self.file.read(1), "trailing")
                self.to, self.digest = p[40:56], p[56:]
                return
            elif kind in (GONE, ENTRY, LINK, ROOTS):
                self.hash(*raw)
                yield {GONE: self.gone, ENTRY: self.entry, LINK: self.named, ROOTS: self.roots}[kind](p)
            else:
                must(kind == DATA or len(p) == 8, "length")
                length = len(p) if kind == DATA else int.from_bytes(p, "little")
                must(self.extents, "order")
                self.extents.admit(offset, length)
                self.hash(*raw, leaves(offset, p) if kind == DATA else None)
                if kind == DATA:
                    dn, db = dn + 1, db + length
                else:
                    zn, zb = zn + 1, zb + length
                yield offset, length, p if kind == DATA else None


def path_of(p):
    """The names of a path."""
    names, length = [], len(p)
    while p:
        name = p[1:1 + p[0]]
        must(len(name) == p[0] and name not in (b"", b".", b"..") and not set(name) & {0, 47}, "path")
        names, p = names + [name], p[1 + len(name):]
    must(len(names) <= 1024 and length <= 65536, "path")
    return tuple(names)


class TreeReader(Reader):
    """Reads one tree stream; `changes` gives ("gone", path, number), ("entry", path, fields), ("link", path, to), and extents."""

    KNOWN, KINDS = 0x11, (CHECKPOINT, END, DATA, ZERO, GONE, ENTRY, LINK, ROOTS)

    def object(self, bound):
        kind, flags, offset, p, raw = self.frame()
        must(kind == OBJECT, "order")
        must(not offset | flags, "reserved")
        must(len(p) == 32, "length")
        kind, r1, self.grain = struct.unpack("<HHI", p[:8])
        must(kind == 2 and self.features & 1, "value")
        must(not r1 and not any(p[8:]), "reserved")
        must(self.grain.bit_count() == 1 and self.grain <= 65536, "value")
        self.bound, self.extents, self.whole = bound, None, self.frm == NIL
        self.last_gone, self.last, self.steps, self.given, self.returned = None, None, {}, 0, set()
        self.has_roots = False
        self.hash(*raw)

    def one_size(self, to):
        pass

    def close(self):
        self.rooted()
        must(self.last is not None or not self.whole, "parent")
        must(self.given == len(self.returned), "totals")

    def rooted(self):
        must(self.has_roots == bool(self.features & 16), "order")

    def roots(self, p):
        must(len(p) >= 8, "length")
        n, reserved = struct.unpack("<II", p[:8])
        must(len(p) >= 8 + n, "length")
        must(not reserved, "reserved")
        old, new = p[8:8 + n], p[8 + n:]
        must(new and max(len(old), len(new)) <= 4096 and 0 not in old + new, "value")
        must(self.features & 16 and not self.has_roots, "order")
        must(bool(old) != self.whole, "value")
        self.has_roots = True
        return "roots", old, new

    def gone(self, p):
        must(len(p) >= 8, "length")
        number, path = int.from_bytes(p[:8], "little"), path_of(p[8:])
        self.rooted()
        must(not self.whole and self.last is None, "order")
        must(path, "path")
        must(self.last_gone is None or path < self.last_gone, "path-order")
        must(number in (0, self.given + 1), "value")
        self.last_gone, self.given = path, max(self.given, number)
        return "gone", path, number

    def stands(self, path, kept, step):
        """Whether it may stand here: the steps are what was said of the path before and of the directories it is in."""
        must(self.last is None or path > self.last, "path-order")
        must(not path or self.last is not None or not self.whole, "parent")
        self.steps = {said: what for said, what in self.steps.items() if said == path[:len(said)]}
        if path:
            nearest = max(self.steps, key=len, default=None)
            said, what = nearest == path[:-1], self.steps.get(nearest, "unsaid")
            must({"leaf": False, "new": said and not kept, "old": said or kept, "unsaid": kept}[what], "parent")
        self.extents = None
        return path, step

    def stand(self, path, step):
        self.last, self.steps[path] = path, step

    def entry(self, p):
        must(len(p) >= 64, "length")
        kind, origin, mode, uid, gid, ns, sec, size, old, number, major, minor, n, t = struct.unpack("<BBHIIIqQQQIIII", p[:64])
        must(len(p) >= 64 + n + t, "length")
        path, target, rest, xattrs = p[64:64 + n], p[64 + n:64 + n + t], p[64 + n + t:], []
        while rest:
            must(len(rest) >= 6, "length")
            a, b = struct.unpack("<HI", rest[:6])
            must(len(rest) >= 6 + a + b, "length")
            xattrs.append((rest[6:6 + a], rest[6 + a:6 + a + b]))
            rest = rest[6 + a + b:]
        path = path_of(path)
        must(origin <= 2 and (origin == 2) == (number > 0), "value")
        must(1 <= kind <= 7 and (kind == 3) == (0 < len(target) < 4096) and (kind == 3 or not target) and 0 not in target, "value")
        must((kind == 1 or not size | old) and (kind in (6, 7) or not major | minor) and max(size, old) < 1 << 63, "value")
        must((origin or not old) and mode <= 0o7777 and ns < 10 ** 9, "value")
        must(all(0 < len(a) < 256 and 0 not in a and len(b) <= 65536 for a, b in xattrs), "value")
        must(all(a[0] < b[0] for a, b in zip(xattrs, xattrs[1:])), "value")
        self.rooted()
        must(not self.whole or origin == 0, "value")
        must(path or kind == 2 and (self.whole or origin == 1), "value")
        self.stands(path, origin == 1, None)
        must(origin != 2 or 0 < number <= self.given and number not in self.returned, "value")
        self.returned |= {number} - {0}
        self.stand(path, "leaf" if kind != 2 else "old" if origin else "new")
        self.extents = Extents(size, self.grain) if kind == 1 and not self.features & 16 else None
        what = {1: None, 3: target, 6: (major, minor), 7: (major, minor)}.get(kind)
        return "entry", path, (kind, origin, number, size, what, (mode, uid, gid, sec, ns, xattrs))

    def named(self, p):
        must(len(p) >= 8, "length")
        n, reserved = struct.unpack("<II", p[:8])
        must(len(p) >= 8 + n, "length")
        must(not reserved, "reserved")
        path, to = path_of(p[8:8 + n]), path_of(p[8 + n:])
        self.rooted()
        must(path and to and path != to, "path")
        self.stands(path, False, None)
        must(not self.whole or to < path, "parent")
        self.stand(path, "leaf")
        return "link", path, to


def any_reader(file):
    """The reader for what a stream says that it is about."""
    begin = file.read(64)
    return (TreeReader if begin[56:57] and begin[56] & 1 else Reader)(Rest(begin, file))


class Thing:
    """What has one or more names in a tree."""

    def __init__(self, kind):
        self.kind, self.what, self.content, self.attributes = kind, None, bytearray(), None


def apply_tree(reader, tree):
    """The tree after the stream: things by their paths."""
    taken, thing = {}, None
    for change in reader.changes():
        if change[0] == "roots":
            pass
        elif change[0] == "gone":
            _, path, number = change
            assert path in tree
            below = {at: tree.pop(at) for at in list(tree) if at[:len(path)] == path}
            if number:
                taken[number] = {at[len(path):]: below[at] for at in below}
        elif change[0] == "link":
            tree[change[1]] = tree[change[2]]
        elif change[0] == "entry":
            _, path, (kind, origin, number, size, what, attributes) = change
            if origin == 0:
                assert path not in tree
                tree[path] = Thing(kind)
            elif origin == 2:
                tree.update({path + at: moved for at, moved in taken.pop(number).items()})
            thing = tree[path]
            assert thing.kind == kind
            thing.what, thing.attributes = what, attributes
            if kind == 1 and not reader.features & 16:
                thing.content = thing.content[:size].ljust(size, b"\0")
        else:
            offset, length, data = change
            thing.content[offset:offset + length] = bytes(length) if data is None else data
    return tree


def listing(tree):
    """A tree as text; tests/vectors/README.md."""
    first, lines = {}, []
    for path, thing in sorted(tree.items()):
        shown = b"/".join(name.hex().encode() for name in path).decode()
        group = first.setdefault(id(thing), shown)
        mode, uid, gid, sec, ns, xattrs = thing.attributes
        what = {1: lambda: f"{len(thing.content)}:{blake3(thing.content).hexdigest()}", 3: lambda: thing.what.hex(),
                6: lambda: "%d:%d" % thing.what, 7: lambda: "%d:%d" % thing.what}.get(thing.kind, lambda: "-")()
        extra = ",".join(f"{a.hex()}={b.hex()}" for a, b in xattrs)
        lines.append(f"/{shown} /{group} {thing.kind} {mode:o} {uid} {gid} {sec} {ns} {what} {extra}\n")
    return "".join(lines).encode()


def derive(kind, *parts):
    return blake3(b"".join(struct.pack("<I", len(p)) + p for p in (kind,) + parts)).digest()[:16]


def tree_root(tree):
    """The root of a tree, from what it holds: tree-stream(5), TREE ROOT."""
    def wire(path):
        return b"".join(bytes([len(name)]) + name for name in path)

    root, first = blake3(b"siphon-tree-1"), {}
    for path, thing in sorted(tree.items()):
        if first.setdefault(id(thing), path) != path:
            to, path = wire(first[id(thing)]), wire(path)
            payload, content = struct.pack("<II", len(path), 0) + path + to, b""
        else:
            mode, uid, gid, sec, ns, xattrs = thing.attributes
            size, path = len(thing.content), wire(path)
            target, (major, minor) = thing.what if thing.kind == 3 else b"", thing.what if thing.kind in (6, 7) else (0, 0)
            payload = struct.pack("<BBHIIIqQQQIIII", thing.kind, 0, mode, uid, gid, ns, sec, size, 0, 0, major, minor, len(path), len(target))
            payload += path + target + b"".join(struct.pack("<HI", len(a), len(b)) + a + b for a, b in xattrs)
            content = struct.pack("<Q", size) + leaves(0, thing.content) if thing.kind == 1 else b""
        root.update(struct.pack("<I", len(payload)) + payload + content)
    return root.digest()


def tree_of(files):
    """What a tree holds after these streams, each of which must begin where the one before ended and say where it ends."""
    tree, state = {}, NIL
    for file in files:
        reader = TreeReader(open(file, "rb"))
        assert reader.frm == state, "begins from another state"
        tree = apply_tree(reader, tree)
        state = derive(b"tree-content", tree_root(tree))
        assert reader.to in (NIL, state), "does not say the state that it leads to"
    return tree


def apply(reader, base):
    """The image after the stream; None where it is too large to build."""
    if reader.new > 1 << 30:
        for _ in reader.changes():
            pass
        return None
    image = bytearray(reader.new)
    if reader.frm != NIL:
        image[:reader.old] = base[:min(reader.old, reader.new)].ljust(min(reader.old, reader.new), b"\0")
        del image[reader.new:]
    for offset, length, data in reader.changes():
        image[offset:offset + length] = bytes(length) if data is None else data
    return image


def expand(lines):
    """The bytes of a vector's body; tests/vectors/README.md."""
    out = bytearray()
    for line in lines:
        words = line.split()
        if words[0] == "fill":
            out += bytes.fromhex(words[1]) * int(words[2])
        elif words[0] == "zeros":
            count, number, offset, length, step = map(int, words[1:])
            payload = struct.pack("<Q", length)
            for n in range(count):
                head = struct.pack("<HHIQQI", ZERO, 0, 8, number + n, offset + n * step, zlib.crc32(payload))
                out += head + struct.pack("<I", zlib.crc32(head)) + payload
        elif words[0] != "#":
            out += bytes.fromhex(line)
    return bytes(out)


def load(path):
    """What a vector says, and its stream."""
    head, body = open(path, encoding="ascii").read().split("---\n")
    return dict(line.split(": ", 1) for line in head.splitlines()), io.BytesIO(expand(body.splitlines()))


def tree_after(path):
    """The tree after a vector, from the one that it says is before it."""
    told, stream = load(path)
    base = told.get("base", "none")
    return apply_tree(TreeReader(stream), {} if base == "none" else tree_after(os.path.join(os.path.dirname(path), base)))


def judge(path):
    told, stream = load(path)
    try:
        if os.path.basename(path).startswith("tree_"):
            for _ in TreeReader(stream).changes():
                pass
            found = "ok " + ("unbuilt" if told.get("result") == "unbuilt" else blake3(listing(tree_after(path))).hexdigest())
        else:
            byte, _, count = told.get("base", "none").partition(" * ")
            image = apply(Reader(stream), bytes.fromhex(byte) * int(count) if count else b"")
            found = "ok " + ("unbuilt" if image is None else blake3(image).hexdigest())
    except Refused as refused:
        found = str(refused)
    wanted = told["expect"] + (" " + told["result"] if told["expect"] == "ok" else "")
    if found != wanted:
        print(f"{path}: expected {wanted}, found {found}")
    return found == wanted


def main(args):
    if args[:1] == ["--vectors"] and len(args) == 2:
        files = sorted(os.path.join(args[1], name) for name in os.listdir(args[1]) if name.endswith(".vec"))
        right = sum(map(judge, files))
        print(f"{right} of {len(files)} vectors")
        return 0 if right == len(files) > 0 else 1
    if args[:1] == ["--tree"] and len(args) > 1:
        try:
            sys.stdout.buffer.write(listing(tree_of(args[1:])))
            return 0
        except Refused as refused:
            print(refused)
            return 3
    if len(args) != 1 or args[0].startswith("--"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        counts, reader = [0, 0], any_reader(sys.stdin.buffer if args[0] == "-" else open(args[0], "rb"))
        for change in reader.changes():
            if isinstance(change[0], int):
                counts[change[2] is None] += change[1]
        print(f"ok to={reader.to.hex()} data={counts[0]} zero={counts[1]} digest={reader.digest.hex()}")
        return 0
    except Refused as refused:
        print(refused)
        return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
