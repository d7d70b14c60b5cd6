"""Gate e: from RBD to RBD, against `rbd export-diff | rbd import-diff`."""
import subprocess
import time

from ceph import GRAIN, delayed, fill, inside, made, rbd, remove, write_and_snap
from measure import GIB, MIB, Side, alternate

FROM, TO = "bench-from", "bench-to"
PATIENCE = 300  # seconds
SETTINGS = ("rbd-apply has rbd_cache off, always; the rival as it comes (its cache on: writes go together behind it), and with "
            "rbd_cache off; both flush, and take the snapshot, before they end; every run onto a fresh target")


def ours(options, *since):
    """rbd-diff-stream | rbd-apply."""
    return [inside(options.bin / "rbd-diff-stream", *since), inside(options.bin / "rbd-apply", f"rbd/{TO}")]


def theirs(cache, snap, *since):
    """rbd export-diff | rbd import-diff."""
    how = ["--no-progress"] + ([] if cache else ["--rbd-cache=false"])
    return [inside("rbd", "export-diff", *how, *since, f"rbd/{FROM}@{snap}", "-"),
            inside("rbd", "import-diff", *how, "-", f"rbd/{TO}")]


def gone():
    """No target; and nothing of the last one is left to be freed, beside which all would be measured."""
    if TO in rbd("ls", text=True).split():
        remove(TO)
    begin = time.monotonic()
    while "snaptrim" in subprocess.run(inside("ceph", "pg", "stat"), check=True, capture_output=True, text=True).stdout:
        if time.monotonic() - begin > PATIENCE:
            raise TimeoutError("the cluster does not get done with what was removed")
        time.sleep(0.5)


def rivals(options, size, snap, *, env=None):
    """The sides of a transfer that leads to a snapshot: whole to s1, or from s1 to s2."""
    whole = snap == "s1"

    def fresh_for_ours():
        gone()
        if not whole:
            Side(*ours(options, f"rbd/{FROM}@s1")).run()

    def fresh_for_theirs():
        gone()
        rbd("create", "--size", f"{size // MIB}M", f"rbd/{TO}")
        if not whole:
            Side(*theirs(True, "s1")).run()

    mine = ours(options, *([] if whole else ["--from", "s1"]), f"rbd/{FROM}@{snap}")
    since = [] if whole else ["--from-snap", "s1"]
    return {
        "rbd-diff-stream | rbd-apply": Side(*mine, before=fresh_for_ours, env=env),
        "rbd export-diff | import-diff": Side(*theirs(True, snap, *since), before=fresh_for_theirs, env=env),
        "the same, rbd_cache off": Side(*theirs(False, snap, *since), before=fresh_for_theirs, env=env),
    }


def gate(report, name, costs, wanted, wanted_without_cache=None):
    mine, cached, uncached = costs.values()
    report.at_least(f"e {name}: speed, of theirs", cached.median("wall") / mine.median("wall"), wanted, "x")
    speed = uncached.median("wall") / mine.median("wall")
    if wanted_without_cache:
        report.at_least(f"e {name}: speed, of theirs without its cache", speed, wanted_without_cache, "x")
    else:
        report.note(f"beside theirs without its cache: {speed:.2f}x")


def transfers(options, report):
    """Gate e."""
    size = (256 * MIB if options.quick else GIB)
    for name in ("osd_snap_trim_sleep_ssd", "osd_snap_trim_sleep_hdd", "osd_snap_trim_sleep_hybrid"):
        subprocess.run(inside("ceph", "config", "set", "osd", name, "0"), check=True)
    made(FROM, None)
    fill(FROM, size)
    changed = size // 32  # 8192 places of a GiB
    write_and_snap(FROM, size, [GRAIN], changed)
    report.head(f"e: an RBD image to another, whole: {size // MIB} MiB of random bytes")
    report.note(SETTINGS)
    costs = alternate(rivals(options, size, "s1"), options.pairs)
    report.costs(costs)
    gate(report, "whole", costs, 1.3)
    report.head(f"e: an RBD image to another, an increment of {changed // GRAIN} random writes of 4 KiB")
    report.note(SETTINGS)
    costs = alternate(rivals(options, size, "s2"), options.pairs)
    report.costs(costs)
    gate(report, "increment", costs, 1.5, 5)
    report.note("with 0-4 ms, in the mean 2 ms, before each message of the client to an OSD")
    costs = alternate(rivals(options, size, "s2", env={"CEPH_CONF": str(delayed(options.work))}), options.pairs)
    report.costs(costs)
    gate(report, "increment, slow network", costs, 2)
    gone()
    remove(FROM)
