"""Judges two trees, and knows nothing of ours: `python3 tree_judge.py ONE OTHER` says what differs, and exits with 1 if anything does.

Names, kinds, owners, modes, times to the nanosecond, content, extended attributes and ACLs, which names are one thing; and what is
zeros in ONE takes no room in OTHER. `tree_judge.py ONE` prints what there is, for a judge elsewhere. Needs the standard library
alone: it runs in the guest as well.
"""
import hashlib
import os
import stat
import sys

RECORD = 128 << 10  # bytes that a file system may allocate at once


def listing(root):
    """What stands at each path."""
    found, first = {}, {}
    paths = [b"."]
    for at, names, files in os.walk(root, onerror=complain):
        paths += [os.path.relpath(os.path.join(at, name), root) for name in names + files]
    for shown in sorted(paths):
        path = os.path.join(root, shown)
        meta = os.lstat(path)
        kind = stat.S_IFMT(meta.st_mode)
        content = zeros = None
        if kind == stat.S_IFREG:
            content, zeros = read(path)
        elif kind == stat.S_IFLNK:
            content = os.readlink(path)
        group = None if kind == stat.S_IFDIR else first.setdefault((meta.st_dev, meta.st_ino), shown)
        found[shown] = {
            "kind": kind, "mode": stat.S_IMODE(meta.st_mode), "owner": (meta.st_uid, meta.st_gid), "time": meta.st_mtime_ns,
            "size": meta.st_size if kind == stat.S_IFREG else 0, "content": content, "one thing with": group,
            "device": meta.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0, "attributes": attributes(path),
            "room": (meta.st_blocks * 512, zeros),
        }
    return found


def complain(error):
    raise error


def read(path):
    """A digest of what a file holds, and how many bytes of it are records of zeros."""
    digest, zeros = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(RECORD):
            digest.update(block)
            zeros += 0 if block.strip(b"\0") else len(block)
    return digest.hexdigest(), zeros


def attributes(path):
    names = [name for name in os.listxattr(path, follow_symlinks=False)
             if name.startswith(("user.", "trusted.", "security.", "system.posix_acl_"))]
    return sorted((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)


def differences(one, other):
    """Lines about two listings."""
    for shown in sorted(one.keys() | other.keys()):
        was, now = one.get(shown), other.get(shown)
        if not was or not now:
            yield f"{shown}: only in {'the first' if was else 'the second'}"
            continue
        for what in was:
            if what != "room" and was[what] != now[what]:
                yield f"{shown}: {what}: {was[what]!r}, {now[what]!r}"
        taken, zeros = now["room"][0], was["room"][1]
        if zeros and taken > (was["size"] - zeros) * 1.1 + 2 * RECORD:
            yield f"{shown}: takes {taken} bytes, and {zeros} of {was['size']} are zeros"


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(listing(os.fsencode(sys.argv[1])))
        sys.exit()
    told = list(differences(*(listing(os.fsencode(root)) for root in sys.argv[1:3])))
    print("\n".join(told[:40]))
    sys.exit(1 if told else 0)
