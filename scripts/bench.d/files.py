"""Gate c: image files, against cp and dd."""
import os
import subprocess
from pathlib import Path

from measure import GIB, MIB, Side, alternate

CUT = 4 * MIB


def copies(options, report):
    """Gate c: in memory and on a disk, a dense image and one of real files with holes."""
    size = 256 * MIB if options.quick else 2 * GIB
    for place, directory in (("memory", options.memory), ("disk", options.disk)):
        work = Path(directory) / f"siphon-bench.{os.getpid()}"
        work.mkdir()
        try:
            for kind, make in (("dense", make_dense), ("sparse", make_sparse)):
                make(work / kind, size)
                copy(options, report, place, kind, work)
                (work / kind).unlink()
        finally:
            subprocess.run(["rm", "-rf", work])


def copy(options, report, place, kind, work):
    source, target = work / kind, work / "copy"
    stat = source.stat()
    report.head(f"c: image file to image file in {place} ({filesystem(work)}), {kind}: {stat.st_size // MIB} MiB, "
                f"{stat.st_blocks * 512 // MIB} of them allocated")
    report.note("the source in the page cache; a new target every time; durable: fsync of the target counts on all sides "
                "(image-apply does it itself, and writes its record; dd conv=fsync; sync after cp)")

    def clear():
        for path in work.glob("*copy*"):
            path.unlink()

    sides = {
        "image-diff-stream | image-apply": Side([options.bin / "image-diff-stream", source], [options.bin / "image-apply", target]),
        "cp --sparse=always": Side(["cp", "--sparse=always", source, target], then=["sync", target]),
        "dd bs=1M": Side(["dd", f"if={source}", f"of={target}", "bs=1M", "conv=fsync", "status=none"]),
    }
    for side in sides.values():
        side.before = clear
    costs = alternate(sides, options.pairs)
    report.costs(costs)
    ours = costs.pop("image-diff-stream | image-apply")
    report.note(f"CPU of ours {ours.median('cpu') / (stat.st_blocks * 512 / GIB):.2f} s a GiB of data; "
                f"peak of image-diff-stream {ours.peak(0) / MIB:.1f} MiB, of image-apply {ours.peak(1) / MIB:.1f} MiB")
    for name, cost in costs.items():
        report.at_least(f"c {place}, {kind}: speed, of {name}", cost.median("wall") / ours.median("wall"), 0.7, "x")
    clear()


def make_dense(path, size):
    """Random bytes."""
    subprocess.run(["sh", "-c", f'head -c {size} /dev/urandom >"$1"; sync "$1"', "sh", path], check=True)


def make_sparse(path, size):
    """Real files, as many bytes of holes between them: 4 MiB of each in turn."""
    with open(path, "wb") as image, subprocess.Popen(["tar", "-C", "/usr", "-cf", "-", "lib", "bin"],
                                                     stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tar:
        for offset in range(0, size, 2 * CUT):
            image.seek(offset)
            for _ in range(CUT // MIB):
                image.write(tar.stdout.read(MIB))
        image.truncate(size)
        os.fsync(image.fileno())
        tar.kill()


def filesystem(path):
    return subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True).stdout.strip()
