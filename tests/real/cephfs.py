#!/usr/bin/python3
"""What changed on CephFS, and the way of it onto a directory: cephfs-changed | tree-diff-stream --changes - | tree-apply.

usage: tests/real/cephfs.py [--full] [--only WORD]... [--seed N] [--bin DIR]

CephFS by ceph-fuse, on a bed of its own. The judge walks over both trees and knows nothing of ours.
"""
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import bed
from bed import ROOT, Skipped, main, refused, run, same, test
from cephfs_lab import MARGIN, SETTLE, Home, listing, mounted, own_bed, rctime

GENERATIONS = 30


@test
def generations_of_random_change_are_equal():
    home = Home("home")
    for _ in range(40):
        home.step()
    home.snap()
    home.follow()
    generations, done = GENERATIONS if bed.options.full else 2, {}
    for _ in range(generations):
        for _ in range(home.chance.randrange(5, 40)):
            kind = home.step()
            done[kind] = done.get(kind, 0) + 1
        home.snap()
        home.follow()
    print(f"    {generations} of {GENERATIONS} generations; {done}", flush=True)
    # Nor did any list leave out something.
    home.step()
    home.snap()
    home.changed("--cross-check")


@test
def the_lines_of_the_readme_begin_from_what_both_have():
    home = Home("readme")
    (home.root / "f").write_bytes(b"1")
    text = (ROOT / "README.md").read_text()
    lines = text.split("mkdir /mnt/cephfs/home/.snap/tue\n")[1].split("```")[0]
    for was, now in (("/mnt/cephfs/home", str(home.root)), ("/backup/home", str(home.target)), ("/var/lib/siphon/home", str(home.memory)), ("ssh nas ", ""),
                     ("--memory", f"--settle {SETTLE} --memory")):
        assert was in lines, was
        lines = lines.replace(was, now)
    for night in ("mon", "tue"):
        with open(home.root / "f", "ab") as out:
            out.write(b"more")
        home.tree(night).mkdir()
        result = run(f"set -eu -o pipefail; PATH={bed.options.bin}:$PATH\n" + lines.replace("@tue", f"@{night}"))
        same(listing(home.target), listing(home.tree(night)), str(result))
        same('"from"' in result.out, night == "tue", f"an increment: {result}")


@test
def what_rctime_does_not_tell_is_not_missed():
    """Remote hard links never move rctime where they stand; what was moved in keeps its old one below."""
    home = Home("remote")
    for name in ("a", "b/deep/er", "quiet/x/y"):
        (home.root / name).mkdir(parents=True)
    (home.root / "a/first").write_bytes(b"1")
    os.link(home.root / "a/first", home.root / "b/deep/er/second")
    (home.outside / "o").write_bytes(b"1")
    os.link(home.outside / "o", home.root / "quiet/x/remote")
    (home.outside / "moved/in/deep").mkdir(parents=True)
    (home.outside / "moved/in/deep/f").write_bytes(b"old")
    run(f"sync -f {home.root}")
    time.sleep(SETTLE)
    home.snap()
    home.follow()
    time.sleep(MARGIN + 1)
    (home.root / "a/first").write_bytes(b"through the first name")
    (home.outside / "o").write_bytes(b"through a name outside")
    os.rename(home.outside / "moved", home.root / "moved")
    home.snap()
    time.sleep(SETTLE)
    # That the trap is real: rctime stays below where the remote link stands.
    naive = rctime(home.tree("s1") / "quiet") <= rctime(home.tree("s0")) and rctime(home.tree("s1") / "moved/in") < rctime(home.tree("s1") / "moved")
    listed = home.changed("--list").out
    for path in ("a/first", "quiet/x/remote", "moved", "moved/in/deep/f"):
        assert f"{home.root}/{path}\n" in listed, listed
    assert "\t/\t" + str(home.root / "b/deep") not in listed
    print(f"    the trap is {'real' if naive else 'not seen here'}", flush=True)
    home.snapshots.pop()
    os.rmdir(home.tree("s1"))
    home.snap()
    home.follow()
    # The last of several names need not be the first one: it goes on being looked at.
    os.unlink(home.root / "a/first")
    home.snap()
    home.follow()
    assert "b/deep/er/second" in home.memory.read_text()


