#!/usr/bin/python3
"""ZFS file systems as sources of trees: tree-diff-stream --dataset, and with the lines of a real zfs diff.

usage: tests/real/zfs_tree.py [--full] [--only WORD]... [--seed N] [--bin DIR]

All in the guest. The judge is tree_judge.py, and rsync.
"""
import itertools
import json
import os
from pathlib import Path

import bed
from bed import main, refused, same, test, vm

HERE = Path(__file__).resolve().parent
GENERATIONS = 30
NUMBERS = itertools.count(1)


def generations():
    return GENERATIONS if bed.options.full else 2


class Home:
    """A file system, and directories that follow it."""

    def __init__(self, *properties):
        self.name = f"tank/home{next(NUMBERS)}-{os.getpid()}"
        self.at, self.copies = f"/{self.name}", f"/{self.name}.copies"
        for program in ("tree_judge.py", "tree_changes.py"):
            Path(bed.work, program).write_text((HERE / program).read_text())
        options = " ".join(f"-o {each}" for each in ("acltype=posixacl", "atime=off", *properties))
        bed.tank()
        vm(f"""set -e; zfs create {options} -o mountpoint={self.at} {self.name}
            zfs create -o acltype=posixacl -o xattr=sa -o atime=off -o mountpoint={self.copies} {self.name}.copies""")
        self.snapshots = []

    def sh(self, command, **more):
        return vm(f"set -eu -o pipefail; cd {self.at}\n{command}", **more)

    def change(self, count, *options):
        seed = f"{bed.options.seed}/{self.name.split('-')[0]}/{len(self.snapshots)}"
        return json.loads(vm(f"python3 {bed.work}/tree_changes.py {self.at} - {seed} {count} {' '.join(options)}").out)

    def snapshot(self):
        self.snapshots.append(f"s{len(self.snapshots)}")
        vm(f"zfs snapshot {self.name}@{self.snapshots[-1]}")

    def words(self, lines=False):
        """What tree-diff-stream is asked for: the last snapshot, since the one before."""
        if len(self.snapshots) < 2:
            return f"--dataset {self.name}@{self.snapshots[-1]}"
        since, to = self.snapshots[-2:]
        if lines:
            return f"-- zfs diff -FH {self.name}@{since} {self.name}@{to}"
        return f"--from {since} --dataset {self.name}@{to}"

    def follow(self, copy, lines=False):
        """A copy becomes what the last snapshot holds; gives what was said, and what differs."""
        result = vm(f"set -o pipefail; tree-diff-stream {self.words(lines)} | tree-apply --all {self.copies}/{copy}", timeout=600)
        return result, self.judged(copy)

    def judged(self, copy):
        snapshot = f"{self.at}/.zfs/snapshot/{self.snapshots[-1]}"
        own = vm(f"python3 {bed.work}/tree_judge.py {snapshot} {self.copies}/{copy}", check=False, timeout=600)
        theirs = vm(f"rsync -aHAXni --checksum --delete {snapshot}/ {self.copies}/{copy}/", timeout=600)
        return own.out + own.err + theirs.out

    def equal(self, copy, lines=False):
        result, differs = self.follow(copy, lines)
        assert not differs.strip(), f"{differs}\n{result}\n" + self.told()
        return result

    def told(self):
        return vm(f"zfs diff -FH {' '.join(f'{self.name}@{each}' for each in self.snapshots[-2:])}", check=False).out

    def drop(self):
        vm(f"zfs destroy -r {self.name}; zfs destroy -r {self.name}.copies", check=False)


@test
def generations_of_random_change_are_equal():
    home, done = Home("xattr=sa"), {}
    for _ in range(generations() + 1):
        for kind, count in home.change(40)["done"].items():
            done[kind] = done.get(kind, 0) + count
        home.snapshot()
        home.equal("walked")
    print(f"    {generations()} of {GENERATIONS} generations; {done}", flush=True)
    home.drop()


@test
def the_lines_of_zfs_diff_lead_to_all_that_changed():
    """Hard links stay in their directory: of others it does not know the names, see below."""
    for attributes in ("sa", "on"):
        home, notes = Home(f"xattr={attributes}"), 0
        for _ in range(generations() + 1):
            home.change(30, "--apart")
            home.snapshot()
            notes += "note:" in home.equal("told", lines=True).err
        print(f"    xattr={attributes}: {generations()} of {GENERATIONS} generations, {notes} of them walked over all", flush=True)
        home.drop()


