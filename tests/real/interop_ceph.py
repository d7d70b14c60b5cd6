#!/usr/bin/python3
"""What Ceph's own scripts try on rbd's export, import and merge, with rbd-diff-stream, rbd-apply and extent-merge in their place.

After `qa/workunits/rbd/import_export.sh`, `diff.sh`, `diff_continuous.sh` and `merge_diff.sh`, in our words. In sum 60
increments with --full, each equal by SHA-256: 2 of diff, 32 taken under load, 26 merged.
"""
import itertools
import os
import random
import sys
import threading
from pathlib import Path

if sys.executable != "/usr/bin/python3":  # the system's has librbd's module
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])

import bed
from bed import main, refused, same, sha256, test
from interop_lab import MiB, Rbd, counted, lab, sh


def send(image, base, to, target, options=""):
    """One increment, or the whole state."""
    sh(f"rbd-diff-stream {f'--from {base}' if base else ''} {image}@{to} | rbd-apply {options} {target}")
    return target


def maps_are_right(image):
    """rbd's own look at the object maps of an image and its snapshots."""
    for name in (f"{image}", *(f"{image}@{snap}" for snap in image.snaps())):
        found = sh(f"rbd object-map check {name}")
        assert "not match" not in found.err + found.out, found


# --- import_export


def sparse_file(name, size, pieces):
    path = Path(bed.work, name)
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    return path


