#!/usr/bin/env python3
"""Writes the vectors of this folder: generate.py [FOLDER].  --dump prints the worked example of extent-stream(5).

Made from the page, not from the Rust code. Needs the `blake3` package.
"""
import os
import struct
import sys
import zlib

from blake3 import blake3

MAGIC = b"\x89SIPHON-EXT\r\n\x1a\n\0"
HEADER, OBJECT, CHECKPOINT, END, DATA, ZERO = 1, 2, 3, 4, 0x10, 0x11
NAMES = {1: "HEADER", 2: "OBJECT", 3: "CHECKPOINT", 4: "END", 0x10: "DATA", 0x11: "ZERO"}
NIL = bytes(16)
MIB = 1 << 20
u16, u32, u64 = (lambda n, f=f: struct.pack(f, n) for f in ("<H", "<I", "<Q"))


def derive(kind, *parts):
    parts = [kind.encode(), *(p.encode() if isinstance(p, str) else p for p in parts)]
    id = blake3(b"".join(u32(len(p)) + p for p in parts)).digest()[:16]
    return id if id != NIL else b"\xff" * 16


FSID = "00000000-0000-0000-0000-000000000001"
IMAGE = (FSID, u64(2), "", "0a1b2c")
SOURCE = derive("rbd-image", *IMAGE)
FROM, TO, OTHER = (derive("rbd-snapshot", *IMAGE, u64(n)) for n in (4, 7, 9))


def stream_id(source, frm, to, incompatible=0):
    return derive("siphon-stream", source, frm, to, u64(incompatible))


def entry(word, bit, text, reserved=0):
    return bytes([word, bit, len(text), reserved]) + text


def leaf(run):
    return blake3(run).digest() if any(run) else bytes(32)


def leaves(offset, payload):
    first = 65536 - offset % 65536
    runs = [payload[:first]] + [payload[at:at + 65536] for at in range(first, len(payload), 65536)]
    return b"".join(leaf(run) for run in runs if run)


class Stream:
    """Builds a stream frame by frame; every field can be bent, and every sum is right unless it is bent itself."""

    def __init__(self, major=1, minor=0, magic=MAGIC, crc=None):
        self.items, self.number, self.changes = [], 0, []
        self.dn = self.zn = self.db = self.zb = self.size = 0
        body = magic + u16(major) + u16(minor)
        body += u32(zlib.crc32(body) if crc is None else crc)
        self.items.append(["PREAMBLE", body])
        self.hash = blake3(body)

    def raw(self, label, body):
        self.items.append([label, body])
        return self

    def frame(self, kind, payload=b"", flags=0, offset=0, *, length=None, number=None, pcrc=None, hcrc=None, label="",
              stands=None):
        number = self.number if number is None else number
        head = struct.pack("<HHIQQI", kind, flags, len(payload) if length is None else length, number, offset,
                           zlib.crc32(payload) if pcrc is None else pcrc)
        body = head + u32(zlib.crc32(head) if hcrc is None else hcrc) + payload
        self.items.append([f"{number} {NAMES.get(kind, hex(kind))}{label}", body])
        if kind not in (CHECKPOINT, END):
            stands = (leaves(offset, payload) if kind == DATA else payload) if stands is None else stands
            self.hash.update(body[:32] + stands)
        self.number += 1
        return self

    def header(self, source=SOURCE, frm=NIL, to=TO, names=(b"vm1", b"", b"tue"), incompatible=0, compatible=0, bound=MIB,
               table=b"", reserved=0, stream=None, lens=None, tail=b"", cut=None, **kw):
        self.frm, self.to = frm, to
        stream = stream_id(source, frm, to, incompatible) if stream is None else stream
        lens = [*map(len, names), len(table)] if lens is None else lens
        body = u64(incompatible) + u64(compatible) + source + frm + to + stream + u32(bound)
        body += b"".join(map(u16, lens)) + u32(reserved) + b"".join(names) + table + tail
        self.frame(HEADER, body[:cut], **kw)
        self.link()
        return self

    def object(self, new=8192, old=0, grain=4096, kind=1, r1=0, r2=0, tail=b"", cut=None, **kw):
        self.size = new
        body = u16(kind) + u16(r1) + u32(grain) + u64(old) + u64(new) + u64(r2) + tail
        return self.frame(OBJECT, body[:cut], **kw)

    def data(self, offset, payload, **kw):
        self.dn, self.db = self.dn + 1, self.db + len(payload)
        self.changes.append((offset, len(payload), payload))
        return self.frame(DATA, payload, kw.pop("flags", 0), offset, label=f" {len(payload)} at {offset}", **kw)

    def zero(self, offset, length, flags=0, payload=None, **kw):
        self.zn, self.zb = self.zn + 1, self.zb + length & (1 << 64) - 1
        self.changes.append((offset, length, None))
        return self.frame(ZERO, u64(length) if payload is None else payload, flags, offset, label=f" {length} at {offset}", **kw)

    def zeros(self, count, offset, length, step):
        """The same as so many calls of zero(); one line of a vector."""
        kept, first = self.items, self.number
        self.items = []
        for n in range(count):
            self.zero(offset + n * step, length)
        body = b"".join(b for _, b in self.items)
        self.items = kept + [[f"{first} to {self.number - 1} ZERO", body, f"zeros {count} {first} {offset} {length} {step}"]]
        return self

    def link(self):
        link = self.hash.digest()
        self.hash = blake3(link)
        return link

    def checkpoint(self, frames=None, data=None, zero=None, link=None, tail=b"", cut=None, **kw):
        own = self.link()
        body = b"".join(u64(a if b is None else b) for a, b in ((self.number, frames), (self.db, data), (self.zb, zero)))
        return self.frame(CHECKPOINT, (body + (own if link is None else link) + tail)[:cut], **kw)

    def end(self, to=None, frames=None, dn=None, zn=None, db=None, zb=None, digest=None, tail=b"", cut=None, **kw):
        told = ((self.number, frames), (self.dn, dn), (self.zn, zn), (self.db, db), (self.zb, zb))
        body = b"".join(u64(a if b is None else b) for a, b in told) + (self.to if to is None else to)
        self.hash.update(body)
        own = self.link()
        return self.frame(END, (body + (own if digest is None else digest) + tail)[:cut], **kw)

    # what is done to a finished stream, its sums left as they were

    def drop(self, at):
        del self.items[at]
        return self

    def double(self, at):
        self.items.insert(at, self.items[at])
        return self

    def swap(self, a, b):
        self.items[a], self.items[b] = self.items[b], self.items[a]
        return self

    def flip(self, at, byte, bits=1):
        body = bytearray(self.items[at][1])
        body[byte] ^= bits
        self.items[at][1] = bytes(body)
        return self

    def cut(self, at, keep):
        """Ends the stream `keep` bytes into item `at`."""
        self.items[at][1] = self.items[at][1][:keep]
        del self.items[at + (keep > 0):]
        return self

    def result(self, base):
        image = bytearray(self.size)
        if self.frm != NIL:
            image[:len(base)] = base[:self.size]
        for offset, length, payload in self.changes:
            image[offset:offset + length] = bytes(length) if payload is None else payload
        return blake3(image).hexdigest()


