#!/usr/bin/env python3
"""A second retention policy, written from snap-prune(1) alone, and the real snap-prune beside it: both must let the same go.

retention_model.py SNAP-PRUNE [--full] [--seed N] [--only WORD]    needs the `blake3` package

Three years of states (nights, hours, gaps, clocks that jump, two in one second, states of others, aliases) under random
policies; and three years night by night, each night pruned. Prints the seed, then for each part how many of how many agree.
"""
import argparse
import datetime
import random
import re
import subprocess
import sys
import time

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
OURS = r"\d{4}-\d{2}-\d{2}T\d{4}(\d{2})?Z"
PERIODS = {
    "hourly": lambda t: (t.year, t.month, t.day, t.hour),
    "daily": lambda t: (t.year, t.month, t.day),
    "weekly": lambda t: tuple(t.isocalendar())[:2],
    "monthly": lambda t: (t.year, t.month),
    "yearly": lambda t: t.year,
}


# --- the model

def seconds_of(span):
    number, unit = re.fullmatch(r"(\d+)([smhdw])", span.strip()).groups()
    return datetime.timedelta(**{{"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[unit]: int(number)})


def buckets_of(grid, now):
    """(newest moment in it, first moment before it, how many stay) of each bucket, going back."""
    edge, buckets = now, []
    for row in grid.split("|"):
        count, span, keep = re.fullmatch(r"\s*(\d+)\s*x\s*(\w+)\s*(?:\(keep=(\w+)\))?\s*", row).groups()
        for _ in range(int(count)):
            older = edge - seconds_of(span)
            buckets.append((edge, older, None if keep == "all" else int(keep or 1)))
            edge = older
    return buckets


def survivors(states, arguments):
    """The names that stay. States are (name, seconds), oldest first, each name once; arguments are those of snap-prune."""
    rules = list(zip(arguments[::2], arguments[1::2]))
    said = dict(rules)
    stay = {name for option, name in rules if option == "--keep"}
    assert stay <= {name for name, _ in states}
    whole = re.compile(said.get("--match", OURS), re.ASCII | re.DOTALL)
    ours = [(name, EPOCH + datetime.timedelta(seconds=seconds)) for name, seconds in states if whole.fullmatch(name)]
    stay |= {name for name, _ in states} - {name for name, _ in ours}
    if not ours:
        return stay
    newest, now = ours[-1]
    stay.add(newest)
    past = sorted((state for state in ours if state[1] <= now), key=lambda state: state[1])  # stable: the list decides between equals
    for option, value in rules:
        kind = option.removeprefix("--keep-")
        by_time = True
        if kind == "last":
            stay |= {name for name, _ in ours[-int(value):]}
            by_time = False
        elif kind in PERIODS:
            newest_of = {PERIODS[kind](when): name for name, when in past}  # later ones take the place of earlier ones
            stay |= {newest_of[period] for period in sorted(newest_of)[-int(value):]}
        elif kind == "within":
            stay |= {name for name, when in past if now - when < seconds_of(value)}
        elif kind == "grid":
            for newer, older, keep in buckets_of(value, now):
                stay |= {name for name, when in past if older < when <= newer} if keep is None else \
                    set([name for name, when in past if older < when <= newer][:keep])
        else:
            by_time = False
            if kind == "regex":
                stay |= {name for name, _ in ours if re.search(value, name, re.ASCII | re.DOTALL)}
        if by_time:
            stay |= {name for name, when in ours if when > now}
    if "--at-most" in said:
        gone = [name for name, _ in states if name not in stay]
        stay |= set(gone[int(said["--at-most"]):])
    return stay


# --- the real one

def sealed(lines):
    """A state list of lines (id, seconds, bytes, name)."""
    from blake3 import blake3
    text = "".join("\t".join(map(str, line)) + "\n" for line in lines).encode()
    return text + f"#end\t{len(lines)}\t{blake3(text).hexdigest()}\n".encode()


def real(tool, lines, arguments):
    """The names that go, as the tool prints them."""
    done = subprocess.run([tool, *arguments], input=sealed(lines), capture_output=True, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stderr.decode()}"
    return done.stdout.decode().splitlines()


def lines_of(states, rng=None):
    """Lines of a list; with dice some states have aliases, and some are there as themselves, too."""
    lines, number = [], 0
    for name, seconds in states:
        kind = rng.random() if rng else 1
        spellings = [name, name] if kind < 0.05 else ["@" + name, name] if kind < 0.1 else [name]
        for spelling in spellings:
            number += 1
            lines.append((f"{number:032x}", seconds, 4096, spelling))
    return lines


def agree(tool, states, arguments, rng=None):
    """The states that stay; both must say the same."""
    stay = survivors(states, arguments)
    want = [name for name, _ in states if name not in stay]
    got = real(tool, lines_of(states, rng), arguments)
    assert got == want, f"{arguments}\nonly the tool lets go {sorted(set(got) - set(want))[:5]}, only the model {sorted(set(want) - set(got))[:5]}"
    return [state for state in states if state[0] in stay]


# --- dice

def name_of(seconds, taken):
    """As the nightly lines name it; where the clock says the same twice, with seconds, then with other seconds."""
    when = EPOCH + datetime.timedelta(seconds=seconds)
    name = f"{when:%Y-%m-%dT%H%M}Z"
    while name in taken:
        name = f"{when:%Y-%m-%dT%H%M%S}Z"
        when += datetime.timedelta(seconds=1)
    taken.add(name)
    return name


def history(rng, count, kind):
    """So many states."""
    steps = {"nights": 86400, "hours": 3600, "three-hours": 10800}
    at, states, taken = rng.randrange(1_500_000_000, 1_900_000_000), [], set()
    for n in range(count):
        dice = rng.random()
        step = steps[kind] + rng.randrange(-300, 300)
        if dice < 0.02:
            step = 0
        elif dice < 0.04:
            step *= rng.randrange(2, 40)
        elif dice < 0.045 and kind != "nights" or dice < 0.043:
            step = rng.choice([-1, 1]) * rng.randrange(1, 400 * 86400)
        at += step
        at = min(max(at, 1_000_000_000), 4_000_000_000)
        if dice > 0.97:
            states.append((rng.choice(["before-upgrade", "autosnap", "2026-x", "daily"]) + f"-{n}", at))
        else:
            states.append((name_of(at, taken), at))
    return states


def policy(rng, states):
    """The arguments of a policy."""
    grids = ["1x1h(keep=all) | 24x1h | 14x1d", "30x1d | 12x4w", "7x1d(keep=2)|8x1w|24x30d(keep=3)", "1x1d(keep=all)|48x1h|60x1d", "5x100d",
             "1x90s(keep=all)|10x15m(keep=2)|100x1h"]
    counts = {"hourly": 100, "daily": 60, "weekly": 30, "monthly": 40, "yearly": 5}
    pool = [["--keep-last", str(rng.randrange(1, 40))], ["--keep-within", f"{rng.randrange(1, 400)}{rng.choice('hdw')}"],
            ["--keep-grid", rng.choice(grids)], ["--keep-grid", rng.choice(grids)], ["--keep-regex", rng.choice(["[-]01T", "^2[0-9]+-0[1-3]"])]]
    pool += [[f"--keep-{kind}", str(rng.randrange(1, most))] for kind, most in counts.items()]
    chosen = sum(rng.sample(pool, rng.choice([1, 1, 2, 3, 4])), [])
    for _ in range(rng.choice([0, 0, 1, 2])):
        chosen += ["--keep", rng.choice(states)[0]]
    if rng.random() < 0.1:
        chosen += ["--match", rng.choice([r"[0-9]{4}-.*Z", r".*-[0-9]+|20.*Z"])]
    if rng.random() < 0.1:
        chosen += ["--at-most", str(rng.randrange(0, 50))]
    return chosen


# --- the parts

def random_policies(tool, rng, full):
    """Random policies over three years of states."""
    planned = 400 if full else 40
    gone = 0
    for n in range(planned):
        kind = ["nights", "hours", "three-hours"][n % 3]
        states = history(rng, {"nights": 1096, "hours": 10_000, "three-hours": 8768}[kind], kind)
        gone += len(states) - len(agree(tool, states, policy(rng, states), rng))
    assert gone > 1000 * planned, f"only {gone} went"
    return planned, 400


NIGHTLY = [
    ["--keep-last", "3"],
    ["--keep-daily", "14", "--keep-weekly", "13", "--keep-monthly", "36"],
    ["--keep-grid", "1x1d(keep=all) | 14x1d | 12x4w", "--keep-last", "2"],
    ["--keep-within", "30d", "--keep-yearly", "3", "--keep-regex", "[-]01T"],
    ["--keep-grid", "7x1d | 8x1w | 24x30d"],
]


def night_by_night(tool, rng, full):
    """Three years, pruned every night; what stayed is what the next night finds."""
    done = 0
    for arguments in NIGHTLY if full else NIGHTLY[:3]:
        mine, theirs = [], []
        for state in history(rng, 1096, "nights"):
            mine, theirs = [*mine, state], [*theirs, state]
            base = ["--keep", mine[-2][0]] if len(mine) > 1 else []
            stay = survivors(mine, arguments + base)
            mine = [state for state in mine if state[0] in stay]
            gone = set(real(tool, lines_of(theirs, rng), arguments + base))
            theirs = [state for state in theirs if state[0] not in gone]
            assert mine == theirs, f"{arguments}, night {state}"
            done += 1
        # Nobody is left with what a policy never lets go, or with nothing.
        assert 2 <= len([name for name, _ in mine if re.fullmatch(OURS, name)]) < 400, f"{arguments}: {len(mine)}"
    return done, 1096 * len(NIGHTLY)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", metavar="SNAP-PRUNE")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    passed = failed = 0
    for part in (random_policies, night_by_night):
        if options.only not in part.__name__:
            continue
        began = time.monotonic()
        try:
            done, planned = part(options.tool, random.Random(f"{options.seed}/{part.__name__}"), options.full)
            passed += 1
            print(f"ok {part.__name__}: {done} of {planned} agree ({time.monotonic() - began:.0f} s)", flush=True)
        except AssertionError as error:
            failed += 1
            print(f"FAIL {part.__name__}: {error}", flush=True)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
