#!/usr/bin/python3
"""Forty images every night, onto a NAS, by the page siphon-nightly(7): eight nights, and then nights that go wrong.

usage: tests/real/forty.py [--full] [--only WORD]... [--seed N] [--bin DIR]

Ceph, a guest with OpenZFS, an unprivileged user on both, a key with a forced command. The set-up and what heals are the blocks
of the page. `n of N`: a sample without --full, with 8 images. It has a bed of its own, with disks that outlive a power cut.
OLD_BIN=DIR: an older rbd-diff-stream, for the night with two versions.
"""
import os
import shutil
import sys
import tempfile

if sys.executable != "/usr/bin/python3":  # the system's has librbd's module
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])

import bed
from bed import main, same, test
from forty_lab import BLOCKS, MEANT, RUN, block, fleet

NIGHTS = 8


def counted(done, planned, what):
    print(f"    {done} of {planned} {what}", flush=True)


@test
def nothing_is_sent_by_a_dry_run():
    of = fleet()
    of.days()
    before = of.nas.sh(f"zfs list -Hpt all -o name,guid -r {of.place}").out
    snapshots = [machine.snapshots() for machine in of.machines]
    said = of.sender.sh(block("dry-run"), user="siphon").out
    for machine in of.machines:
        assert f"ok       {machine.name}  would send: increment, since {machine.newest()}" in said, said
    same(of.nas.sh(f"zfs list -Hpt all -o name,guid -r {of.place}").out, before, "the NAS")
    same([machine.snapshots() for machine in of.machines], snapshots, "the snapshots")


@test
def eight_nights_with_random_change_are_equal():
    of = fleet()
    nights = NIGHTS if bed.options.full else 2
    for night in range(2, nights + 1):
        result = of.good_night(sums=3)
        data = result.totals["data_bytes"]
        print(f"    night {night}: {len(of.machines)} images, {data >> 20} MiB of data, {result.totals['seconds']} s", flush=True)
        for machine in of.machines:
            assert len(machine.ours()) == min(night, 3), f"{machine.name}: {machine.ours()}"
        # The disks of one machine: one name, so one moment.
        same(*[machine.newest() for machine in of.pair])
        if night == 2:
            # Somebody else's, from now on: on the volumes, too.
            some = of.machines[1::3]
            of.nas.sh("; ".join(f"zfs snapshot {machine.target}@autosnap_daily" for machine in some))
            names = " ".join(f"{machine.target}@autosnap_daily" for machine in some)
            for line in of.nas.sh(f"zfs list -Hpt snapshot -o name,guid {names}").out.splitlines():
                of.foreign["zfs", line.split("\t")[1]] = line.split("\t")[0]
    counted(nights, NIGHTS, f"nights; {len(of.machines) + 1} of 40 images, one of them left out")
    print(of.sender.sh(block("record"), user="siphon").out, end="    ")
    print(of.nothing_foreign_is_gone(), "snapshots of others are there", flush=True)


@test
def the_key_does_nothing_else():
    of = fleet()
    key = of.machines[0].target
    for words in ("id", "zfs list", f"zfs destroy -r {key}", "zfs-snapmark list tank/other/vol", f"zvol-apply --rollback {key}", "sh -c id",
                  f"zfs-snapmark common {MEANT}/../../other", f"zfs-snapmark release {key}@x", f"zfs-snapmark common {key};id"):
        result = of.sender.sh(f"ssh nas '{words}' </dev/null", user="siphon", check=False)
        assert result.code not in (0, 255) and "uid=" not in result.out, result
    assert of.sender.sh("ssh nas </dev/null", user="siphon", check=False).code != 0, "a shell"


import forty_bad  # noqa: E402,F401 the nights that go wrong


@test
def nothing_of_others_is_gone():
    of = fleet()
    print(f"    {of.nothing_foreign_is_gone()} snapshots of others are there after {of.nights} nights", flush=True)


@test
def every_block_of_the_page_was_run():
    if bed.options.full and not bed.options.only:
        same(set(BLOCKS), RUN, "blocks of siphon-nightly(7) that were run")


if __name__ == "__main__":
    if not {"--full", "--only"} & set(sys.argv):
        # Even its sample takes longer than scripts/test has for all.
        print("skipped: forty images take their time: --full, or --only WORD\n0 passed, 0 failed, 20 skipped")
        sys.exit(0)
    for variable in ("LAB_DIR", "LAB_DISKS"):
        os.environ.pop(variable, None)
    disks = tempfile.mkdtemp(prefix="siphon-disks.", dir="/tmp")
    os.environ["LAB_DISKS"] = ""
    for disk in ("a", "b"):
        with open(f"{disks}/{disk}", "wb") as file:
            file.truncate(12 << 30)
        os.environ["LAB_DISKS"] += f"{disks}/{disk} "
    try:
        main("ceph", "zfs")
    finally:
        shutil.rmtree(disks)
