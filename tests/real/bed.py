"""What the tests on real systems share: the bed, commands in it, content, and a runner.

A test is a function named as a promise, under @test. It takes nothing and fails by an exception:

    from bed import *
    @test
    def a_volume_can_be_made():
        vm("zfs create -V 10M tank/a")
    main("zfs")
"""
import argparse
import ctypes
import faulthandler
import functools
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import guest

ROOT = Path(__file__).resolve().parents[2]
TESTS = []
ENDINGS = []
seed = 1  # of all dice, where the command line names none
options = None  # of the command line, from main() on
work = None  # a directory of this run that the guest sees at the same path


class Result:
    """What a command did."""

    def __init__(self, command, code, out, err):
        self.command, self.code, self.out, self.err = command, code, out, err

    def __str__(self):
        return f"$ {self.command}\n{self.out[-2000:]}{self.err[-3000:]}(exit {self.code})"


def test(function):
    """Marks a function as a test."""
    TESTS.append(function)
    return function


def at_end(function):
    """Has a function called when all tests are done, while the bed is up."""
    ENDINGS.append(function)


class Skipped(Exception):
    """Raised by a test that cannot run here."""


def run(command, check=True, timeout=180, **more):
    """Runs a bash command on the host."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=timeout, errors="replace", **more)
    result = Result(command, done.returncode, done.stdout, done.stderr)
    assert not check or result.code == 0, str(result)
    return result


def vm(command, check=True, timeout=180, **more):
    """Runs a bash command in the guest, as root."""
    script = f"PATH=/host{options.bin}:$PATH\n{command}"
    if more:
        line = ["ssh", "-F", os.environ["LAB_DIR"] + "/ssh_config", "vm", script]
        done = subprocess.run(line, capture_output=True, timeout=timeout, errors="replace", **more)
        result = Result(command, done.returncode, done.stdout, done.stderr)
    else:
        result = Result(command, *guest.call(script, work, timeout))
    assert not check or result.code == 0, str(result)
    return result


def tank():
    """Makes the guest's pool, if no test on this bed has yet. It is mounted nowhere: a file system in it names its own place."""
    if "tank" not in vm("zpool list -H -o name", check=False).out.split():
        # Of sectors as the disks of today have them.
        vm("zpool create -o ashift=12 -O compression=off -O mountpoint=none tank /dev/ubda")


def enter_ceph():
    """Moves this process into the bed's network, with the environment that leads to its Ceph."""
    clone_newnet = 0x40000000
    there = os.environ["LAB_DIR"]
    with open(f"{there}/net/ns") as network:  # held open it could not be taken down
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), clone_newnet):
            raise OSError(ctypes.get_errno(), "setns")
    for line in Path(there, "ceph/env.sh").read_text().splitlines():
        name, value = line.removeprefix("export ").split("=", 1)
        os.environ[name] = value


def refused(result, code, word):
    """It failed with this exit code and class word."""
    assert result.code == code and f"[{word}]" in result.err, f"expected exit {code} [{word}]\n{result}"
    return result


def same(got, want, what=""):
    assert got == want, f"{what}: got {got!r}, expected {want!r}"


# --- content

@functools.cache
def libraries():
    """Real files; to look for them takes seconds."""
    return sorted(path for path in Path("/usr/lib").glob("**/*.so*") if path.is_file() and path.stat().st_size > 300_000)


def content(size, salt=0):
    """Bytes of an image: real files, random bytes and holes in turn."""
    chance, library = random.Random(f"{options.seed}/{size}/{salt}"), libraries()
    out = bytearray(size)
    at = 0
    while at < size:
        length = min(size - at, chance.randrange(1, 60) * 4096)
        kind = chance.randrange(3)
        if kind == 0 and library:
            piece = chance.choice(library).read_bytes()[:length]
            out[at:at + len(piece)] = piece
        elif kind < 2:
            out[at:at + length] = chance.randbytes(length)
        at += length
    return bytes(out)


def changed(old, size=None, salt=0, changes=40):
    """The image after a day: blocks rewritten, ranges zeroed at 4 KiB grain, another size."""
    chance = random.Random(f"{options.seed}/{len(old)}/{salt}")
    size = len(old) if size is None else size
    out = bytearray(old[:size].ljust(size, b"\0"))
    for _ in range(changes):
        at = chance.randrange(0, max(1, size // 4096)) * 4096
        length = min(size - at, chance.randrange(1, 12) * 4096)
        out[at:at + length] = chance.randbytes(length) if chance.random() < 0.6 else bytes(length)
    if size > len(old):
        out[-5000:] = chance.randbytes(5000)
    return bytes(out)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# --- the runner

def main(*parts):
    """Starts the bed's parts (or uses the bed of LAB_DIR), runs the tests, takes down what it started."""
    global options, work
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true", help="all of the large counts")
    parser.add_argument("--only", metavar="WORD", action="append", help="tests whose name holds WORD")
    parser.add_argument("--without", metavar="NAME", action="append", default=[], help="not this test")
    parser.add_argument("--list", action="store_true", help="say which tests there are")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--bin", default="target/release", help="directory of the built tools")
    options = parser.parse_args()
    options.bin = str((ROOT / options.bin).resolve())
    chosen = [t for t in TESTS if t.__name__ not in options.without
              and (not options.only or any(word in t.__name__ for word in options.only))]
    if options.list:
        print(*(t.__name__ for t in chosen), sep="\n")
        return
    # Leave by way of `finally`, whatever ends us.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    ours = "LAB_DIR" not in os.environ
    if ours:
        os.environ["LAB_DIR"] = tempfile.mkdtemp(prefix="lab.", dir="/tmp")
    try:
        up = subprocess.run([ROOT / "scripts/lab/up", *parts], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)
        if up.returncode == 77:
            print(up.stderr.strip(), f"\n0 passed, 0 failed, {len(chosen)} skipped", sep="")
            code = 0
        elif up.returncode:
            print(up.stderr.strip(), "\nthe bed did not start\n0 passed, 1 failed, 0 skipped", sep="")
            code = 1
        else:
            work = tempfile.mkdtemp(prefix="work.", dir=os.environ["LAB_DIR"])
            print(f"seed {options.seed}", flush=True)
            code = run_tests(chosen)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        guest.close()
        if work:
            shutil.rmtree(work, ignore_errors=True)
        if ours:
            subprocess.run([ROOT / "scripts/lab/down"], stdin=subprocess.DEVNULL, check=False)
            shutil.rmtree(os.environ["LAB_DIR"], ignore_errors=True)
    sys.exit(code)


def run_tests(chosen):
    passed = failed = skipped = 0
    # One that hangs must not take the others with it. The longest takes an eighth of that.
    limit = 3 * 3600 if options.full else 900

    def too_long(number, frame):
        raise AssertionError(f"not done in {limit} s")
    signal.signal(signal.SIGALRM, too_long)
    for function in chosen:
        began = time.monotonic()
        signal.alarm(limit)
        # No exception reaches what hangs in a library of C (seen once of Ceph's): that says where it is, and ends all.
        faulthandler.dump_traceback_later(limit + 30, exit=True)
        try:
            function()
            passed += 1
            verdict, why = "ok", ""
        except Skipped as error:
            skipped += 1
            verdict, why = "skipped", str(error)
        except AssertionError:
            failed += 1
            verdict, why = "FAIL", traceback.format_exc(limit=-4)
        except Exception:
            failed += 1
            verdict, why = "FAIL", traceback.format_exc()
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        print(f"{verdict} {function.__name__} ({time.monotonic() - began:.0f} s) {why}".rstrip(), flush=True)
    for function in ENDINGS:
        function()
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0