def whole(new=8192, **kw):
    return Stream().header(**kw).object(new)


def increment(new=8192, old=8192, grain=4096, **kw):
    return Stream().header(frm=FROM, names=(b"vm1", b"mon", b"tue"), **kw).object(new, old, grain)


def small():
    """HEADER, OBJECT, DATA, ZERO, DATA, END: items 1 to 6 behind the preamble."""
    return increment(16384, 16384).data(0, A).zero(4096, 4096, 1).data(12288, B).end()


A, B = b"A" * 4096, b"B" * 4096
VECTORS = {}


def vector(expect, name, comment, stream, base=None, unbuilt=False):
    """`base` is a byte and how often it stands."""
    assert name not in VECTORS, name
    lines = [f"expect: {expect}", f"comment: {comment}"]
    if expect == "ok":
        lines.append(f"base: {base[0]:02x} * {base[1]}" if base else "base: none")
        image = bytes([base[0]]) * base[1] if base else b""
        lines.append("result: " + ("unbuilt" if unbuilt else stream.result(image)))
    lines.append("---")
    for label, body, *short in stream.items:
        lines.append(f"# {label}")
        lines.extend(short or hexlines(body))
    VECTORS[name] = "\n".join(lines) + "\n"


def hexlines(body):
    at = 0
    while at < len(body):
        run = len(body[at:]) - len(body[at:].lstrip(body[at:at + 1]))
        if run >= 64:
            yield f"fill {body[at]:02x} {run}"
            at += run
            continue
        to = at
        while to < len(body) and to - at < 32 and body[to:to + 64] != body[to:to + 1] * 64:
            to += 1
        yield body[at:to].hex()
        at = to


def ok(*args, **kw):
    vector("ok", *args, **kw)


