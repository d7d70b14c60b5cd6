"""Gate f: `extent-digest --image` against `b3sum`."""
import os
import shutil

from measure import GIB, MIB, Side, alternate


def digests(options, report):
    """Gate f."""
    peer = shutil.which("b3sum")
    if not peer:
        report.head("f: skipped: b3sum is not installed (on Debian: apt-get install b3sum)")
        return
    size = (256 * MIB if options.quick else 2 * GIB)
    for where, folder in (("memory (tmpfs)", options.memory), ("disk, in the page cache", options.disk)):
        path = os.path.join(folder, f"siphon-bench-digest.{os.getpid()}")
        try:
            with open(path, "wb") as file:
                for _ in range(size // (16 * MIB)):
                    file.write(os.urandom(16 * MIB))
            report.head(f"f: the digest of an image file of {size // MIB} MiB, dense, in {where}")
            report.note("both with all processors; a content root is of 64 KiB leaves, b3sum's digest is of the file as a whole")
            costs = alternate({
                "extent-digest --root --image": Side([options.bin / "extent-digest", "--root", "--image", path]),
                "b3sum": Side([peer, path]),
                "b3sum --no-mmap": Side([peer, "--no-mmap", path]),
            }, options.pairs)
            report.costs(costs)
            ours, theirs, _ = costs.values()
            name = where.split()[0].rstrip(",")
            report.at_least(f"f {name}: speed, of b3sum", theirs.median("wall") / ours.median("wall"), 0.9, "x")
        finally:
            os.unlink(path)
    path = os.path.join(options.disk, f"siphon-bench-hole.{os.getpid()}")
    try:
        with open(path, "wb") as file:
            file.truncate(1 << 40)
        report.head("f: a file of 1 TiB that is one hole")
        costs = alternate({"extent-digest --root --image": Side([options.bin / "extent-digest", "--root", "--image", path])},
                          options.pairs)
        report.costs(costs)
        report.at_most("f hole of 1 TiB: wall", next(iter(costs.values())).median("wall"), 2, " s")
    finally:
        os.unlink(path)
