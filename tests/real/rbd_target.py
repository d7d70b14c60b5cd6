"""What the tests of rbd-apply share: a source in RBD, a target, a run of the tool, and looks at all that a target says of itself.

    t = Target()
    t.takes(source.sent("a"))                # the tool ends well
    t.at(source["a"], "a")                   # head and newest snapshot are equal, marked, nothing unfinished
    refused(t.apply(stream), 4, "wrong-base")
"""
import contextlib
import functools
import hashlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

try:
    import rados  # noqa: F401
except ImportError:
    # Debian's bindings belong to Debian's python3, which need not be the first of the PATH.
    if sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):
        os.execv("/usr/bin/python3", ["/usr/bin/python3", "-B", *sys.argv])

import bed
from bed import same

KiB, MiB = 1 << 10, 1 << 20
FEATURES = 1 | 4 | 8 | 16 | 32  # layering, exclusive-lock, object-map, fast-diff, deep-flatten
RECEIVING, PENDING = "siphon.receiving", "siphon.pending"
NUMBERS = itertools.count(1)
MADE = []  # what the test that runs has made


@functools.cache
def lab():
    """Moves into the bed's network and connects; librbd's module and the cluster."""
    bed.enter_ceph()
    import rados
    import rbd
    cluster = rados.Rados(conffile=os.environ["CEPH_CONF"])
    cluster.connect()
    return rbd, cluster


def librbd():
    return lab()[0]


def test(function):
    """Marks a function as a test, and removes the images that it made; after a failure they stay, to be looked at."""
    @functools.wraps(function)
    def whole_story():
        MADE.clear()
        lab()
        function()
        for image in reversed(MADE):
            image.drop()
    return bed.test(whole_story)


def monitor(**command):
    """A command to the monitor, as `ceph` sends it."""
    code, out, status = lab()[1].mon_command(json.dumps(command), b"", timeout=30)
    assert code == 0, f"{command}: {code} {status}"
    return out.decode()


def pool(name):
    """A pool for images, made when it is not there yet."""
    if not lab()[1].pool_exists(name):
        monitor(prefix="osd pool create", pool=name, pg_num=8, pgp_num=8)
        librbd().RBD().pool_init(lab()[1].open_ioctx(name), True)
    return name


def sum_of(data):
    return hashlib.sha256(data).hexdigest()


