"""A pretend source: a directory of images that are snapshots with ids of their own, as RBD's are. Needs the module blake3.

  stream.py --states DIR               its states, as a state list
  stream.py [--from NAME] DIR@NAME     a snapshot, whole or since an earlier one, as an extent stream
            [--zeros]                  a whole one says its zeros, too

DIR holds one raw image for each snapshot, and a file `snapshots` with a line `NUMBER NAME` for each, oldest first. The ids come from
the source's name and the number, so a name that is used again is another state. Written from extent-stream(5) alone.
"""
import os
import struct
import sys
import zlib

from blake3 import blake3

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from reader import leaves  # noqa: E402

GRAIN, CUT = 4096, 1 << 20
HEADER, OBJECT, END, DATA, ZERO = 1, 2, 4, 0x10, 0x11
NIL = bytes(16)


def derive(kind, *parts):
    """An id: 16 bytes of BLAKE3 over each part behind its length."""
    return blake3(b"".join(struct.pack("<I", len(part)) + part for part in (kind.encode(), *parts))).digest(16)


def changes(old, new, zeros):
    """(offset, bytes) and (offset, length) of what differs; in a whole stream (old is None) zeros may be left out."""
    found = []
    for at in range(0, len(new), GRAIN):
        grain = new[at:at + GRAIN]
        blank = not any(grain)
        before = (old[at:at + GRAIN] if old is not None else b"").ljust(len(grain), b"\0")[:len(grain)]
        if old is None and blank and not zeros or old is not None and grain == before:
            continue
        if found and found[-1][0] == blank and found[-1][1] + found[-1][2] == at and (blank or at % CUT):
            found[-1][2] += len(grain)
        else:
            found.append([blank, at, len(grain)])
    return [(at, length if blank else new[at:at + length]) for blank, at, length in found]


class Stream:
    """One stream, frame by frame."""

    def __init__(self, output):
        self.output, self.hasher, self.number = output, blake3(), 0

    def put(self, data, stands_for=None):
        self.hasher.update(data if stands_for is None else stands_for)
        self.output.write(data)

    def link(self):
        digest = self.hasher.digest()
        self.hasher = blake3(digest)
        return digest

    def frame(self, kind, payload, offset=0, flags=0):
        head = struct.pack("<HHIQQI", kind, flags, len(payload), self.number, offset, zlib.crc32(payload))
        head += struct.pack("<I", zlib.crc32(head))
        self.put(head + payload, head + leaves(offset, payload) if kind == DATA else None)
        self.number += 1


def send(output, source, names, ids, old, new, zeros):
    """names, ids: from and to."""
    source_id = derive("test-source", source)
    stream_id = derive("siphon-stream", source_id, *ids, bytes(8))
    stream = Stream(output)
    preamble = b"\x89SIPHON-EXT\r\n\x1a\n\0" + struct.pack("<HH", 1, 0)
    stream.put(preamble + struct.pack("<I", zlib.crc32(preamble)))
    lengths = struct.pack("<IHHHHI", CUT, len(source), len(names[0]), len(names[1]), 0, 0)
    stream.frame(HEADER, bytes(16) + source_id + ids[0] + ids[1] + stream_id + lengths + source + names[0] + names[1])
    stream.link()
    stream.frame(OBJECT, struct.pack("<HHIQQQ", 1, 0, GRAIN, len(old or b""), len(new), 0))
    counts = [0, 0, 0, 0]
    for offset, what in changes(old, new, zeros):
        if isinstance(what, bytes):
            stream.frame(DATA, what, offset)
            counts[0], counts[2] = counts[0] + 1, counts[2] + len(what)
        else:
            stream.frame(ZERO, struct.pack("<Q", what), offset, flags=1)
            counts[1], counts[3] = counts[1] + 1, counts[3] + what
    assert counts[2] + counts[1] * 8 < 63 << 20, "this writer makes no CHECKPOINT; take smaller images"
    end = struct.pack("<5Q", stream.number, *counts) + ids[1]
    stream.hasher.update(end)
    stream.frame(END, end + stream.link())
    output.flush()


def main(arguments):
    zeros, before = "--zeros" in arguments, None
    if "--from" in arguments:
        before = arguments[arguments.index("--from") + 1].encode()
    directory, _, name = arguments[-1].partition("@")
    source = os.path.basename(directory).encode()
    known = [line.split(b" ", 1) for line in open(directory + "/snapshots", "rb").read().splitlines()]
    ids = {name: derive("test-snapshot", source, number) for number, name in known}
    read = lambda name: open(os.path.join(directory.encode(), name), "rb").read()
    if arguments[0] == "--states":
        sizes = [os.path.getsize(os.path.join(directory.encode(), name)) for _, name in known]
        lines = [b"%s\t%s\t%d\t%s\n" % (ids[name].hex().encode(), number, size, name)
                 for (number, name), size in zip(known, sizes)]
        text = b"".join(lines)
        sys.stdout.buffer.write(text + b"#end\t%d\t%s\n" % (len(lines), blake3(text).hexdigest().encode()))
        return
    to = name.encode()
    names, pair = (before or b"", to), (ids[before] if before else NIL, ids[to])
    send(sys.stdout.buffer, source, names, pair, read(before) if before else None, read(to), zeros)


if __name__ == "__main__":
    main(sys.argv[1:])
