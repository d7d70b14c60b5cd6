"""Forty machines in Ceph, a NAS that takes them, and the two ends as siphon-nightly(7) sets them up: what forty.py shares.

The set-up is the page's: its blocks are run, as root on the NAS (a guest), and on the Ceph side in a mount namespace with an
/etc, /home and /usr/local/bin of its own, so that a user and a key can be made there and nothing of it stays. What is sent is
sent by that user, whose key does nothing on the NAS but what siphon-serve(1) allows.
"""
import atexit
import functools
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import bed
from bed import ROOT, Result, run, same

MiB = 1 << 20
FEATURES = 1 | 4 | 8 | 16 | 32  # layering, exclusive-lock, object-map, fast-diff, deep-flatten
PAGE = (ROOT / "man/siphon-nightly.7").read_text()
BLOCKS = dict(re.findall(r'^\.\\" run: (\S+)\n\.Bd [^\n]*\n(.*?)^\.Ed$', PAGE, re.MULTILINE | re.DOTALL))
RUN = set()
BEGUN = []  # that a fleet was set up
MEANT = "tank/backup/pve1"  # the dataset of the page
TOOLS = "rbd-diff-stream rbd-group-snap snap-prune extent-digest"  # that the Ceph side has
NAS_TOOLS = "siphon-serve zfs-snapmark zvol-apply zvol-diff-stream extent-digest"


def block(name):
    """A block of the page; it counts as run."""
    RUN.add(name)
    # mdoc's escapes.
    return BLOCKS[name].replace("\\&", "").replace("\\e", "\\")


# --- the NAS

# The guest has no package that makes users.
USERADD = r"""#!/bin/sh
for name; do :; done
grep -q "^$name:" /etc/passwd && exit 9
echo "$name:x:990:" >>/etc/group
echo "$name:x:990:990::/home/$name:/bin/sh" >>/etc/passwd
echo "$name:*:19000::::::" >>/etc/shadow
mkdir -p "/home/$name" && chown 990:990 "/home/$name"
"""


class Nas:
    """The guest, as root has it."""

    def __init__(self, pool="tank", disk="ubda"):
        self.pool, self.disk = pool, disk

    def sh(self, command, check=True, timeout=300, **more):
        line = ["ssh", "-F", os.environ["LAB_DIR"] + "/ssh_config", "vm", f"PATH=/usr/local/bin:/host{bed.options.bin}:$PATH\n{command}"]
        more.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run(line, capture_output=True, timeout=timeout, errors="replace", **more)
        result = Result(command, done.returncode, done.stdout, done.stderr)
        assert not check or result.code == 0, str(result)
        return result

    def boot(self, sender):
        """After the guest has come up: its root is in memory, so all but the pool is made again."""
        self.sh(f"""set -e; mkdir -p /usr/local/bin
            cat >/usr/local/bin/useradd <<'END'\n{USERADD}END
            chmod 755 /usr/local/bin/useradd
            for tool in {NAS_TOOLS}; do ln -sf /host{bed.options.bin}/$tool /usr/local/bin/; done
            ln -sf /usr/local/bin/* /usr/bin/
            modprobe zfs 2>/dev/null || true""")
        self.sh("set -e\n" + block("nas-user"))
        self.sh("set -e\n" + block("nas-udev"))
        if sender.key:
            self.let_in(sender)

    def let_in(self, sender):
        """The line of the key."""
        self.sh("set -e\n" + block("nas-key").replace("ssh-ed25519 AAAA...", sender.key))

    def make_pool(self):
        self.sh(f"zpool create -f -O compression=off -O mountpoint=none {self.pool} /dev/{self.disk}")

    def make_place(self):
        """The dataset below which the volumes lie."""
        self.sh("set -e\n" + block("nas-dataset").replace("tank", self.pool))

    def reset(self, sender):
        """A power cut and a boot."""
        there = os.environ["LAB_DIR"]
        run(f"LAB_KEEP=1 {ROOT}/scripts/lab/zfs-down --cut vm; {ROOT}/scripts/lab/zfs-up vm >/dev/null", timeout=120)
        assert Path(there, "ssh_config").exists()
        self.boot(sender)
        self.sh(f"zpool import -f {self.pool}")
        sender.knows_nas()