def wait_for(what, seconds=60):
    """Until it is true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Image:
    """An RBD image. Nothing of ours keeps it open: whoever has it open is seen by the tool."""

    def __init__(self, name=None, pool="rbd", namespace=""):
        _, cluster = lab()
        self.io = cluster.open_ioctx(pool)
        self.io.set_namespace(namespace)
        self.name = name or f"i{next(NUMBERS)}-{os.getpid()}"
        self.path = "/".join(filter(None, [pool, namespace, self.name]))
        self.chance = random.Random(f"{bed.options.seed}/{self.name.split('-')[0]}")
        MADE.append(self)

    def create(self, size, **how):
        how.setdefault("features", FEATURES)
        librbd().RBD().create(self.io, self.name, size, old_format=False, **how)
        return self

    def exists(self):
        return self.name in librbd().RBD().list(self.io)

    def open(self):
        return librbd().Image(self.io, self.name)

    def look(self, snapshot=None):
        """For reading, which nobody sees."""
        return librbd().Image(self.io, self.name, snapshot, read_only=True)

    def drop(self):
        if self.exists():
            with self.open() as image:
                for snapshot in list(image.list_snaps()):
                    if image.is_protected_snap(snapshot["name"]):
                        image.unprotect_snap(snapshot["name"])
                    image.remove_snap(snapshot["name"])
            librbd().RBD().remove(self.io, self.name)

    # --- by hand

    def write(self, data, offset=0):
        with self.open() as image:
            image.write(data, offset)

    def noise(self, offset, length):
        self.write(self.chance.randbytes(length), offset)

    def snap(self, name):
        with self.open() as image:
            image.create_snap(name)

    def remove_snap(self, *names):
        with self.open() as image:
            for name in names:
                image.remove_snap(name)

    def resize(self, *sizes):
        with self.open() as image:
            for size in sizes:
                image.resize(size)

    def roll_back(self, name):
        with self.open() as image:
            image.rollback_to_snap(name)

    # --- looks

    def read(self, snapshot=None):
        with self.look(snapshot) as image:
            return image.read(0, image.size()) if image.size() else b""

    def snaps(self):
        """Names, oldest first."""
        with self.look() as image:
            return [snap["name"] for snap in sorted(image.list_snaps(), key=lambda snap: snap["id"])]

    def metadata(self):
        with self.look() as image:
            return dict(image.metadata_list())

    def id(self):
        with self.look() as image:
            return image.id()

    def objects(self):
        """How many objects the head has."""
        found = set()
        with self.look() as image:
            unit = image.stat()["obj_size"]
            image.diff_iterate(0, image.size(), None, lambda offset, length, exists: found.add(offset // unit) if exists else None)
        return len(found)

    def sent(self, to, since=None):
        """rbd-diff-stream."""
        return send(f"{self.path}@{to}", since)

    def states(self):
        """(id, name) of each state that can be sent."""
        done = subprocess.run([f"{bed.options.bin}/rbd-diff-stream", "--states", self.path], capture_output=True, check=True)
        return [(line.split("\t")[0], line.split("\t")[3]) for line in done.stdout.decode().splitlines()[:-1]]

    def watchers(self):
        with self.look() as image:
            return list(image.watchers_list())


class Source(Image):
    """An image that is sent, with its content at each snapshot."""

    def __init__(self, size, **more):
        where = {key: more.pop(key) for key in ("pool", "namespace") if key in more}
        super().__init__(**where)
        self.create(size, **more)
        self.contents = {}

    def __getitem__(self, name):
        return self.contents[name]

    def snap(self, name):
        super().snap(name)
        self.contents[name] = self.read(name)
        return self

    def day(self, name, size=None, count=8):
        """A day's work and a snapshot."""
        with self.open() as image:
            if size is not None:
                image.resize(size)
            size = image.size()
            for offset, length, zero in day(self.chance, size, count):
                if zero:
                    self.chance.choice([image.discard, image.write_zeroes])(offset, length)
                else:
                    image.write(self.chance.randbytes(length), offset)
        return self.snap(name)


def day(chance, size, count=8):
    """(offset, length, zeros?) of a day's changes: ragged at 512 and 4096 bytes, over whole objects, over object edges."""
    out = []
    for n in range(count):
        unit = chance.choice([1, 512, 4096, 64 * KiB, 4 * MiB])
        offset = chance.randrange(max(1, size)) // unit * unit
        length = chance.choice([1, 511, 512, 4096, 8 * 4096, 65 * KiB, 4 * MiB, 5 * MiB + 512])
        length = min(size - offset, length)
        if length > 0:
            out.append((offset, min(length, MiB) if n % 2 == 0 else length, n % 2 == 1))
    return out


def changed(old, size, chance, count=8):
    """The content after such a day."""
    out = bytearray(old[:size].ljust(size, b"\0"))
    for offset, length, zero in day(chance, size, count):
        out[offset:offset + length] = bytes(length) if zero else chance.randbytes(length)
    return bytes(out)