@test
def another_directory_put_in_its_place_while_it_waits_is_refused():
    home = Home("swapped")
    (home.root / "f").write_bytes(b"1")
    (home.outside / "other").mkdir()
    above = home.root.parent / ".snap" / f"above-{os.getpid()}"
    above.mkdir()
    line = [Path(bed.options.bin, "cephfs-changed"), "--list", "--settle", "4", "--rctime-margin", str(MARGIN), f"{home.root}@{above.name}"]
    for swap in (False, True):
        waiting = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(2)
        if swap:
            os.rename(home.root, home.outside / "was")
            os.rename(home.outside / "other", home.root)
        out, err = waiting.communicate(timeout=60)
        same(waiting.returncode, 4 if swap else 0, f"{out}\n{err}")
        assert not swap or "[changed]" in err, err
    os.rmdir(above)


def sealed(lines):
    """A memory of these lines."""
    text = "".join(line for line in lines if not line.startswith("#end"))
    python = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "siphon-venv/bin/python3"
    seal = run(f"{python} -c 'import blake3, sys; print(blake3.blake3(sys.stdin.buffer.read()).hexdigest())'", input=text).out.strip()
    return text + f"#end\t{text.count(chr(10) + 'linked')}\t{seal}\n"


def forgetful(text):
    """A memory without its names."""
    return sealed(line for line in text.splitlines(keepends=True) if not line.startswith("linked"))


def surprised(text):
    """A memory of a snapshot that looked otherwise when it was read: nobody can make data come late on purpose."""
    bent = [re.sub("[0-9a-f]$", lambda last: "1" if last[0] != "1" else "2", line) if line.startswith("anchor") else line
            for line in text.splitlines()]
    return sealed(f"{line}\n" for line in bent)


@test
def what_came_into_a_snapshot_after_it_was_read_is_found():
    home = Home("late")
    (home.root / "d").mkdir()
    (home.root / "d/f").write_bytes(b"1")
    for runs_between in (0, 1):
        home.snap()
        home.changed("--list", "--no-trust-rctime", settle=0)
        home.memory.write_text(surprised(home.memory.read_text()))
        for _ in range(runs_between):
            (home.root / "d/g").write_bytes(b"1")
            home.snap()
            home.changed("--list")
        home.snap()
        result = refused(home.changed("--list", "--cross-check", check=False, settle=0), 5, "differs")
        assert "came into the snapshot" in result.err and "--settle" in result.err, result
        # Sent anew, all is well.
        run(f"PATH={bed.options.bin}:$PATH; cephfs-changed --memory {home.memory} --settle 0 {home.root}@{home.snap()} >/dev/null")
        home.snap()
        home.changed("--list", "--cross-check", settle=0)


@test
def a_run_that_walks_over_all_finds_where_rctime_was_wrong():
    home = Home("wrong")
    (home.root / "quiet/x").mkdir(parents=True)
    (home.outside / "o").write_bytes(b"1")
    os.link(home.outside / "o", home.root / "quiet/x/remote")
    run(f"sync -f {home.root}")
    time.sleep(SETTLE)
    home.snap()
    home.changed()
    # A memory that lost a name: so rctime is all there is.
    home.memory.write_text(forgetful(home.memory.read_text()))
    time.sleep(MARGIN + 1)
    (home.outside / "o").write_bytes(b"22")
    home.snap()
    kept = home.memory.read_text()
    missed = home.changed("--list")
    assert "remote" not in missed.out, missed
    home.memory.write_text(kept)
    result = home.changed("--list", "--cross-check", check=False)
    refused(result, 5, "differs")
    assert "quiet/x/remote" in result.out, result


