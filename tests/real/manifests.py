#!/usr/bin/python3
"""Manifests that sinks keep of volumes and RBD images: each is what a digest of the source's own snapshot is, byte for byte.

usage: tests/real/manifests.py [--full] [--only WORD]... [--seed N] [--bin DIR]
"""
import os
import sys
from pathlib import Path

if sys.executable != "/usr/bin/python3":  # the system's has librbd's module
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])

import bed
from bed import refused, run, same, vm
from nightly_lab import Image, MiB, test

KEPT = "/root/kept.manifest"  # on the guest


class Kept(Image):
    """An image whose volume has a manifest."""

    def script(self):
        return super().script().replace("zvol-apply --mark", f"zvol-apply --mark --manifest {KEPT}")

    def told(self, night):
        """The manifest of the source's snapshot, made at the source."""
        path = Path(bed.work, f"{self.name}.manifest")
        run(f"rbd-diff-stream {self.at(night)} | extent-digest >{path}")
        return path

    def kept(self):
        """The manifest that the volume has fits the snapshot, and so does the root in the mark."""
        night = self.nights[-1]
        told = self.told(night)
        copy = Path(bed.work, f"{self.name}.kept")
        copy.write_bytes(bytes.fromhex(vm(f"xxd -p {KEPT} 2>/dev/null || python3 -c 'print(open(\"{KEPT}\",\"rb\").read().hex())'").out.replace("\n", "")))
        assert copy.read_bytes() == told.read_bytes(), f"the manifest of {self.at(night)}"
        root = run(f"extent-digest --root {told}").out.strip()
        assert root in vm(f"zfs-snapmark last --json {self.target}").out
        vm(f"zfs-snapmark verify --content {self.target}")


@test
def a_volumes_manifest_is_that_of_the_source_night_by_night():
    vm(f"rm -f {KEPT}")
    image = Kept(24 * MiB + 512)
    image.noise(0, 20 * MiB)
    image.night()
    image.kept()
    for size in (24 * MiB + 512, 30 * MiB + 4096, 9 * MiB + 512, 40 * MiB):
        image.resize(size)
        image.small_writes(30)
        image.discards(2)
        said = image.night()
        assert "reading the whole target" not in said.err, said
        image.kept()
    # Another's manifest lies there: all is read, and it is right again.
    vm(f"zvol-diff-stream {image.target}@{image.nights[0]} | extent-digest >{KEPT}")
    image.small_writes(5)
    assert "reading the whole target" in image.night().err
    image.kept()
    # Somebody wrote: it is undone, and the manifest is still that of the mark.
    vm(f"""set -e; zfs set volmode=dev {image.target}; udevadm settle; sleep 1
        dd if=/dev/urandom of=/dev/zvol/{image.target} bs=64K seek=9 count=3 conv=notrunc,fsync status=none
        zfs set volmode=none {image.target}""")
    before = vm(f"sha256sum {KEPT}").out
    refused(image.lines(check=False), 4, "written-since")
    same(vm(f"sha256sum {KEPT}").out, before, "the manifest after a refusal")
    image.send("--from", image.nights[-2], image.at(image.nights[-1]), options=f"--rollback --manifest {KEPT}")
    image.kept()


@test
def a_mark_whose_root_is_another_is_found():
    vm(f"rm -f {KEPT}")
    image = Kept(8 * MiB)
    image.noise(0, 8 * MiB)
    image.night()
    mark = f"{image.target}@{image.nights[-1]}"
    record = vm(f"zfs get -Hpo value siphon:mark {mark}").out.strip()
    root = next(word for word in record.split() if word.startswith("root="))
    vm(f"zfs set 'siphon:mark={record.replace(root, 'root=' + '5' * 64)}' {mark}")
    for what in (image.target, mark):
        refused(vm(f"zfs-snapmark verify --content {what}", check=False), 5, "differs")
    vm(f"zfs set 'siphon:mark={record.replace(' ' + root, '')}' {mark}")
    refused(vm(f"zfs-snapmark verify --content {mark}", check=False), 4, "not-found")


@test
def an_rbd_images_manifest_is_that_of_the_source():
    image, copy = Kept(20 * MiB), Image(create=False)
    file = Path(bed.work, "rbd.manifest")
    file.unlink(missing_ok=True)
    image.noise(0, 15 * MiB)
    base = None
    for size in (20 * MiB, 20 * MiB, 26 * MiB + 512, 7 * MiB):
        image.resize(size)
        image.small_writes(20)
        name = image.night_name()
        image.snapshot(name)
        since = f"--from {base}" if base else ""
        said = run(f"set -o pipefail; rbd-diff-stream {since} {image.at(name)} | rbd-apply --manifest {file} {copy.path}")
        assert "reading the whole target" not in said.err, said
        assert file.read_bytes() == image.told(name).read_bytes(), name
        root = run(f"extent-digest --root {file}").out.strip()
        assert root in run(f"rbd image-meta list {copy.path}").out
        base = name


if __name__ == "__main__":
    bed.main("ceph", "zfs")
