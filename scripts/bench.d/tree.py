"""Gates h and i: what changed on CephFS, against who walks over all of it; and a whole tree, against tar and rsync."""
import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

from ceph import inside
from measure import MIB, Side, alternate

EVERY = 7  # runs of cephfs-changed, of which one walks over all
MARGIN, SETTLE = 2, 20  # seconds; the tree is made just now, so its clocks agree and nothing in it is old
SPREAD = 17  # directories in each directory above the last level


# --- h: what changed on CephFS

def changes(options, report):
    """Gate h."""
    if "CEPH_FUSE_MNT" not in os.environ or not shutil.which("ceph-fuse"):
        report.head("h: skipped: this bed has no CephFS (CEPH_WITH=mds), or there is no ceph-fuse")
        return
    files, directories, moved = (4000, 100, 200) if options.quick else (200_000, 5000, 1000)
    client = Client()
    local = Path(options.memory) / f"siphon-bench-tree.{os.getpid()}"
    there = client.mount / f"bench-{os.getpid()}"
    try:
        client.again()
        report.head(f"h: what changed on CephFS: {files} files in {directories} directories, 1 % hard links, 50 files changed, "
                    f"a directory of {moved} moved")
        newer = two_snapshots(options, there, local, files, directories, moved)
        sides(options, report, client, there, local, newer)
    finally:
        subprocess.run(["rm", "-rf", local])
        if options.bed_stays:
            client.again()
            for snapshot in ("s0", "s1"):
                subprocess.run(["rmdir", there / ".snap" / snapshot], stderr=subprocess.DEVNULL)
            subprocess.run(["rm", "-rf", there])