def good():
    ok("ok_whole", "two extents with a gap that reads as zero", whole(16384).data(0, A).data(8192, B).end())
    ok("ok_whole_over_old_content", "what no extent covers is zero, whatever was there", whole(16384).data(4096, A).end(), (255, 20000))
    ok("ok_whole_without_extents", "an image of zeros", whole(16384).end(), (255, 16384))
    ok("ok_whole_with_zero", "not canonical, but allowed", whole(16384).data(0, A).zero(4096, 8192).end(), (255, 16384))
    ok("ok_whole_empty_image", "an image of no byte", whole(0).end())
    ok("ok_increment", "all kinds of extents; the gap is unchanged", small(), (255, 16384))
    ok("ok_increment_without_extents", "nothing changed", increment().end(), (17, 8192))
    ok("ok_increment_of_empty_images", "from nothing to nothing", increment(0, 0).end())
    ok("ok_growth_reads_as_zero", "no extent covers what is new", increment(12288, 4096).end(), (17, 4096))
    ok("ok_growth_with_data", "an extent across the old end", increment(12288, 4096).data(0, A + B).end(), (17, 4096))
    ok("ok_growth_of_odd_size", "the last grain of the old image is half old, half zero", increment(8192, 1000).end(), (17, 1000))
    ok("ok_growth_from_empty", "old size 0, but no whole stream", increment(4096, 0).data(0, A).end())
    ok("ok_shrink", "the end is gone", increment(4096, 16384).end(), (17, 16384))
    ok("ok_shrink_to_odd_size", "with an extent up to the new end", increment(5000, 16384).data(4096, b"x" * 904).end(), (17, 16384))
    ok("ok_shrink_to_nothing", "new size 0", increment(0, 8192).end(), (17, 8192))
    ok("ok_odd_size_data_to_the_end", "the last extent ends where the image does", whole(5000).data(4096, b"y" * 904).end())
    ok("ok_odd_size_zero_to_the_end", "the same with ZERO", increment(4097, 4097).zero(4096, 1).end(), (17, 4097))
    ok("ok_zero_may_deallocate", "the flag changes nothing of the content", increment().zero(0, 8192, 1).end(), (17, 8192))
    ok("ok_from_is_to", "a state to itself", increment(to=FROM).end(), (17, 8192))
    ok("ok_from_is_to_repeats_content", "an extent may repeat what is there", increment(to=FROM).data(0, A).end(), (65, 8192))
    ok("ok_to_only_in_end", "HEADER has nil, END an id", whole(to=NIL).data(0, A).end(to=TO))
    ok("ok_to_nil_in_both", "a state without identity", whole(to=NIL).data(0, A).end())
    for minor in (1, 7, 65535):
        ok(f"ok_minor_version_{minor}", "a newer minor version is read", Stream(minor=minor).header().object(0).end())
    ok("ok_compatible_feature", "an unknown one with its entry is ignored",
       Stream().header(compatible=1 << 5, table=entry(1, 5, b"sparkles")).object(0).end())
    ok("ok_compatible_feature_without_entry", "the highest bit, not in the table", Stream().header(compatible=1 << 63).object(0).end())
    ok("ok_compatible_features_all", "every bit, every entry",
       Stream().header(compatible=(1 << 64) - 1, table=b"".join(entry(1, n, b"") for n in range(64))).object(0).end())
    for kind, what in ((0x8050, "unknown"), (0xC050, "safe_to_copy"), (0x8010, "like_data"), (0x8001, "like_header"), (0x8003, "like_checkpoint"),
                       (0x8004, "like_end"), (0x8000, "like_zero_type"), (0xFFFF, "highest")):
        ok(f"ok_skippable_{what}", f"type {kind:#06x} is skipped, and counts", whole().frame(kind, b"skip me").data(0, A).end())
    ok("ok_skippable_with_flags_and_offset", "these are not looked at", increment().data(4096, A).frame(0x8050, b"", 0xFFFF, (1 << 64) - 1).end(), (17, 8192))
    ok("ok_skippable_before_end", "behind the last extent", whole().data(0, A).frame(0x8050, b"bye").end())
    ok("ok_skippable_payload_at_bound", "as long as any payload may be", whole(bound=4096).frame(0x8050, A).end())
    ok("ok_names_at_limit", "three names of 4096 bytes", Stream().header(frm=FROM, names=(b"s" * 4096, b"f" * 4096, b"t" * 4096)).object(0).end())
    ok("ok_names_empty", "no names", Stream().header(names=(b"", b"", b"")).object(0).end())
    ok("ok_names_of_any_bytes", "control sequences, NUL, no UTF-8", Stream().header(names=(b"\x1b[2J\0\xff", b"", b"a/../b\n")).object(0).end())
    ok("ok_payload_bound_smallest", "and a payload that reaches it", whole(bound=4096).data(0, A).end())
    ok("ok_payload_bound_largest", "and a payload that reaches it", whole(16 * MIB, bound=16 * MIB).data(0, b"L" * 16 * MIB).end())
    ok("ok_payload_at_default_bound", "1 MiB", whole(MIB).data(0, b"M" * MIB).end())
    ok("ok_grain_1", "extents anywhere", increment(100, 100, 1).data(1, b"a").zero(2, 1).data(98, b"b").end(), (17, 100))
    ok("ok_grain_65536", "the largest grain", increment(65537, 65537, 65536).zero(0, 65536).data(65536, b"z").end(), (17, 65537))
    huge = (1 << 63) - 1
    ok("ok_size_at_limit", "the largest image, all of it zero", increment(huge, huge).zero(0, huge).end(), unbuilt=True)
    ok("ok_last_byte_of_largest_image", "DATA at its very end", whole(huge).data(huge - 4095, b"e" * 4095).end(), unbuilt=True)
    ok("ok_touching_extents", "not canonical, but allowed", whole().data(0, A).data(4096, B).end())
    ok("ok_zeros_as_data", "not canonical, but allowed", increment().data(4096, bytes(4096)).end(), (17, 8192))
    ok("ok_touching_zeros", "not canonical, but allowed", increment().zero(0, 4096).zero(4096, 4096).end(), (17, 8192))
    ok("ok_payload_over_a_cut", "not canonical: DATA across a multiple of 1 MiB", whole(MIB + 4096).data(MIB - 4096, A + B).end())
    n = 65536
    ok("ok_checkpoint_after_65536_frames", "OBJECT and 65535 ZERO frames, a CHECKPOINT, one more",
       increment(2 * n, 2 * n, 1).zeros(n - 1, 0, 1, 2).checkpoint().zero(2 * n - 1, 1).end(), (255, 2 * n))
    ok("ok_leaves_across_blocks", "DATA begins and ends inside of blocks of 64 KiB", whole(4 * 65536).data(61440, b"e" * 8192).data(131072 - 4096, b"f" * (65536 + 8192)).end())
    ok("ok_leaves_of_blocks", "blocks of 64 KiB, whole and in part", whole(4 * 65536).data(0, b"g" * 65536 + b"h" * 4096).data(131072, b"i" * 131072).end())
    ok("ok_leaves_of_zeros", "DATA of zeros is not canonical; its leaf is zeros", whole(4 * 65536).data(0, bytes(65536) + A).data(131072, bytes(4096)).end())
    ok("ok_leaf_of_a_byte", "with a grain of 1", Stream().header().object(65538, grain=1).data(65535, b"xy").data(65537, b"\0").end())
    ok("ok_checkpoint_before_end", "due behind the last extent", increment(2 * n, 2 * n, 1).zeros(n - 1, 0, 1, 2).checkpoint().end(), (255, 2 * n))
    ok("ok_checkpoint_not_yet_due", "one frame fewer needs none", increment(2 * n, 2 * n, 1).zeros(n - 2, 0, 1, 2).end(), (255, 2 * n))
    ok("ok_two_checkpoints", "the second counts from the first, and OBJECT only to the first",
       increment(4 * n, 4 * n, 1).zeros(n - 1, 0, 1, 2).checkpoint().zeros(n, 2 * n, 1, 2).checkpoint().end(), (255, 4 * n))
    ok("ok_checkpoint_after_64_mib", "four payloads of 16 MiB", four(whole(80 * MIB, bound=16 * MIB)).checkpoint().data(64 * MIB, A).end())
    ok("ok_checkpoint_at_exactly_64_mib", "OBJECT's 32 bytes count", four(big(), 32).checkpoint().end())
    ok("ok_checkpoint_one_byte_short_of_64_mib", "none is due", four(big(), 33).end())
    skip = whole(0, bound=16 * MIB)
    for _ in range(4):
        skip.frame(0x8050, b"s" * 16 * MIB)
    ok("ok_skippables_count_for_checkpoint", "four skipped payloads of 16 MiB", skip.checkpoint().end())


def big():
    return Stream().header(bound=16 * MIB).object(64 * MIB, grain=1)


def four(stream, less=0):
    for at in range(0, 64, 16):
        stream.data(at * MIB, bytes([at + 1]) * (16 * MIB - (less if at == 48 else 0)))
    return stream


