"""Gates a and b: RBD snapshots, against `rbd export-diff`."""
import os
import random
import struct
import subprocess
from pathlib import Path

from measure import GIB, MIB, Side, alternate

GRAIN = 4096
JOBS = 64  # reads in flight of rbd-diff-stream, if not told otherwise
SETTINGS = ("rbd_cache off (both read once), OSD's file in the host's page cache; nothing is made durable: "
            "the output goes to /dev/null")


def inside(*command):
    """A command in the network of the bed."""
    return ["nsenter", f"--net={os.environ['LAB_DIR']}/net/ns", "--", *map(str, command)]


def rbd(*words, **more):
    return subprocess.run(inside("rbd", *words), check=True, capture_output=True, **more).stdout


def theirs(*words):
    return inside("rbd", "export-diff", "--no-progress", "--rbd-cache=false", *words, "-")


def fill(image, size):
    """An image of random bytes, and its snapshot s1."""
    feed = f"head -c {size} /dev/urandom | rbd import --no-progress - rbd/{image}"
    subprocess.run(inside("sh", "-c", feed), check=True, capture_output=True)
    rbd("snap", "create", f"rbd/{image}@s1")


def write_and_snap(image, size, lengths, total):
    """Random writes of `total` bytes, each at a multiple of 4 KiB and as long as one of `lengths`, and the snapshot s2."""
    chance = random.Random(image)
    feed = subprocess.Popen(inside("rbd", "import-diff", "--no-progress", "-", f"rbd/{image}"),
                            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    feed.stdin.write(b"rbd diff v1\n" + b"t" + struct.pack("<I", 2) + b"s2" + b"s" + struct.pack("<Q", size))
    while total > 0:
        length = min(chance.choice(lengths), total)
        offset = chance.randrange((size - length) // GRAIN) * GRAIN
        feed.stdin.write(b"w" + struct.pack("<QQ", offset, length) + chance.randbytes(length))
        total -= length
    feed.stdin.write(b"e")
    _, words = feed.communicate()
    assert feed.returncode == 0, words.decode()


def changed_bytes(image, work):
    """What differs between s1 and s2 and is not zero in s2, in grains of 4 KiB: by reading both."""
    paths = [work / f"{image}-{snap}" for snap in ("s1", "s2")]
    for path, snap in zip(paths, ("s1", "s2")):
        rbd("export", f"rbd/{image}@{snap}", str(path))
    grains = 0
    zero = bytes(GRAIN)
    with open(paths[0], "rb") as old, open(paths[1], "rb") as new:
        while after := new.read(MIB):
            before = old.read(MIB)
            if before != after:
                for at in range(0, len(after), GRAIN):
                    now = after[at:at + GRAIN]
                    grains += now != before[at:at + GRAIN] and now != zero[:len(now)]
    for path in paths:
        path.unlink()
    return grains * GRAIN


def output_bytes(command):
    """How many bytes a command writes."""
    return int(subprocess.run(["sh", "-c", '"$@" | wc -c', "sh", *command], check=True, capture_output=True).stdout)


def reported_bytes(image):
    """What Ceph reports as changed."""
    lines = rbd("diff", "--from-snap", "s1", f"rbd/{image}@s2", text=True).splitlines()[1:]
    return sum(int(line.split()[1]) for line in lines)


def made(image, size):
    """Makes the place for an image; one that an earlier run left is removed."""
    if image in rbd("ls", text=True).split():
        remove(image)
    if size:
        rbd("create", "--size", f"{size // MIB}M", f"rbd/{image}")
        rbd("snap", "create", f"rbd/{image}@s1")


def remove(image):
    rbd("snap", "purge", f"rbd/{image}")
    rbd("rm", f"rbd/{image}")


def whole(options, report):
    """Gate a."""
    size = 256 * MIB if options.quick else 2 * GIB
    made("bench-whole", None)
    fill("bench-whole", size)
    report.head(f"a: a whole RBD snapshot, {size // MIB} MiB of random bytes, to /dev/null")
    report.note(SETTINGS)
    snap = "rbd/bench-whole@s1"
    costs = alternate({
        "rbd-diff-stream": Side(inside(options.bin / "rbd-diff-stream", snap)),
        "rbd export-diff": Side(theirs(snap)),
        "bare librbd reader": Side(inside(options.bin / "examples/bare-rbd-read", snap)),
    }, options.pairs)
    report.costs(costs)
    ours, peer, bare = costs.values()
    above = (ours.median("cpu") - bare.median("cpu")) / (size / GIB)
    report.at_most("a our code, CPU above the bare reader, a GiB", above, 0.6, " s", band=True)
    report.at_most("a memory", ours.memory / MIB, 96, " MiB")
    report.at_most("a memory, of its", ours.memory / peer.memory, 0.5, "x")
    report.at_most("a wall, of its", ours.median("wall") / peer.median("wall"), 1.10, "x", band=True)
    remove("bench-whole")


def increments(options, report):
    """Gate b."""
    scale = 8 if options.quick else 1
    sparse = 4 * GIB // scale
    made("bench-fresh", sparse)
    write_and_snap("bench-fresh", sparse, range(GRAIN, 16 * GRAIN + 1, GRAIN), 200 * MIB // scale)
    increment(options, report, "bench-fresh", "scattered writes of 4-64 KiB into absent objects")
    dense = GIB // scale
    made("bench-rewritten", None)
    fill("bench-rewritten", dense)
    write_and_snap("bench-rewritten", dense, [GRAIN], 8000 // scale * GRAIN)
    increment(options, report, "bench-rewritten", "random writes of 4 KiB into full objects")


def increment(options, report, image, words):
    snap = f"rbd/{image}@s2"
    ours, peer = [options.bin / "rbd-diff-stream", "--from", "s1", snap], ["--from-snap", "s1", snap]
    truth, sent = changed_bytes(image, options.work), output_bytes(inside(*ours))
    report.head(f"b: an increment of an RBD image: {words}")
    report.note(SETTINGS)
    report.note(f"changed and not zero, at 4 KiB: {truth / MIB:.1f} MiB; Ceph reports {reported_bytes(image) / MIB:.1f} MiB; "
                f"our stream {sent / MIB:.1f} MiB, theirs {output_bytes(theirs(*peer)) / MIB:.1f} MiB")
    report.at_most(f"b {image}: stream, of the changed bytes", sent / truth, 1.05, "x")
    costs = alternate({
        "rbd-diff-stream": Side(inside(*ours)),
        "rbd export-diff": Side(theirs(*peer)),
    }, options.pairs)
    report.costs(costs)
    near = costs["rbd-diff-stream"]
    report.at_most(f"b {image}: memory", near.memory / MIB, 64, " MiB")
    report.at_most(f"b {image}: wall, of its", near.median("wall") / costs["rbd export-diff"].median("wall"), 1.0, "x", band=True)

    report.note(f"with 0-4 ms, in the mean 2 ms, before each message of the client to an OSD")
    env = {"CEPH_CONF": str(delayed(options.work))}
    costs = alternate({
        "rbd-diff-stream": Side(inside(*ours), env=env),
        "rbd export-diff": Side(theirs(*peer), env=env),
        f"rbd export-diff, {JOBS} at once": Side(theirs("--rbd-concurrent-management-ops", str(JOBS), *peer), env=env),
    }, options.pairs)
    report.costs(costs)
    far, peer_far, raised = costs.values()
    report.at_most(f"b {image}: memory, slow network", far.memory / MIB, 64, " MiB")
    report.at_most(f"b {image}: wall, slow network, of its", far.median("wall") / peer_far.median("wall"), 0.6, "x", band=True)
    report.note(f"beside {JOBS} operations at once of its, which nobody sets: {far.median('wall') / raised.median('wall'):.2f}x")

    report.note("both as they are used, into a pipe: `| cat >/dev/null`, whose CPU counts; then with the slow network")
    for words, more in (("into a pipe", {}), ("into a pipe, slow network", {"env": env})):
        costs = alternate({
            "rbd-diff-stream | cat": Side(inside(*ours), ["cat"], **more),
            "rbd export-diff | cat": Side(theirs(*peer), ["cat"], **more),
        }, options.pairs)
        report.costs(costs)
        piped, peer_piped = costs.values()
        report.note(f"{image}, {words}: wall {piped.median('wall') / peer_piped.median('wall'):.2f}x of its")
    remove(image)


def delayed(work):
    """The client's configuration for a slow network."""
    conf = work / "slow.conf"
    conf.write_text(Path(os.environ["CEPH_CONF"]).read_text() + "\n[client]\nms inject delay type = osd\n"
                    "ms inject delay probability = 1\nms inject delay max = 0.004\n")
    return conf
