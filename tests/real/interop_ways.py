#!/usr/bin/python3
"""Only what differs, on every way round between RBD images, ZFS volumes and image files.

With no state in common a manifest of the target says what to send: at its fine grain of 4 KiB no more than 1.1 times the
bytes that differ and are not zero, and 4 KiB for beginning and end, cross the wire.
"""
import os
import sys
from pathlib import Path

if sys.executable != "/usr/bin/python3":  # the system's has librbd's module
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])

import bed
from bed import content, main, refused, same, sha256, test
from interop_ends import ENDS, FileEnd
from interop_lab import MiB, counted, day, differences, sh

GRAIN = 4096

WAYS = [("rbd", "zvol"), ("zvol", "rbd"), ("rbd", "rbd"), ("zvol", "zvol"), ("file", "file"), ("rbd", "file"), ("file", "zvol")]


class Way:
    """A source and a target that hold the same state, `s0`; `held`: what the target's manifest describes."""

    def __init__(self, one, other):
        self.what = f"{one} to {other}"
        number = f"{WAYS.index((one, other))}{one}{other}{next(self.numbers)}"
        size = 6 * MiB if one == "zvol" else 6 * MiB + 1234
        self.first = content(size, salt=number)
        self.source, self.target = ENDS[one](f"from{number}", self.first), ENDS[other](f"to{number}")
        self.is_file = other == "file"
        self.source.state("s0", self.first)
        sh(f"{self.source.send('s0')} | {self.target.apply()}")
        self.held = self.first

    numbers = iter(range(10_000))

    def by_manifest(self, to, image, options=""):
        """Sends a state by a manifest of the target; the wire carries what differs, and the target holds it."""
        wire, manifest = f"{bed.work}/wire", f"{bed.work}/manifest"
        if self.is_file:
            options = f"{options} --by-content"
        sh(f"{self.target.manifest()} >{manifest}; {self.source.send(to, '--base-manifest -')} <{manifest} >{wire}; {self.target.apply(options)} <{wire}")
        old = self.held[:len(image)].ljust(len(image), b"\0")
        payload = sum(length for at, length in differences(old, image, GRAIN) if any(image[at:at + length]))
        carried = Path(wire).stat().st_size
        assert carried <= 1.1 * payload + 4096, f"{self.what}: {carried} bytes for {payload}"
        assert payload < len(image) / 2, f"{payload}: a test of increments"
        same(self.target.sum(len(image)), sha256(image), f"{self.what}: {to}")
        self.held = image
        return carried / max(1, payload)


def each_way(story, some=WAYS):
    """The same on every way round, or on some in a short run; tells the worst of the shares."""
    ways = WAYS if bed.options.full else some
    shares = {way: story(Way(*way)) for way in ways}
    print(f"    at most {max(shares.values()):.3f} of what differs", flush=True)
    counted(len(ways), len(WAYS))


@test
def a_base_that_was_deleted_costs_no_more_than_what_differs():
    def story(way):
        new = day(way.first, 1)
        way.source.state("s1", new)
        way.source.forget("s0")
        if not isinstance(way.source, FileEnd):
            refused(sh(f"{way.source.states()} | {way.target.common()}", check=False), 4, "no-common")
        return way.by_manifest("s1", new)
    each_way(story, WAYS[:5])


@test
def a_target_written_by_hand_takes_what_differs_and_gives_up_the_rest():
    def story(way):
        way.target.by_hand(MiB + 512, 5000 if way.is_file else 4096)
        way.target.by_hand(4 * MiB, 512)
        new = day(way.first, 2)
        way.source.state("s1", new)
        way.source.forget("s0")
        if way.is_file:
            way.held = way.target.path.read_bytes()
        wire = f"{bed.work}/refused"
        sh(f"{way.target.manifest()} >{wire}.m; {way.source.send('s1', '--base-manifest -')} <{wire}.m >{wire}")
        before = None if way.is_file else way.target.newest()
        found = sh(f"{way.target.apply()} <{wire}", check=False)
        refused(found, 4, "written-since")
        assert before is None or way.target.newest() == before
        return way.by_manifest("s1", new, way.target.give_up)
    each_way(story, [WAYS[0], WAYS[1], WAYS[5]])


@test
def an_older_state_goes_over_a_newer_one():
    def story(way):
        states = {"s0": way.first}
        for n in (1, 2):
            states[f"s{n}"] = day(states[f"s{n - 1}"], n)
            way.source.state(f"s{n}", states[f"s{n}"])
        share = way.by_manifest("s2", states["s2"])
        for name in ("s0", "s1"):  # far back, and on again
            share = max(share, way.by_manifest(name, states[name]))
        return share
    each_way(story, [WAYS[2], WAYS[3], WAYS[4]])


if __name__ == "__main__":
    main("ceph", "zfs")
