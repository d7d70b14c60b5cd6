#!/usr/bin/python3
"""zvol-apply's second process, which reads the stream: what it asks of the kernel, what code that took it over can do, and what becomes
of a run when one of both is killed."""
import json
import os
import re
import time
from pathlib import Path

import bed
from bed import changed, main, same, test, vm
from zvol import images, receiving, ssh, start, volume

# The host's, which the guest has not.
LIBRARIES = "/host/lib/x86_64-linux-gnu:/host/usr/lib/x86_64-linux-gnu"
STRACE = f"/host/lib64/ld-linux-x86-64.so.2 --library-path {LIBRARIES} /host/usr/bin/strace"
FORBIDDEN = re.compile(r"^(open|openat|openat2|creat|exec\w+|socket|connect|bind|accept4?|fork|vfork|unlink\w*|rename\w*|mount|ptrace|kill)$")

# What planted code would do, done to a process: each call is made by that process itself, with its rights.
PLANT = r'''
import ctypes, json, os, signal, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
ATTACH, DETACH, GETREGS, SETREGS, STEP, PEEK, POKE = 16, 17, 12, 13, 9, 1, 4
# struct user_regs_struct, x86_64
NAMES = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs".split()
pid, other = int(sys.argv[1]), sys.argv[2]
def ptrace(request, address=0, data=0):
    result = libc.ptrace(request, pid, address, data)
    if result == -1 and request not in (PEEK,):
        raise OSError(ctypes.get_errno(), "ptrace %d" % request)
    return result
class Regs(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in NAMES]
ptrace(ATTACH)
os.waitpid(pid, 0x40000000)
before = Regs(); ptrace(GETREGS, 0, ctypes.addressof(before))
instruction = before.rip - 2  # it waits in a call
assert ctypes.c_ulong(ptrace(PEEK, instruction)).value & 0xffff == 0x050f, "not a syscall instruction"
def put(address, text):
    text = text.encode() + b"\0"
    text += b"\0" * (-len(text) % 8)
    for at in range(0, len(text), 8):
        ptrace(POKE, address + at, struct.unpack("Q", text[at:at + 8])[0])
def call(number, *arguments):
    place, real = before.rsp - 4096, []
    for argument in arguments:
        if isinstance(argument, str):
            put(place, argument); real.append(place); place += 512
        else:
            real.append(argument & (1 << 64) - 1)
    regs = Regs.from_buffer_copy(before)
    regs.rip, regs.rax, regs.orig_rax = instruction, number, (1 << 64) - 1
    for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), real): setattr(regs, name, value)
    ptrace(SETREGS, 0, ctypes.addressof(regs))
    ptrace(STEP); os.waitpid(pid, 0x40000000)
    after = Regs(); ptrace(GETREGS, 0, ctypes.addressof(after))
    return ctypes.c_longlong(after.rax).value
keeper, target = int(sys.argv[3]), int(sys.argv[4])
put(before.rsp - 8192, "spoiled")
mine = call(18, target, before.rsp - 8192, 0, 0)  # pwrite of nothing: the descriptor is its own
results = {
    "openat of another volume": call(257, -100, "/dev/zvol/" + other, 2, 0),
    "open of its pool's disk": call(2, "/dev/ubda", 2, 0),
    "openat of a new file": call(257, -100, "/root/planted", 0o101, 0o600),
    "openat2": call(437, -100, "/root/planted", 0, 24),
    "unlink": call(87, "/root/receiver"),
    "rename": call(82, "/root/receiver", "/root/planted"),
    "socket": call(41, 2, 1, 0),
    "kill of the first process": call(62, keeper, 9),
    "ptrace of the first process": call(101, 16, keeper, 0, 0),
    "process_vm_writev": call(311, keeper, 0, 0, 0, 0, 0),
    "pidfd_getfd": call(438, 3, 0, 0),
    "mount": call(165, "none", "/mnt", "tmpfs", 0, 0),
    "code": call(9, 0, 4096, 7, 0x22, -1, 0),
    "fork": call(57),
    # The last one: where it works, nothing of the program is left to go on in.
    "execve": call(59, "/bin/sh", 0, 0),
}
ptrace(SETREGS, 0, ctypes.addressof(before))
ptrace(DETACH)
print(json.dumps({"results": results, "own": mine}))
'''

# A header and a part of the changes, and then nothing until it is told to go on.
STALL = """
import os, sys, time
data = open(sys.argv[1], "rb").read()
out = sys.stdout.buffer
out.write(data[:len(data) // 2]); out.flush()
while not os.path.exists(sys.argv[2]): time.sleep(0.05)
try:
    out.write(data[len(data) // 2:]); out.flush()
except BrokenPipeError:
    pass
"""


def worker():
    """Pids of both processes."""
    keeper = vm("cat /root/receiver").out.strip()
    both = vm("grep -lx zvol-apply /proc/[0-9]*/comm | cut -d/ -f3", check=False).out.split()
    return keeper, "".join(pid for pid in both if vm(f"cut -d ' ' -f 4 /proc/{pid}/stat", check=False).out.strip() == keeper)


