#!/usr/bin/python3
"""rbd-apply on a real Ceph cluster: each state of a target (siphon(7)), and what the next stream may do to it."""
import json
import random
import time

import bed
from bed import main, refused, same
from rbd_story import SIZE, many, story
from rbd_target import FEATURES, PENDING, RECEIVING, MiB, Source, Target, ended, feed, librbd, test, wait_for


@test
def a_new_target_takes_a_whole_stream_only():
    s, t = story(), Target()
    t.refuses(s("ab"), "wrong-base")
    t.refuses(s("ab"), "wrong-base", "--rollback", "--replace")
    assert not t.exists(), "a refused increment made an image"
    t.takes(s("a"))
    s.at(t, "a")


@test
def a_blank_image_of_any_size_takes_a_whole_stream():
    s = story()
    for size in (0, 64 * MiB):
        t = Target().create(size)
        t.refuses(s("ab"), "wrong-base")
        t.takes(s("a"))
        s.at(t, "a")


@test
def a_foreign_image_is_refused_and_replaced_when_told():
    s, t = story(), Target().create(24 * MiB)
    t.noise(0, 24 * MiB)
    t.snap("mine")
    mine = t.read()
    for options in ([], ["--rollback"]):
        t.refuses(s("a"), "foreign", *options)
        t.refuses(s("ab"), "foreign", *options)
    t.refuses(s("ab"), "foreign", "--replace")
    t.takes(s("a"), "--replace")
    s.at(t, "a")
    same(t.read("mine"), mine, "a snapshot of others")
    # One byte far behind is foreign, too.
    t = Target().create(64 * MiB)
    t.write(b"x", 64 * MiB - 1)
    t.refuses(s("a"), "foreign")


@test
def a_target_at_a_mark_takes_what_begins_there():
    s = story()
    t = s.target("abc")
    with t.untouched():
        t.takes(s("bc"), already=True)
        t.takes(s("c"), already=True)
        t.takes(s("c"), "--replace", already=True)
    t.refuses(s("d"), "has-states")
    t.refuses(s("de"), "wrong-base")
    t.refuses(s("ad"), "wrong-base")
    t.refuses(s("ab"), "wrong-base")
    t.takes(s("cd"))
    s.at(t, "d")
    # Back, over two newer marks.
    result = t.takes(s("be"), "--rollback")
    assert "going back to b: giving up c, d" in result.err, result.err
    s.at(t, "e")
    same(t.marks(), ["a", "b", "e"])
    # A whole stream over marks, which stay.
    t.takes(s("c"), "--replace")
    s.at(t, "c")
    same(t.marks(), ["a", "b", "e", "c"])
    for name in "abe":
        same(t.read(name), s.source[name], name)


def written_since(t, s, newest="b", rest="bc"):
    """Refused in every way, until somebody says that it may be lost."""
    with t.untouched():
        for stream in (rest, rest[1], "a" + rest[0], "de"):
            refused(t.apply(s(stream)), 4, "written-since")
    result = t.takes(s(rest), "--rollback")
    assert f"going back to {newest}" in result.err, result.err
    s.at(t, rest[1])


@test
def a_target_written_to_since_is_refused_and_rolled_back_when_told():
    s = story()
    for write in (lambda t: t.write(b"x", SIZE - 1), lambda t: t.noise(4 * MiB - 100, 200), lambda t: t.noise(0, 9 * MiB),
                  lambda t: t.write(bytes(12 * MiB))):
        t = s.target()
        write(t)
        written_since(t, s)
    # Discards are writes, too: of all that there is.
    t = s.target()
    with t.open() as image:
        image.discard(0, SIZE)
    written_since(t, s)
    # The same bytes again change nothing.
    t = s.target()
    t.write(s.source["b"][:9 * MiB])
    t.takes(s("bc"))
    s.at(t, "c")


@test
def an_image_rolled_back_by_hand_is_known_by_its_content():
    s = story()
    t = s.target("abc")
    t.roll_back("a")
    written_since(t, s, "c", "cd")
    t = s.target("abc")
    t.roll_back("c")
    with t.untouched():
        t.takes(s("bc"), already=True)
    t.takes(s("cd"))
    s.at(t, "d")