# --- the Ceph side

class Sender:
    """The Ceph side: root there, and the user of the page."""

    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="forty.", dir="/tmp"))
        self.home.chmod(0o755)
        atexit.register(shutil.rmtree, self.home, ignore_errors=True)
        self.key = ""
        shutil.copytree("/etc", self.home / "etc", symlinks=True, ignore=lambda folder, names: [n for n in names if n == "ssl"])
        for name in ("home", "bin"):
            (self.home / name).mkdir()
        ceph = self.home / "etc/ceph"
        ceph.mkdir(exist_ok=True)
        there = Path(os.environ["CEPH_CONF"])
        lines = [line for line in there.read_text().split("\n[mon]")[0].splitlines() if not re.match(r"(keyring|log file|run dir|crash dir|admin socket|pid file) =", line)]
        (ceph / "ceph.conf").write_text("\n".join(lines) + "\n[client]\nadmin socket =\nlog file = /dev/null\n")
        shutil.copy(there.parent / "keyring", ceph / "ceph.client.admin.keyring")
        (ceph / "ceph.client.admin.keyring").chmod(0o600)
        for tool in TOOLS.split():
            shutil.copy(Path(bed.options.bin, tool), self.home / "bin")
        for script in ("rbd-to-zvol", "siphon-all"):
            shutil.copy(ROOT / "scripts" / script, self.home / "bin")

    def line(self, command, user, more):
        """Arguments that run a command over there."""
        binds = "\n".join(f"mount --bind {self.home}/{name} {place}" for name, place in (("etc", "/etc"), ("home", "/home"), ("bin", "/usr/local/bin")))
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8", **more}
        words = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
        become = f"env -i {words} HOME=/home/{user} setpriv --reuid {user} --regid {user} --clear-groups --no-new-privs" if user else \
            f"env -i {words} HOME=/root"
        return ["unshare", "--mount", "--propagation", "private", "bash", "-c",
                f"set -e\n{binds}\ncd /\nexec {become} bash -c {shlex.quote(command)}"]

    def sh(self, command, user=None, check=True, timeout=900, **more):
        done = subprocess.run(self.line(command, user, more), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, errors="replace")
        result = Result(command, done.returncode, done.stdout, done.stderr)
        assert not check or result.code == 0, str(result)
        return result

    def begin(self, command, user="siphon", **more):
        """A command over there that runs while the test goes on."""
        return subprocess.Popen(self.line(command, user, more), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, errors="replace", start_new_session=True)

    def set_up(self, nas):
        """As the page says."""
        self.sh("set -e\n" + block("ceph-user"))
        self.sh("set -e\n" + block("ceph-key"), user="siphon")
        self.key = (self.home / "home/siphon/.ssh/id_ed25519.pub").read_text().strip()
        nas.let_in(self)
        self.knows_nas()

    def knows_nas(self):
        """The name of the NAS, and its host key, which is another one after each boot of the guest."""
        there = Path(os.environ["LAB_DIR"], "zfs/vm")
        address, kind, key = (there / "known_hosts").read_text().split()[:3]
        hosts = self.home / "etc/hosts"
        hosts.write_text(re.sub(r"(?m)^.*\bnas$\n?", "", hosts.read_text()) + f"{address} nas\n")
        known = self.home / "home/siphon/.ssh/known_hosts"
        known.write_text(f"nas {kind} {key}\n")
        shutil.rmtree(self.home / "home/siphon/.ssh/control", ignore_errors=True)


# --- the machines