class Stalled:
    """A run that waits for the second half of its stream."""

    def __init__(self, t, stream):
        self.go = Path(bed.work, f"go-{t.name.replace('/', '-')}")
        self.go.unlink(missing_ok=True)
        Path(bed.work, "stall").write_text(STALL)
        vm("rm -f /root/receiver; touch /root/receiver")
        self.process = start(f"python3 {bed.work}/stall {stream} {self.go} | {ssh(t)}")
        bed_waits(lambda: receiving(t) and worker()[1])
        self.keeper, self.worker = worker()

    def end(self):
        self.go.touch()
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out.decode()


def bed_waits(until, seconds=60):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


def calls(trace, pid):
    """A process's system calls and those of its threads, from its first read of the stream on."""
    family, begun, found = {pid}, False, []
    for line in trace.splitlines():
        who, rest = line.split(maxsplit=1)
        match = re.match(r"(\w+)\(", rest)
        if who not in family or not match:
            continue
        child = re.match(r"clone3?\(.*= (\d+)$", rest)
        if child:
            family.add(child[1])
        begun = begun or match[1] == "read" and r"\211SIPHON" in rest
        if begun:
            found.append(match[1])
    return found


@test
def a_reader_opens_starts_and_connects_nothing():
    of, t = volume("traced", "s0")
    ways = {"increment": of.stream("s1", "s0"), "already": of.stream("s1", "s0"), "whole": of.stream("s2"),
            "cut": Path(bed.work, "cut"), "flipped": Path(bed.work, "flipped")}
    data = of.stream("s2", "s1").read_bytes()
    ways["cut"].write_bytes(data[:len(data) * 2 // 3])
    ways["flipped"].write_bytes(data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1:])
    for way, stream in ways.items():
        options = "--mark --replace" if way == "whole" else "--mark"
        target = t if way != "whole" else f"{t}new"
        vm(f"{STRACE} -f -o /root/trace $(command -v zvol-apply) {options} {target} <{stream}", check=False)
        trace = vm("cat /root/trace").out
        started = re.search(r'^(\d+) +execve\("/proc/self/exe"', trace, re.M)
        assert started, f"{way}: no second process"
        found = calls(trace, started[1])
        assert {"read", "sendmsg", "recvmsg"} <= set(found), f"{way}: {found}"
        assert way in ("already",) or "pwrite64" in found, f"{way}: it wrote nothing: {set(found)}"
        same([call for call in found if FORBIDDEN.match(call)], [], way)
        # And the first process reads nothing of the stream.
        first = trace.split(maxsplit=1)[0]
        stream_read = re.findall(rf"^{first} +read\(0,|^{first} +(?:read|pread64|readv)\(.*SIPHON-EXT", trace, re.M)
        same(stream_read, [], way)
    print(f"  {len(ways)} of {len(ways)} runs looked at")


@test
def planted_code_cannot_write_outside_of_its_target():
    of, t = volume("planted", "s0")
    other = volume("bystander", "s0")[1]
    other.sh("zfs set volmode=dev {t}; udevadm settle")
    Path(bed.work, "plant.py").write_text(PLANT)
    stalled = Stalled(t, of.stream("s1", "s0"))
    target = vm(f"for fd in /proc/{stalled.worker}/fd/*; do case $(readlink $fd) in /dev/zd*) echo ${{fd##*/}} ;; esac; done").out.strip()
    assert target.isdigit(), f"the target is not open: {target!r}"
    said = json.loads(vm(f"python3 {bed.work}/plant.py {stalled.worker} {other} {stalled.keeper} {target}").out)
    print(f"  {sum(result < 0 for result in said['results'].values())} of {len(said['results'])} calls refused")
    same({name: result for name, result in said["results"].items() if result >= 0}, {}, "what planted code could do")
    same(said["own"], 0, "writing to its own target")
    same(vm("ls /root/planted", check=False).code, 2)
    code, out = stalled.end()
    assert code == 0, out
    t.at(images["s1"], "s1")
    other.at(images["s0"], "s0", live=False)
    # The same calls outside of the walls: this test would see them.
    free = vm(f"PATH=/host{bed.options.bin}:$PATH; sleep 60 & first=$!; sleep 60 & python3 {bed.work}/plant.py $! {other} $first 1; kill $! $first 2>/dev/null", check=False)
    results = json.loads(free.out)["results"] if free.out.startswith("{") else {}
    assert sum(result >= 0 for result in results.values()) >= 3, f"the control could do nothing either: {free}"
    vm("rm -f /root/planted")
    other.sh("zfs set volmode=none {t}")


@test
def when_one_of_both_is_killed_the_run_ends_and_the_next_one_heals():
    of, t = volume("halved", "s0")
    image, newest = images["s0"], "s0"
    for who in ("worker", "keeper"):
        stalled = Stalled(t, of.stream("s1", newest))
        vm(f"kill -9 {getattr(stalled, who)}")
        bed_waits(lambda: vm(f"kill -0 {stalled.worker} 2>/dev/null || kill -0 {stalled.keeper} 2>/dev/null", check=False).code, 10)
        code, out = stalled.end()
        assert code != 0, out
        if who == "worker":
            assert "has ended (signal: 9" in out and "[io]" in out, out
        assert receiving(t)
        image = changed(image, salt=len(who) + ord(who[0]))
        of.snap(f"after-{who}", image)
        t.nightly(of, f"after-{who}")
        t.at(image, f"after-{who}")
        newest = f"after-{who}"
        of.snap("s1", changed(image, salt=99))


if __name__ == "__main__":
    main("zfs")
