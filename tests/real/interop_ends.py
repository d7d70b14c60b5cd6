"""RBD images, ZFS volumes and image files as sources and as targets, each with the commands that its pages name."""
import os
from pathlib import Path

import bed
from bed import same, vm
from interop_lab import Rbd, at_mark, file_sum, lab
from zvol import Plain, Zvol, images, source


class RbdEnd:
    """An RBD image, as a source and as a target."""

    def __init__(self, name, image=None):
        lab()
        self.image = Rbd(image, name=f"{name}-{os.getpid()}")
        self.name = f"{self.image}"

    def state(self, name, image):
        self.image.snap(name, image)

    def forget(self, name):
        self.image.remove_snap(name)

    def send(self, to, options=""):
        return f"rbd-diff-stream {options} {self.name}@{to}"

    def states(self):
        return f"rbd-diff-stream --states {self.name}"

    def apply(self, options=""):
        return f"rbd-apply {options} {self.name}"

    def common(self):
        return f"rbd-apply --common {self.name}"

    def manifest(self):
        return f"rbd-diff-stream {self.name}@{self.newest()} | extent-digest --fine"

    def newest(self):
        return self.image.snaps()[-1]

    def by_hand(self, offset, length):
        with self.image.open() as image:
            image.write(b"\xee" * length, offset)

    give_up = "--rollback"  # what makes it take a stream from its newest mark, whatever was written since

    def sum(self, size):
        same(self.image.sum(), self.image.sum(self.newest()), "head and mark")
        return self.image.sum()


class ZvolEnd:
    """A volume."""

    def __init__(self, name, image=None):
        lab()
        images or source("s0")  # makes the pool
        self.plain = Plain(name, "-b 16K", len(image)) if image is not None else None
        self.zvol = self.plain.t if self.plain else Zvol(name)
        self.name, self.names = f"{self.zvol}", {}

    def state(self, name, image):
        self.names[name] = self.plain.snap(image)

    def forget(self, name):
        vm(f"zfs destroy {self.name}@{self.names[name]}")

    def send(self, to, options=""):
        return f"nas zvol-diff-stream {options} {self.name}@{self.names.get(to, to)}"

    def states(self):
        return f"nas zvol-diff-stream --states {self.name}"

    def apply(self, options=""):
        return f"nas zvol-apply --mark {options} {self.name}"

    def common(self):
        return f"nas zfs-snapmark common {self.name}"

    def manifest(self):
        return f"nas 'zvol-diff-stream {self.name}@{self.newest()} | extent-digest --fine'"

    def newest(self):
        return vm(f"zfs-snapmark last {self.name}").out.strip().split("@")[1]

    def by_hand(self, offset, length):
        self.zvol.write(offset, length, 0xEE)

    give_up = "--rollback"

    def sum(self, size):
        vm(f"zfs-snapmark verify {self.name}")
        return at_mark(self.name, self.newest(), size)


class FileEnd:
    """A raw image file. It holds one state, and has no way back: its content says what it is."""

    def __init__(self, name, image=None):
        lab()
        self.path = Path(bed.work, f"{name}.img")
        self.name, self.at = f"{self.path}", {}

    def state(self, name, image):
        self.at[name] = self.path.with_suffix(f".{name}")
        self.at[name].write_bytes(image)

    def forget(self, name):
        self.at[name].unlink()

    def send(self, to, options=""):
        return f"image-diff-stream {options} {self.at[to]}"

    def states(self):
        return f"image-diff-stream --states {list(self.at.values())[-1]}"

    def apply(self, options=""):
        return f"image-apply {options} {self.name}"

    def common(self):
        return f"image-apply --common {self.name}"

    def manifest(self):
        return f"extent-digest --fine --image {self.name}"

    def by_hand(self, offset, length):
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(b"\xee" * length)

    give_up = ""  # nothing is above its content

    def sum(self, size):
        return file_sum(self.path)


ENDS = {"rbd": RbdEnd, "zvol": ZvolEnd, "file": FileEnd}
