#!/usr/bin/python3
"""scripts/cephfs-to-zfs on real systems: CephFS by ceph-fuse, and by the kernel in the guest, over ssh onto a ZFS file system.

usage: tests/real/cephfs_to_zfs.py [--full] [--only WORD]... [--seed N] [--bin DIR]

After each night two judges in the guest, who know nothing of ours, look at the CephFS snapshot through the kernel's client and at
the mark through a mount of its own: rsync, and tree_judge.py.
"""
import functools
import itertools
import os
import random
import re
import time
from pathlib import Path

import bed
from bed import ROOT, main, refused, run, same, test, vm
from tree_changes import Life

HERE = Path(__file__).resolve().parent
SCRIPT = ROOT / "scripts/cephfs-to-zfs"
GENERATIONS = 30
MARGIN = 2  # seconds: so small that rctime is really asked
SETTLE = 9  # ceph-fuse has told of all changes after 6.4 s
NUMBERS = itertools.count(1)
POOL = f"tank/nights{os.getpid()}"  # not the pool itself: a bed may see many runs
GiB = 1 << 30

# In the guest, for a script that runs there: what ssh does with its words, without a way.
HERE_SSH = """#!/bin/bash
[ "$1" != -- ] || shift
shift
exec bash -c "$*"
"""


@functools.cache
def mounted():
    """The root of a CephFS, mounted here by ceph-fuse and in the guest, at /mnt/c, by its kernel."""
    bed.enter_ceph()
    there = os.environ["CEPH_FUSE_MNT"]
    os.makedirs(there, exist_ok=True)
    run(f"timeout 60 ceph-fuse --id admin --client_acl_type=posix_acl --pid-file={os.environ['LAB_DIR']}/ceph/run/fuse.pid {there}")
    # Snapshots show their own rctime; otherwise that of now, which is later for all that changes every night.
    run("ceph config set mds mds_snap_rstat true")
    for program in ("tree_judge.py", "tree_changes.py"):
        Path(bed.work, program).write_text((HERE / program).read_text())
    local = Path(bed.work, "here-ssh")
    local.write_text(HERE_SSH)
    local.chmod(0o755)
    mon, key = os.environ["CEPH_MON"], os.environ["CEPH_ADMIN_KEY"]
    bed.tank()
    vm(f"""set -e; ln -sf /host{bed.options.bin}/{{zfs-snapmark,tree-apply}} /usr/bin/
        zfs create -o mountpoint=/{POOL} {POOL}
        mkdir -p /mnt/c /mnt/mark; modprobe ceph; mount -t ceph {mon}:/ /mnt/c -o name=admin,secret={key}""")
    return Path(there)