def send(what, since=None, tool="rbd-diff-stream"):
    line = [f"{bed.options.bin}/{tool}", *(["--from", since] if since else []), what]
    done = subprocess.run(line, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    assert done.returncode == 0, f"{line}\n{done.stderr.decode()}"
    return done.stdout


class Target(Image):
    """An image that streams are applied to."""

    def line(self, *options):
        return [f"{bed.options.bin}/rbd-apply", *options, self.path]

    def apply(self, stream, *options, env=None, timeout=180):
        done = subprocess.run(self.line(*options), input=stream, capture_output=True, timeout=timeout,
                              env={**os.environ, **(env or {})})
        shown = f"rbd-apply {' '.join([*options, self.path])}"
        return bed.Result(shown, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def takes(self, stream, *options, already=False):
        """It ends well; the result."""
        result = self.apply(stream, *options)
        assert result.code == 0, str(result)
        receipt = json.loads(result.out)
        same((receipt.get("already", False), receipt["marked"]), (already, True), str(result))
        return result

    def start(self, *options):
        """A run that is fed by hand: see `feed`."""
        return subprocess.Popen(self.line(*options), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)

    def marks(self):
        """Names of the snapshots with a record, oldest first."""
        keys, image_id = self.metadata(), self.id()
        with self.look() as image:
            snaps = sorted(image.list_snaps(), key=lambda snap: snap["id"])
        return [snap["name"] for snap in snaps if f"image={image_id} " in keys.get(f"siphon.mark.{snap['id']}", "")]

    def at(self, content, name=None):
        """Head and newest mark hold this content to the last byte; nothing is unfinished, open or locked."""
        marks = self.marks()
        assert marks, f"no marks: {self.snaps()} {self.metadata()}"
        same((len(self.read()), sum_of(self.read())), (len(content), sum_of(content)), f"head of {self.path}")
        same((len(self.read(marks[-1])), sum_of(self.read(marks[-1]))), (len(content), sum_of(content)), f"{self.path}@{marks[-1]}")
        assert name is None or marks[-1] == name, f"newest mark {marks[-1]}, expected {name}"
        left = [key for key in self.metadata() if key in (RECEIVING, PENDING)]
        left += [name for name in self.snaps() if name.startswith("siphon-pending-")] + self.watchers()
        assert not left, f"left behind: {left}"
        keys = [key for key in self.metadata() if key.startswith("siphon.mark.")]
        same(len(keys), len(marks), "records")

    def picture(self):
        """All that can be seen of the target."""
        if not self.exists():
            return None
        return (self.metadata(), [(name, sum_of(self.read(name))) for name in self.snaps()], sum_of(self.read()), self.id(), self.objects())

    @contextlib.contextmanager
    def untouched(self):
        """Whatever happens inside, the target stays as it was."""
        before = self.picture()
        yield
        same(self.picture(), before, "the target")

    def refuses(self, stream, word, *options, code=4):
        """Refused with this class, and nothing was touched."""
        with self.untouched():
            return bed.refused(self.apply(stream, *options), code, word)

    def common(self, source):
        """The newest state of the source that the target also holds, or the class of the refusal."""
        states = subprocess.run([f"{bed.options.bin}/rbd-diff-stream", "--states", source.path], capture_output=True, check=True).stdout
        result = self.apply(states, "--common")
        found = re.findall(r"\[([a-z-]+)\]", result.err)
        return result.out.removesuffix("\n") if result.code == 0 else found[0]

    # --- while a run is under way

    @functools.cached_property
    def known(self):
        return self.id()

    def header(self):
        """What the image says of itself, straight from its header object: key and value."""
        import rados
        io, name = self.io, f"rbd_header.{self.known}"
        with rados.ReadOpCtx() as operation:
            found, _ = io.get_omap_vals(operation, "", "", 1000)
            try:
                io.operate_read_op(operation, name)
                return dict(found)
            except rados.ObjectNotFound:
                return {}

    def stage(self, marks_before):
        """How far a commit is: 0 not begun … 6 done. See STAGES."""
        keys = self.header()
        receiving, pending = (f"metadata_{key}" in keys for key in (RECEIVING, PENDING))
        waiting = any(key.startswith("snapshot_") and b"siphon-pending-" in value for key, value in keys.items())
        bound = sum(key.startswith("metadata_siphon.mark.") for key in keys) > marks_before
        if not bound:
            return 2 if waiting else 1 if pending else 0
        return 3 if waiting else 4 if pending else 5 if receiving else 6

    def shut_out(self):
        """Makes Ceph forget killed clients at once, which would take it half a minute."""
        for watcher in self.watchers():
            monitor(prefix="osd blocklist", blocklistop="add", addr=watcher["addr"])
        wait_for(lambda: not self.watchers())


# Where a commit can be broken off.
STAGES = ("receiving", "record written", "snapshot taken", "bound", "renamed", "record removed", "done")


def feed(process, data, close=True):
    """Gives a run its stream, in the background; the run may not want all of it."""
    pipe = process.stdin

    def pump():
        with contextlib.suppress(BrokenPipeError):
            pipe.write(data)
        if close:
            pipe.close()
    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    return thread


def ended(process, timeout=120):
    """Exit code and messages of a run that was fed."""
    process.stdin.close()
    process.stdin = None
    out, err = process.communicate(timeout=timeout)
    return bed.Result("rbd-apply", process.returncode, out.decode(), err.decode())


def kill(process):
    process.send_signal(signal.SIGKILL)
    return ended(process)
