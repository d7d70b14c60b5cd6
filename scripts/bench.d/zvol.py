"""Gate d: onto a ZFS volume in the guest, against dd."""
import json
import os
import subprocess
from pathlib import Path

from measure import MIB, Cost, Costs

HERE = Path(__file__).resolve().parent


def volumes(options, report):
    """Gate d: two images that differ in every block; their streams, whole and from one to the other; the rest in the guest."""
    size = 128 * MIB if options.quick else 1024 * MIB
    work = Path(os.environ["LAB_DIR"]) / "bench"  # the guest sees it at this path
    work.mkdir(exist_ok=True)
    for name in ("one", "two"):
        subprocess.run(["sh", "-c", f'head -c {size} /dev/urandom >"$1"', "sh", work / name], check=True)
    streams = {"whole": ["one"], "there": ["--base", work / "one", "two"], "back": ["--base", work / "two", "one"]}
    for name, words in streams.items():
        with open(work / name, "wb") as out:
            subprocess.run([options.bin / "image-diff-stream", *words], cwd=work, stdout=out, stderr=subprocess.DEVNULL, check=True)
    report.head(f"d: onto a volume without compression, {size // MIB} MiB of random bytes, in the guest")
    report.note("input: a file in the guest's ext4 on its second disk; volume: 16 KiB blocks, O_DIRECT on both sides; durable: "
                "fsync of the volume and `zpool sync` on both; one CPU, no ssh")
    figures = json.loads(in_guest(f"python3 -B /host{HERE}/guest.py /host{options.bin} {work} {options.pairs}"))
    costs = {name: Costs([Cost(*run) for run in runs]) for name, runs in figures["costs"].items()}
    report.costs(costs)
    whole, increment, dd_new, dd_again, nothing = costs.values()
    calls = nothing.median("wall")
    report.note(f"zvol-apply's calls of zfs and zpool, whatever the size (an empty stream into a new volume): {calls:.2f} s")
    report.at_least("d increment over every block: speed, of dd", dd_again.median("wall") / increment.median("wall"), 0.9, "x")
    report.at_least("d the same without those calls", dd_again.median("wall") / (increment.median("wall") - calls), 0.9, "x")
    report.at_least("d new volume, made by each: speed, of dd", dd_new.median("wall") / whole.median("wall"), 0.9, "x")
    subprocess.run(["rm", "-rf", work])


def in_guest(command):
    line = ["ssh", "-F", f"{os.environ['LAB_DIR']}/ssh_config", "vm", command]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench: in the guest: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