@test
def each_kind_of_change_has_a_line():
    home = Home("xattr=sa")
    home.sh(r"""mkdir -p a/b/c moved/in/deep quiet/x old; echo 1 >a/b/c/f; echo 1 >quiet/x/q; echo 1 >moved/in/deep/f; echo 1 >old/gone
        echo 1 >a/link1; ln a/link1 a/link2; echo 1 >a/open; echo 1 >'a/odd'""")
    home.snapshot()
    home.equal("told")
    changes = (
        "echo 2 >>a/b/c/f", "setfattr -n user.a -v 1 a/b/c/f", "setfattr -x user.a a/b/c/f", "setfacl -m u:7:rw a/b/c/f", "chmod 600 a/b/c/f",
        "chown 7:8 a/b/c/f", "touch -d 1970-01-02 a/b/c/f", "mv a/b/c/f a/b/f", "mv moved a/b/here", "mv a/b/here/in/deep/f a/b/here/in/g",
        "rm -r old", "mkdir -p new/with/more; echo x >new/with/more/f", r"mv a/odd $'a/ \n\t\\\xff'", "echo 2 >>a/link2", "rm a/link1",
        "ln a/link2 a/link3", "ln -s x a/s; mkfifo a/p; mknod a/dev c 1 3", "chmod 1777 a/b", "rm a/s; mkdir a/s", "touch -d 1980-01-02 .",
        "truncate -s 1M quiet/x/q", "exec 7<a/open; rm a/open; touch a/after",
    )
    # Without --full two go into one snapshot.
    at_once = 1 if bed.options.full else 2
    for change in ["; ".join(changes[at:at + at_once]) for at in range(0, len(changes), at_once)]:
        home.sh(f"{change}; zfs snapshot {home.name}@s{len(home.snapshots)}")
        home.snapshots.append(f"s{len(home.snapshots)}")
        told = home.told()
        assert told.strip() or change.startswith("touch"), change
        result, differs = home.follow("told", lines=True)
        assert not differs.strip() and "note:" not in result.err, f"{change}: {differs}\n{result}\n{told}"
    home.drop()


@test
def what_moved_is_sent_as_moved_and_what_stayed_is_not_read():
    home = Home()
    home.sh("mkdir -p one/deep two; for n in 1 2 3; do head -c 9000000 /dev/urandom >one/deep/$n; done; ln one/deep/1 two/link")
    home.snapshot()
    home.equal("walked")
    home.equal("told")
    home.sh("mv one/deep two/moved; mv two/moved/2 ./; chmod 600 two/moved/3")
    home.snapshot()
    for lines in (False, True):
        said = vm(f"set -o pipefail; tree-diff-stream {home.words(lines)} | extent-inspect").out
        assert "data 0 bytes in 0" in said and said.count("taken=") >= 2, said
        assert home.equal("told" if lines else "walked", lines).err.count("note:") == 0, said
    home.drop()


@test
def of_a_file_whose_other_name_is_gone_zfs_diff_may_tell_nothing():
    """What the page warns of: and a walk over all sees it."""
    home = Home()
    home.sh("mkdir one two; echo 1 >one/f; ln one/f two/g; rm two/g")
    home.snapshot()
    home.equal("walked")
    home.equal("told")
    home.sh("echo 2 >>one/f")
    home.snapshot()
    told = home.told()
    home.equal("walked")
    result, differs = home.follow("told", lines=True)
    print(f"    zfs diff told {told!r}, exit {result.code}: {'the trap is real' if differs.strip() else 'the trap is not seen here'}", flush=True)
    home.drop()


@test
def links_between_directories_are_right_where_lines_lead_to_one_of_them():
    home = Home()
    home.sh("mkdir one two three; echo 1 >one/f; ln one/f two/g; echo 1 >one/h; ln one/h two/i")
    home.snapshot()
    home.equal("told")
    for change in ("ln one/f three/j", "rm two/g", "echo 2 >>three/j", "mv two/i three/k", "ln one/f two/l", "rm one/f"):
        home.sh(change)
        home.snapshot()
        result, differs = home.follow("told", lines=True)
        verdict = "differs" if differs.strip() else "equal"
        print(f"    {change}: {verdict}{', walked over all' if 'note:' in result.err else ''}; told {home.told()!r}", flush=True)
        if differs.strip():
            # From here on the copy is not what the stream begins from: made anew.
            home.snapshots = home.snapshots[-1:]
            vm(f"rm -rf {home.copies}/told*")
            home.equal("told")
    home.drop()


