"""Changes at given moments: played here by a thread, or in the guest by an agent with a clock of its own.

As a program, in the guest: python3 cephfs_acts.py ROOT; each line of standard input is a list of acts in JSON, each answer what failed.
An act is [seconds, what, path, argument]: so long after the list was given, to this path below the root.
"""
import json
import os
import sys
import threading
import time


class Player:
    """Does what a list says, and keeps files open that it is to keep open."""

    def __init__(self, root):
        self.root, self.open = root, []

    def play(self, acts, began=None):
        """What failed, as text."""
        began = time.monotonic() if began is None else began
        failed = []
        for seconds, what, path, argument in sorted(acts, key=lambda act: act[0]):
            time.sleep(max(0, began + seconds - time.monotonic()))
            try:
                getattr(self, what)(os.path.join(self.root, path), argument)
            except OSError as error:
                failed.append(f"{what} {path}: {error}")
        return failed

    def start(self, acts, began):
        """The same, in threads: one for each act, so that none waits for another."""
        failed = []
        threads = [threading.Thread(target=lambda act=act: failed.extend(self.play([act], began))) for act in acts]
        for thread in threads:
            thread.start()

        def wait():
            for thread in threads:
                thread.join()
            return failed
        return wait

    def append(self, path, data):
        with open(path, "ab") as out:
            out.write(data.encode())
            out.flush()
            os.fsync(out.fileno())

    def hold_append(self, path, data):
        """Buffered, and the file stays open."""
        out = open(path, "ab", buffering=0)
        out.write(data.encode())
        self.open.append(out)

    def hold_overwrite(self, path, data):
        """The same, and the size stays."""
        out = open(path, "r+b", buffering=0)
        out.write(data.encode())
        self.open.append(out)

    def lazy_append(self, path, data):
        """Buffered, and closed."""
        with open(path, "ab") as out:
            out.write(data.encode())

    def overwrite(self, path, data):
        with open(path, "r+b") as out:
            out.write(data.encode())

    def create(self, path, data):
        with open(path, "xb") as out:
            out.write(data.encode())

    def mode(self, path, _):
        os.chmod(path, 0o640)

    def rename(self, path, to):
        os.rename(path, os.path.join(self.root, to))

    def swap(self, path, other):
        other = os.path.join(self.root, other)
        os.rename(path, path + ".away")
        os.rename(other, path)
        os.rename(path + ".away", other)

    def remove(self, path, _):
        os.unlink(path)

    def truncate(self, path, _):
        os.truncate(path, 3)

    def directory(self, path, _):
        os.mkdir(path)

    def snapshot(self, path, _):
        os.mkdir(path)

    def close(self, *_):
        while self.open:
            self.open.pop().close()


def main():
    player = Player(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(player.play(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
