"""What tests on CephFS share: a mount, a directory with its snapshots and what follows it, and a judge that knows nothing of ours.

    home = Home("home")
    home.step()                  # one change of many kinds
    home.snap()
    home.follow()                # cephfs-changed | tree-diff-stream --changes - | tree-apply, judged
"""
import hashlib
import os
import random
import shutil
import stat
from pathlib import Path

import bed
from bed import run, same

MARGIN = 2  # seconds: so small that rctime is really asked
SETTLE = 9  # ceph-fuse has told of all changes after 6.4 s


def own_bed():
    """A bed with an MDS is never the one that is up."""
    for variable in ("LAB_DIR", "CEPH_FUSE_MNT"):
        os.environ.pop(variable, None)
    os.environ["CEPH_WITH"] = "mds"


def mounted():
    """The root of a CephFS, mounted."""
    if "CEPH_FUSE_MNT" not in os.environ:
        bed.enter_ceph()
        there = os.environ["CEPH_FUSE_MNT"]
        os.makedirs(there, exist_ok=True)
        run(f"timeout 60 ceph-fuse --id admin --pid-file={os.environ['LAB_DIR']}/ceph/run/fuse.pid {there}")
        # Snapshots show their own rctime; otherwise that of now, which is later for all that changes every night.
        run("ceph config set mds mds_snap_rstat true")
    return Path(os.environ["CEPH_FUSE_MNT"])


class Home:
    """A directory on CephFS, what is done to it, and a directory that follows it."""

    def __init__(self, name):
        self.root, self.target = mounted() / name, Path(bed.work, name)
        self.root.mkdir()
        self.outside = mounted() / f"{name}.outside"
        self.outside.mkdir()
        self.memory = Path(bed.work, f"{name}.memory")
        self.chance = random.Random(f"{bed.options.seed}/{name}")
        self.snapshots, self.number = [], 0

    def snap(self):
        name = f"s{len(self.snapshots)}"
        run(f"sync -f {self.root}")
        (self.root / ".snap" / name).mkdir()
        self.snapshots.append(name)
        return name

    def tree(self, name):
        return self.root / ".snap" / name

    def changed(self, *options, to=None, check=True, settle=SETTLE):
        """cephfs-changed from the snapshot before the last one to the last."""
        since = f"--from {self.snapshots[-2]}" if len(self.snapshots) > 1 else ""
        line = f"cephfs-changed {since} --memory {self.memory} --settle {settle} --rctime-margin {MARGIN} {' '.join(options)} {self.root}@{to or self.snapshots[-1]}"
        return run(f"PATH={bed.options.bin}:$PATH; {line}", check=check)

    def follow(self):
        """The target becomes what the last snapshot holds."""
        since = f"--from {self.snapshots[-2]}" if len(self.snapshots) > 1 else ""
        result = run(f"set -o pipefail; PATH={bed.options.bin}:$PATH; cephfs-changed {since} --memory {self.memory} --settle {SETTLE} --rctime-margin {MARGIN} "
                     f"{self.root}@{self.snapshots[-1]} | tree-diff-stream --changes - | tree-apply --all {self.target}")
        same(listing(self.target), listing(self.tree(self.snapshots[-1])), str(result))
        return result

    # --- what people do

    def files(self):
        return [path for at, _, names in os.walk(self.root) for name in names if is_file(path := Path(at, name))]

    def directories(self):
        return [Path(at) for at, _, _ in os.walk(self.root)]

    def new_name(self):
        self.number += 1
        odd = self.chance.choice([b"", b"", b"", b" ", b"\n", b"\xff\xfe", b"\\", b"a" * 200])
        return os.fsdecode(b"%d" % self.number + odd)

    def some(self, of):
        return self.chance.choice(of)

    def step(self):
        """One change."""
        chance, files, directories = self.chance, self.files(), self.directories()
        path = lambda: self.some(directories) / self.new_name()
        kinds = ["create", "create", "directory"]
        if files:
            kinds += ["append", "overwrite", "truncate", "rename", "over", "link", "remove", "mode", "mtime", "xattr", "owner", "out", "remote", "replace"]
        if len(directories) > 1:
            kinds += ["move", "tree", "dirmode"]
        kind = chance.choice(kinds)
        try:
            self.do(kind, path, files, directories)
        except OSError as error:  # a directory into itself, over one that is not empty
            if error.errno not in (22, 39, 21, 20, 17, 2):
                raise
        return kind

    def do(self, kind, path, files, directories):
        chance = self.chance
        file = self.some(files) if files else None
        if kind == "create":
            path().write_bytes(chance.randbytes(chance.choice([0, 1, 100, 5000, 70_000])))
        elif kind == "directory":
            path().mkdir()
        elif kind == "append":
            with open(file, "ab") as out:
                out.write(chance.randbytes(100))
        elif kind == "overwrite":
            with open(file, "r+b") as out:
                out.seek(chance.randrange(os.path.getsize(file) + 1))
                out.write(chance.randbytes(10))
        elif kind == "truncate":
            os.truncate(file, chance.choice([0, 10, 200_000]))
        elif kind == "rename":
            os.rename(file, path())
        elif kind == "over":
            os.rename(file, self.some(files))
        elif kind == "replace":
            new = path()
            new.write_bytes(b"another file")
            os.rename(new, file)
        elif kind == "link":
            os.link(file, path())
        elif kind == "remove":
            os.unlink(file)
        elif kind == "mode":
            os.chmod(file, chance.choice([0o600, 0o644, 0o4755, 0o000]))
        elif kind == "dirmode":
            os.chmod(self.some(directories), chance.choice([0o755, 0o700, 0o1777, 0o555]))
        elif kind == "mtime":
            os.utime(file, ns=(0, chance.choice([1, 10 ** 18 + 7, 4 * 10 ** 18])))
        elif kind == "xattr":
            os.setxattr(file, "user.a", chance.randbytes(5))
        elif kind == "owner":
            os.chown(file, chance.randrange(3000), chance.randrange(3000))
        elif kind == "out":
            os.rename(file, self.outside / self.new_name())
            back = list(self.outside.iterdir())
            os.rename(self.some(back), path())
        elif kind == "remote":
            # Its first name is outside.
            new = self.outside / self.new_name()
            new.write_bytes(b"outside")
            os.link(new, path())
            other = self.some([each for each in self.outside.iterdir() if each.is_file()])
            other.write_bytes(chance.randbytes(20))
        elif kind == "move":
            os.rename(self.some(directories[1:]), path())
        elif kind == "tree":
            shutil.rmtree(self.some(directories[1:]))