class Machine:
    """An image, what is done to it, and the volume that it goes to."""

    def __init__(self, fleet, name, number):
        self.fleet, self.name = fleet, name
        self.chance = random.Random(f"{bed.options.seed}/{number}")

    @property
    def path(self):
        return f"rbd/{self.name}"

    @property
    def target(self):
        return f"{self.fleet.place}/{self.name}"

    def open(self, snapshot=None):
        return self.fleet.rbd.Image(self.fleet.pool, self.name, snapshot, read_only=snapshot is not None)

    def create(self, size, data):
        """An image with pieces of a real system in it."""
        self.fleet.rbd.RBD().create(self.fleet.pool, self.name, size, old_format=False, features=FEATURES)
        self.fill(data)

    def clone(self, parent, snapshot):
        self.fleet.rbd.RBD().clone(self.fleet.pool, parent, snapshot, self.fleet.pool, self.name, features=FEATURES)

    def fill(self, length):
        with self.open() as image:
            size = image.size()
            while length > 0:
                piece = self.fleet.piece(self.chance, min(length, self.chance.randrange(64 << 10, MiB)))
                image.write(piece, self.chance.randrange(0, (size - len(piece)) // 4096) * 4096)
                length -= len(piece)

    def noise(self, offset, length):
        with self.open() as image:
            image.write(self.chance.randbytes(length), offset)

    def day(self):
        """Some files are written, some blocks change, something is trimmed, and the disk may grow."""
        with self.open() as image:
            size = image.size()
            for _ in range(self.chance.randrange(4, 20)):
                image.write(self.chance.randbytes(4096), self.chance.randrange(0, size // 4096 - 1) * 4096)
            for _ in range(self.chance.randrange(0, 3)):
                piece = self.fleet.piece(self.chance, self.chance.randrange(4096, 300_000))
                image.write(piece, self.chance.randrange(0, size - len(piece)))
            if self.chance.random() < 0.5:
                length = self.chance.randrange(4096, 3 * MiB)
                image.discard(self.chance.randrange(0, size - length), length)
            if self.chance.random() < 0.1:
                image.resize(size + self.chance.randrange(1, 3 * MiB))

    def snapshots(self):
        """Those of users: names by number."""
        with self.fleet.rbd.Image(self.fleet.pool, self.name, read_only=True) as image:
            return {snap["id"]: snap["name"] for snap in image.list_snaps() if snap["namespace"] == self.fleet.rbd.RBD_SNAP_NAMESPACE_TYPE_USER}

    def newest(self):
        return max(self.snapshots().items())[1]

    def ours(self):
        """The snapshots that the nights took, oldest first."""
        return [name for _, name in sorted(self.snapshots().items()) if re.fullmatch(r"\d{4}-\d\d-\d\dT\d{6}Z", name)]


class Fleet:
    """All of it."""

    def __init__(self, count):
        self.data = library()  # while there is a way to a mirror
        bed.enter_ceph()
        import rados
        import rbd
        self.rbd = rbd
        self.cluster = rados.Rados(conffile=os.environ["CEPH_CONF"])
        self.cluster.connect()
        self.pool = self.cluster.open_ioctx("rbd")
        self.place = MEANT
        self.nights = 0
        self.scope = None
        self.foreign = {}  # what nobody may remove: how to look for it, and what has to be found
        self.nas, self.sender = Nas(), Sender()
        self.nas.boot(self.sender)
        self.nas.make_pool()
        self.nas.make_place()
        self.sender.set_up(self.nas)
        self.make(count)

    def piece(self, chance, length):
        at = chance.randrange(0, len(self.data) - length)
        return self.data[at:at + length]

    def make(self, count):
        """The images: a template, which is left out, clones of it, two disks of one machine, and others."""
        chance = random.Random(bed.options.seed)
        template = Machine(self, "template", 0)
        template.create(64 * MiB, 12 * MiB)
        with template.open() as image:
            image.create_snap("golden")
            image.protect_snap("golden")
            image.metadata_set("backup-skip", "yes")
        self.template, self.machines = template, []
        clones = max(1, count // 8)
        largest = (512 if bed.options.full else 160) * MiB
        for number in range(1, count):
            machine = Machine(self, f"vm-{number:02}.disk", number)
            if number <= clones:
                machine.clone("template", "golden")
                with machine.open() as image:
                    image.metadata_remove("backup-skip")  # as the page warns: it came with the parent
                    image.resize(chance.randrange(64 * MiB, 256 * MiB))
                machine.fill(2 * MiB)
            else:
                machine.create(chance.randrange(64 * MiB, largest), chance.randrange(4 * MiB, 10 * MiB))
            self.machines.append(machine)
        self.pair = self.machines[-2:]
        self.rbd.RBD().group_create(self.pool, "pair")
        group = self.rbd.Group(self.pool, "pair")
        for machine in self.pair:
            group.add_image(self.pool, machine.name)
        # Of others.
        run("rbd group snap create rbd/pair@weekly")
        for machine in self.machines[::3]:
            for name in ("before-upgrade", "2026-01-01T0200Z"):
                with machine.open() as image:
                    image.create_snap(name)
        for machine in [*self.machines, template]:
            for number, name in machine.snapshots().items():
                self.foreign["rbd", machine.name, number] = name
        self.nas.sh(f"""set -e; zfs create {self.nas.pool}/other; zfs create -s -V 16M {self.nas.pool}/other/vol; zfs snapshot -r {self.nas.pool}/other@weekly
            zfs create -o mountpoint=none {self.nas.pool}/backup/pve2; zfs snapshot {self.nas.pool}/backup/pve2@weekly""")
        self.foreign_there("other", "other/vol", "backup/pve2")

    def foreign_there(self, *datasets):
        """Remembers the snapshots of these datasets that are no marks: somebody else's."""
        for dataset in datasets:
            for line in self.nas.sh(f"zfs list -Hpt snapshot -o name,guid -d 1 {self.nas.pool}/{dataset}").out.splitlines():
                name, guid = line.split("\t")
                self.foreign["zfs", guid] = name

    def rename(self, machine, name):
        """An administrator renames an image."""
        self.rbd.RBD().rename(self.pool, machine.name, name)
        self.foreign = {(*key[:1], name, *key[2:]) if key[:2] == ("rbd", machine.name) else key: was for key, was in self.foreign.items()}
        machine.name = name

    def nothing_foreign_is_gone(self):
        """Every snapshot that somebody else made is there, and is the same one."""
        images = self.rbd.RBD().list(self.pool)
        for key, name in self.foreign.items():
            if key[0] == "rbd":
                assert key[1] in images and Machine(self, key[1], 0).snapshots().get(key[2]) == name, f"{key} {name} is gone"
        there = self.nas.sh("zfs list -Hpt snapshot -o guid").out.split()
        for key, name in self.foreign.items():
            assert key[0] != "zfs" or key[1] in there, f"{name} is gone"
        assert "weekly" in run("rbd group snap ls rbd/pair").out
        return len(self.foreign) + 1

    # --- a night

    @property
    def asked(self):
        """The machines that a night is for: all, but for most bad nights."""
        return self.scope or self.machines

    def command(self, options=""):
        """The line of the page's crontab, as it stands there, with the PATH that cron has and what the crontab says of it."""
        settings, line = block("cron").rsplit("\n0 2 * * * siphon ", 1)
        return f"export PATH=/usr/bin:/bin\n{settings}\n{self.typed(line.strip(), options)}"

    def typed(self, line, options=""):
        """A line of the page with siphon-all in it, about these machines and this place."""
        only = "".join(f" --only {machine.name}" for machine in self.scope or [])
        return line.replace(MEANT, self.place).replace("siphon-all", f"siphon-all{only} {options}")

    def night(self, options="", check=True, **more):
        """All images, by the line of the crontab; gives what was said, with the lines of its record."""
        self.nights += 1
        record = self.sender.home / "home/siphon/record"
        before = record.stat().st_size if record.exists() else 0
        result = self.sender.sh(self.command(options), user="siphon", check=check, **more)
        return self.heard(result, before)

    def heard(self, result, before):
        record = self.sender.home / "home/siphon/record"
        lines = [json.loads(line) for line in record.read_text()[before:].splitlines()] if record.exists() else []
        result.images = {line["image"].split("/")[-1]: line for line in lines if "image" in line}
        result.totals = next((line for line in lines if "total" in line), None)
        return result

    def days(self, machines=None):
        for machine in machines or self.asked:
            machine.day()

    def equal(self, machines=None, sums=1):
        """The newest mark of each holds what the newest snapshot of the image holds: roots of all, SHA-256 of some."""
        machines = machines or self.asked
        names = {machine.name: machine.ours()[-1] for machine in machines}
        tails = " ".join(f"{machine.name}@{names[machine.name]}" for machine in machines)
        there = subprocess.Popen(
            ["ssh", "-F", os.environ["LAB_DIR"] + "/ssh_config", "vm", f"""PATH=/usr/local/bin:$PATH; set -o pipefail
            for t in {tails}; do
              [ "$(zfs-snapmark last {self.place}/${{t%@*}})" = {self.place}/$t ] || echo "$t is not the newest mark" >&2
              echo "$t $(zvol-diff-stream {self.place}/$t | extent-digest --root)"
            done"""], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        here = {}
        for machine in machines:
            at = f"{machine.name}@{names[machine.name]}"
            here[at] = run(f"set -o pipefail; rbd-diff-stream rbd/{at} | {bed.options.bin}/extent-digest --root",
                           env={**os.environ, "PATH": f"{bed.options.bin}:{os.environ['PATH']}"}).out.strip()
        out, err = there.communicate(timeout=900)
        same(err, "", "marks")
        same(dict(line.split() for line in out.splitlines()), here, "roots")
        for machine in random.Random(f"{bed.options.seed}/{self.nights}").sample(machines, min(sums, len(machines))):
            self.same_sum(machine, names[machine.name])
        return len(here)

    def same_sum(self, machine, snapshot):
        """SHA-256 of both, read by nothing of ours."""
        with machine.open(snapshot) as image:
            size = image.size()
        here = run(f"rbd export --no-progress {machine.path}@{snapshot} - | sha256sum").out.split()[0]
        there = self.nas.sh(f"""set -e; zfs clone -o volmode=dev {machine.target}@{snapshot} {self.nas.pool}/look
            trap 'zfs destroy {self.nas.pool}/look || {{ sleep 1; zfs destroy {self.nas.pool}/look; }}' EXIT
            udevadm settle; for n in $(seq 100); do [ ! -b /dev/zvol/{self.nas.pool}/look ] || break; sleep 0.1; done
            head -c {size} /dev/zvol/{self.nas.pool}/look | sha256sum""").out.split()[0]
        same(there, here, f"SHA-256 of {machine.name}@{snapshot}")

    def good_night(self, *hows, machines=None, days=True, options="", sums=1):
        """A day's work, a night in which all ends well, and both sides are equal. Gives the result."""
        if days:
            self.days()
        result = self.night(options)
        same(sorted(result.images), sorted([machine.name for machine in self.asked] + ["template"] * (not self.scope)), f"images of the record\n{result}")
        same(result.totals["failed"], 0, "failed")
        assert self.scope or result.images["template"]["how"] == "skipped", "the template"
        for name, line in result.images.items():
            assert name == "template" or line["how"] in (hows or ("increment",)), f"{name}: {line}"
        self.equal(sums=sums)
        return result


def library():
    """Some hundred MiB of a real system: the beginning of a Debian's file system, else libraries of this machine."""
    root = run("scripts/lab/debian-root", cwd=ROOT, timeout=900, check=False)
    if root.code == 0:
        with open(root.out.strip().splitlines()[-1], "rb") as file:
            file.seek(32 * MiB)
            return file.read(128 * MiB)
    found = sorted(path for path in Path("/usr/lib").glob("**/*.so*") if path.is_file() and not path.is_symlink())
    data = bytearray()
    for path in found:
        if len(data) < 64 * MiB:
            data += path.read_bytes()
    return bytes(data)


@functools.cache
def fleet():
    """The fleet, with its first nights behind it."""
    assert not BEGUN, "the fleet could not be set up: see above"
    BEGUN.append(True)
    of = Fleet(40 if bed.options.full else 8)
    of.good_night("new", days=False, sums=2)
    return of


def wait_for(what, seconds=60, doing="waited in vain"):
    """Until it is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, doing
        time.sleep(0.1)
    return found
