#!/usr/bin/python3
"""siphon-recovery(7), run: every block of the page, as it is printed, on real systems.

usage: tests/real/recovery.py [--full] [--only WORD]... [--seed N] [--bin DIR]
"""
import os
import re
import sys
from pathlib import Path

if sys.executable != "/usr/bin/python3":  # the system's has librbd's module
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])

import bed
from bed import ROOT, refused, run, same, vm
from nightly_lab import Image, MiB, in_guest, test

PAGE = (ROOT / "man/siphon-recovery.7").read_text()
BLOCKS = dict(re.findall(r'^\.\\" run: (\S+)\n\.Bd [^\n]*\n(.*?)^\.Ed$', PAGE, re.MULTILINE | re.DOTALL))
RUN = set()


def typed(*blocks, more=""):
    """What a user types: blocks of the page, one after the other in one shell; `more` before them."""
    RUN.update(blocks)
    lines = [line for block in blocks for line in BLOCKS[block].splitlines()]
    script = "\n".join(["set -eu -o pipefail", f"cd {bed.work}", more, *lines])
    return run(script, timeout=600, env={**os.environ, "SIPHON_SSH": f"ssh -F {bed.work}/ssh_config"})


class Machine(Image):
    """rbd/vm1 and tank/vm1, as the page calls them; its second night is the one of the page."""

    def __init__(self, size=16 * MiB + 512, nights=3):
        super().__init__(name="vm1", create=False)
        self.target = "tank/vm1"
        vm(f"ln -sf /host{bed.options.bin}/{{zvol-diff-stream,extent-digest}} /usr/bin/")
        links = Path(bed.work, "scripts")
        if not links.exists():
            links.symlink_to(ROOT / "scripts")
        # Both may be left of a test that failed.
        self.drop()
        self.create(size)
        self.noise(0, size)
        for _ in range(nights):
            self.small_writes(20)
            self.lines()
        self.equal(self.nights[-1])

    def head(self):
        with self.open() as image:
            return image.read(0, image.size())

    def at_night(self, night):
        with self.open(night) as image:
            return image.read(0, image.size())

    def is_incremental_again(self):
        """The nightly lines, and little crosses the wire."""
        result = self.night()
        data = int(re.search(r'"data_bytes":(\d+)', result.out)[1])
        assert '"from":' in result.out and data < 8 * MiB, result


@test
def yesterdays_state():
    machine = Machine()
    yesterday = machine.at_night(machine.nights[1])
    machine.noise(3 * MiB, 2 * MiB)
    machine.discard(10 * MiB, 5 * MiB)
    states = typed("states").out
    same(states.count("T0200Z"), 3, states)
    typed("yesterday")
    assert machine.head() == yesterday
    # Whoever does not know how it ended types the last line again.
    again = run("\n".join(["set -eu -o pipefail", f"cd {bed.work}", BLOCKS["yesterday"].splitlines()[-1]]), timeout=600)
    assert '"already":true' in again.out and machine.head() == yesterday, again
    with machine.open("broken") as image:
        assert image.read(3 * MiB, MiB) != yesterday[3 * MiB:4 * MiB]
    machine.is_incremental_again()
    typed("verify")


@test
def some_files():
    machine = Machine(32 * MiB, nights=1)
    in_guest(machine, "mkfs.ext4 -q $device; mount $device /mnt; echo precious >/mnt/file; umount /mnt")
    machine.night()
    typed("files")
    same(vm("cat /mnt/file").out, "precious\n")
    typed("files-end")
    machine.is_incremental_again()


@test
def one_machine_at_three_in_the_morning():
    machine = Machine(nights=2)
    last = machine.at_night(machine.nights[-1])
    machine.remove()
    # One shell: the page hands $mark on from block to block.
    typed("rescue", "home", more="")
    assert machine.head() == last
    # The machine runs meanwhile.
    vm("""udevadm settle; sleep 1
        dd if=/dev/urandom of=/dev/zvol/tank/rescue bs=64K seek=7 count=9 conv=notrunc,fsync status=none""")
    typed("rescued", more="mark=$(ssh nas zfs-snapmark last tank/vm1)")
    head = machine.head()
    assert head[:7 << 16] == last[:7 << 16] and head[7 << 16:8 << 16] != last[7 << 16:8 << 16]
    same(head[:len(last)][16 << 16:], last[16 << 16:], "what the machine did not write")
    assert not any(head[len(last):]) and len(head) - len(last) < 16384
    machine.is_incremental_again()
    typed("rescue-end")


@test
def the_whole_cluster():
    machine = Machine(nights=2)
    last = machine.at_night(machine.nights[-1])
    machine.remove()
    said = typed("cluster").out
    assert "verified" in said, said
    assert machine.head() == last
    machine.small_writes(10)
    machine.is_incremental_again()


@test
def the_backup_host():
    machine = Machine(nights=2)
    # As a replica, which holds the snapshots and no mark.
    vm("""set -e; zfs send -R tank/vm1@$(zfs list -Ht snapshot -o name -s creation -d 1 tank/vm1 | tail -n 1 | cut -d @ -f 2) | zfs recv tank/replica
        zfs release -r siphon $(zfs list -Ht snapshot -o name tank/vm1 | tail -n 1); zfs destroy -r tank/vm1; zfs rename tank/replica tank/vm1""")
    refused(machine.lines(check=False), 4, "foreign")
    typed("replica")
    machine.night()
    same(len(machine.marks()), 1, "marks of the new volume")
    assert "T0200Z" in vm("zfs list -Ht snapshot -o name tank/vm1-until-2026; zfs destroy -r tank/vm1-until-2026").out


@test
def nothing_in_common():
    machine = Machine(nights=2)
    machine.remove_snapshot(*machine.nights)
    machine.small_writes(20)
    refused(machine.lines(check=False), 4, "no-common")
    typed("no-common")
    machine.equal("again")
    machine.is_incremental_again()


@test
def an_image_that_has_moved():
    machine = Machine(nights=2)
    run("rbd cp rbd/vm1 rbd/moved")
    machine.remove()
    run("rbd rename rbd/moved rbd/vm1")
    refused(machine.lines(check=False), 4, "no-common")
    machine.remove_snapshot(machine.nights.pop())
    assert "too" in typed("moved").out
    machine.small_writes(20)
    machine.is_incremental_again()
    # What differs is not adopted.
    result = run("""set -o pipefail; mark=$(ssh nas zfs-snapmark last tank/vm1)
        rbd-diff-stream rbd/vm1@moved | extent-digest | ssh nas zfs-snapmark adopt $mark""", check=False)
    refused(result, 5, "differs")


@test
def is_it_equal():
    machine = Machine()
    typed("equal")
    # A byte of the image that Ceph's own word says nothing of.
    wrong = BLOCKS["equal"].replace("rbd/vm1@2026-11-02T0200Z", "rbd/vm1@2026-11-03T0200Z")
    refused(run(f"set -eu -o pipefail\n{wrong}", check=False), 5, "differs")


@test
def every_block_of_the_page_was_run():
    if not bed.options.only:
        same(set(BLOCKS), RUN, "blocks of siphon-recovery(7) that were run")


if __name__ == "__main__":
    bed.main("ceph", "zfs")