@test
def a_sparse_file_goes_in_and_out_by_pipe_and_stays_sparse():
    lab()
    chance = random.Random(bed.options.seed)
    offsets = [0, 1 * MiB, 10 * MiB + 4096, 63 * MiB, 200 * MiB - 4096, 255 * MiB]
    pieces = [(offset, chance.randbytes(chance.randrange(1, 300_000))) for offset in offsets]
    given, out = sparse_file("sparse", 256 * MiB + 1000, pieces), Path(bed.work, "sparse.out")
    target = Rbd(name=f"sparse-{os.getpid()}")
    sh(f"image-diff-stream {given} | rbd-apply {target}")
    snap = target.snaps()[-1]
    touched = {offset // (4 * MiB) for start, data in pieces for offset in range(start, start + len(data), 4096)}
    same(len(target.data_objects()), len(touched), "objects")
    sh(f"rbd-diff-stream {target}@{snap} | image-apply {out}; cmp {given} {out}")
    assert out.stat().st_blocks * 512 < 3 * MiB, f"{out.stat().st_blocks} blocks"
    # rbd itself reads the same.
    sh(f"rbd export --no-progress {target}@{snap} - | cmp {given} -")
    maps_are_right(target)


@test
def one_mebibyte_pieces_leave_objects_only_where_there_is_data():
    lab()
    chance = random.Random(bed.options.seed)
    patterns = ["".join(pattern) for pattern in itertools.product("01", repeat=4)]
    for pattern in patterns if bed.options.full else patterns[::5]:
        # One object of 4 MiB for each letter's mebibyte would prove nothing: objects of 1 MiB.
        pieces = [(n * MiB, chance.randbytes(MiB)) for n, letter in enumerate(pattern) if letter == "1"]
        given, target = sparse_file(f"pattern{pattern}", 4 * MiB, pieces), Rbd(name=f"pattern{pattern}-{os.getpid()}")
        sh(f"image-diff-stream {given} | rbd-apply --object-size 1M {target}")
        wanted = [n for n, letter in enumerate(pattern) if letter == "1"]
        same([int(name[-16:], 16) for name in target.data_objects()], wanted, pattern)
        out = Path(bed.work, f"pattern{pattern}.out")
        sh(f"rbd-diff-stream {target}@{target.snaps()[-1]} | image-apply {out}; cmp {given} {out}")
        assert out.stat().st_blocks * 512 <= pattern.count("1") * MiB + 4096, pattern


@test
def zeros_that_were_written_take_no_room_at_the_other_end():
    image, out, target = Rbd(bytes(9 * MiB)), Path(bed.work, "zeros.out"), Rbd(name=f"zeros-{os.getpid()}")
    with image.open() as opened:
        opened.write(bytes(9 * MiB), 0)
    image.snap("s0")
    same(len(image.data_objects()), 3, "objects of zeros")
    sh(f"rbd-diff-stream {image}@s0 | image-apply {out}; rbd-diff-stream {image}@s0 | rbd-apply {target}")
    same((out.stat().st_size, out.stat().st_blocks), (9 * MiB, 0), "the file")
    same(target.data_objects(), [], "objects")
    target.holds(image.at)


# --- diff


@test
def two_days_of_random_writes_arrive_and_a_diff_backwards_is_refused():
    size, days = 64 * MiB, 2
    image, target = Rbd(bytes(size), "s0"), Rbd(name=f"diff-{os.getpid()}")
    chance = random.Random(bed.options.seed)
    send(image, None, "s0", target)
    for day in range(1, days + 1):
        new = bytearray(image.now)
        for _ in range(1024):
            at = chance.randrange(size // 4096) * 4096
            new[at:at + 4096] = chance.randbytes(4096)
        image.snap(f"s{day}", bytes(new))
    refused(sh(f"rbd-diff-stream --from s1 {image}@s0 >/dev/null", check=False), 4, "wrong-base")
    refused(sh(f"rbd-diff-stream --from s1 {image}@s2 | rbd-apply {target}", check=False), 4, "wrong-base")
    for day in range(1, days + 1):
        send(image, f"s{day - 1}", f"s{day}", target)
        assert '"already":true' in sh(f"rbd-diff-stream --from s{day - 1} {image}@s{day} | rbd-apply {target}").out
    target.holds(image.at)
    same(target.sum(), sha256(image.now), "the head")
    maps_are_right(target)
    counted(days, days)


# --- diff_continuous

UNDER_LOAD = 32


class Load:
    """Somebody writes to the image, all the time: small and large, zeros and discards, across objects."""

    def __init__(self, image, seed):
        self.image, self.chance, self.ended, self.writes = image, random.Random(seed), threading.Event(), 0
        self.error = None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            with self.image.open() as opened:
                size = opened.size()
                while not self.ended.is_set():
                    length = self.chance.choice([512, 4096, 70_000, 700_000])
                    at = self.chance.randrange(size - length) // 512 * 512
                    kind = self.chance.randrange(6)
                    if kind == 0:
                        opened.discard(at, length)
                    elif kind == 1:
                        opened.write_zeroes(at, length)
                    else:
                        opened.write(self.chance.randbytes(length), at)
                    self.writes += 1
                    self.ended.wait(0.002)
        except Exception as error:  # told at the end
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        assert self.error is None, self.error


@test
def snapshots_taken_under_load_arrive_one_by_one():
    count = UNDER_LOAD if bed.options.full else 6
    size = 96 * MiB if bed.options.full else 48 * MiB
    image = Rbd(bytes(size), "s0", order=22, stripe_unit=64 << 10, stripe_count=8)
    target = Rbd(name=f"{image.name}-copy")
    send(image, None, "s0", target, "--object-size 512K")
    sums = []
    with Load(image, bed.options.seed) as load:
        for n in range(1, count + 1):
            before = load.writes
            while load.writes < before + 40:
                assert load.error is None, load.error
                load.ended.wait(0.01)
            sh(f"rbd snap create --no-progress {image}@s{n}")
            send(image, f"s{n - 1}", f"s{n}", target)
            sums.append(image.sum(f"s{n}"))
            same(target.sum(f"s{n}"), sums[-1], f"s{n}")
        busy = load.writes
    same(len(set(sums)), count, "different states")
    maps_are_right(target)
    print(f"    {busy} writes meanwhile")
    counted(count, UNDER_LOAD)


# --- merge_diff

# What two days do to an image of 6 MiB in objects of 1 MiB: w(rite) or z(ero) from … to …, in eighths of a MiB; r(esize).
FIRST = ("w", 16, 24)
CASES = [(size, [(kind, *FIRST[1:])], [(other, begin, end)]) for size in [48] for kind, other in (("w", "w"), ("w", "z"), ("z", "w"))
         for begin, end in ((8, 16), (12, 18), (18, 22), (16, 24), (22, 30), (10, 40))]
CASES += [
    (48, [("r", 20)], [("r", 48)]),  # cut, and grown again: what was cut reads as zero
    (48, [("r", 20)], [("r", 48), ("w", 30, 34)]),
    (48, [("w", 30, 40)], [("r", 35), ("r", 48)]),  # within a write of the day before
    (48, [("r", 80), ("w", 70, 76)], [("r", 40)]),  # what grew goes again
    (48, [("r", 80)], [("w", 46, 60), ("r", 57)]),
    (48, [("w", 4, 9), ("r", 0)], [("r", 48), ("w", 7, 8)]),  # all of it is gone in between
    (48, [("r", 13.003)], [("r", 48.7), ("w", 13, 14)]),  # odd sizes
    (48, [], [("w", 1, 2), ("z", 1, 2)]),  # nothing, and then a write that was taken back
]


def apply_to(content, ops, chance):
    out = bytearray(content)
    for kind, *where in ops:
        begin, *end = [int(place * MiB / 8) for place in where]
        if kind == "r":
            out = out[:begin].ljust(begin, b"\0")
        else:
            out[begin:end[0]] = chance.randbytes(end[0] - begin) if kind == "w" else bytes(end[0] - begin)
    return bytes(out)


@test
def two_days_merged_into_one_are_the_second_day():
    """Beside rbd merge-diff, which gets the same two days by extent-convert."""
    done, files = 0, {name: f"{bed.work}/{name}" for name in ("one", "two", "merged", "one.diff", "two.diff", "rbd.diff")}
    for n, (size, first, second) in enumerate(CASES):
        if not bed.options.full and n % 5 != 0:
            continue
        chance = random.Random(f"{bed.options.seed}/{n}")
        image = Rbd(chance.randbytes(size * MiB // 8), "s0", order=20)
        # Days of several steps: what librbd sees is each of them.
        for day, ops in (("s1", first), ("s2", second)):
            for op in ops:
                image.become(apply_to(image.now, [op], chance))
            image.snap(day)
        target, theirs = Rbd(name=f"{image.name}-ours"), Rbd(b"")
        send(image, None, "s0", target)
        sh(f"""rbd-diff-stream --from s0 {image}@s1 >{files['one']}; rbd-diff-stream --from s1 {image}@s2 >{files['two']}
            extent-merge {files['one']} {files['two']} >{files['merged']}
            rbd-apply {target} <{files['merged']}
            for day in one two; do extent-convert --to rbd-diff-v1 <{bed.work}/$day >{bed.work}/$day.diff; done
            rbd merge-diff --no-progress {files['one.diff']} {files['two.diff']} {files['rbd.diff']}
            rbd-diff-stream {image}@s0 | extent-convert --to rbd-diff-v1 | rbd import-diff --no-progress - {theirs}
            rbd import-diff --no-progress {files['rbd.diff']} {theirs}; rm {files['rbd.diff']}""")
        what = f"case {n}: {size} {first} {second}"
        same(target.snaps(), ["s0", "s2"], what)
        same(target.sum("s2"), sha256(image.at["s2"]), what)
        same(theirs.sum("s2"), sha256(image.at["s2"]), f"rbd merge-diff, {what}")
        done += 1
    counted(done, len(CASES))


@test
def a_whole_one_and_its_days_become_a_new_whole_one():
    chance = random.Random(bed.options.seed)
    image = Rbd(chance.randbytes(6 * MiB), "s0", order=20)
    for n, ops in enumerate(([("w", 3, 9)], [("r", 20.5)], [("r", 61.01), ("z", 1, 7)], []), 1):
        image.snap(f"s{n}", apply_to(image.now, ops, chance))
    target = Rbd(name=f"{image.name}-whole")
    steps = [f"<(rbd-diff-stream {'' if n == 0 else f'--from s{n - 1}'} {image}@s{n})" for n in range(5)]
    sh(f"extent-merge {' '.join(steps)} | rbd-apply {target}")
    same(target.snaps(), ["s4"])
    target.holds(image.at, "s4")
    refused(sh(f"extent-merge {steps[1]} {steps[3]} >/dev/null", check=False), 4, "wrong-base")


if __name__ == "__main__":
    main("ceph", "zfs")