@test
def a_newest_mark_removed_by_hand_is_no_base():
    s = story()
    t = s.target("abc")
    t.remove_snap("c")
    same(t.common(s.source), "b")
    written_since(t, s, "b", "bd")
    # With the content of the older mark it is at that one.
    t = s.target("abc")
    t.remove_snap("c")
    t.roll_back("b")
    t.takes(s("bd"))
    s.at(t, "d")
    same(t.marks(), ["a", "b", "d"])
    # Without any marks it is foreign.
    t = s.target("ab")
    t.remove_snap("a", "b")
    same(t.common(s.source), "foreign")
    t.refuses(s("bc"), "foreign")
    t.refuses(s("b"), "foreign")


@test
def records_that_were_copied_are_not_believed():
    s, t = story(), story().target()
    cut = t.apply(s("bc")[:-200])
    assert cut.code == 3 and RECEIVING in t.metadata(), cut
    for deep in (False, True):
        copy = Target()
        with t.open() as image:
            (image.deep_copy if deep else image.copy)(copy.io, copy.name)
        assert RECEIVING in copy.metadata() and (not deep or copy.snaps() == ["a", "b"]), "nothing was copied"
        same(copy.common(s.source), "foreign")
        for stream in ("bc", "b", "c", "ab"):
            copy.refuses(s(stream), "foreign")
        states = [state for state, _ in s.source.states()]
        assert not any(state in states for state, _ in copy.states()), "a copy says that it is the source's states"
        copy.takes(s("c"), "--replace")
        s.at(copy, "c")
    t.takes(s("bc"))
    s.at(t, "c")
    # Nor that of a first run, which is bound to no mark.
    first, copy = Target(), Target()
    assert first.apply(s("a")[:-200]).code == 3
    with first.open() as image:
        image.copy(copy.io, copy.name)
    copy.refuses(s("a"), "foreign")
    first.takes(s("a"))
    s.at(first, "a")


@test
def a_renamed_image_stays_what_it_is():
    s, t = story(), story().target()
    new = Target()
    librbd().RBD().rename(t.io, t.name, new.name)
    new.takes(s("bc"))
    s.at(new, "c")
    # Renamed marks, too.
    with new.open() as image:
        image.rename_snap("c", "kept")
    same(new.common(s.source), "c")
    new.takes(s("cd"))
    same(new.marks(), ["a", "b", "kept", "d"])


@test
def snapshots_of_others_stay_where_they_are():
    s, t = story(), story().target()
    t.snap("others")
    t.takes(s("bc"))
    s.at(t, "c")
    same(t.read("others"), s.source["b"])
    # With content of theirs.
    t.noise(0, 6 * MiB)
    t.snap("theirs")
    theirs = t.read()
    written_since(t, s, "c", "cd")
    same(t.read("theirs"), theirs)
    t.takes(s("be"), "--rollback")
    s.at(t, "e")
    same(t.read("theirs"), theirs)
    same(t.snaps(), ["a", "b", "others", "theirs", "e"])


@test
def a_name_that_is_taken_is_extended():
    s, t = story(), story().target()
    t.snap("c")
    t.takes(s("bc"))
    name = t.marks()[-1]
    assert name.startswith("c.") and len(name) > 5, name
    t.at(s.source["c"], name)
    same(t.common(s.source), "c")
    t.takes(s("cd"))
    s.at(t, "d")


@test
def any_name_of_a_source_snapshot_can_be_a_mark():
    source, t, before = Source(MiB), Target(), None
    for name in ("before upgrade", "50%", "a=b c=d", "zürich", "siphon-pending-x", "-", "x" * 200, " v=2 ", "a\tb"):
        source.day(name, count=2)
        t.takes(source.sent(name, before))
        t.at(source[name])
        same(t.common(source), name)
        before = name


@test
def a_clone_is_refused_and_with_replace_lets_go_of_its_parent():
    s, t, parent = story(), Target(), Source(24 * MiB)
    parent.noise(0, 24 * MiB)
    parent.snap("golden")
    with parent.open() as image:
        image.protect_snap("golden")
    librbd().RBD().clone(parent.io, parent.name, "golden", t.io, t.name, features=FEATURES)
    t.refuses(s("a"), "foreign")
    t.takes(s("a"), "--replace")
    s.at(t, "a")
    with parent.look("golden") as image:
        same(list(image.list_children()), [], "children of the parent")
    t.takes(s("ab"))
    s.at(t, "b")


@test
def an_image_resized_by_hand_was_written_to():
    s = story()
    for sizes in many(([SIZE + 512 + 1], [0], [MiB, SIZE + 512]), ([SIZE + 512 + 1], [64 * MiB], [MiB], [0], [MiB, SIZE + 512])):
        t = s.target()
        t.resize(*sizes)
        written_since(t, s)


