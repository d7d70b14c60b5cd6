#!/usr/bin/env python3
"""Makes the seed corpus of the fuzz targets from the vectors: seeds.py CORPUS.  Needs the `blake3` package."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../tests"))
from reader import expand  # noqa: E402

ID = "065e86712c8bce7048eec35abc1452e6"
RECORDS = {
    "mark": f"v=1 dataset=1 source={ID} state={ID} size=4096 digest={ID * 2} name=mon",
    "run": f"v=1 dataset=1 newest=5 stream={ID} from={ID} to=-",
    "receipt": '{"receipt":1,"tool":"zvol-apply","target":"tank/vm1","stream":"%s","size":1,"data_bytes":1,"zero_bytes":0,'
               '"digest":"%s","snapshot_guid":7,"snapshot":"tank/vm1@mon","marked":true}\n' % (ID, ID * 2),
}


def seed(target, name, body):
    folder = os.path.join(sys.argv[1], target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(body)


def main():
    vectors = os.path.join(HERE, "../tests/vectors")
    for name in sorted(os.listdir(vectors)):
        if name.endswith(".vec"):
            with open(os.path.join(vectors, name), encoding="ascii") as file:
                lines = file.read().split("---\n")[1].splitlines()
            # The long ones only slow a fuzzer down.
            if not any(line.startswith("zeros") or line.startswith("fill") and int(line.split()[2]) > 8192 for line in lines):
                body = expand(lines)
                seed("reader", name, body)
                seed("reader_resealed", name, body)
    with open(os.path.join(HERE, "../man/siphon-states.5"), encoding="utf-8") as page:
        text = page.read().split('list: begin\n')[1].split('.\\" list: end')[0]
    seed("state_list", "page", "".join(line + "\n" for line in text.splitlines() if line[:1] != ".").encode())
    for name, text in RECORDS.items():
        seed("records", name, text.encode())
    size, ranges = (1 << 20).to_bytes(8, "little"), bytes(8) + (4096).to_bytes(8, "little")
    diff = b"rbd diff v1\nf\3\0\0\0mont\3\0\0\0tues" + size + b"z" + ranges + b"w" + ranges[8:] * 2 + b"x" * 4096 + b"e"
    seed("rbd_diff", "v1", diff)
    begin = bytearray(312)
    begin[8:16], begin[16], begin[32] = (0x2F5BACBAC).to_bytes(8, "little"), 1, 3
    write, end = bytearray(312), bytearray(312)
    write[0], write[8], write[32:40], end[0] = 3, 1, (4096).to_bytes(8, "little"), 5
    seed("zfs_send", "plain", bytes(begin + write) + b"y" * 4096 + bytes(end))
    head = b"\x89SIPHON-MAN\r\n\x1a\n\0" + bytes([1, 0, 0, 0]) + bytes(4) + (3 << 16).to_bytes(8, "little") + b"s" * 16 + bytes(8)
    run = lambda kind, count: bytes([kind]) + bytes(7) + count.to_bytes(8, "little")
    seed("manifest", "plain", head + run(1, 1) + b"l" * 32 + run(2, 2) + run(0, 3) + b"i" * 16 + bytes(64))


main()