@test
def the_next_walk_over_all_finds_what_earlier_runs_missed():
    """A file is changed by a name that no memory knows, so that rctime does not tell; then it is as always, until all is walked over."""
    home = Home("missed")
    for name in ("quiet/x", "loud"):
        (home.root / name).mkdir(parents=True)
    for name in ("one", "two"):
        (home.outside / name).write_bytes(b"1")
        os.link(home.outside / name, home.root / "quiet/x" / name)
    run(f"sync -f {home.root}")
    time.sleep(SETTLE)
    home.snap()
    home.follow()
    home.memory.write_text(forgetful(home.memory.read_text()))
    time.sleep(MARGIN + 1)
    for name in ("one", "two"):
        (home.outside / name).write_bytes(b"2" * 10)
    (home.root / "loud/f").write_bytes(b"1")
    home.snap()
    missed = home.changed("--list").out
    assert "loud/f" in missed and "quiet" not in missed, missed
    # Now the list has one of them, by another name beside it; only what was changed since, so the target stays wrong.
    (home.root / "quiet/x/new").write_bytes(b"1")
    (home.outside / "two").write_bytes(b"3" * 10)
    home.snap()
    assert "quiet/x/two" in home.changed("--list").out
    needs = run(f"PATH={bed.options.bin}:$PATH; cephfs-changed --memory {home.memory} --needs").out
    same(needs, "s2\ns0\n", "what the next run needs")
    home.snap()
    before = home.memory.read_text()
    result = home.changed("--list", "--cross-check", check=False)
    refused(result, 5, "differs")
    assert "quiet/x/one" not in result.out and "quiet/x/one, and 1 more," in result.err and "tree-apply --replace" in result.err, result
    # It is said until all is sent anew, however right the lists are now. What the next walk over all begins from is this one.
    for options in (["--cross-check"], []):
        home.snap()
        told = refused(home.changed("--list", *options, check=False, settle=0), 5, "differs")
        assert "an earlier run" in told.err and "new snapshot" in told.err, told
    # Also where the memory is of another state than the target's, because a run in between came only half-way.
    lacking = home.memory.read_text()
    home.snap()
    home.snap()
    told = refused(home.changed("--list", check=False, settle=0), 5, "differs")
    assert "no memory" in told.err and "an earlier run" in told.err, told
    del home.snapshots[-2:]
    home.memory.write_text(lacking)
    for name in ("s6", "s7"):
        os.rmdir(home.tree(name))
    same(run(f"PATH={bed.options.bin}:$PATH; cephfs-changed --memory {home.memory} --needs -0").out, "s5\0s4\0", "what the next run needs")
    lacking = home.memory.read_text()
    run(f"PATH={bed.options.bin}:$PATH; cephfs-changed --memory {home.memory} --settle 0 {home.root}@s5 >/dev/null")
    assert "lacks" in lacking and "lacks" not in home.memory.read_text()
    home.snap()
    home.changed("--list", settle=0)
    # Where the snapshot is gone nobody can tell any more.
    del home.snapshots[-3:]
    os.rmdir(home.tree("s0"))
    home.memory.write_text(before)
    result = home.changed("--list", "--full-every", "1")
    assert "snapshot s0 is gone" in result.err, result


@test
def a_snapshot_that_is_gone_is_no_end():
    home = Home("gone")
    (home.root / "f").write_bytes(b"1")
    home.snap()
    result = home.changed(to="nothing", check=False)
    refused(result, 4, "not-found")
    refused(run(f"PATH={bed.options.bin}:$PATH; cephfs-changed --list /usr@a", check=False), 4, "unsupported")
    refused(run(f"PATH={bed.options.bin}:$PATH; cephfs-changed --list {home.root}", check=False), 2, "usage")
    # Removed and made anew under its name while the list is read: the stream has no end.
    fifo = Path(bed.work, "list")
    os.mkfifo(fifo)
    with subprocess.Popen(["bash", "-c", f"PATH={bed.options.bin}:$PATH; exec tree-diff-stream --changes {fifo} >{bed.work}/out"], stderr=subprocess.PIPE, text=True) as filler:
        whole = run(f"PATH={bed.options.bin}:$PATH; cephfs-changed --settle 0 {home.root}@s0 >{bed.work}/whole")
        with open(fifo, "wb") as out:
            data = Path(bed.work, "whole").read_bytes()
            out.write(data[:-60])
            out.flush()
            time.sleep(1)
            os.rmdir(home.tree("s0"))
            (home.root / "f").write_bytes(b"2")
            home.tree("s0").mkdir()
            out.write(data[-60:])
        err = filler.communicate(timeout=60)[1]
    assert filler.returncode == 4 and "[" in err, (filler.returncode, err, str(whole))
    # A list that was kept is of the snapshot that had the name then.
    refused(run(f"PATH={bed.options.bin}:$PATH; tree-diff-stream --changes {bed.work}/whole >{bed.work}/out", check=False), 4, "vanished")