def transport():
    for name, body in (("text", b"hello, world\n"), ("one_wrong_byte", b"x"), ("rbd_diff", b"rbd diff v1\nf\3\0\0\0mon"), ("zeros", bytes(64)),
                       ("seven_bits", b"\x09" + MAGIC[1:] + bytes(8)), ("line_ends_to_unix", MAGIC.replace(b"\r\n", b"\n") + bytes(9)),
                       ("line_ends_to_dos", MAGIC.replace(b"\x1a\n", b"\x1a\r\n") + bytes(8)), ("last_byte_of_magic", MAGIC[:15] + b"\1" + bytes(8)),
                       ("wrong_and_short", MAGIC[:9] + b"?"), ("byte_order_mark", b"\xef\xbb\xbf" + MAGIC)):
        s = Stream()
        s.items = []
        vector("not-a-stream", f"not_a_stream_{name}", "the magic is damaged or absent", s.raw("input", body))
    s = Stream()
    s.items = []
    vector("empty", "empty", "no byte at all: the sender never began", s)
    for major in (0, 2, 0x0100, 65535):
        vector("version", f"version_{major}", "another major version", Stream(major=major).header().object(0).end())
    vector("version", "version_2_and_nothing_else", "only the preamble is looked at", Stream(major=2))

    for name, at, keep in (("in_magic", 0, 1), ("at_end_of_magic", 0, 16), ("in_preamble", 0, 23), ("after_preamble", 1, 0), ("in_frame_header", 1, 31),
                           ("after_frame_header", 1, 32), ("in_header", 1, 100), ("after_header", 2, 0), ("in_object", 2, 63), ("after_object", 3, 0),
                           ("in_payload", 3, 1000), ("in_last_byte_of_payload", 3, 4127), ("between_extents", 4, 0), ("in_zero", 4, 36), ("before_end", 6, 0),
                           ("in_header_of_end", 6, 16), ("after_header_of_end", 6, 32), ("in_digest", 6, 119)):
        vector("truncated", f"truncated_{name}", "the input ends early", small().cut(at, keep))
    n = 65536
    vector("truncated", "truncated_where_a_checkpoint_is_due", "the end of the input comes first", increment(2 * n, 2 * n, 1).zeros(n - 1, 0, 1, 2))
    vector("truncated", "truncated_after_checkpoint", "a CHECKPOINT is no END", increment(2 * n, 2 * n, 1).zeros(n - 1, 0, 1, 2).checkpoint())
    vector("truncated", "truncated_behind_claimed_length", "the claimed length is allowed, the bytes are not there", whole().data(0, b"few", length=MIB))

    vector("header-crc", "header_crc_of_preamble", "the sum itself", Stream(crc=0).header().object(0).end())
    vector("header-crc", "header_crc_before_version", "a flipped bit is no other version", small().flip(0, 16, 2))
    vector("header-crc", "header_crc_minor_version", "the sum covers it", small().flip(0, 18))
    for byte, name in ((0, "type"), (2, "flags"), (4, "length"), (8, "number"), (16, "offset"), (24, "payload_crc"), (28, "crc")):
        vector("header-crc", f"header_crc_{name}", "a flipped bit in the header of DATA", small().flip(3, byte))
    vector("header-crc", "header_crc_length_huge", "no field is used before the sum fits", small().flip(3, 7, 0x80))
    vector("header-crc", "header_crc_of_end", "a flipped bit in the header of END", small().flip(6, 8))
    vector("header-crc", "header_crc_of_first_frame", "a flipped bit in the header of HEADER", small().flip(1, 0, 2))
    vector("header-crc", "header_crc_zero_is_no_exception", "0 does not mean: no sum", whole().data(0, A, hcrc=0).end())
    for at, byte, name in ((1, 33, "header"), (2, 40, "object"), (3, 32, "data"), (3, 4127, "last_byte_of_data"), (4, 32, "zero"), (6, 32, "end"), (6, 119, "digest")):
        vector("payload-crc", f"payload_crc_{name}", "a flipped bit in the payload", small().flip(at, byte))
    vector("payload-crc", "payload_crc_zero_is_no_exception", "0 does not mean: no sum", whole().data(0, A, pcrc=0).end())
    vector("payload-crc", "payload_crc_of_empty_payload", "an empty payload has the sum 0", whole().frame(0x8050, b"", pcrc=1).end())
    vector("payload-crc", "payload_crc_of_skippable", "skipped, but checked", whole().frame(0x8050, b"skip", pcrc=1).end())
    vector("payload-crc", "payload_crc_before_type", "an unknown type with a wrong sum", whole().frame(0x50, b"what", pcrc=1).end())

    for name, tail in (("byte", b"\0"), ("line_end", b"\n"), ("block", bytes(512))):
        vector("trailing", f"trailing_{name}", "something behind END", small().raw("trailing", tail))
    vector("trailing", "trailing_stream", "two streams run together", small().raw("second stream", b"".join(b for _, b, *_ in small().items)))
    vector("trailing", "trailing_end", "END twice", small().double(6))
    vector("trailing", "trailing_skippable", "nothing follows END, not even this", small().frame(0x8050))


def features():
    def head(**kw):
        return Stream().header(**kw).object(0).end()
    for bit, name in ((0, "tree"), (1, "resumed"), (2, "multi_object"), (3, "unnamed"), (63, "highest")):
        vector("feature", f"feature_{name}", f"incompatible bit {bit}", head(incompatible=1 << bit))
    vector("feature", "feature_all", "every incompatible bit", head(incompatible=(1 << 64) - 1))
    vector("feature", "feature_with_entry", "the table names it", head(incompatible=1 << 9, table=entry(0, 9, b"teleport (--no-teleport)")))
    vector("feature", "feature_before_broken_table", "the table cannot be read", head(incompatible=2, table=b"\0"))
    vector("feature", "feature_before_length", "HEADER is longer than this version's", head(incompatible=1, tail=b"more"))
    vector("feature", "feature_before_missing_names", "HEADER ends behind its fixed part", head(incompatible=1, cut=96))
    vector("feature", "feature_before_values", "the payload bound is no good either", head(incompatible=4, bound=0))
    vector("feature", "feature_before_identity", "a nil source too", head(incompatible=4, source=NIL))
    two = entry(1, 3, b"a") + entry(1, 4, b"b")
    vector("reserved", "reserved_in_feature_table", "the entry's fourth byte", head(compatible=8, table=entry(1, 3, b"x", 1)))
    vector("length", "length_feature_entry_cut", "three bytes of an entry", head(compatible=8, table=entry(1, 3, b"")[:3]))
    vector("length", "length_feature_text_cut", "the text ends behind the table", head(compatible=8, table=entry(1, 3, b"long")[:-1]))
    vector("value", "value_feature_word", "there are two words", head(compatible=8, table=entry(2, 3, b"")))
    vector("value", "value_feature_bit", "there are 64 bits", head(compatible=8, table=entry(1, 64, b"")))
    vector("value", "value_feature_not_set", "an entry for a bit that is not set", head(table=entry(1, 3, b"x")))
    vector("value", "value_feature_not_set_incompatible", "the same in the other word", head(compatible=1, table=entry(0, 0, b"tree")))
    vector("value", "value_feature_twice", "two entries for one bit", head(compatible=8, table=entry(1, 3, b"a") + entry(1, 3, b"b")))
    vector("value", "value_feature_descending", "entries out of order", head(compatible=24, table=two[5:] + two[:5]))


