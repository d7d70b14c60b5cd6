"""A source whose days the tests of rbd-apply send, and targets that hold them."""
import functools

import bed
from rbd_target import MADE, MiB, Source, Target

SIZE = 12 * MiB + 513


def many(short, full):
    return full if bed.options.full else short


class Story:
    """A source with states a to e, whose streams are made once."""

    def __init__(self):
        # For all tests: no test removes it.
        self.source = Source(SIZE)
        MADE.remove(self.source)
        for n, name in enumerate("abcde"):
            self.source.day(name, SIZE + n * 512)
        self.streams = {}

    def __call__(self, names):
        """"b": b whole; "ab": from a to b."""
        if names not in self.streams:
            self.streams[names] = self.source.sent(names[-1], names[0] if len(names) == 2 else None)
        return self.streams[names]

    def target(self, names="ab", **where):
        """A target at the last of these states."""
        t = Target(**where)
        t.takes(self(names[0]))
        for pair in zip(names, names[1:]):
            t.takes(self("".join(pair)))
        return t

    def at(self, target, name):
        target.at(self.source[name], name)


@functools.cache
def story():
    return Story()