@test
def a_stream_takes_no_snapshots_and_removes_none():
    old, new, target = Path(bed.work, "snaps.0"), Path(bed.work, "snaps.1"), mounted() / "snaps"
    (old / "d").mkdir(parents=True)
    (new / "d/.snap/theirs").mkdir(parents=True)
    run(f"set -o pipefail; PATH={bed.options.bin}:$PATH; tree-diff-stream {old} | tree-apply --all {target}")
    line = f"set -o pipefail; PATH={bed.options.bin}:$PATH; tree-diff-stream --base {old} {new} | tree-apply --all {target}"
    refused(run(line, check=False), 4, "exists")
    same(os.listdir(target / "d/.snap"), [])
    # Nor removes one: to the sender it is a directory that is gone.
    (target / "d/.snap/ours").mkdir()
    run(f"mkdir -p {old}/d/.snap/ours; rm -rf {new}/d/.snap")
    refused(run(f"set -o pipefail; PATH={bed.options.bin}:$PATH; tree-diff-stream {old} | tree-apply --all --replace {target}.2", check=False), 4, "exists")
    same(os.listdir(target / "d/.snap"), ["ours"])


@test
def what_comes_onto_ceph_fuse_is_made_durable_one_by_one():
    if not shutil.which("strace"):
        raise Skipped("no strace")
    trees = [Path(bed.work, name) for name in ("durable.0", "durable.1")]
    run(f"mkdir -p {trees[0]}/d/sub {trees[0]}/left; cd {trees[0]}; for f in d/new d/sub/grows d/sub/mode left/alone; do head -c 50000 /dev/urandom >$f; done")
    run(f"cp -a {trees[0]} {trees[1]}; cd {trees[1]}; echo more >>d/sub/grows; chmod 600 d/sub/mode; mv d/new d/other; ln -s nowhere d/sub/symlink")
    target, trace = mounted() / "durable", Path(bed.work, "trace")
    wanted = (["", "/d", "/d/new", "/d/sub", "/d/sub/grows", "/d/sub/mode", "/left", "/left/alone"], ["", "/d", "/d/sub", "/d/sub/grows", "/d/sub/mode"])
    for tree, base, names in zip(trees, (None, trees[0]), wanted):
        run(f"""set -o pipefail; PATH={bed.options.bin}:$PATH; tree-diff-stream {f'--base {base}' if base else ''} {tree} |
            strace -f -y -o {trace} -e trace=fsync,pwrite64,rename tree-apply --all {target}""")
        calls = [line.split(None, 1)[1] for line in trace.read_text().splitlines()]
        end = max(n for n, call in enumerate(calls) if call.startswith("rename"))  # the record of the new state
        for name in names:
            synced = [n for n, call in enumerate(calls) if call.startswith("fsync") and f"<{target}{name}>" in call]
            written = [n for n, call in enumerate(calls) if call.startswith("pwrite64") and f"<{target}{name}>" in call]
            assert synced and max(written, default=0) <= synced[-1] < end, f"{name}: {synced} {written} {end}"
        same(listing(target), listing(tree))


if __name__ == "__main__":
    own_bed()
    main("ceph")
