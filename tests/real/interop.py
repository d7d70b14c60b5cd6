#!/usr/bin/python3
"""extent-convert beside the programs whose formats it reads and writes: rbd(8), zfs-send(8), zstream(8).

What they write is taken, and what it writes they take: content is equal by SHA-256 at every snapshot.
"""
import functools
import itertools
import random
import sys
from pathlib import Path

if sys.executable != "/usr/bin/python3":  # the system's has librbd's module
    import os
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])

import bed
from bed import changed, content, main, refused, run, same, sha256, test, vm
from interop_lab import MiB, Rbd, counted, file_sum, lab, sh
from zvol import Plain, gaps

# --- RBD's diffs and exports


@functools.cache
def history():
    """An image of eight states: odd sizes, zeros, growth, a cut, nothing new, and nothing at all."""
    first = content(5 * MiB + 12345, salt="history")
    image = Rbd(first, "s0")
    holes = bytearray(changed(first, salt=1))
    holes[4096 * 3:4096 * 300] = bytes(4096 * 297)
    image.snap("s1", bytes(holes))
    image.snap("s2")  # nothing new
    image.snap("s3", changed(image.now, 9 * MiB + 777, salt=3))
    image.snap("s4", changed(image.now, 2 * MiB + 1, salt=4))
    image.snap("s5", b"")
    image.snap("s6", changed(b"", 4 * MiB + 513, salt=6))
    image.snap("s7", bytes(4 * MiB + 513))  # all zeros
    return image


def pairs(of):
    names = list(of)
    return list(zip([None, *names], names))


def convert(image, base, to):
    """A command: a state of an image as one of rbd's diffs."""
    return f"rbd-diff-stream {f'--from {base}' if base else ''} {image}@{to} | extent-convert --to rbd-diff-v1"


@test
def rbd_import_diff_takes_the_whole_and_every_increment():
    image, copy = history(), Rbd(b"")
    for base, to in pairs(image.at):
        sh(f"{convert(image, base, to)} | rbd import-diff --no-progress - {copy}")
    copy.holds(image.at)
    counted(len(image.at), len(image.at))
    # A step over many, which begins from a snapshot of ours; and the whole of a state in the middle.
    for name, steps in {"far": [(None, "s0"), ("s0", "s4")], "late": [(None, "s3"), ("s3", "s6")]}.items():
        other = Rbd(b"")
        for base, to in steps:
            sh(f"{convert(image, base, to)} | rbd import-diff --no-progress - {other}")
        other.holds(image.at, *[to for _, to in steps])


@test
def rbd_import_diff_checks_what_it_begins_from():
    """Names are all that a diff has: rbd refuses one whose base is not there, and one that is there already."""
    image, copy = history(), Rbd(b"")
    assert sh(f"{convert(image, 's0', 's1')} | rbd import-diff --no-progress - {copy}", check=False).code
    sh(f"{convert(image, None, 's1')} | rbd import-diff --no-progress - {copy}")
    assert sh(f"{convert(image, None, 's1')} | rbd import-diff --no-progress - {copy}", check=False).code
    copy.holds(image.at, "s1")


@test
def rbd_import_takes_a_whole_one_of_format_2():
    image = history()
    for to in image.at:
        name = f"{image.name}-{to}"
        export = f"rbd-diff-stream {image}@{to} | extent-convert --to rbd-diff-v2"
        sh(f"{export} | rbd import --no-progress --export-format 2 - rbd/{name}")
        copy = Rbd(name=name)
        same(copy.snaps(), [to], "snapshots")
        same((copy.sum(), copy.sum(to)), (sha256(image.at[to]),) * 2, f"head and snapshot of {copy}")
    refused(sh(f"rbd-diff-stream --from s0 {image}@s1 | extent-convert --to rbd-diff-v2", check=False), 4, "unsupported")