def is_file(path):
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:  # ceph-fuse 16.2 lists a name for a moment that was just renamed
        print(f"    listed, and not there: {path}", flush=True)
        return False


def listing(root):
    """All of a tree: names, kinds, attributes, content, and which names are one thing."""
    found = {}
    for at, names, files in os.walk(os.fsencode(root)):
        for path in [at] if at == os.fsencode(root) else []:
            found[b"."] = described(path)
        for name in names + files:
            path = os.path.join(at, name)
            shown = os.path.relpath(path, os.fsencode(root))
            found[shown] = described(path)
    # Of names of one thing, the first in order.
    groups = {}
    for shown in sorted(found):
        key = found[shown].pop()
        groups.setdefault(key, shown)
        found[shown].append(groups[key] if key else None)
    return found


def described(path):
    meta = os.lstat(path)
    kind = stat.S_IFMT(meta.st_mode)
    body = hashlib.sha256(open(path, "rb").read()).hexdigest() if kind == stat.S_IFREG else os.readlink(path) if kind == stat.S_IFLNK else ""
    xattrs = sorted((name, os.getxattr(path, name)) for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user."))
    size = meta.st_size if kind == stat.S_IFREG else 0
    return [kind, stat.S_IMODE(meta.st_mode), meta.st_uid, meta.st_gid, size, meta.st_mtime_ns, body, xattrs,
            meta.st_ino if kind == stat.S_IFREG else None]


def rctime(path):
    return float(os.getxattr(path, "ceph.dir.rctime"))