@test
def an_image_in_the_trash_or_in_migration_is_refused():
    s, t = story(), story().target()
    image_id = t.id()
    librbd().RBD().trash_move(t.io, t.name)
    for stream in ("bc", "a"):
        result = refused(t.apply(s(stream)), 4, "unsupported")
        assert "trash restore" in result.err and not t.exists(), result.err
    librbd().RBD().trash_restore(t.io, image_id, t.name)
    t.takes(s("bc"))
    s.at(t, "c")
    moved = Target()
    librbd().RBD().migration_prepare(t.io, t.name, moved.io, moved.name)
    for stream in ("cd", "d"):
        assert "migration" in refused(moved.apply(s(stream)), 4, "unsupported").err
    librbd().RBD().migration_abort(moved.io, moved.name)
    t.takes(s("cd"))
    s.at(t, "d")


@test
def an_image_resized_by_hand_in_mid_run_is_not_committed():
    """The lock does not keep that out: its owner, the run, is asked to do it by librbd, and does it."""
    s = story()
    for size in (SIZE + 512 + MiB, SIZE + 512 + 1):
        t = s.target("a")
        run, stream = t.start(), s("ab")
        feed(run, stream[:-60], close=False).join()
        wait_for(lambda: RECEIVING in t.metadata())
        time.sleep(1)
        t.resize(size)
        feed(run, stream[-60:]).join()
        refused(ended(run), 4, "changed")
        same(t.snaps(), ["a"])
        t.takes(s("ab"))
        s.at(t, "b")


@test
def an_image_that_is_open_elsewhere_is_refused():
    s = story()
    for features in (FEATURES, 1):
        t = Target().create(SIZE, features=features)
        with t.open():
            refused(t.apply(s("a")), 4, "claimed")
        t.takes(s("a"))
        with t.open() as image:
            image.write(b"x", 0)
            result = refused(t.apply(s("ab")), 4, "claimed")
            assert "rbd status" in result.err, result.err
            image.write(s.source["a"][:1], 0)
        same(t.metadata().keys() & {RECEIVING, PENDING}, set())
        # A backup that reads is in nobody's way.
        with t.look("a"):
            t.takes(s("ab"))
        s.at(t, "b")


@test
def an_image_without_a_lock_works_as_one_with():
    s, t = story(), Target().create(MiB, features=1)
    for stream in ("a", "ab", "bc"):
        t.takes(s(stream))
    t.takes(s("bc"), already=True)
    t.noise(0, 100)
    written_since(t, s, "c", "cd")


def two_at_once(t, stream, chance):
    """Starts two runs within milliseconds; the results."""
    runs = []
    for _ in range(2):
        runs.append(t.start())
        feed(runs[-1], stream)
        time.sleep(chance.random() * 0.1)
    return [ended(run) for run in runs]


@test
def of_two_runs_at_once_one_wins_at_most():
    s, chance = story(), random.Random(bed.options.seed)
    won = rounds = 0
    for n in range(many(3, 90)):
        # One that is not there yet, one that is, one that has no lock.
        t = Target()
        if n % 3:
            t.create(SIZE, features=FEATURES if n % 3 == 1 else 1)
        for stream in ("a", "ab", "bc"):
            if stream == "bc":
                # The other one begins when the first is in the middle of it: it waits, then there is nothing to do.
                first = t.start()
                half = len(s(stream)) // 2
                feed(first, s(stream)[:half], close=False).join()
                wait_for(lambda: RECEIVING in t.metadata())
                second = t.start()
                feed(second, s(stream))
                time.sleep(1)
                feed(first, s(stream)[half:]).join()
                results = [ended(first), ended(second)]
                same(results[0].code, 0, str(results[0]))
            else:
                results = two_at_once(t, s(stream), chance)
            wins = [json.loads(r.out).get("already", False) for r in results if r.code == 0]
            assert wins.count(False) <= 1, f"both won\n{results[0]}\n{results[1]}"
            for result in results:
                assert result.code == 0 or result.code in (4, 6) and any(f"[{w}]" in result.err for w in ("claimed", "busy")), str(result)
            rounds += 1
            won += wins.count(False)
            if not wins:
                t.takes(s(stream))
            s.at(t, stream[-1])
    print(f"    one of two won: {won}/{rounds}")
    assert won >= rounds // 2, "mostly both gave up"


if __name__ == "__main__":
    main("ceph")