@test
def a_volume_goes_to_rbd_as_a_diff():
    lab()
    plain = Plain("todiff", "-b 16K", 3 * MiB)
    image = content(3 * MiB, salt="todiff")
    for n, size in enumerate((3 * MiB, 3 * MiB, 4 * MiB, 2 * MiB)):
        image = gaps(changed(image, size, salt=n), n)
        plain.snap(image)
    copy = Rbd(b"")
    steps = [(None, "g0"), ("g0", "g1"), ("g1", "g2"), ("g2", "g3")]
    for base, to in steps:
        stream = f"nas zvol-diff-stream {f'--from {base}' if base else ''} {plain.t}@{to}"
        sh(f"{stream} | extent-convert --to rbd-diff-v1 | rbd import-diff --no-progress - {copy}")
    copy.holds({f"g{n}": image for n, image in enumerate(plain.images)})


def taken(image, base, to, options="", more=""):
    """A command: what rbd itself exports, as a stream."""
    export = f"rbd export-diff --no-progress {options} {f'--from-snap {base}' if base else ''} {image}{f'@{to}' if to else ''} -"
    return f"{export} | extent-convert --from rbd-diff-v1 --states {bed.work}/states {more}"


@test
def what_rbd_export_diff_writes_is_taken():
    image = history()
    sh(f"rbd-diff-stream --states {image} >{bed.work}/states")
    for options in ("", "--whole-object"):
        file = f"{bed.work}/taken{options}.img"
        # librbd 16.2 aborts when it is asked for the changed objects of an image without any.
        states = [to for to in image.at if image.at[to] or not options]
        for base, to in pairs(states):
            sh(f"{taken(image, base, to, options)} | image-apply {file}")
            same(file_sum(file), sha256(image.at[to]), f"export-diff {options} {base} to {to}")
        for to in states:
            sh(f"{taken(image, None, to, options)} | image-apply {file}.{to}")
            same(file_sum(f"{file}.{to}"), sha256(image.at[to]), f"export-diff {options} {to}")
    # The live image is a state without a name: a stream leads there, and nothing goes on from it.
    sh(f"{taken(image, 's6', None)} | extent-inspect --check")
    # Without a list a whole one is taken, and an increment is not: names identify nothing.
    sh(f"rbd export-diff --no-progress {image}@s1 - | extent-convert --from rbd-diff-v1 | image-apply {bed.work}/nameless.img")
    same(file_sum(f"{bed.work}/nameless.img"), sha256(image.at["s1"]))
    increment = f"rbd export-diff --no-progress --from-snap s0 {image}@s1 -"
    refused(sh(f"{increment} | extent-convert --from rbd-diff-v1", check=False), 4, "not-found")


@test
def striped_images_and_clones_are_exported_and_taken():
    first = content(7 * MiB + 3, salt="striped")
    striped = Rbd(first, "s0", features=1, order=20, stripe_unit=64 << 10, stripe_count=8)
    striped.snap("s1", changed(first, salt=1, changes=80))
    striped.snap("s2", changed(striped.now, 5 * MiB + 99, salt=2, changes=80))
    sh(f"rbd-diff-stream --states {striped} >{bed.work}/states")
    file, copy = f"{bed.work}/striped.img", Rbd(b"")
    for base, to in pairs(striped.at):
        sh(f"{taken(striped, base, to)} | image-apply {file}")
        same(file_sum(file), sha256(striped.at[to]), f"striped: {base} to {to}")
        sh(f"{convert(striped, base, to)} | rbd import-diff --no-progress - {copy}")
    copy.holds(striped.at)
    with striped.open() as image:
        image.protect_snap("s2")
    child = Rbd(name=f"{striped.name}-child")
    striped.rbd.RBD().clone(striped.pool, striped.name, "s2", child.pool, child.name, features=1)
    child.now = striped.now
    child.snap("c0").snap("c1", changed(child.now, salt=5))
    sh(f"rbd-diff-stream --states {child} >{bed.work}/states")
    for base, to in pairs(child.at):
        sh(f"{taken(child, base, to)} | image-apply {bed.work}/child.img")
        same(file_sum(f"{bed.work}/child.img"), sha256(child.at[to]), f"clone: {base} to {to}")