def sides(options, report, client, there, local, newer):
    memory, tool = options.work / "memory", options.bin / "cephfs-changed"
    client.again()
    first = ["--memory", memory, "--settle", "0", f"{there}@s0"]
    subprocess.run([tool, *first], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    remembered = memory.read_bytes()

    def changed(*words):
        line = [tool, "--list", "--from", "s0", "--rctime-margin", str(MARGIN), *words, f"{there}@s1"]
        return Cold(client, line, before=lambda: memory.write_bytes(remembered))

    listed = subprocess.run([*changed("--memory", memory).stages[0]], capture_output=True, text=True, check=True).stdout
    lines = sorted({line.split("\t")[0] for line in listed.splitlines()})
    report.note(f"each begins with a client that was just mounted (ceph-fuse); the MDS is warm. Files are empty: nobody reads them. "
                f"cephfs-changed lists {len(listed.splitlines())} lines of {' '.join(lines)}; wall time of it without --settle")
    rivals = {
        "cephfs-changed": changed("--memory", memory),
        "the walk of both (--no-trust-rctime)": changed("--no-trust-rctime"),
        "find -newer": Cold(client, ["find", there / ".snap/s1", "-newer", newer]),
    }
    if shutil.which("rsync"):
        rivals["rsync -aHn --delete"] = Cold(client, ["rsync", "-aHn", "--delete", "-i", f"{there}/.snap/s1/", f"{local}/"])
    costs = alternate(rivals, options.pairs, warm=False)
    report.costs(costs)
    for name, cost in costs.items():
        kinds = cost.runs[-1].kinds
        told = ", ".join(f"{kind} {kinds[kind]}" for kind in sorted(kinds, key=kinds.get, reverse=True))
        report.note(f"{name}: {cost.median('operations'):.0f} MDS operations (of the last run: {told})")
    ours = costs.pop("cephfs-changed")
    for name, cost in costs.items():
        report.at_least(f"h {name}: MDS operations, of ours", cost.median("operations") / ours.median("operations"), 30, "x")
        report.at_least(f"h {name}: wall, of ours", cost.median("wall") / ours.median("wall"), 15, "x")
    walk = costs["the walk of both (--no-trust-rctime)"]
    for what in ("operations", "wall"):
        mean = ((EVERY - 1) * ours.median(what) + walk.median(what)) / EVERY
        figures = ", ".join(f"{name} {cost.median(what) / mean:.1f}x" for name, cost in costs.items())
        report.note(f"{what} with every {EVERY}th run a walk, {mean:.1f} in the mean; of that: {figures}")


class Client:
    """The CephFS client of the bed, and the MDS that it asks."""

    def __init__(self):
        self.mount, self.there = Path(os.environ["CEPH_FUSE_MNT"]), os.environ["LAB_DIR"]
        self.pid = Path(self.there, "ceph/run/fuse.pid")
        quiet(inside("ceph", "config", "set", "mds", "mds_snap_rstat", "true"))

    def again(self):
        """Mounts it anew: it knows nothing."""
        if os.path.ismount(self.mount):
            pid = self.pid.read_text().strip()
            quiet(["umount", self.mount])
            while Path("/proc", pid).exists():
                time.sleep(0.05)
        self.mount.mkdir(exist_ok=True)
        quiet(inside("timeout", "60", "ceph-fuse", "--id", "admin", f"--pid-file={self.pid}", self.mount))

    def operations(self):
        """Requests of clients that the MDS has handled: all, and by their kind."""
        counters = json.loads(quiet(inside("ceph", "daemon", "mds.a", "perf", "dump")))["mds_server"]
        of_kinds = {name.removeprefix("req_").removesuffix("_latency"): value for name, value in counters.items() if name.startswith("req_")}
        return counters["handle_client_request"], {kind: value["avgcount"] for kind, value in of_kinds.items()}


class Cold(Side):
    """A rival that begins with a client which knows nothing."""

    def __init__(self, client, *stages, **more):
        super().__init__(*stages, **more)
        self.client = client

    def run(self):
        self.client.again()
        before, kinds = self.client.operations()
        cost = super().run()
        after, kinds_after = self.client.operations()
        cost.operations = after - before
        cost.kinds = {kind: count - kinds.get(kind, 0) for kind, count in kinds_after.items() if count > kinds.get(kind, 0)}
        return cost


def two_snapshots(options, there, local, files, directories, moved):
    """The tree on CephFS in two snapshots, and a copy of it as it was in the first. A file as old as that."""
    chance = random.Random(1)
    paths = make_tree(there, files, directories, moved)
    make_tree(local, files, directories, moved)
    quiet(["sync", "-f", there])
    time.sleep(SETTLE)
    (there / ".snap/s0").mkdir()
    newer = options.work / "newer"
    newer.write_bytes(b"")
    time.sleep(MARGIN + 1)
    for path in chance.sample(paths, 50):
        with open(there / path, "ab") as out:
            out.write(b"changed")
    os.rename(there / "moved", there / "d0/moved")
    quiet(["sync", "-f", there])
    (there / ".snap/s1").mkdir()
    time.sleep(SETTLE)
    return newer


def make_tree(root, files, directories, moved):
    """Empty files, all of them as old; a hundredth are other names of others. Paths of those that have one name only."""
    root.mkdir()
    paths = [Path(f"d{number}") for number in range(SPREAD)]
    for path in paths:
        if len(paths) >= directories - 1:
            break
        paths += [path / f"d{number}" for number in range(min(SPREAD, directories - 1 - len(paths)))]
    for path in paths:
        (root / path).mkdir()
    (root / "moved").mkdir()
    made = [Path("moved", f"f{number}") for number in range(moved)]
    made += [paths[number % len(paths)] / f"f{number}" for number in range(files - moved - files // 100)]
    for path in made:
        os.close(os.open(root / path, os.O_CREAT | os.O_WRONLY, 0o644))
        os.utime(root / path, (1_700_000_000, 1_700_000_000))
    chance = random.Random(2)
    linked = chance.sample(made[moved:], files // 100)
    for number, path in enumerate(linked):
        os.link(root / path, root / chance.choice(paths) / f"link{number}")
    names = set(linked)
    return [path for path in made[moved:] if path not in names]


def quiet(command):
    """Runs it, and gives what it printed."""
    done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


# --- i: a whole tree

def copies(options, report):
    """Gate i: in memory and on a disk."""
    files = 4000 if options.quick else 100_000
    for place, directory in (("memory", options.memory), ("disk", options.disk)):
        work = Path(directory) / f"siphon-bench.{os.getpid()}"
        work.mkdir()
        try:
            copy(options, report, place, work, files)
        finally:
            subprocess.run(["rm", "-rf", work])


def copy(options, report, place, work, files):
    source, target = work / "tree", work / "copy"
    size = make_files(source, files)
    kind = quiet(["stat", "-f", "-c", "%T", work]).strip()
    report.head(f"i: a whole tree in {place} ({kind}): {files} files, {size // MIB} MiB, 1 % hard links, 2 % with an extended attribute")
    report.note("the source in the page cache; a new target every time, durable on all sides (tree-apply does it itself; sync -f after the others)")

    def clear():
        subprocess.run(["rm", "-rf", target, work / ".copy.siphon"], check=True)

    def empty():
        clear()
        target.mkdir()

    attributes = ["--xattrs", "--xattrs-include=*", "--acls"]
    durable = ["sync", "-f", target]
    rivals = {
        "tree-diff-stream | tree-apply": Side([options.bin / "tree-diff-stream", source],
                                              [options.bin / "tree-apply", "--all", target], before=clear),
        "tar | tar": Side(["tar", "-C", source, *attributes, "-cf", "-", "."],
                          ["tar", "-C", target, *attributes, "-xpf", "-"], then=durable, before=empty),
    }
    if shutil.which("rsync"):
        rivals["rsync -aHAX"] = Side(["rsync", "-aHAX", f"{source}/", f"{target}/"], then=durable, before=empty)
    else:
        report.note("rsync is not installed, and not measured")
    costs = alternate(rivals, options.pairs)
    report.costs(costs)
    ours = costs.pop("tree-diff-stream | tree-apply")
    report.note(f"peak of tree-diff-stream {ours.peak(0) / MIB:.1f} MiB, of tree-apply {ours.peak(1) / MIB:.1f} MiB")
    faster = min(costs, key=lambda name: costs[name].median("wall"))
    report.at_least(f"i {place}: speed, of {faster}, the faster", costs[faster].median("wall") / ours.median("wall"), 1.0, "x")
    report.at_most(f"i {place}: memory", ours.memory / MIB, 128, " MiB")
    clear()


def make_files(root, files):
    """Files of sizes as people have them: half of them below 4 KiB, one in a hundred some 100 KiB. Bytes of all."""
    chance, total = random.Random(3), 0
    noise = chance.randbytes(4 * MIB)
    made = []
    for number in range(files - files // 100):
        at = root / f"d{number // 40 % 50}" / f"d{number // 2000}"
        at.mkdir(parents=True, exist_ok=True)
        size = min(int(chance.lognormvariate(8.3, 1.5)), 2 * MIB)
        start = chance.randrange(2 * MIB)
        path = at / f"file{number}"
        path.write_bytes(noise[start:start + size])
        total += size
        made.append(path)
        if number % 50 == 0:
            os.setxattr(path, "user.note", b"some words")
        if number % 50 == 1:
            os.symlink(f"file{number}", at / f"symlink{number}")
    for number, path in enumerate(chance.sample(made, files // 100)):
        os.link(path, path.parent / f"link{number}")
    return total