@test
def a_snapshot_goes_by_its_guid_wherever_it_is():
    home = Home()
    home.sh("echo 1 >f")
    home.snapshot()
    home.sh("echo 2 >f")
    home.snapshot()
    states = f"tree-diff-stream --states --dataset {home.name}"
    same([line.split("\t")[3] for line in vm(states).out.splitlines()[:-1]], ["s0", "s1"])
    lines = f"""base=$({states} | tree-apply --common {home.copies}/c)
        tree-diff-stream ${{base:+--from "$base"}} --dataset {home.name}@SNAP | tree-apply --all {home.copies}/c"""
    for snap, since in (("s0", False), ("s1", True)):
        result = vm("set -eu -o pipefail\n" + lines.replace("SNAP", snap))
        same('"from"' in result.out and '"from":null' not in result.out, since, str(result))
    same(home.judged("c").strip(), "")
    vm(f"zfs rename {home.name}@s1 {home.name}@renamed")
    assert vm(f"{states} | tree-apply --common {home.copies}/c").out.strip() == "renamed"
    # A copy by ZFS itself is at the same state.
    vm(f"zfs send -R {home.name}@renamed | zfs recv -u {home.name}.other && zfs mount {home.name}.other 2>/dev/null || zfs set mountpoint=/{home.name}.other {home.name}.other")
    assert vm(f"tree-diff-stream --states --dataset {home.name}.other | tree-apply --common {home.copies}/c").out.strip() == "renamed"
    vm(f"zfs destroy -r {home.name}.other")
    home.drop()


# Writes to a mapped page, and takes a snapshot before it is written back.
MAPPED = """
import mmap, subprocess, sys
with open("f", "r+b") as file:
    pages = mmap.mmap(file.fileno(), 0)
    pages[100:104] = b"page"
    subprocess.run(["zfs", "snapshot", sys.argv[1]], check=True)
    pages.flush()
"""


@test
def what_was_written_to_a_mapped_page_is_not_missed():
    home = Home()
    home.sh(f"head -c 65536 /dev/zero >f; zpool sync; python3 -c '{MAPPED}' {home.name}@s0")
    home.snapshots.append("s0")
    home.equal("walked")
    home.snapshot()
    # The same times on both sides, and other content.
    same(home.sh("cd .zfs/snapshot; stat -c '%i %s %Y %Z' s0/f s1/f | sort -u | wc -l; cmp -s s0/f s1/f || echo differ").out, "1\ndiffer\n")
    home.equal("walked")
    home.drop()


@test
def access_lists_stay_on_xfs_which_shows_them_twice():
    home = Home()
    at, volume = f"/mnt/xfs-{os.getpid()}", f"{home.name}-xfs"
    vm(f"""set -e; zfs create -s -V 400M {volume}; udevadm settle; mkfs.xfs -q /dev/zvol/{volume}
        mkdir {at}; mount /dev/zvol/{volume} {at}""")
    home.sh("mkdir d; echo 1 | tee f g d/kept >/dev/null; setfacl -m u:1234:rw f g d/kept; setfacl -m u:1234:rwx,d:u:1234:rwx d")
    for change in (":", "echo 2 >>f; touch -d @1 d/kept; echo 1 >d/new; mkdir d/below", "setfacl -b g; echo 3 >>f", "echo 4 >>f; echo 4 >>d/new"):
        home.sh(change)
        home.snapshot()
        vm(f"set -o pipefail; tree-diff-stream {home.words()} | tree-apply --all {at}/copy")
        lists = [vm(f"cd {where}; getfacl -Rn . | sort").out for where in (home.at, f"{at}/copy")]
        assert "1234" in lists[0]
        same(lists[1], lists[0], f"access lists after {change}")
    vm(f"umount {at}; zfs destroy {volume}")
    home.drop()


@test
def another_file_system_that_is_mounted_over_it_is_not_sent():
    home = Home()
    home.sh("echo 1 >f")
    home.snapshot()
    vm(f"zfs create -o mountpoint={home.at} {home.name}.over; zfs snapshot {home.name}.over@s0")
    refused(vm(f"tree-diff-stream --dataset {home.name}@s0 | cat >/dev/null; exit ${{PIPESTATUS[0]}}", check=False), 4, "mounted")
    vm(f"zfs destroy -r {home.name}.over")
    home.equal("walked")
    home.drop()


@test
def what_cannot_be_sent_is_refused():
    home = Home()
    home.sh("echo 1 >f")
    home.snapshot()
    refused(vm(f"tree-diff-stream --dataset {home.name}@nothing | cat >/dev/null; exit ${{PIPESTATUS[0]}}", check=False), 4, "not-found")
    refused(vm("tree-diff-stream --dataset tank/no/such@s | cat >/dev/null; exit ${PIPESTATUS[0]}", check=False), 4, "not-found")
    vm(f"zfs umount {home.name}")
    refused(vm(f"tree-diff-stream --dataset {home.name}@s0 | cat >/dev/null; exit ${{PIPESTATUS[0]}}", check=False), 4, "not-found")
    vm(f"zfs mount {home.name}; zfs create -V 10M {home.name}-volume; zfs snapshot {home.name}-volume@s")
    refused(vm(f"tree-diff-stream --dataset {home.name}-volume@s | cat >/dev/null; exit ${{PIPESTATUS[0]}}", check=False), 4, "unsupported")
    vm(f"zfs destroy -r {home.name}-volume")
    home.drop()


if __name__ == "__main__":
    main("zfs")