@test
def what_rbd_export_of_format_2_writes_is_taken_snapshot_by_snapshot():
    image = history()
    with_head = Rbd(name=f"{image.name}-v2")
    export, file = f"{bed.work}/export.v2", f"{bed.work}/v2.img"
    sh(f"rbd export --no-progress --export-format 2 {image} {export}; rbd import --no-progress --export-format 2 {export} {with_head}")
    with_head.holds(image.at)  # rbd itself
    with_head.now = image.now
    with_head.become(changed(image.now, salt=9))
    sh(f"rbd snap create {with_head}@'with space'; rbd snap protect {with_head}@s3; rbd image-meta set {with_head} key value")
    with_head.at = {**image.at, "with space": with_head.now}
    with_head.become(changed(with_head.now, 5 * MiB + 1, salt=10))
    sh(f"rm {export}; rbd export --no-progress --export-format 2 {with_head} {export}")
    sh(f"rbd-diff-stream --states {with_head} >{bed.work}/states")
    for snap in (*with_head.at, None):
        choice = f"--snap '{snap}'" if snap else ""
        sh(f"extent-convert --from rbd-diff-v2 --states {bed.work}/states {choice} <{export} | image-apply {file}")
        same(file_sum(file), sha256(with_head.at[snap] if snap else with_head.now), f"diff to {snap or 'the image itself'}")
    counted(len(with_head.at) + 1, len(with_head.at) + 1)
    hint = refused(sh(f"extent-convert --from rbd-diff-v2 --snap none <{export}", check=False), 4, "not-found")
    assert "s0, s1, s2" in hint.err, hint
    # Cut anywhere, it is not sealed.
    whole, chance = Path(export).read_bytes(), random.Random(bed.options.seed)
    for _ in range(12):
        Path(f"{export}.cut").write_bytes(whole[:chance.randrange(len(whole) - 1)])
        cut = f"extent-convert --from rbd-diff-v2 --states {bed.work}/states <{export}.cut"
        refused(sh(f"{cut} | extent-inspect --check", check=False), 3, "foreign-stream")


# --- streams of zfs send

PACKS = [("lz4", "16K"), ("zstd", "4K"), ("gzip-6", "8K"), ("off", "64K"), ("zle", "128K"), ("lzjb", "32K")]
OPTIONS = [" ".join(chosen) for n in range(4) for chosen in itertools.combinations(("-c", "-e", "-L"), n)]
STEPS = [(None, "g0"), ("g0", "g1"), ("g1", "g2"), ("g2", "g3"), ("g3", "g4"), ("g0", "g4"), (None, "g4")]