class Home:
    """A directory on CephFS that goes to a file system of the guest every night."""

    def __init__(self):
        number = next(NUMBERS)
        self.name = f"home{number}-{os.getpid()}"
        self.root = mounted() / self.name
        self.outside = mounted() / f"{self.name}.outside"
        self.root.mkdir()
        self.outside.mkdir()
        self.target = f"{POOL}/{self.name}"
        self.life = Life(self.root, self.outside, random.Random(f"{bed.options.seed}/{number}"))

    def script(self, *options, in_guest=False, check=True, **environment):
        """One night."""
        words = ["--settle", SETTLE, "--rctime-margin", MARGIN, *options]
        words = " ".join(map(str, words))
        if in_guest:
            line = f"SIPHON_SSH={bed.work}/here-ssh /host{SCRIPT} --memory /root/{self.name} {words} /mnt/c/{self.name} nas {self.target}"
            result = vm(line, check=False, timeout=900)
            if result.code == 1 and "Invalid argument" in result.err:
                # Seen of this kernel's client (6.1) when it opens a directory in a fresh snapshot: a night that fails, and heals.
                print(f"    a night had to be tried again: {result.err.splitlines()[0]}", flush=True)
                time.sleep(1)  # snapshots are called by the second
                result = vm(line, check=False, timeout=900)
        else:
            run(f"sync -f {self.root}")
            ssh = environment.pop("ssh", f"ssh -F {os.environ['LAB_DIR']}/ssh_config")
            environment = {**os.environ, "PATH": f"{bed.options.bin}:{os.environ['PATH']}", "SIPHON_SSH": ssh, **environment}
            result = run(f"{SCRIPT} --memory {bed.work}/{self.name}.memory {words} {self.root} vm {self.target}", check=False,
                         env=environment, timeout=900)
        assert not check or result.code == 0, result
        return result

    def night(self, *options, **more):
        """One night, and both sides are equal after it."""
        result = self.script(*options, **more)
        snapshot, mark = re.search(r"@(\S+) -> \S+@([^:@\s]+): ", result.out).groups()
        self.judge(f"/mnt/c/{self.name}/.snap/{snapshot}", mark, result)
        return result

    def judge(self, source, mark, result):
        # ZFS mounts it by itself for who reads it below .zfs, and then nowhere else.
        looked = f"""umount /{self.target}/.zfs/snapshot/{mark} 2>/dev/null
            mount -t zfs {self.target}@{mark} /mnt/mark || exit 9; trap 'umount /mnt/mark' EXIT
            rsync -aHAXni --checksum --delete {source}/ /mnt/mark/
            python3 {bed.work}/tree_judge.py {source} /mnt/mark"""
        found = vm(looked, check=False, timeout=900)
        assert found.code == 0 and not (found.out + found.err).strip(), f"{found}\n{result}"
        vm(f"zfs-snapmark verify {self.target}")

    def marks(self):
        return [line.split("\t")[3] for line in vm(f"zfs-snapmark list {self.target}").out.splitlines()[:-1]]

    def snapshots(self):
        return sorted(path.name for path in (self.root / ".snap").iterdir())


@test
def thirty_generations_of_random_change_are_equal():
    home = Home()
    generations, how = GENERATIONS if bed.options.full else 2, []
    home.life.steps(60)
    # Some of it by the guest's client: ACLs are known to work there.
    for generation in range(generations + 1):
        home.life.steps(home.life.chance.randrange(5, 40))
        if generation % 3 == 1:
            run(f"sync -f {home.root}")
            vm(f"python3 {bed.work}/tree_changes.py /mnt/c/{home.name} /mnt/c/{home.name}.outside {bed.options.seed}/{generation} 10")
            # It may say "invalid argument" once (6.1), about what was removed while it was on its way.
            vm("sync -f /mnt/c || sync -f /mnt/c")
        how.append("since" if "since " in home.night().out else "whole")
    same(how, ["whole"] + ["since"] * generations, "what was sent")
    print(f"    {generations} of {GENERATIONS} generations; {home.life.done}; refused: {home.life.refused}", flush=True)