def bent():
    """Hostile streams: one rule broken, every sum right."""
    def head(**kw):
        return Stream().header(**kw).object(0).end()

    def obj(**kw):
        return Stream().header(frm=kw.pop("frm", NIL)).object(**kw).end()

    for bit in (0, 15):
        f = {"flags": 1 << bit}
        vector("reserved", f"reserved_flag_{bit}_of_header", "HEADER has no flags", head(**f))
        vector("reserved", f"reserved_flag_{bit}_of_object", "OBJECT has no flags", obj(**f))
        vector("reserved", f"reserved_flag_{bit}_of_data", "DATA has no flags", whole().data(0, A, **f).end())
        vector("reserved", f"reserved_flag_{bit or 1}_of_zero", "ZERO has one flag", whole().zero(0, 4096, 1 << (bit or 1)).end())
        vector("reserved", f"reserved_flag_{bit}_of_end", "END has no flags", whole().end(**f))
    for bit in range(2, 15):
        vector("reserved", f"reserved_flag_{bit}_of_zero", "ZERO has one flag", whole().zero(0, 4096, 1 << bit | 1).end())
    vector("reserved", "reserved_offset_of_header", "HEADER is no extent", head(offset=1))
    vector("reserved", "reserved_offset_of_object", "OBJECT is no extent", obj(offset=4096))
    vector("reserved", "reserved_offset_of_end", "END is no extent", whole().end(offset=1 << 63))
    vector("reserved", "reserved_field_of_header", "bytes 92 to 95", head(reserved=1))
    vector("reserved", "reserved_field_of_header_high", "its highest bit", head(reserved=1 << 31))
    vector("reserved", "reserved_field_of_object", "bytes 2 and 3", obj(r1=1))
    vector("reserved", "reserved_tail_of_object", "bytes 24 to 31", obj(r2=1 << 63))

    for kind in (0x0000, 0x0005, 0x000F, 0x0012, 0x001F, 0x0020, 0x003F, 0x0040, 0x3FFF, 0x4000, 0x4010, 0x7FFF):
        vector("unknown-frame", f"unknown_frame_{kind:04x}", "not known, and without may-skip", whole().data(0, A).frame(kind, b"?").end())
    vector("unknown-frame", "unknown_frame_before_reserved", "its flags are nobody's business", whole().frame(0x50, b"", 0xFFFF, 1).end())

    vector("order", "order_no_header", "OBJECT first", Stream().object(0))
    vector("order", "order_data_first", "an extent first", Stream().data(0, A))
    vector("order", "order_end_first", "END first", Stream().frame(END, bytes(88)))
    vector("order", "order_skippable_first", "HEADER is due, and nothing else", Stream().frame(0x8050).header().object(0).end())
    vector("order", "order_no_object", "an extent where OBJECT is due", Stream().header().data(0, A).end())
    vector("order", "order_end_for_object", "END where OBJECT is due", Stream().header().end())
    vector("order", "order_skippable_for_object", "OBJECT is due, and nothing else", Stream().header().frame(0x8050).object(0).end())
    vector("order", "order_checkpoint_for_object", "a CHECKPOINT where OBJECT is due", Stream().header().checkpoint().object(0).end())
    vector("order", "order_header_for_object", "HEADER twice", Stream().header().header().object(0).end())
    vector("order", "order_second_header", "behind an extent", whole().data(0, A).header().end())
    vector("order", "order_second_object", "one object only", whole().data(0, A).object().end())
    vector("order", "order_number_repeated", "the number of the frame before", whole().data(0, A).data(4096, B, number=2).end())
    vector("order", "order_number_skipped", "one is missing", whole().data(0, A, number=3).end())
    vector("order", "order_number_from_1", "the first is 0", Stream().header(number=1).object(0).end())
    vector("order", "order_number_largest", "2^64 - 1", whole().data(0, A, number=(1 << 64) - 1).end())
    vector("order", "order_number_of_end", "END is numbered too", whole().end(number=3))
    vector("order", "order_frame_lost", "a whole frame is missing", small().drop(4))
    vector("order", "order_frame_doubled", "a whole frame stands twice", small().double(3))
    vector("order", "order_frames_swapped", "two whole frames", small().swap(3, 4))
    vector("order", "order_header_lost", "the first frame is missing", small().drop(1))

    vector("length", "length_of_header_short", "one byte less than its fixed part", Stream().header(names=(b"", b"", b""), cut=95))
    vector("length", "length_of_header_empty", "no payload", Stream().header(cut=0))
    vector("length", "length_of_header_names_cut", "the names end behind the payload", head(lens=[3, 0, 4, 0]))
    vector("length", "length_of_header_lengths_largest", "four times 65535", head(lens=[65535] * 4))
    vector("length", "length_of_header_long", "a byte behind the table", head(tail=b"\0"))
    vector("length", "length_of_header_over_64_kib", "before anything in it is looked at", Stream().header(tail=bytes(65536 - 101)))
    vector("length", "length_of_header_claimed_4_gib", "no memory is taken for it", Stream().header(length=0xFFFFFFFF))
    vector("length", "length_of_first_frame_over_64_kib", "whatever its type", Stream().frame(DATA, length=65537))
    vector("length", "length_of_object_short", "31 bytes", obj(cut=31))
    vector("length", "length_of_object_long", "33 bytes", obj(tail=b"\0"))
    vector("length", "length_of_object_claimed_1_mib", "the declared bound holds only from the third frame on", Stream().header().object(length=65537))
    vector("length", "length_of_data_over_bound", "one byte more than declared", Stream().header(bound=4096).object(8192, grain=1).data(0, b"d" * 4097).end())
    vector("length", "length_of_data_over_default_bound", "1 MiB and one byte, claimed", whole(2 * MIB).data(0, b"", length=MIB + 1))
    vector("length", "length_of_data_over_largest_bound", "16 MiB and one byte, claimed", whole(bound=16 * MIB).data(0, b"", length=16 * MIB + 1))
    vector("length", "length_of_data_claimed_4_gib", "no memory is taken for it", whole().data(0, A, length=0xFFFFFFFF))
    vector("length", "length_of_skippable_over_bound", "skipped ones too", whole(bound=4096).frame(0x8050, b"s" * 4097).end())
    vector("length", "length_before_unknown_type", "the bound comes first", whole().frame(0x50, length=0x80000000))
    for n in (0, 7, 9, 16):
        vector("length", f"length_of_zero_{n}", "ZERO has 8 bytes", whole().zero(0, 4096, payload=(u64(4096) * 2)[:n]).end())
    vector("length", "length_of_end_short", "87 bytes", whole().end(cut=87))
    vector("length", "length_of_end_long", "89 bytes", whole().end(tail=b"\0"))
    vector("length", "length_of_end_empty", "no payload", whole().end(cut=0))
    vector("length", "length_of_end_only_a_digest", "32 bytes", whole().frame(END, bytes(32)))

    for n, which in enumerate(("source", "from", "to")):
        names = [b""] * 3
        names[n] = b"n" * 4097
        vector("value", f"value_name_of_{which}_too_long", "4097 bytes", head(names=names))
    for bound in (0, 1, 4095, 16 * MIB + 1, 0xFFFFFFFF):
        vector("value", f"value_payload_bound_{bound}", "4096 to 16777216 are allowed", head(bound=bound))
    for kind in (0, 2, 65535):
        vector("value", f"value_object_kind_{kind}", "1 is known", obj(kind=kind))
    for grain in (0, 3, 4095, 131072, 1 << 31, 0xFFFFFFFF):
        vector("value", f"value_grain_{grain}", "a power of two up to 65536", obj(grain=grain))
    vector("value", "value_size_over_limit", "2^63", obj(new=1 << 63))
    vector("value", "value_size_largest", "2^64 - 1", obj(new=(1 << 64) - 1))
    vector("value", "value_old_size_over_limit", "2^63", obj(frm=FROM, old=1 << 63))
    vector("value", "value_whole_with_old_size", "there is no old image", obj(old=4096))
    vector("value", "value_data_empty", "an extent of no byte", whole().data(0, b"").end())
    vector("value", "value_zero_empty", "an extent of no byte", whole().zero(0, 0).end())
    vector("value", "value_empty_extent_outside", "value comes before bounds", whole().zero(1 << 40, 0).end())

    top = (1 << 64) - 1
    vector("bounds", "bounds_data_over_the_end", "half of it", whole().data(4096, A + B).end())
    vector("bounds", "bounds_zero_over_the_end_by_one", "one byte", whole().zero(4096, 4097).end())
    vector("bounds", "bounds_at_the_end", "it begins where the image ends", whole().data(8192, A).end())
    vector("bounds", "bounds_far_away", "1 EiB", whole().data(1 << 60, A).end())
    vector("bounds", "bounds_offset_largest", "2^64 - 1, and the end overflows", whole().data(top, A).end())
    vector("bounds", "bounds_zero_length_largest", "2^64 - 1 bytes from 0", whole().zero(0, top).end())
    vector("bounds", "bounds_end_wraps_to_zero", "offset and length make 2^64", whole().zero(top - 4095, 4096).end())
    vector("bounds", "bounds_end_wraps_into_the_image", "offset and length make 2^64 + 4096", whole().zero(1 << 63, (1 << 63) + 4096).end())
    vector("bounds", "bounds_in_largest_image", "an offset of 2^63", whole((1 << 63) - 1).zero(1 << 63, 4096).end())
    vector("bounds", "bounds_in_empty_image", "there is no byte", whole(0).data(0, A).end())
    vector("bounds", "bounds_in_shrunk_image", "inside the old size only", increment(4096, 8192).data(4096, A).end())
    vector("bounds", "bounds_before_overlap", "outside and before the last", whole().data(4096, A).zero(0, 8193).end())
    vector("bounds", "bounds_before_alignment", "outside and ragged", whole().data(1, A + A).end())

    vector("overlap", "overlap_same_offset", "twice the same extent", whole().data(0, A).data(0, A).end())
    vector("overlap", "overlap_by_a_grain", "the second begins inside the first", whole(16384).data(0, A + B).data(4096, A + B).end())
    vector("overlap", "overlap_descending", "apart, but backwards", whole().data(4096, A).data(0, B).end())
    vector("overlap", "overlap_inside_zero", "DATA over a ZERO", whole(65536).zero(0, 65536).data(8192, A).end())
    vector("overlap", "overlap_zero_over_data", "ZERO over a DATA", whole().data(4096, A).zero(4096, 4096).end())
    vector("overlap", "overlap_by_a_byte", "with a grain of 1", Stream().header().object(100, grain=1).data(0, b"aa").data(1, b"b").end())
    vector("overlap", "overlap_across_skippable", "a skipped frame changes nothing", whole().data(4096, A).frame(0x8050).data(0, B).end())
    vector("overlap", "overlap_before_alignment", "both", whole().data(4096, A).data(1, B).end())
    n = 65536
    vector("overlap", "overlap_across_checkpoint", "a CHECKPOINT changes nothing", increment(2 * n, 2 * n, 1).zeros(n - 1, 0, 1, 2).checkpoint().zero(0, 1).end())

    vector("alignment", "alignment_of_offset", "one byte off", whole().data(1, A).end())
    vector("alignment", "alignment_of_end", "one byte short", whole().data(0, A[1:]).end())
    vector("alignment", "alignment_of_zero", "ZERO obeys it too", whole().zero(512, 512).end())
    vector("alignment", "alignment_of_tail", "it ends with the image, but begins ragged", whole(5000).data(4097, b"t" * 903).end())
    vector("alignment", "alignment_of_largest_grain", "4096 is too fine", Stream().header().object(1 << 17, grain=65536).data(4096, A).end())
    vector("alignment", "alignment_of_old_size", "the old size excuses nothing", increment(8192, 5000).data(4096, b"t" * 904).end())