def packable(size, salt):
    """Of each kind: noise, text, blocks so small when packed that they stand in their pointer, and holes."""
    chance, image = random.Random(salt), bytearray(content(size, salt=salt))
    for at in range(0, size, 128 << 10):
        kind, piece = chance.randrange(4), len(image[at:at + (128 << 10)])
        if kind == 0:
            image[at:at + piece] = b"".join(b"%d\n" % n for n in range(at, at + piece))[:piece]
        elif kind == 1:
            image[at:at + piece] = b"tiny".ljust(4096, b"\0") * (piece // 4096) + bytes(piece % 4096)
        elif kind == 2:
            image[at:at + piece] = bytes(piece)
    return image


@functools.cache
def sent(pack, block, *chosen):
    """A volume's contents, and its send streams: each step with each choice of options, with what zstream says of it."""
    lab()
    plain = Plain(f"sent{pack}", f"-b {block} -o compression={pack}", 3 * MiB)
    image = packable(3 * MiB, f"{pack}0")
    plain.snap(bytes(image))
    for n, size in enumerate((3 * MiB, 4 * MiB, 2 * MiB, 3 * MiB), 1):
        image = bytearray(gaps(changed(bytes(image), size, salt=n, changes=12), n))
        image[:MiB] = packable(MiB, f"{pack}{n}") if n % 2 else image[:MiB]
        plain.snap(bytes(image))
    files, lines = {}, []
    for options in chosen:
        for base, to in STEPS:
            file = f"{bed.work}/{pack}.{options.replace(' ', '')}.{base}-{to}"
            files[options, base, to] = file
            lines.append(f"zfs send {options} {f'-i @{base}' if base else ''} {plain.t}@{to} | tee {file} | zstream dump -v >{file}.dump")
    vm("set -e -o pipefail\n" + "\n".join(lines), timeout=900)
    return dict(zip(("g0", "g1", "g2", "g3", "g4"), plain.images)), files


def chosen():
    """Volumes, and the options that their streams are made with."""
    return [(pack, OPTIONS) for pack in PACKS] if bed.options.full else [(PACKS[0], OPTIONS[::2]), (PACKS[1], OPTIONS[1::2])]


@test
def what_zfs_send_writes_is_taken_however_it_was_packed():
    done = 0
    for pack, all_options in chosen():
        states, files = sent(*pack, *all_options)
        size = lambda name: len(states[name])
        for options in all_options:
            image = f"{bed.work}/sent.img"
            run(f"rm -f {image}*")
            for base, to in STEPS:
                old = f"--old-size {size(base)}" if base else ""
                # The chain on one file; the rest, each for itself, on a copy of what it begins from.
                if (base, to) in STEPS[-2:]:
                    image = f"{bed.work}/sent.far"
                    run(f"rm -f {image}*")
                    if base:
                        sh(f"extent-convert --from zfs-send --size {size(base)} <{files[options, None, base]} | image-apply {image}")
                sh(f"extent-convert --from zfs-send --size {size(to)} {old} <{files[options, base, to]} | image-apply {image}")
                same(file_sum(image), sha256(states[to]), f"{pack}, zfs send {options}, {base} to {to}")
                done += 1
    counted(done, len(PACKS) * len(OPTIONS) * len(STEPS))


def dumped(text):
    """What `zstream dump -v` says of a stream, in the words of the example zfs-send-records."""
    fields = lambda line: dict(zip(*[iter(line.replace(" = ", "\0").replace("checksum type", "checksumtype")
                                          .replace("compression type", "compression").replace("\0", " ").split()[1:])] * 2))
    begin, out = {}, []
    for line in text.splitlines():
        word = line.split(" ")[0]
        if line.startswith("\t") and " = " in line and not out:
            name, value = line.strip().split(" = ", 1)
            begin[name] = value
        elif word == "WRITE":
            at = fields(line)
            out.append(f"write {at['object']} {at['offset']} {at['logical_size']} {at['compression']} {at['payload_size']}")
        elif word == "WRITE_EMBEDDED":
            at = fields(line)
            out.append(f"write {at['object']} {at['offset']} {at['length']} {at['comp']} {at['psize']}")
        elif word == "FREE":
            at = fields(line)
            out.append(f"free {at['object']} {at['offset']} {int(at['length']) % (1 << 64)}")
        elif word in ("OBJECT", "FREEOBJECTS"):
            out.append("other")
        elif word == "END":
            out.append("end")
        elif word == "SUMMARY:":
            break
        else:
            assert word in ("", "BEGIN") or line.startswith("\t"), f"a line that is not known: {line}"
    return [f"begin {int(begin['toguid'], 16)} {int(begin['fromguid'], 16)} {begin['toname']}", *out]


@test
def zstream_sees_the_same_records():
    example = Path(bed.options.bin, "../debug/examples/zfs-send-records")  # examples are no part of a release
    assert example.exists(), f"no {example}: cargo build --examples"
    compared = records = embedded = 0
    kinds = set()
    for pack, options in chosen():
        _, files = sent(*pack, *options)
        for key, file in files.items():
            dump = Path(f"{file}.dump").read_text()
            embedded += dump.count("\nWRITE_EMBEDDED ")
            theirs, ours = dumped(dump), run(f"{example} <{file}").out.splitlines()
            for n, (one, other) in enumerate(itertools.zip_longest(theirs, ours)):
                same(other, one, f"{pack}, {key}: record {n}")
            assert len(ours) > 4 and ours[-1] == "end", f"{pack}, {key}"
            compared, records = compared + 1, records + len(ours)
            kinds.update(line.split()[4] for line in ours if line.startswith("write"))
    assert embedded > 20, f"{embedded} embedded blocks"
    print(f"    {records} records, {embedded} of them embedded blocks, compressions {', '.join(sorted(kinds, key=int))}")
    counted(compared, len(PACKS) * len(OPTIONS) * len(STEPS))


if __name__ == "__main__":
    main("ceph", "zfs")
