"""Running pipes in alternation, and saying what they cost.

Wall time is from the start of the first process to the end of the last; CPU is user and system time of all of them;
memory is the resident peak of the largest. All of it comes from wait4(2), so nothing stands between.
"""
import os
import statistics
import subprocess
import sys
import time

BAND = 1.10  # identical commands vary that much even on a quiet machine
MIB = 1 << 20
GIB = 1 << 30


class Cost:
    """What one run of a pipe took: seconds, and bytes of memory (of each process, in the order of the pipe)."""

    def __init__(self, wall, cpu, peaks):
        self.wall, self.cpu, self.peaks = wall, cpu, peaks

    @property
    def memory(self):
        return max(self.peaks)


class Side:
    """One of the rivals: a pipe, and what is to be done, unmeasured, before it and after it.

    `stages` are argument vectors; `then` is one more command that starts when the pipe has ended and is measured, too
    (what makes a file durable). `stdin` is a path.
    """

    def __init__(self, *stages, stdin=None, then=None, before=None, after=None, env=None):
        self.stages, self.stdin, self.then = stages, stdin, then
        self.before, self.after, self.env = before or (lambda: None), after or (lambda: None), env or {}

    def run(self):
        """Measures it once."""
        self.before()
        began = time.monotonic()
        usages = run_pipe(self.stages, self.stdin, self.env)
        if self.then:
            usages += run_pipe([self.then], None, self.env)
        wall = time.monotonic() - began
        self.after()
        cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        return Cost(wall, cpu, [usage.ru_maxrss * 1024 for usage in usages])


def run_pipe(stages, stdin, env):
    """Runs argument vectors as a pipe whose output is thrown away; their usages, in order. All must succeed."""
    environment = {**os.environ, **env}
    children = []
    source = open(stdin, "rb") if stdin else subprocess.DEVNULL
    for number, stage in enumerate(stages):
        last = number == len(stages) - 1
        child = subprocess.Popen(stage, stdin=source, stdout=subprocess.DEVNULL if last else subprocess.PIPE,
                                 stderr=subprocess.PIPE, env=environment)
        if source not in (subprocess.DEVNULL, None):
            source.close()
        source = child.stdout
        children.append(child)
    usages = []
    for child in children:
        words = child.stderr.read()  # progress and notes: short, so no child waits for us to read another's
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        child.stderr.close()
        if child.returncode:
            sys.exit(f"bench: {' '.join(map(str, child.args))}: exit {child.returncode}\n{words.decode(errors='replace')}")
        usages.append(usage)
    return usages


class Costs:
    """The runs of one side."""

    def __init__(self, runs):
        self.runs = runs

    def median(self, what):
        return statistics.median(getattr(run, what) for run in self.runs)

    def spread(self, what):
        values = [getattr(run, what) for run in self.runs]
        return min(values), max(values)

    @property
    def memory(self):
        return max(run.memory for run in self.runs)

    def peak(self, stage):
        """The largest of one stage."""
        return max(run.peaks[stage] for run in self.runs)


def alternate(sides, pairs, warm=True):
    """Runs sides (a dict) in turn, first forwards, then backwards, after one unmeasured round. Costs by name."""
    names = list(sides)
    if warm:
        for name in names:
            sides[name].run()
    runs = {name: [] for name in names}
    for number in range(pairs):
        for name in names if number % 2 == 0 else reversed(names):
            runs[name].append(sides[name].run())
    return {name: Costs(runs[name]) for name in names}


class Report:
    """The table: one line for each gate, and lines that only inform."""

    def __init__(self):
        self.missed = 0

    def head(self, text):
        print(f"\n== {text}")
        say(f"   load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cpus at the beginning")

    def costs(self, costs):
        """All that was measured of some sides."""
        say(f"   {'':32} {'CPU s':>7} {'peak MiB':>9} {'wall s':>7}   (median; wall from least to most)")
        for name, cost in costs.items():
            low, high = cost.spread("wall")
            say(f"   {name:32} {cost.median('cpu'):7.2f} {cost.memory / MIB:9.1f} {cost.median('wall'):7.2f}   {low:.2f}..{high:.2f}")

    def note(self, text):
        say(f"   {text}")

    def at_most(self, gate, figure, limit, unit="", band=False):
        """A gate with an upper limit; `band`: a measured time, which may be over it by 10 %."""
        self._judge(gate, figure, f"<= {limit:g}{unit}", unit, figure <= limit, band and figure <= limit * BAND)

    def at_least(self, gate, figure, limit, unit=""):
        """A gate with a lower limit, always with the band."""
        self._judge(gate, figure, f">= {limit:g}{unit}", unit, figure >= limit, figure >= limit / BAND)

    def _judge(self, gate, figure, limit, unit, met, within):
        verdict = "met" if met else "met within the band of 10 %" if within else "NOT MET"
        self.missed += verdict == "NOT MET"
        say(f"{gate:58} {figure:8.2f}{unit:5} {limit:>14}   {verdict}")


def say(line):
    print(line, flush=True)
