"""Commands in the guest, by shells that stay: to begin one by ssh for each command costs the guest five times as much as a fork."""
import itertools
import os
import select
import shlex
import subprocess
from pathlib import Path

# Takes numbers; the command of each lies in a file of that name, in a directory that both sides see. Its exit code is the answer.
LOOP = 'while read -r number; do (. "$0/$number") </dev/null >"$0/$number.out" 2>"$0/$number.err"; echo $?; done'
NUMBERS = itertools.count(1)
IDLE = []
LOST = 255  # what ssh says when the other end is gone


class Shell:
    def __init__(self, place):
        self.place = place
        line = ["ssh", "-F", os.environ["LAB_DIR"] + "/ssh_config", "vm", f"exec bash -c {shlex.quote(LOOP)} {shlex.quote(place)}"]
        self.ssh = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def end(self):
        self.ssh.kill()
        self.ssh.communicate()

    def answer(self, number, timeout):
        """What it says to a number; nothing when it is gone."""
        try:
            self.ssh.stdin.write(b"%d\n" % number)
            self.ssh.stdin.flush()
        except BrokenPipeError:
            return b""
        if not select.select([self.ssh.stdout], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(f"command {number} in the guest", timeout)
        return self.ssh.stdout.readline()


def call(command, place, timeout):
    """Runs a bash command in the guest, by way of a directory that it sees at the same path: exit code, stdout, stderr."""
    number = next(NUMBERS)
    files = [Path(place, f"{number}{end}") for end in ("", ".out", ".err")]
    files[0].write_text(command, errors="surrogateescape")
    shell = IDLE.pop() if IDLE else Shell(place)
    try:
        answer = shell.answer(number, timeout)
    except BaseException:
        shell.end()
        raise
    if answer:
        IDLE.append(shell)
        told = int(answer), *(file.read_text(errors="replace") for file in files[1:])
    else:
        shell.end()
        told = LOST, "", "the connection to the guest was lost"
    for file in files:
        file.unlink(missing_ok=True)
    return told


def close():
    """Ends all shells."""
    while IDLE:
        IDLE.pop().end()
