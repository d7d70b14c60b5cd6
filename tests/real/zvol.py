"""Volumes as targets: what the tests of zvol-apply share."""
import contextlib
import json
import os
import random
import re
import subprocess
import time
from pathlib import Path

import bed
from bed import changed, content, run, same, sha256, vm

VENV = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "siphon-venv/bin/python3"
HERE = Path(__file__).resolve().parent

POOL = f"tank/t{os.getpid()}"  # not the pool itself: a bed may see many runs
SIZE = 2 * 1024 * 1024 + 1

SUM = r"""#!/bin/bash
# sum SNAPSHOT: sha256 of all its bytes; how many
set -eu -o pipefail
clone=${1%%/*}/siphon-test-sum$$
zfs clone -o volmode=dev -o readonly=on "$1" "$clone"
trap 'for _ in {1..100}; do ! zfs destroy "$clone" 2>/dev/null || break; sleep 0.05; done' EXIT
for n in {1..400}; do
  udevadm settle || true
  [ ! -b /dev/zvol/$clone ] || break
  [ $((n % 100)) != 0 ] || udevadm trigger --settle --subsystem-match=block  # under heavy load a link may stay away
  sleep 0.05
done
{ dd if=/dev/zvol/$clone iflag=direct bs=1M | sha256sum; } 2>&1
"""

# The nightly lines of siphon(7), with a pretend source and its real ssh.
NIGHTLY = r"""#!/bin/bash
set -eu -o pipefail
source=$1 snap=$2 target=$3
base=$(send --states "$source" | nas zfs-snapmark common "$target")
send ${base:+--from "$base"} "$source@$snap" | nas zvol-apply --mark "$target"
"""


def prepare():
    """Once in a run: pool, helpers."""
    bed.tank()
    vm(f"zfs create {POOL}")
    functions = f"""
send() {{ {VENV} {HERE}/stream.py "$@"; }}
nas() {{ ${{SSH:-ssh}} -F {os.environ['LAB_DIR']}/ssh_config vm "PATH=/host{bed.options.bin}:\\$PATH $*"; }}
"""
    for name, text in {"sum": SUM, "nightly": NIGHTLY.replace("set -eu", functions + "set -eu", 1)}.items():
        Path(bed.work, name).write_text(text)
        Path(bed.work, name).chmod(0o755)


class Source:
    """A pretend source with snapshots that have ids of their own: see stream.py."""

    def __init__(self, name):
        self.name, self.path, self.images, self.number, self.order = name, Path(bed.work, name), {}, 0, {}
        self.options = ""
        self.path.mkdir()

    def snap(self, name, image):
        """Takes a snapshot, or takes it anew under its old name."""
        self.number += 1
        self.order.pop(name, None)
        self.order[name], self.images[name] = self.number, image
        (self.path / name).write_bytes(image)
        self.keep(*self.order)

    def keep(self, *names):
        """Only these snapshots are left."""
        self.order = {name: self.order[name] for name in names}
        (self.path / "snapshots").write_text("".join(f"{number} {name}\n" for name, number in self.order.items()))

    def stream(self, to, base=None):
        """A stream as a file."""
        file = Path(bed.work, f"{self.name}.{self.order[to]}-{self.order[base] if base else 'whole'}")
        if not file.exists():
            run(f"{VENV} {HERE}/stream.py {self.options} {f'--from {base}' if base else ''} {self.path}@{to} >{file}")
        return file

    def states(self):
        """Its state list as a file."""
        file = Path(bed.work, f"{self.name}.states")
        run(f"{VENV} {HERE}/stream.py --states {self.path} >{file}")
        return file


def file_stream(new, base=None, live=False):
    """A stream of image-diff-stream: the state it leads to stands in END only."""
    paths = []
    for data in (new, base):
        path = Path(bed.work, "image." + sha256(data)[:12]) if data is not None else None
        if path and not path.exists():
            path.write_bytes(data)
        paths.append(path)
    out = Path(bed.work, f"file.{paths[0].suffix[1:]}-{paths[1].suffix[1:] if base is not None else 'whole'}{'-live' * live}")
    run(f"{bed.options.bin}/image-diff-stream {'--live' * live} {f'--base {paths[1]}' if base is not None else ''} {paths[0]} >{out}")
    return out


