#!/usr/bin/env python3
"""Both readers over streams that were bent at random and sealed anew: they must agree on the class of each.

differential.py EXTENT-INSPECT [COUNT [SEED]]    needs the `blake3` package
"""
import io
import os
import random
import struct
import subprocess
import sys
import zlib

from blake3 import blake3

from reader import Refused, any_reader, expand, leaves, stream_id

VECTORS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "vectors")


def reseal(stream, renumber):
    """All sums, links and the stream id made right, frame by frame as their lengths have them."""
    out = bytearray(stream)
    if len(out) < 24:
        return bytes(out)
    out[20:24] = struct.pack("<I", zlib.crc32(out[:20]))
    chain, at, number = blake3(out[:24]), 24, 0
    while at + 32 <= len(out):
        kind, _, length, _, offset = struct.unpack_from("<HHIQQ", out, at)
        if at + 32 + length > len(out):
            break
        p = slice(at + 32, at + 32 + length)
        payload = out[p]
        if kind == 1 and length >= 96:
            payload[64:80] = stream_id(*(bytes(payload[a:b]) for a, b in ((16, 32), (32, 48), (48, 64), (0, 8))))
        elif kind == 3 and length == 56:
            payload[24:] = chain.digest()
        elif kind == 4 and length == 88:
            chain.update(payload[:56])
            payload[56:] = chain.digest()
        out[p] = payload
        if renumber:
            struct.pack_into("<Q", out, at + 8, number)
        struct.pack_into("<I", out, at + 24, zlib.crc32(payload))
        struct.pack_into("<I", out, at + 28, zlib.crc32(out[at:at + 28]))
        if kind != 3:
            chain.update(out[at:p.start] + (leaves(offset, payload) if kind == 0x10 else payload))
        if kind in (1, 3):
            chain = blake3(chain.digest())
        at, number = p.stop, number + 1
    return bytes(out)


def frames(stream):
    """Where each frame begins, and where the last one ends."""
    at, found = 24, []
    while at + 32 <= len(stream):
        found.append(at)
        at += 32 + struct.unpack_from("<I", stream, at + 4)[0]
    return found + [min(at, len(stream))]


def bend(rng, stream):
    out = bytearray(stream)
    starts = frames(out)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        what = rng.random()
        if what < 0.1 and len(starts) > 3:
            a, b = sorted(rng.sample(range(len(starts)), 2))
            piece = out[starts[a]:starts[b]]
            to = rng.choice(starts)
            out[to:to] = piece
        elif what < 0.2 and len(starts) > 2:
            n = rng.randrange(len(starts) - 1)
            del out[starts[n]:starts[n + 1]]
        elif what < 0.25 and out:
            del out[rng.randrange(len(out)):]
        elif out:
            near = rng.choice(starts) + rng.randrange(120) if rng.random() < 0.9 else rng.randrange(len(out))
            at = min(near, len(out) - 1)
            out[at] = rng.choice((0, 1, 2, 3, 4, 8, 16, 17, 80, 128, 255, rng.randrange(256), out[at] ^ 1 << rng.randrange(8)))
        starts = frames(out)
    return bytes(out) if rng.random() < 0.05 else reseal(out, rng.random() < 0.9)


def verdict(stream):
    try:
        for _ in any_reader(io.BytesIO(stream)).changes():
            pass
        return "ok"
    except Refused as refused:
        return str(refused)


def main(tool, count=1000, seed=1):
    rng, seen, apart = random.Random(int(seed)), {}, 0
    seeds = []
    for name in sorted(os.listdir(VECTORS)):
        if name.endswith(".vec"):
            with open(os.path.join(VECTORS, name), encoding="ascii") as file:
                body = file.read().split("---\n")[1]
            if "zeros" not in body and len(stream := expand(body.splitlines())) < 65536:
                seeds.append(stream)
    for n in range(int(count)):
        stream = bend(rng, rng.choice(seeds))
        run = subprocess.run([tool, "--check"], input=stream, capture_output=True, check=False)
        first = run.stderr.decode().splitlines()[0] if run.returncode else "ok"
        other = first.rpartition("[")[2].rstrip("]")
        mine = verdict(stream)
        seen[mine] = seen.get(mine, 0) + 1
        if mine != other or run.returncode not in (0, 3):
            apart += 1
            print(f"case {n}: here {mine}, there {first}; {stream.hex() if len(stream) < 2000 else len(stream)}")
    print(f"{int(count) - apart} of {count} agree: {dict(sorted(seen.items()))}")
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
