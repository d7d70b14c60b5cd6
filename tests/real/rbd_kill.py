#!/usr/bin/python3
"""rbd-apply on a real Ceph cluster: killed anywhere, and streams that are cut or damaged: the next run ends equal."""
import itertools
import random
import signal
import struct
import time

import bed
from bed import main, same
from rbd_story import many, story
from rbd_target import RECEIVING, STAGES, MiB, Target, feed, kill, monitor, test, wait_for

# --- kills

def healed(t, s, stream, chance, already=False):
    """The same transfer again, or the next night's, ends equal with no hand."""
    to = stream[-1]
    t.takes(s(stream), already=already)
    s.at(t, to)
    if chance.random() < 0.3:
        t.takes(s(to + "e"))
        s.at(t, "e")


@test
def killed_while_receiving_the_same_transfer_heals():
    s, chance = story(), random.Random(bed.options.seed)
    planned, fired = many(8, 60), 0
    for n in range(planned):
        # Every third one is a first, whole stream.
        t, stream = (Target(), "a") if n % 3 == 2 else (s.target(), "bd")
        if stream == "bd" and n % 2:
            t.snap("others")
        process = t.start()
        cut = chance.randrange(300, len(s(stream)))
        feed(process, s(stream)[:cut], close=False)
        wait_for(lambda: t.exists() and RECEIVING in t.metadata())
        time.sleep(chance.random() * 0.3)
        alive = process.poll() is None
        kill(process)
        fired += alive and RECEIVING in t.metadata()
        # Meanwhile somebody boots from it: what they write is lost, but the copy is right.
        t.shut_out()
        if stream == "bd" and n % 2:
            for at in range(0, 6 * MiB, MiB // 2):
                t.noise(at, 3000)
        healed(t, s, stream, chance)
    print(f"    killed while receiving: {fired}/{planned}")
    assert fired >= 0.8 * planned


def kill_at(t, stream, stage, options=()):
    """Lets a run go on a little at a time, and kills it where its commit has come this far; whether it had."""
    marks = len(t.marks())
    process = t.start(*options)
    thread = feed(process, stream)
    now = 0
    while process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.004)  # what is under way to the OSD arrives
        now = t.stage(marks)
        if now >= stage and not thread.is_alive():
            break
        process.send_signal(signal.SIGCONT)
        time.sleep(0.0005)
    kill(process)
    return t.stage(marks) == stage == now


@test
def killed_between_the_steps_of_a_commit_it_heals():
    s, chance = story(), random.Random(bed.options.seed)
    each, fired = many(2, 12), {}
    for n, stage in itertools.product(range(each), range(1, len(STAGES) - 1)):
        t = s.target("ab")
        hit = kill_at(t, s("bc"), stage)
        fired[stage] = fired.get(stage, 0) + hit
        t.shut_out()
        # A snapshot that is there is a mark, whatever it is called.
        same(t.common(s.source), "c" if t.stage(2) >= 2 else "b", STAGES[stage])
        if n % 2 and t.stage(2) >= 2:
            t.takes(s("cd"))
            s.at(t, "d")
        else:
            healed(t, s, "bc", chance, already=t.stage(2) >= 2)
    for stage, hits in fired.items():
        print(f"    killed at {STAGES[stage]!r}: {hits}/{each}")
    assert sum(fired.values()) >= 0.8 * each * len(fired), "too few kills struck where they were meant to"


@test
def killed_while_going_back_the_same_command_heals():
    s, chance = story(), random.Random(bed.options.seed)
    planned, fired = many(6, 40), 0
    for n in range(planned):
        t = s.target("abcd")
        t.noise(0, 8 * MiB)
        # The first to see: the record. Then marks go one by one.
        left = (4, 3, 2)[n % 3]
        process = t.start("--rollback")
        feed(process, s("be"))
        while process.poll() is None:
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.004)
            keys = t.header()
            if f"metadata_{RECEIVING}" in keys and sum(key.startswith("snapshot_") for key in keys) <= left:
                break
            process.send_signal(signal.SIGCONT)
            time.sleep(0.001)
        kill(process)
        keys = t.header()
        fired += sum(key.startswith("snapshot_") for key in keys) == left
        t.shut_out()
        if left > 2 and chance.random() < 0.5:
            # Not begun, in a sense: without --rollback the newest mark counts.
            newest = t.marks()[-1]
            same(newest, "d", "marks that are given up go oldest first")
            t.takes(s("de"))
        else:
            t.takes(s("be"), "--rollback")
        s.at(t, "e")
    print(f"    killed while going back: {fired}/{planned}")
    assert fired >= 0.8 * planned


