#!/usr/bin/python3
"""A small stream cut at every byte and with every bit flipped, through real zvol-apply: nothing accepted, nothing marked."""
from pathlib import Path

import bed
from bed import main, same, test, vm
from zvol import Source, Zvol, source

# In the guest: one process start a case. What is refused before the volume is looked at costs nothing more.
LOOP = r'''
import subprocess, sys, collections
target, stream, kind, step, mark = sys.argv[1:]
data = open(stream, "rb").read()
places = range(len(data)) if kind == "cut" else range(8 * len(data))
tried, wrong, words = 0, [], collections.Counter()
for place in places[::int(step)]:
    bad = bytearray(data)
    if kind == "cut":
        del bad[place:]
    else:
        bad[place // 8] ^= 1 << place % 8
    done = subprocess.run(["zvol-apply", "--mark", target], input=bad, capture_output=True)
    tried += 1
    words[done.stderr.decode().split("[")[-1].split("]")[0]] += 1
    if done.returncode != 3 or done.stdout:
        wrong.append(f"{kind} at {place}: exit {done.returncode}, {done.stdout!r} {done.stderr.decode()[:300]}")
snapshots = subprocess.run(["zfs", "list", "-H", "-o", "name", "-d", "1", "-t", "snapshot", target], capture_output=True, text=True).stdout.split()
marks = [name.split("@")[1] for name in snapshots if "@siphon-check-" not in name]
if marks != ([mark] if mark != "-" else []):
    wrong.append(f"snapshots: {marks}")
print(f"{kind}: {tried} of {len(places)} places,", ", ".join(f"{n} {word}" for word, n in sorted(words.items())))
print("\n".join(wrong[:20]))
sys.exit(bool(wrong))
'''


def damaged(of, name, to, base, kind, step):
    target, stream = Zvol(name), of.stream(to, base)
    # A volume that stays visible: hiding and showing it again would be most of the time.
    shown = "--mark -o volmode=dev"
    if base:
        target.apply(of.stream(base), shown)
    else:
        target.sh("zfs create -s -V 16K -b 16K -o volmode=dev {t}; udevadm settle")
    script = Path(bed.work, "damage.py")
    script.write_text(LOOP)
    result = vm(f"python3 {script} {target} {stream} {kind} {1 if bed.options.full else step} {base or '-'}", check=False, timeout=7200)
    print("  " + result.out.strip(), flush=True)
    same(result.code, 0, str(result))
    # The whole stream still goes in, over whatever the damaged ones left.
    target.apply(stream)
    target.at(of.images[to])


def smallest():
    """The smallest streams that have ZERO, DATA and END: a whole image, and an increment."""
    source("s0")
    of = Source(f"small{len(list(Path(bed.work).glob('small*')))}")
    of.options = "--zeros"
    of.snap("base", b"a" * 4096 + b"b")
    of.snap("to", bytes(4096) + b"c")
    return of


def damage_test(promise, kind, base, step):
    function = lambda: damaged(smallest(), f"{kind}_{base or 'whole'}", "to", base, kind, step)
    function.__name__ = promise
    test(function)


damage_test("a_whole_stream_cut_anywhere_is_refused", "cut", None, 71)
damage_test("an_increment_cut_anywhere_is_refused", "cut", "base", 71)
damage_test("a_whole_stream_with_any_bit_flipped_is_refused", "flip", None, 113)
damage_test("an_increment_with_any_bit_flipped_is_refused", "flip", "base", 113)


if __name__ == "__main__":
    main("zfs")
