#!/usr/bin/env python3
"""A second reader of extent streams, made from extent-stream(5) alone: image profile, python3 with `blake3`.

reader.py FILE|-          judges one stream: prints `ok` and what it says (exit 0), or its class (exit 3)
reader.py --vectors DIR   judges every vector of DIR and compares (exit 0 or 1)
"""
import io
import os
import struct
import sys
import zlib

from blake3 import blake3

MAGIC, NIL = b"\x89SIPHON-EXT\r\n\x1a\n\0", bytes(16)
HEADER, OBJECT, CHECKPOINT, END, DATA, ZERO = 1, 2, 3, 4, 0x10, 0x11


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


class Reader:
    """Reads one stream; `changes` gives (offset, length, bytes or None for zeros), and ends only if all is right."""

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
        must(not incompatible, "feature")
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
        must(stream == stream_id(source, self.frm, self.to, bytes(8)), "identity")
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
        self.bound = bound
        self.hash(*raw)

    def one_size(self, to):
        must(self.frm == NIL or self.frm != to or self.old == self.new, "identity")

    def changes(self):
        floor, dn, zn, db, zb = 0, 0, 0, 0, 0
        while True:
            before = self.number
            kind, flags, offset, p, raw = self.frame()
            due = self.since_frames >= 65536 or self.since_bytes >= 64 << 20
            must(due == (kind == CHECKPOINT), "checkpoint")
            must(kind not in (HEADER, OBJECT), "order")
            if kind not in (CHECKPOINT, END, DATA, ZERO):
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
                must(self.to in (NIL, p[40:56]), "identity")
                self.one_size(p[40:56])
                must(not self.file.read(1), "trailing")
                self.to, self.digest = p[40:56], p[56:]
                return
            else:
                must(kind == DATA or len(p) == 8, "length")
                length = len(p) if kind == DATA else int.from_bytes(p, "little")
                end = offset + length
                must(length, "value")
                must(end <= self.new, "bounds")
                must(offset >= floor, "overlap")
                must(offset % self.grain == 0 and (end % self.grain == 0 or end == self.new), "alignment")
                self.hash(*raw, leaves(offset, p) if kind == DATA else None)
                floor = end
                if kind == DATA:
                    dn, db = dn + 1, db + length
                else:
                    zn, zb = zn + 1, zb + length
                yield offset, length, p if kind == DATA else None


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


def judge(path):
    head, body = open(path, encoding="ascii").read().split("---\n")
    told = dict(line.split(": ", 1) for line in head.splitlines())
    byte, _, count = told.get("base", "none").partition(" * ")
    try:
        image = apply(Reader(io.BytesIO(expand(body.splitlines()))), bytes.fromhex(byte) * int(count) if count else b"")
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
    if len(args) != 1 or args[0].startswith("--"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        reader = Reader(sys.stdin.buffer if args[0] == "-" else open(args[0], "rb"))
        counts = [0, 0]
        for _, length, data in reader.changes():
            counts[data is None] += length
        print(f"ok to={reader.to.hex()} data={counts[0]} zero={counts[1]} digest={reader.digest.hex()}")
        return 0
    except Refused as refused:
        print(refused)
        return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