@test
def a_large_file_changed_in_one_block_costs_one_block():
    home, size = Home(), 2 * GiB if bed.options.full else 32 << 20
    block = random.Random(1).randbytes(16 << 20)
    with open(home.root / "large", "wb") as out:
        for _ in range(size // len(block)):
            out.write(block)
    home.night()
    with open(home.root / "large", "r+b") as out:
        out.seek(size // 2)
        out.write(b"x")
    result = home.night()
    sent = int(re.search(r"(\d+) bytes of data", result.out)[1])
    assert 0 < sent <= 8192, f"{sent} bytes of data for one byte"
    print(f"    {size} of {2 * GiB} bytes", flush=True)


@test
def the_kernels_client_is_a_source_as_well():
    """All of it in the guest; then a night by ceph-fuse goes on from there, because both tell the same states."""
    home = Home()
    generations = 10 if bed.options.full else 2
    home.life.steps(40)
    for generation in range(generations):
        if generation:
            home.life.steps(15)
        run(f"sync -f {home.root}")
        result = home.night(in_guest=True)
        same("since " in result.out, generation > 0, str(result))
    home.life.steps(15)
    assert "since " in home.night().out


@test
def old_snapshots_go_and_those_of_others_and_the_needed_ones_stay():
    home = Home()
    for name in ("mine", "siphon2-2026-11-01T020000Z"):
        (home.root / ".snap" / name).mkdir()
    taken = []
    for night in range(5):
        (home.root / "f").write_bytes(b"%d" % night)
        # Judged once, at the end: what is equal is the matter of others.
        result = (home.night if night == 4 else home.script)("--keep-last", 1)
        taken.append(re.search(r"@(\S+) -> ", result.out)[1])
        left = home.snapshots()
        assert {"mine", "siphon2-2026-11-01T020000Z", taken[-1], *taken[-2:-1]} <= set(left), left
    # The last, the one before, and that of the last walk over all.
    assert len(left) <= 5, left
    same(home.marks(), taken, "marks stay")


@test
def a_night_that_fails_leaves_nothing_and_the_next_one_heals():
    home = Home()
    home.life.steps(40)
    home.night()
    before, marks = home.snapshots(), home.marks()
    home.life.steps(10)
    # No connection: nothing was sent.
    result = refused(home.script(check=False, ssh="ssh -o ConnectTimeout=2 -o ControlPath=none -p 1 -o BatchMode=yes"), 1, "io")
    same((home.snapshots(), home.marks()), (before, marks), str(result))
    # Written to by hand: refused, and the new snapshot goes again.
    vm(f"""zfs set readonly=off {home.target}; [ "$(zfs get -Ho value mounted {home.target})" = yes ] || zfs mount {home.target}
        touch "$(zfs get -Ho value mountpoint {home.target})/by-hand"; zpool sync tank""")
    result = refused(home.script(check=False), 4, "written-since")
    same((home.snapshots(), home.marks()), (before, marks), str(result))
    vm(f"zfs rollback {home.target}@{marks[-1]} && zfs set readonly=on {home.target}")
    # Killed in the middle: whatever came of it, the next night ends equal.
    run(f"head -c 25000000 /dev/urandom >{home.root}/big; sync -f {home.root}")
    cut = Path(bed.work, "cut-ssh")
    cut.write_text(f"""#!/bin/bash
if [[ "$*" = *tree-apply* ]]; then head -c 10000000 | ssh -F {os.environ['LAB_DIR']}/ssh_config "$@" & sleep 2; kill $!; wait $!; exit 255; fi
exec ssh -F {os.environ['LAB_DIR']}/ssh_config "$@"
""")
    cut.chmod(0o755)
    result = home.script(check=False, ssh=str(cut))
    same(result.code, 1, str(result))
    time.sleep(3)
    home.night()


@test
def back_from_zfs_to_cephfs_by_the_lines_of_the_page():
    home = Home()
    home.life.steps(40)
    home.night()
    text = (ROOT / "README.md").read_text()
    lines = text.split("zfs snapshot tank/home@tue\n")[1].split("```")[0]
    back = f"/mnt/c/{home.name}.back"
    for night in range(2):
        if night:
            home.life.steps(20)
            home.night()
        mark = home.marks()[-1]
        here = lines
        # Its last part first: the names that come in have "tank/home" in them, too.
        for was, now in (("@tue", f"@{mark}"), ("tank/home", home.target), ("/mnt/cephfs/home", back)):
            assert was in here, was
            here = here.replace(was, now)
        at = vm(f"zfs get -Ho value mounted {home.target}").out.strip()
        if at != "yes":
            vm(f"zfs mount {home.target}")
        result = vm("set -eu -o pipefail\n" + here, timeout=600)
        same('"from":null' not in result.out and '"from"' in result.out, night == 1, f"an increment: {result}")
        home.judge(back, mark, result)


@test
def the_states_of_a_directory_are_the_same_by_both_clients():
    home = Home()
    (home.root / ".snap/one").mkdir()
    by_fuse = run(f"PATH={bed.options.bin}:$PATH; cephfs-changed --states {home.root}").out
    same(vm(f"cephfs-changed --states /mnt/c/{home.name}").out, by_fuse)


if __name__ == "__main__":
    for variable in ("LAB_DIR", "CEPH_FUSE_MNT"):
        os.environ.pop(variable, None)
    os.environ["CEPH_WITH"] = "mds"
    main("ceph", "zfs")