# Waits for the device of {t}. A link comes late, is renewed when a device was closed, and stays away under heavy load.
NODE = """for n in {1..200}; do udevadm settle; [ ! -b /dev/zvol/{t} ] || break
    [ $((n % 50)) != 0 ] || udevadm trigger --settle --subsystem-match=block; sleep 0.05; done"""


class Zvol:
    """A volume of the pool, not made yet."""

    def __init__(self, name):
        self.name = f"{POOL}/{name}"

    def __str__(self):
        return self.name

    def sh(self, command, **more):
        """A command in the guest; {t} is the volume."""
        return vm(command.replace("{t}", self.name), **more)

    def apply(self, stream, options="--mark", check=True):
        return self.sh(f"zvol-apply {options} {{t}} <{stream}", check=check)

    def cut(self, stream, share=0.6, options="--mark"):
        """A run whose sender died on the way: the target is left receiving."""
        result = self.sh(f"head -c {int(stream.stat().st_size * share)} {stream} | zvol-apply {options} {{t}}", check=False)
        bed.refused(result, 3, "truncated")
        assert self.get("siphon:receiving") != "-", "not receiving"
        return self

    def nightly(self, source, to, check=True, ssh="ssh"):
        return run(f"{bed.work}/nightly {source.path} {to} {self}", check=check, env={**os.environ, "SSH": ssh})

    def common(self, source):
        return self.sh(f"zfs-snapmark common {{t}} <{source.states()}", check=False)

    def get(self, name):
        return self.sh(f"zfs get -Hp -o value {name} {{t}}").out.strip()

    def snapshots(self, checks=False):
        """Oldest first; the check of a run only when asked for."""
        names = self.sh("zfs list -Hp -t snapshot -o name -s createtxg -d 1 {t}").out.replace(self.name + "@", "").split()
        return [name for name in names if checks or not name.startswith("siphon-check-")]

    def print(self):
        """What must stay as it is when something is refused."""
        return self.sh("zfs get -Hp -d 1 -t volume,snapshot -o name,property,value guid,userrefs,siphon:receiving,volsize,volmode {t}",
                       check=False).out

    def write(self, offset, length, byte=0xAA, flags="conv=fsync,notrunc oflag=seek_bytes,direct"):
        """Somebody else writes to the volume: directly, unless other flags say so."""
        self.sh(f"""old=$(zfs get -H -o value volmode {{t}}); [ $old != none ] || zfs set volmode=dev {{t}}
            {NODE}
            head -c {length} /dev/zero | tr '\\0' '\\{byte:03o}' | dd of=/dev/zvol/{{t}} bs={length} seek={offset} iflag=fullblock conv=nocreat {flags} status=none
            [ $old != none ] || zfs set volmode=none {{t}}""")

    def at(self, image, mark=None, live=True):
        """The newest mark holds exactly this image, its rest is zero, and the volume is there, too."""
        if live:  # "ok: tank/vm1 is at MARK, N bytes"
            look, newest = "said=$(zfs-snapmark verify {t} 2>&1); echo \"$said\" >&2; newest=${said##* is at }", "${newest%%,*}"
        else:
            look, newest = "newest=$(zfs-snapmark last {t})", "${newest#*@}"
        result = self.sh(f"{look}; {bed.work}/sum {{t}}@{mark or newest}", check=False)
        size = re.search(r"^(\d+) bytes", result.out, re.MULTILINE)
        assert size and int(size[1]) >= len(image), str(result)
        assert sha256(image.ljust(int(size[1]), b"\0")) + "  -" in result.out, f"content of {self}\n{result}"
        assert not live or "ok:" in result.err, str(result)
        assert not live or not self.sh("zfs get -H -d 1 -t snapshot -s local -o name siphon:check {t}").out, "the check of a run is still there"
        return self


images = {}  # s0 to s5: one image on six days
sources = []


def source(*names):
    """A new source with these snapshots of the images, or all."""
    if not images:
        prepare()
        images["s0"] = content(SIZE)
        for n in range(1, 6):
            images[f"s{n}"] = changed(images[f"s{n - 1}"], SIZE + n * 4096, salt=n)
    sources.append(Source(f"vm{len(sources)}"))
    for name in names or images:
        sources[-1].snap(name, images[name])
    return sources[-1]