def waited(t, stream, **more):
    """It ends well, but not before the dead client is gone."""
    assert t.watchers(), "the dead client is not seen"
    result = t.takes(stream, **more)
    assert "waiting" in result.err, str(result)


@test
def a_killed_client_is_waited_for():
    s, t = story(), story().target()
    monitor(prefix="config set", who="osd", name="osd_client_watch_timeout", value="10")
    try:
        time.sleep(1)
        process = t.start()
        feed(process, s("bc")[:len(s("bc")) // 2], close=False)
        wait_for(lambda: RECEIVING in t.metadata())
        kill(process)
        waited(t, s("bc"))
        s.at(t, "c")
        # Broken off between the snapshot and its name, too.
        assert kill_at(t, s("cd"), 3), "the kill did not strike where it was meant to"
        waited(t, s("cd"), already=True)
        s.at(t, "d")
    finally:
        monitor(prefix="config rm", who="osd", name="osd_client_watch_timeout")


@test
def a_record_of_a_run_that_ended_is_never_believed_later():
    """Killed between its snapshot and the end of its record; later that snapshot goes, and somebody works on the image."""
    s, t = story(), story().target()
    for _ in range(20):
        if kill_at(t, s("bc"), 4) or kill_at(t, s("bc"), 5):
            break
        t.shut_out()
        t.drop()
        t = s.target()
    else:
        raise AssertionError("no kill struck")
    t.shut_out()
    t.takes(s("bc"), already=True)
    t.remove_snap("c")
    t.noise(0, 5000)
    t.refuses(s("bd"), "written-since")


# --- damage

def frames(stream):
    """Where the frames begin."""
    at = 24
    while at < len(stream):
        yield at
        at += 32 + struct.unpack_from("<I", stream, at + 4)[0]


def damaged(t, streams, planned, kind):
    """Each is refused as damaged and makes no snapshot; then the right one heals."""
    s, snaps, fired = story(), t.snaps(), 0
    for stream in streams:
        result = t.apply(stream)
        assert result.code == 3 and not result.out, str(result)
        same(t.snaps(), snaps, f"snapshots after {kind}")
        fired += 1
    print(f"    {kind}: {fired}/{planned}")
    t.takes(s("bc"))
    s.at(t, "c")


@test
def a_stream_cut_anywhere_makes_no_mark():
    s, chance = story(), random.Random(bed.options.seed)
    whole = s("bc")
    edges = list(frames(whole))
    some = edges if bed.options.full else [edges[1], edges[2], *chance.sample(edges[3:-1], 4), edges[-1]]
    damaged(s.target(), [whole[:at] for at in some], len(some), "cut between frames")
    some = [chance.randrange(len(whole)) for _ in range(many(6, 80))] + [len(whole) - 1]
    damaged(s.target(), [whole[:at] for at in some], len(some), "cut at any byte")
    t = Target()
    for at in [edges[1], *chance.sample(range(len(s("a"))), many(3, 20))]:
        assert t.apply(s("a")[:at]).code == 3
        assert not t.exists() or not t.snaps()
    t.takes(s("a"))
    s.at(t, "a")


@test
def a_flipped_bit_makes_no_mark():
    s, chance = story(), random.Random(bed.options.seed)
    whole = s("bc")
    def flipped(at):
        out = bytearray(whole)
        out[at // 8] ^= 1 << at % 8
        return bytes(out)
    some = [chance.randrange(len(whole) * 8) for _ in range(many(8, 150))]
    # In what frames say of themselves, too.
    some += [(chance.choice(list(frames(whole))) + chance.randrange(32)) * 8 for _ in range(many(4, 50))]
    damaged(s.target(), [flipped(at) for at in some], len(some), "flipped")


if __name__ == "__main__":
    main("ceph")
