#!/usr/bin/python3
"""Transfers that are cut and go on: RBD to a volume by the nightly lines over ssh, to another RBD image, and from a volume.

usage: tests/real/resume.py [--full] [--only WORD]... [--seed N] [--bin DIR]
"""
import os
import random
import re
import subprocess
import sys
from pathlib import Path

if sys.executable != "/usr/bin/python3":  # the system's has librbd's module
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])

import bed
from bed import refused, run, same, vm
from nightly_lab import Image, MiB, counted, test

SIZE = 128 * MiB
CHECKPOINT = 64 * MiB  # bytes of payload between two CHECKPOINTs of a stream
SLACK = 6 * MiB  # what lies in pipes and sockets when a transfer is cut, and frames' headers

# Stands before ssh: CUT bytes of the stream go through; KILL: then the receiver is killed, too. BYTES: a file that takes how
# many went.
CUTTING_SSH = """#!/bin/bash
if [[ "$*" != *zvol-apply* ]]; then exec REAL "$@"; fi
{ head -c "${CUT:-99999999999}"; [ -z "${KILL:-}" ] || REAL nas 'kill -KILL $(grep -lx zvol-apply /proc/[0-9]*/comm | cut -d/ -f3)'; } | tee >(wc -c >>"$BYTES") | REAL "$@"
code=${PIPESTATUS[2]}
exit "$code"
"""


class Cut(Image):
    """An image whose nights are cut."""

    def __init__(self, size=SIZE):
        super().__init__(size)
        real = Path(bed.work, "bin/real-ssh")
        ssh = Path(bed.work, "bin/ssh")
        if not real.exists():
            real.write_text(ssh.read_text())
            real.chmod(0o755)
            ssh.write_text(CUTTING_SSH.replace("REAL", str(real)))
        self.bytes = Path(bed.work, f"bytes.{self.name}")
        self.bytes.write_text("")

    def script(self):
        return super().script().replace("zvol-apply --mark", "zvol-apply --mark --checkpoint-every 0")

    def cut(self, at, kill=False):
        """A night of which so many bytes arrive; says whether that cut it."""
        more = {"KILL": "yes"} if kill else {}
        result = self.lines(check=False, CUT=str(at), BYTES=str(self.bytes), **more)
        assert result.code != 0 or '"marked":true' in result.out, result
        return result

    def night(self):
        result = self.lines(BYTES=str(self.bytes))
        self.equal(self.nights[-1])
        return result

    def sent(self):
        """Bytes that went through ssh since this was last asked."""
        told = [int(line) for line in self.bytes.read_text().split()]
        self.bytes.write_text("")
        return sum(told)

    def tidy(self):
        """Keeps the newest night only, on both sides."""
        self.remove_snapshot(*[name for name in self.nights[:-1] if name in {line[3] for line in self.states()}])
        vm(f"for old in $(zfs list -Ht snapshot -o name -s createtxg -d 1 {self.target} | head -n -1); do zfs destroy $old; done")

    def checkpoints(self):
        return vm(f"zfs list -Ht snapshot -o name -d 1 {self.target} | grep -c @siphon-checkpoint- || true").out.strip()