def volume(name, *states):
    """A source, and a volume that has received these states of it."""
    of, target = source(), Zvol(name)
    for base, to in zip((None, *states), states):
        target.apply(of.stream(to, base))
    return of, target


@contextlib.contextmanager
def half_way(t, stream, code=0, options="", rest=True):
    """A run that has half of its stream, and then gets the rest, or none of it; how it exits. What it said, in the end."""
    slow = f"ssh -F $LAB_DIR/ssh_config vm 'PATH=/host{bed.options.bin}:$PATH; zvol-apply --mark {options} {t}'"
    half, go_on = stream.stat().st_size // 2, Path(bed.work, f"go-on.{time.monotonic_ns()}")
    rest = f"tail -c +{half + 1} {stream}" if rest else ":"
    wait = f"until [ -e {go_on} ]; do sleep 0.1; done"
    first = subprocess.Popen(["bash", "-c", f"{{ head -c {half} {stream}; {wait}; {rest}; }} | {slow}"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        for _ in range(100):
            # A volume that is made for it is not there at once.
            if t.sh("zfs get -H -o value siphon:receiving {t}", check=False).out.strip() not in ("", "-"):
                break
        else:
            raise AssertionError("it is not receiving")
        said = []
        yield said
        go_on.touch()
        out, err = first.communicate(timeout=100)
        said.append(err.decode())
    finally:
        first.kill()
    same(first.returncode, code, err.decode())


CHUNK = 128 << 10  # no block is larger: a volume passes over discards of less than a block


class Plain:
    """A volume that Siphon knows nothing of, with snapshots g0, g1 … of known content."""

    def __init__(self, name, options="", size=6 << 20):
        source("s0")
        self.t, self.images = Zvol(name), []
        self.t.sh(f"zfs create -s -V {size} {options} {{t}}; {NODE}")

    def snap(self, image):
        """Writes what differs, discards what became zero, and takes the next snapshot."""
        old = self.images[-1] if self.images else b""
        name = f"g{len(self.images)}"
        file = Path(bed.work, f"{self.t.name.replace('/', '-')}-{name}")
        file.write_bytes(image)
        if len(old) != len(image) and old:
            self.t.sh(f"zfs set volsize={len(image)} {{t}}; {NODE}")
        old = old[:len(image)].ljust(len(image), b"\0")
        lines = []
        for at in range(0, len(image), CHUNK):
            new = image[at:at + CHUNK]
            if new != old[at:at + CHUNK]:
                lines.append(f"{at} {len(new)} {'discard' if not any(new) else 'write'}")
        script = f"""import os, sys, fcntl, struct
device = os.open("/dev/zvol/{self.t}", os.O_RDWR)
image = open("{file}", "rb").read()
for line in sys.stdin:
    at, length, what = line.split()
    if what == "write":
        os.pwrite(device, image[int(at):int(at) + int(length)], int(at))
    else:
        fcntl.ioctl(device, 0x1277, struct.pack("QQ", int(at), int(length)))
os.fsync(device)
"""
        program = Path(bed.work, "write.py")
        program.write_text(script)
        vm(f"python3 {program} && zfs snapshot {self.t}@{name}", input="\n".join(lines))
        self.images.append(image)
        return name


def gaps(image, salt):
    """The image with some blocks of zeros."""
    chance, out = random.Random(salt), bytearray(image)
    for _ in range(8):
        at = chance.randrange(len(out) // 65536) * 65536
        out[at:at + 131072] = bytes(len(out[at:at + 131072]))
    return bytes(out)


def start(command):
    """A process group of its own, so that its end can be waited for."""
    return subprocess.Popen(["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            start_new_session=True)


def ssh(target, before="", command="exec zvol-apply --mark"):
    """zvol-apply by a connection of its own: killing a shared one would kill our looking on, too."""
    return (f"ssh -o ControlPath=none -F {os.environ['LAB_DIR']}/ssh_config vm "
            f"'{before} PATH=/host{bed.options.bin}:$PATH; echo $$ >/root/receiver; {command} {target}'")


def receiving(t):
    return t.sh("zfs get -Hp -o value siphon:receiving {t}", check=False).out.strip() not in ("", "-")


def receipt(result):
    return json.loads(result.out)