def seals():
    n = 65536

    def due():
        return increment(2 * n, 2 * n, 1).zeros(n - 1, 0, 1, 2)

    def ck(name, comment, stream):
        vector("checkpoint", f"checkpoint_{name}", comment, stream)
    ck("missing", "an extent where it is due", due().zero(2 * n - 1, 1).end())
    ck("missing_before_end", "END where it is due", due().end())
    ck("missing_before_unknown", "it comes before the type", due().frame(0x50).end())
    ck("missing_before_skippable", "not even this may stand between", due().frame(0x8050).checkpoint().end())
    ck("missing_before_header", "it comes before the order", due().header().end())
    ck("missing_after_64_mib", "four payloads of 16 MiB", four(whole(80 * MIB, bound=16 * MIB)).data(64 * MIB, A).end())
    ck("missing_second", "the second one", increment(4 * n, 4 * n, 1).zeros(n - 1, 0, 1, 2).checkpoint().zeros(n, 2 * n, 1, 2).end())
    ck("one_frame_early", "65534 ZERO frames", increment(2 * n, 2 * n, 1).zeros(n - 2, 0, 1, 2).checkpoint().end())
    ck("second_one_frame_early", "OBJECT counts only to the first", increment(4 * n, 4 * n, 1).zeros(n - 1, 0, 1, 2).checkpoint().zeros(n - 1, 2 * n, 1, 2).checkpoint().end())
    ck("one_byte_early", "one byte short of 64 MiB", four(big(), 33).checkpoint().end())
    ck("behind_object", "none is due at the beginning", whole().checkpoint().data(0, A).end())
    ck("behind_few_extents", "none is due yet", whole().data(0, A).checkpoint().end())
    ck("twice", "a second one at once", due().checkpoint().checkpoint().end())
    ck("frames_wrong", "one frame more", due().checkpoint(frames=n + 2).end())
    ck("frames_since_the_last", "the count is of all frames", increment(4 * n, 4 * n, 1).zeros(n - 1, 0, 1, 2).checkpoint().zeros(n, 2 * n, 1, 2).checkpoint(frames=n).end())
    ck("data_wrong", "bytes of DATA", due().checkpoint(data=1).end())
    ck("zero_wrong", "bytes of ZERO", due().checkpoint(zero=n).end())
    ck("link_wrong", "another link", due().checkpoint(link=bytes(32)).end())
    s = due()
    ck("link_without_the_one_before", "BLAKE3 of the frames alone", s.checkpoint(link=blake3(b"".join(b for _, b, *_ in s.items[2:])).digest()).end())
    vector("reserved", "reserved_flag_0_of_checkpoint", "CHECKPOINT has no flags", due().checkpoint(flags=1).end())
    vector("reserved", "reserved_flag_15_of_checkpoint", "CHECKPOINT has no flags", due().checkpoint(flags=1 << 15).end())
    vector("reserved", "reserved_offset_of_checkpoint", "CHECKPOINT is no extent", due().checkpoint(offset=1).end())
    vector("length", "length_of_checkpoint_short", "55 bytes", due().checkpoint(cut=55).end())
    vector("length", "length_of_checkpoint_long", "57 bytes", due().checkpoint(tail=b"\0").end())
    s = due().checkpoint()
    s.items[-1][1] = s.items[-1][1][:40] + b"\xff" + s.items[-1][1][41:]
    vector("payload-crc", "payload_crc_checkpoint", "a flipped bit in the payload", s.end())

    def dg(name, comment, stream):
        vector("digest", f"digest_{name}", comment, stream)
    edge, two = b"e" * 8192, b"t" * 65536 + b"u" * 65536

    def spread():
        return whole(4 * 65536)
    dg("of_payload", "the bytes of DATA instead of their leaves", spread().data(0, A, stands=A).end())
    dg("of_one_leaf", "a payload of two blocks, uncut", spread().data(0, two, stands=blake3(two).digest()).end())
    dg("of_leaves_from_extent", "cut from where the extent begins, not the image", spread().data(61440, edge, stands=leaves(0, edge)).end())
    dg("of_leaves_with_zeros_hashed", "zeros have a leaf of zeros", spread().data(0, bytes(4096), stands=blake3(bytes(4096)).digest()).end())
    dg("of_leaves_without_zeros", "zeros have a leaf", spread().data(0, bytes(65536) + A, stands=leaves(0, A)).end())
    dg("of_leaves_with_rest_of_block", "a piece's leaf is not that of its block", spread().data(0, A, stands=leaf(A + bytes(61440))).end())
    dg("zero", "0 does not mean: none", whole().data(0, A).end(digest=bytes(32)))
    s = whole().data(0, A)
    dg("of_all_bytes", "one hash over all instead of the chain", s.end(digest=blake3(b"".join(b for _, b in s.items)).digest()))
    s = whole().data(0, A)
    dg("without_counts", "END's other fields are covered", s.end(digest=s.hash.digest()))
    s = whole().data(0, A).end()
    t = whole().data(0, B)
    dg("of_other_content", "content exchanged, sums made anew", t.end(digest=s.items[-1][1][-32:]))
    t = whole(names=(b"vm2", b"", b"tue")).data(0, A)
    dg("of_other_names", "names exchanged, sums made anew", t.end(digest=s.items[-1][1][-32:]))
    t = Stream(minor=1).header().object().data(0, A)
    dg("of_other_minor", "the preamble is covered", t.end(digest=s.items[-1][1][-32:]))
    s = whole().data(0, A)
    h = s.hash.copy()
    s.frame(0x8050, b"slipped in")
    s.hash = h
    dg("without_skippable", "a frame slipped in, numbers and sums made anew", s.end())
    s = due()
    dg("after_checkpoint", "the link before is covered", s.checkpoint().end(digest=blake3(b"").digest()))
    dg("before_totals", "both are wrong", whole().data(0, A).end(digest=bytes(32), dn=9))
    dg("before_identity", "both are wrong", whole().data(0, A).end(digest=bytes(32), to=OTHER))

    for field in ("frames", "dn", "zn", "db", "zb"):
        name = {"frames": "frames", "dn": "data_extents", "zn": "zero_extents", "db": "data_bytes", "zb": "zero_bytes"}[field]
        for value, how in ((0, "none"), (99, "wrong"), ((1 << 64) - 1, "largest")):
            vector("totals", f"totals_{name}_{how}", "END says something else", whole().data(0, A).zero(4096, 4096).end(**{field: value}))
    vector("totals", "totals_count_end_itself", "END is not among the frames before it", whole().data(0, A).end(frames=4))
    vector("totals", "totals_before_identity", "both are wrong", whole().data(0, A).end(dn=2, to=OTHER))

    vector("identity", "identity_source_nil", "a stream is of something", Stream().header(source=NIL).object(0).end())
    vector("identity", "identity_stream_nil", "nil does not mean: not computed", Stream().header(stream=NIL).object(0).end())
    vector("identity", "identity_stream_of_other_source", "it does not follow", Stream().header(stream=stream_id(OTHER, NIL, TO)).object(0).end())
    vector("identity", "identity_stream_of_other_from", "it does not follow", Stream().header(stream=stream_id(SOURCE, FROM, TO)).object(0).end())
    vector("identity", "identity_stream_of_other_to", "it does not follow", Stream().header(stream=stream_id(SOURCE, NIL, OTHER)).object(0).end())
    vector("identity", "identity_stream_with_feature", "it does not follow", Stream().header(stream=stream_id(SOURCE, NIL, TO, 1)).object(0).end())
    vector("identity", "identity_to_differs", "HEADER and END disagree", whole().data(0, A).end(to=OTHER))
    vector("identity", "identity_to_lost", "HEADER has it, END has nil", whole().data(0, A).end(to=NIL))
    vector("identity", "identity_to_is_from_in_end", "HEADER said otherwise", increment().end(to=FROM))
    vector("identity", "identity_one_state_two_sizes", "from and to are one", increment(8192, 4096, to=FROM).end())
    vector("identity", "identity_one_state_two_sizes_in_end", "END says that from and to are one", increment(8192, 4096, to=NIL).end(to=FROM))
    vector("identity", "identity_before_trailing", "both are wrong", whole().end(to=OTHER).raw("trailing", b"\0"))