def touched(image, chance, share):
    """Rewrites about this share of the image, in stretches with holes between."""
    unit = 4 * MiB
    with image.open() as opened:
        for at in range(0, opened.size(), unit):
            if chance.random() < share:
                length = min(opened.size() - at, unit - chance.choice([0, 0, 1, 100]) * 4096)
                opened.write(chance.randbytes(length), at)
            elif chance.random() < 0.05:
                opened.discard(at, min(unit // 2, opened.size() - at))


def goes_on_at(result, at_least):
    """Whether a run went on; it had to if something lay before the last CHECKPOINT, and from no further back."""
    told = re.search(r"unfinished run was cut, at byte (\d+)", result.err)
    assert at_least == 0 or told and int(told[1]) >= at_least, f"at least {at_least}: {result}"
    return told is not None


@test
def cut_nights_go_on_and_send_no_more_twice_than_since_the_last_checkpoint():
    planned = 200 if bed.options.full else 3
    cuts = went_on = 0
    chance = random.Random(bed.options.seed)
    image = Cut()
    touched(image, chance, 1)
    while cuts < planned:
        worst = 0
        at_least = 0  # where the next run goes on, if the last one was cut behind a CHECKPOINT
        for _ in range(chance.randrange(1, 4) if planned < 50 else chance.randrange(3, 8)):
            at, kill = chance.randrange(MiB, SIZE * 9 // 10), chance.random() < 0.3
            begun = image.cut(at, kill=kill)
            went_on += goes_on_at(begun, at_least)
            if begun.code == 0:
                at_least = 0
                break
            # The first run's stream is dense, so what arrived of it reaches at least as far in the image.
            at_least = 0 if worst or kill else max(0, at - CHECKPOINT - SLACK)
            cuts += 1
            worst += CHECKPOINT + SLACK
            if chance.random() < 0.5:
                touched(image, chance, 0.05)
            if chance.random() < 0.3:
                image.resize(SIZE + chance.randrange(-8, 9) * MiB + chance.choice([0, 512]))
        went_on += goes_on_at(image.night(), at_least)
        same(image.checkpoints(), "0", "checkpoints after a night that ended")
        # What had to go: the image once, and what was written between. All else was sent twice.
        needed = run(f"rbd-diff-stream {image.at(image.nights[-1])} | wc -c").out
        assert image.sent() <= int(needed) * 1.3 + worst, (image.nights[-1], needed, worst)
        image.tidy()
        touched(image, chance, 1)
    counted(cuts, planned)
    print(f"    {went_on} runs went on", flush=True)
    assert went_on >= cuts // 6, went_on


def cut_behind_a_checkpoint(image, kill=False):
    """A night of which three quarters arrived."""
    touched(image, image.chance, 1)
    result = image.cut(SIZE * 3 // 4, kill=kill)
    assert result.code != 0 and image.checkpoints() == "1", result
    return result


@test
def what_others_wrote_meanwhile_is_given_up():
    image = Cut()
    cut_behind_a_checkpoint(image)
    vm(f"""set -e; zfs set volmode=dev {image.target}; udevadm settle; sleep 1
        dd if=/dev/urandom of=/dev/zvol/{image.target} bs=1M seek=3 count=2 conv=notrunc,fsync status=none
        zfs set volmode=none {image.target}""")
    result = image.night()
    assert "going on from where" in result.err, result


@test
def a_state_that_is_gone_at_the_source_is_not_gone_on_from():
    image = Cut()
    cut_behind_a_checkpoint(image)
    image.remove_snapshot(image.nights[-1])
    result = image.night()
    assert "begun anew" in result.err, result
    touched(image, image.chance, 0.9)
    image.cut(90 * MiB)
    # The snapshot goes between the two lines of the night.
    token = run(f"rbd-diff-stream --states {image.path} | real-ssh nas zfs-snapmark common {image.target}").out.strip()
    assert token.startswith("resume:"), token
    image.remove_snapshot(image.nights[-1])
    image.snapshot("later")
    result = run(f"set -o pipefail; rbd-diff-stream --from {token} {image.at('later')} | real-ssh nas zvol-apply --mark {image.target}",
                 timeout=600)
    assert "begun anew, from" in result.err and "giving up an unfinished run" in result.err, result
    image.equal("later")


@test
def snapshots_of_others_above_a_checkpoint_are_neither_lost_nor_believed():
    image = Cut()
    cut_behind_a_checkpoint(image)
    vm(f"zfs snapshot {image.target}@autosnap")
    refused(image.cut(SIZE * 2), 4, "foreign-snapshot")
    vm(f"zfs list {image.target}@autosnap && zfs destroy {image.target}@autosnap")
    assert "going on from where" in image.night().err


@test
def a_token_is_hostile_input():
    image = Image(8 * MiB)
    image.noise(0, MiB)
    image.snapshot("a")
    ident = image.states()[0][0]
    for bad in ["", "x", "-", ",", "-,", "-,5=0,4=0", f"-,4096={ident},", f"{ident},{1 << 64}=0", "-,1=1", "../../etc/passwd",
                f"-,4096={ident}\n", f"-,04096={ident}", "-" + "".join(f",{n}={'-' if n % 2 else '0'}" for n in range(1, 99))]:
        for tool in ("rbd-diff-stream",):
            done = subprocess.run([tool, "--from", "resume:" + bad, image.at("a")], capture_output=True, text=True, errors="replace")
            if bad == "-":  # of an image of no bytes: all of it is sent
                same(done.returncode, 0, done.stderr)
                continue
            same((done.returncode, "[usage]" in done.stderr, done.stdout), (2, True, ""), repr(bad))
    # Well spelled, but it is not where the target is: the target decides.
    done = run(f"rbd-diff-stream --from resume:-,4096={ident},{8 * MiB}=0 {image.at('a')} | real-ssh nas zvol-apply --mark {image.target}", check=False)
    refused(done, 4, "not-found") if "[not-found]" in done.err else refused(done, 4, "wrong-base")
    same(image.marks() if "tank" in vm(f"zfs list -H {image.target}", check=False).out else [], [], "marks")


@test
def an_rbd_image_goes_on():
    planned = 60 if bed.options.full else 3
    chance = random.Random(bed.options.seed)
    image, copy, cuts, went_on = Image(SIZE), Image(create=False), 0, 0
    touched(image, chance, 1)
    while cuts < planned:
        name = image.night_name()
        image.snapshot(name)
        whole = chance.random() < 0.4
        at = "99999999999" if whole else str(chance.randrange(MiB, SIZE))
        base = run(f"rbd-diff-stream --states {image.path} | rbd-apply --common {copy.path}").out.strip()
        result = run(f"""set -o pipefail
            rbd-diff-stream {f"--from '{base}'" if base else ""} {image.at(name)} | head -c {at} | rbd-apply --checkpoint-every 0 {copy.path}""",
                     check=False, timeout=600)
        went_on += "going on from where an unfinished" in result.err and base.startswith("resume:")
        marked = '"marked":true' in result.out
        assert marked or "[truncated]" in result.err, result
        if marked:
            with image.open(name) as one, copy.open(name) as other:
                same(other.size(), one.size(), "size")
                for offset in range(0, one.size(), 8 * MiB):
                    length = min(8 * MiB, one.size() - offset)
                    assert one.read(offset, length) == other.read(offset, length), f"{name} differs at {offset}"
            left = run(f"rbd snap ls {copy.path}; rbd image-meta ls {copy.path}").out
            assert "siphon-checkpoint" not in left and "siphon.checkpoint" not in left, left
            for gone in [line[3] for line in image.states()[:-1]]:
                image.remove_snapshot(gone)
        else:
            cuts += 1
        touched(image, chance, 1)
    counted(cuts, planned)
    # Only what was cut behind a CHECKPOINT goes on: somewhat less than half.
    assert went_on >= planned // 6, went_on


@test
def a_volume_as_a_source_goes_on():
    """To a file on the guest: a cut there goes on if nobody touched it."""
    image = Cut()
    touched(image, image.chance, 0.9)
    image.night()
    target = f"/backup/{image.name}.img"
    vm("zfs create -o mountpoint=/backup tank/files")
    try:
        for keep, goes_on in ((CHECKPOINT + 30 * MiB, False), (5 * MiB, True), (SIZE * 2, True)):
            newest = image.nights[-1]
            result = vm(f"""set -o pipefail
                base=$(zvol-diff-stream --states {image.target} | image-apply --common {target}) || exit
                zvol-diff-stream ${{base:+--from "$base"}} {image.target}@{newest} | head -c {keep} | image-apply {target}""",
                        check=False, timeout=600)
            same("going on from where" in result.err, goes_on, str(result))
            if keep < SIZE:
                assert "what has arrived is kept" in result.err, result
                touched(image, image.chance, 0.05)
                image.night()
        same(vm(f"sha256sum <{target}").out.split()[0], image.sum(newest), "the file")
    finally:
        vm("zfs destroy tank/files")


if __name__ == "__main__":
    os.environ.setdefault("LAB_DISKS", "16G 8G")
    bed.main("ceph", "zfs")
