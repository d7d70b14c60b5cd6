#!/usr/bin/python3
"""From RBD to ZFS and back and onward for generations; and a tracker that lies is found out by extent-digest."""
import os
import sys
from pathlib import Path

if sys.executable != "/usr/bin/python3":  # the system's has librbd's module
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])

import bed
import nightly_lab
from bed import changed, content, main, same, sha256, test
from interop_ends import RbdEnd, ZvolEnd
from interop_lab import MiB, Rbd, counted, lab, sh

GENERATIONS = 20


@test
def generations_go_from_rbd_to_zfs_to_rbd_and_onward():
    """Each is equal by SHA-256 and by extent-digest at every station, and is the same state everywhere."""
    lab()
    count = GENERATIONS if bed.options.full else 2
    first = content(7 * MiB + 333, salt="onward")
    image = Rbd(first)
    stations = [ZvolEnd("onward1"), RbdEnd("onward2"), ZvolEnd("onward3")]
    base = ""
    for n in range(count):
        name, now = f"g{n}", image.now
        if n:
            now = changed(now, len(now) + (-300_000 if n % 5 == 4 else 123_457 if n % 2 else 0), salt=n, changes=25)
        image.snap(name, now)
        before = f"rbd-diff-stream {base} {image}@{name}"
        root = sh(f"rbd-diff-stream {image}@{name} | extent-digest --root").out.strip()
        for station in stations:
            # A volume becomes smaller only when it is told to; the state has its exact size all the same.
            sh(f"{before} | {station.apply()}")
            same(station.newest(), name, "newest mark")
            same(station.sum(len(now)), sha256(now), f"generation {n} at {station.name}")
            sh(f"{station.send(name)} | extent-digest --expect {root}")
            before = station.send(name, base)
        base = f"--from {name}"
    ids = [sh(f"{station.states()}").out.splitlines()[:-1] for station in stations]
    received = [[line.split("\t")[0] for line in lines if not line.split("\t")[3].startswith("@")] for lines in ids]
    own = [line.split("\t")[0] for line in sh(f"rbd-diff-stream --states {image}").out.splitlines()[:-1]]
    same(received, [own] * len(stations), "ids of the states")
    counted(count, GENERATIONS)


@test
def after_a_restore_the_next_night_is_an_increment():
    """The nightly lines with the name of the image that was restored."""
    image = nightly_lab.Image(24 * MiB)
    image.noise(0, 20 * MiB)
    image.night()
    image.small_writes(10)
    image.night()
    newest, restored = image.nights[-1], f"{image.name}-restored"
    sum = image.sum(newest)
    image.remove()  # the disaster
    sh(f"ssh nas zvol-diff-stream {image.target}@{newest} | rbd-apply rbd/{restored}")
    image.name = restored
    same(image.sum(newest), sum, "what came back")
    for _ in range(2):
        image.small_writes(10)
        found = image.night()
        sent = int(found.out.split('"data_bytes":')[1].split(",")[0])
        assert 0 < sent <= 10 * 2 * 4096, f"{sent} bytes: not an increment\n{found}"
    image.drop()


# --- a tracker that lies


def both_roots(image, name, target):
    """Exit code of the comparison of both sides by extent-digest, and what it prints."""
    sh(f"rbd-diff-stream --no-trust-map {image}@{name} | extent-digest --fine >{bed.work}/lie.manifest")
    root = sh(f"extent-digest --root {bed.work}/lie.manifest").out.strip()
    plain = sh(f"{target.send(name)} | extent-digest --expect {root}", check=False)
    ranges = sh(f"{target.send(name)} | extent-digest --compare {bed.work}/lie.manifest", check=False)
    same(plain.code, ranges.code, f"--expect and --compare\n{plain}\n{ranges}")
    return ranges.code, [tuple(map(int, line.split("\t"))) for line in ranges.out.splitlines()]


@test
def object_maps_that_lie_are_found_by_extent_digest():
    """After rbd snap rollback the maps of librbd 16.2 hide changes from who believes them; the digests of both sides do not agree."""
    image, target = Rbd(content(7 * MiB, salt="lie"), "s0", order=20), ZvolEnd("lie")
    # The map of the last snapshot will be that of `quiet`, where nothing was written, and calls all objects clean.
    image.snap("quiet")
    written = bytearray(image.now)
    written[6 * MiB:6 * MiB + 4096] = b"\xee" * 4096
    image.snap("written", bytes(written))
    for base, to in (("", "s0"), ("--from s0", "written")):
        sh(f"rbd-diff-stream {base} {image}@{to} | {target.apply()}")
    same(both_roots(image, "written", target), (0, []), "before the lie")
    sh(f"rbd snap rollback --no-progress {image}@quiet")
    image.now = image.at["quiet"]
    image.snap("later")
    sh(f"rbd-diff-stream --trust-map --from written {image}@later | {target.apply()}")
    same(both_roots(image, "later", target), (5, [(6 * MiB, 4096)]), "the lie")
    # What differs, by a manifest, mends it.
    sh(f"""{target.manifest()} >{bed.work}/mend; rbd snap create --no-progress {image}@mend
        rbd-diff-stream --base-manifest {bed.work}/mend {image}@mend | {target.apply()}""")
    same(both_roots(image, "mend", target), (0, []), "mended")


@test
def an_object_changed_behind_rbds_back_is_found_by_extent_digest():
    """A raw write to a data object, which no tracker sees: the snapshot's own objects are what changes under it."""
    image, target = Rbd(content(8 * MiB, salt="raw"), "s0", order=20), ZvolEnd("raw")
    sh(f"rbd-diff-stream {image}@s0 | {target.apply()}")
    same(both_roots(image, "s0", target), (0, []), "before")
    chosen = image.data_objects()[3]
    number = int(chosen[-16:], 16)
    raw = Path(bed.work, "object")
    raw.write_bytes(b"\xee" * 4096)
    sh(f"rados -p rbd put {chosen} {raw} --offset 8192")
    same(both_roots(image, "s0", target), (5, [(number * MiB + 8192, 4096)]), "one block")


if __name__ == "__main__":
    main("ceph", "zfs")