def hex_or_dash(part):
    return part.hex() or "-"


def identities():
    """kind, parts in hexadecimal ('-' for an empty one), id."""
    uuid = "Zq1fX0-Xk1t-3n8s-1Qa0-cCqe-Pz3k-0fGh1J", "b8n2Yt-0000-1111-2222-3333-4444-abcdef"
    root = bytes(range(32))
    rows = [("rbd-image", *IMAGE), ("rbd-image", FSID, u64(2), "ns", "0a1b2c"), ("rbd-image", FSID, u64((1 << 64) - 1), "", "0a1b2c"),
            ("rbd-image", FSID, u64(2), "ns0a", "1b2c"),
            ("rbd-snapshot", *IMAGE, u64(4)), ("rbd-snapshot", *IMAGE, u64(7)), ("rbd-snapshot", *IMAGE, u64((1 << 64) - 1)),
            ("rbd-snapshot", FSID, u64(2), "ns", "0a1b2c", u64(4)),
            ("zfs-dataset", u64(1)), ("zfs-dataset", u64(0x0123456789ABCDEF)), ("zfs-snapshot", u64(1)), ("zfs-snapshot", u64((1 << 64) - 1)),
            ("lvm-volume", *uuid), ("lvm-snapshot", *uuid, u64(0)), ("lvm-snapshot", *uuid, u64(12345)),
            ("file",), ("file-content", bytes(32)), ("file-content", root),
            ("unfinished", f"-,4096={TO.hex()},8192=0"), ("unfinished", f"{FROM.hex()},4096={TO.hex()},5000=-,8192={FROM.hex()}"),
            ("siphon-stream", SOURCE, NIL, TO, u64(0)), ("siphon-stream", SOURCE, FROM, TO, u64(0)), ("siphon-stream", SOURCE, FROM, NIL, u64(0)),
            ("siphon-stream", SOURCE, FROM, TO, u64(5))]
    return table(rows)


