"""What people do in a directory tree: `python3 tree_changes.py ROOT OUTSIDE SEED COUNT` makes so many random changes, and prints how many of
each kind as JSON. OUTSIDE is a directory on the same file system that is no part of the tree, or `-`.

Needs the standard library alone: it runs in the guest as well.
"""
import errno
import json
import os
import random
import shutil
import stat
import struct
import sys

ODD = [b"", b"", b"", b" ", b"\n", b"\t\n ", b"\xff\xfe", b"\\", b"a" * 200, "ä".encode(), b"-rf", b"'\"$x"]
# What does not matter: a directory into itself, over one that is not empty, what ceph-fuse 16.2 lists for a moment though it is gone.
TOLERATED = {errno.EINVAL, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}
BLOCK = 4096


def acl(user):
    """A POSIX ACL as Linux takes it: the owner and this user may read and write."""
    entries = [(1, 6, 0xFFFFFFFF), (2, 6, user), (4, 4, 0xFFFFFFFF), (16, 6, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


class Life:
    """A tree, and what becomes of it. `across`: hard links lead from one directory to another, too."""

    def __init__(self, root, outside, chance, across=True):
        self.root, self.outside, self.chance, self.across = os.fsencode(root), outside and os.fsencode(outside), chance, across
        self.done, self.refused = {}, {}

    def all(self, wanted):
        found = []
        for at, names, files in os.walk(self.root):
            for name in names + files:
                path = os.path.join(at, name)
                try:
                    if wanted(os.lstat(path)):
                        found.append(path)
                except FileNotFoundError:
                    pass
        return sorted(found)

    def files(self):
        return self.all(lambda meta: stat.S_ISREG(meta.st_mode))

    def directories(self):
        return self.all(lambda meta: stat.S_ISDIR(meta.st_mode))

    def steps(self, count):
        for _ in range(count):
            self.step()

    def step(self):
        kinds = ["create", "create", "create", "directory", "directory", "sparse", "symlink", "fifo"]
        files, directories = self.files(), self.directories()
        if files:
            kinds += ["append", "overwrite", "truncate", "rename", "over", "replace", "link", "link", "unlink", "unlink", "mode", "owner",
                      "mtime", "xattr", "no_xattr", "acl", "same_size", "dig"]
        if directories:
            kinds += ["move", "move", "rmtree", "dir_mode", "dir_owner", "dir_mtime", "dir_acl", "other_kind"]
        if self.outside:
            kinds += ["out", "into", "dir_out", "link_out", "link_in", "write_outside"]
        kind = self.chance.choice(kinds)
        try:
            getattr(self, kind)(files, directories)
            self.done[kind] = self.done.get(kind, 0) + 1
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                self.refused[kind] = self.refused.get(kind, 0) + 1
            elif error.errno not in TOLERATED:
                raise

    def place(self, directories, at=None):
        """A path where nothing stands."""
        at = at or self.chance.choice([self.root, *directories])
        return os.path.join(at, b"%d%s" % (self.chance.randrange(10 ** 9), self.chance.choice(ODD)))

    def content(self):
        return self.chance.randbytes(self.chance.choice([0, 1, 100, 5000, 70_000, 300_000]))

    def pick(self, of):
        return self.chance.choice(of)

    # --- each kind of change

    def create(self, files, directories):
        with open(self.place(directories), "wb") as out:
            out.write(self.content())

    def directory(self, files, directories):
        os.mkdir(self.place(directories))

    def sparse(self, files, directories):
        size = self.chance.randrange(1, 8 << 20)
        with open(self.place(directories), "wb") as out:
            out.truncate(size)
            for _ in range(self.chance.randrange(4)):
                out.seek(self.chance.randrange(size))
                out.write(self.chance.randbytes(5000))

    def symlink(self, files, directories):
        os.symlink(self.chance.choice([b"/etc/passwd", b"..", b"nowhere/\xff\n", b"x" * 300]), self.place(directories))

    def fifo(self, files, directories):
        os.mkfifo(self.place(directories))

    def append(self, files, directories):
        with open(self.pick(files), "ab") as out:
            out.write(self.chance.randbytes(self.chance.choice([1, 100, 10_000])))

    def overwrite(self, files, directories):
        file = self.pick(files)
        with open(file, "r+b") as out:
            out.seek(self.chance.randrange(os.path.getsize(file) + 1))
            out.write(self.chance.randbytes(10))

    def same_size(self, files, directories):
        """In the middle, and the time of modification is put back."""
        file = self.pick(files)
        meta = os.lstat(file)
        with open(file, "r+b") as out:
            out.write(self.chance.randbytes(min(meta.st_size, 3)))
        os.utime(file, ns=(meta.st_atime_ns, meta.st_mtime_ns))

    def dig(self, files, directories):
        """Zeros, in whole blocks."""
        file = self.pick(files)
        size = os.path.getsize(file)
        with open(file, "r+b") as out:
            out.seek(self.chance.randrange(size // BLOCK + 1) * BLOCK)
            out.write(bytes(3 * BLOCK))

    def truncate(self, files, directories):
        os.truncate(self.pick(files), self.chance.choice([0, 10, 5000, 200_000]))

    def rename(self, files, directories):
        os.rename(self.pick(files), self.place(directories))

    def over(self, files, directories):
        os.rename(self.pick(files), self.pick(files))

    def replace(self, files, directories):
        new = self.place(directories)
        with open(new, "wb") as out:
            out.write(self.content())
        os.rename(new, self.pick(files))

    def link(self, files, directories):
        file = self.pick(files)
        os.link(file, self.place(directories, None if self.across else os.path.dirname(file)))

    def unlink(self, files, directories):
        linked = [file for file in files if os.lstat(file).st_nlink > 1]
        os.unlink(self.pick(linked if linked and self.chance.random() < 0.5 else files))

    def mode(self, files, directories):
        os.chmod(self.pick(files), self.chance.choice([0o600, 0o644, 0o4755, 0o2755, 0o000, 0o777]))

    def owner(self, files, directories):
        os.chown(self.pick(files), self.chance.randrange(3000), self.chance.randrange(3000))

    def mtime(self, files, directories):
        """Back, to the beginning, and forward."""
        os.utime(self.pick(files), ns=(0, self.chance.choice([1, 10 ** 18 + 7, 4 * 10 ** 18, 1_700_000_000_123_456_789])))

    def xattr(self, files, directories):
        path = self.pick(files + directories)
        name = self.chance.choice([b"user.a", b"user.b \xff", b"trusted.c"])
        os.setxattr(path, name, self.chance.randbytes(self.chance.choice([0, 5, 1000])))

    def no_xattr(self, files, directories):
        path = self.pick(files + directories)
        for name in os.listxattr(path, follow_symlinks=False):
            if name.startswith("user."):
                os.removexattr(path, name)

    def acl(self, files, directories):
        os.setxattr(self.pick(files), "system.posix_acl_access", acl(self.chance.randrange(1, 2000)))

    def dir_acl(self, files, directories):
        os.setxattr(self.pick(directories), "system.posix_acl_default", acl(self.chance.randrange(1, 2000)))

    def dir_mode(self, files, directories):
        os.chmod(self.pick(directories), self.chance.choice([0o755, 0o700, 0o1777, 0o555]))

    def dir_owner(self, files, directories):
        os.chown(self.pick(directories), self.chance.randrange(3000), self.chance.randrange(3000))

    def dir_mtime(self, files, directories):
        os.utime(self.pick(directories), ns=(0, self.chance.choice([1, 10 ** 18 + 7, 4 * 10 ** 18])))

    def move(self, files, directories):
        os.rename(self.pick(directories), self.place(directories))

    def rmtree(self, files, directories):
        shutil.rmtree(self.pick(directories))

    def other_kind(self, files, directories):
        """A file where a directory stood, or the other way round."""
        if files and self.chance.random() < 0.5:
            file = self.pick(files)
            os.unlink(file)
            os.mkdir(file)
        else:
            there = self.pick(directories)
            shutil.rmtree(there)
            with open(there, "wb") as out:
                out.write(b"a file now")

    # --- over the border

    def out(self, files, directories):
        if files:
            os.rename(self.pick(files), self.place([], self.outside))

    def dir_out(self, files, directories):
        if directories:
            os.rename(self.pick(directories), self.place([], self.outside))

    def into(self, files, directories):
        there = sorted(os.listdir(self.outside))
        if there:
            os.rename(os.path.join(self.outside, self.pick(there)), self.place(directories))

    def link_out(self, files, directories):
        if files:
            os.link(self.pick(files), self.place([], self.outside))

    def link_in(self, files, directories):
        """Its first name is outside."""
        new = self.place([], self.outside)
        with open(new, "wb") as out:
            out.write(b"outside")
        os.link(new, self.place(directories))

    def write_outside(self, files, directories):
        there = [path for name in sorted(os.listdir(self.outside)) if os.path.isfile(path := os.path.join(self.outside, name))]
        if there:
            with open(self.pick(there), "ab") as out:
                out.write(self.chance.randbytes(20))


if __name__ == "__main__":
    across = "--apart" not in sys.argv
    root, outside, seed, count = [word for word in sys.argv[1:] if word != "--apart"]
    life = Life(root, None if outside == "-" else outside, random.Random(seed), across)
    life.steps(int(count))
    print(json.dumps({"done": life.done, "refused": life.refused}))