def tree_identities():
    """The same for those of trees, which version 1.0 had not."""
    inode, time = u64(1 << 40), u64(1795349796) + u32(624273415)
    return table([("tree",), ("tree-content", bytes(32)), ("tree-content", bytes(range(32))),
                  ("cephfs-directory", FSID, inode), ("cephfs-directory", FSID, u64((1 << 48) - 1)),
                  ("cephfs-snapshot", FSID, inode, time), ("cephfs-snapshot", FSID, inode, u64((1 << 64) - 1) + u32(0))])


def table(rows):
    text = "# kind, then its parts as bytes in hexadecimal ('-': empty), then the id; by extent-stream(5), \"IDENTITIES\"\n"
    for kind, *parts in rows:
        raw = [p.encode() if isinstance(p, str) else p for p in parts]
        text += "\t".join([kind, *map(hex_or_dash, raw), derive(kind, *raw).hex()]) + "\n"
    return text


def content_root(image):
    blocks = [image[at:at + 65536] for at in range(0, len(image), 65536)]
    return blake3(b"siphon-content-1" + u64(len(image)) + b"".join(map(leaf, blocks))).hexdigest()


def content_roots():
    """An image as runs 'BYTE*COUNT', and its root."""
    rows = ["", "00*1", "01*1", "00*65536", "00*65535", "00*65537", "ff*65536", "ff*65537", "00*131072", "00*65535 01*1", "00*65536 01*1",
            "01*1 00*65535", "01*1 00*65536", "11*65536 00*65536 22*65536", "00*65536 11*65536 00*1000", "11*4096 00*1000000 22*4096",
            "00*16777216", "61*1 62*1 63*1"]
    text = "# an image as runs BYTE*COUNT (hexadecimal, decimal), then its root; by extent-stream(5), \"CONTENT ROOT\"\n"
    for row in rows:
        image = b"".join(bytes.fromhex(run[:2]) * int(run[3:]) for run in row.split())
        text += f"{row or '-'}\t{content_root(image)}\n"
    return text


def dump():
    """The worked example of the page."""
    s = Stream().header(frm=FROM, names=(b"vm1", b"mon", b"tue")).object(40, 48, 16).data(0, b"Siphon moves it!").zero(16, 16, 1).end()
    head = [(2, "type"), (2, "flags"), (4, "length"), (8, "number"), (8, "offset"), (4, "CRC of payload"), (4, "CRC of header")]
    ends = {"HEADER": [(8, "incompatible"), (8, "compatible"), (16, "source id"), (16, "from-state id"), (16, "to-state id"),
                       (16, "stream id"), (4, "payload bound"), (8, "S, F, T, N"), (4, "reserved"), (9, "names")],
            "OBJECT": [(2, "kind"), (2, "reserved"), (4, "grain"), (8, "old size"), (8, "new size"), (8, "reserved")],
            "DATA": [(16, "Siphon moves it!")], "ZERO": [(8, "length")],
            "END": [(8, "frames"), (8, "DATA extents"), (8, "ZERO extents"), (8, "bytes of DATA"), (8, "bytes of ZERO"),
                    (16, "to-state id"), (32, "last link")]}
    at, lines = 0, []
    for label, body in s.items:
        word = label.split()[1] if " " in label else label
        fields = [(16, "magic"), (2, "major version"), (2, "minor version"), (4, "CRC")] if word == "PREAMBLE" else head + ends[word]
        lines.append(f"{word}")
        used = 0
        for size, name in fields:
            for piece in range(0, size, 16):
                part = body[used:used + min(16, size - piece)]
                lines.append(f"{at:04x}  {part.hex(' '):<47}  {name if piece == 0 else ''}".rstrip())
                used, at = used + len(part), at + len(part)
        assert used == len(body), label
    return "\n".join(lines) + "\n"


def main():
    if "--dump" in sys.argv:
        return print(dump(), end="")
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    import trees
    good(), transport(), features(), bent(), seals()
    VECTORS.update(trees.vectors())
    os.makedirs(folder, exist_ok=True)
    for old in os.listdir(folder):
        if old.endswith(".vec") and old[:-4] not in VECTORS:
            os.remove(os.path.join(folder, old))
    files = {f"{name}.vec": text for name, text in VECTORS.items()}
    files["LIST"] = "".join(f"{name}\n" for name in sorted(files))
    files["identities.tsv"], files["content_roots.tsv"] = identities(), content_roots()
    files["tree_identities.tsv"] = tree_identities()
    for name, text in files.items():
        with open(os.path.join(folder, name), "w", encoding="ascii") as file:
            file.write(text)


if __name__ == "__main__":
    main()
