#!/usr/bin/python3
"""rbd-apply on a real Ceph cluster: content, options, identity, no space, permissions. States: rbd_states.py; kills: rbd_kill.py.

Everything is compared by SHA-256 over the exact size, the head and the snapshot.
"""
import contextlib
import json
import subprocess
from pathlib import Path

import bed
from bed import main, refused, same
from rbd_story import many, story
from rbd_target import (FEATURES, RECEIVING, KiB, MiB, Source, Target, changed, ended, feed, kill, lab, librbd, monitor, pool,
                        test, wait_for)

# Sizes of an image, day by day: it grows and shrinks, to odd sizes, below an object, to nothing.
SIZES = (10_485_761, 10_485_761, 13_000_000, 4 * MiB, 4 * MiB + 512, 20 * MiB + 4095, 20 * MiB, 8 * MiB - 1, 511, 0, 16 * MiB + 1)


# --- content

def image_file(data, name):
    """A file with holes where the data is zero."""
    path = Path(bed.work, name)
    with open(path, "wb") as file:
        file.truncate(len(data))
        for at in range(0, len(data), 64 * KiB):
            piece = data[at:at + 64 * KiB]
            if any(piece):
                file.seek(at)
                file.write(piece)
    return path


def from_files(target, days, *options):
    """A life of image files, each night an increment."""
    content, before = b"", None
    for n, size in enumerate(SIZES[:days + 1]):
        content = changed(content, size, target.chance, 12)
        path = image_file(content, f"{target.name}.{n}")
        line = [f"{bed.options.bin}/image-diff-stream", *(["--base", before] if before else []), path]
        stream = subprocess.run(line, capture_output=True, check=True).stdout
        target.takes(stream, *(options if n == 0 else ()))
        target.at(content)
        # The same once more writes nothing; the state stands only at such a stream's end.
        if n < 2:
            target.takes(stream, already=True)
        before = path
    same(len(target.marks()), days + 1, "marks")


def from_image(target, source, days, *options):
    """The same of an image in Ceph, in whose life are discards and sizes in between."""
    before = None
    for n, size in enumerate(SIZES[:days + 1]):
        if n % 3 == 2:
            source.resize(size // 2, size)
        source.day(f"s{n}", size)
        target.takes(source.sent(f"s{n}", before), *(options if n == 0 else ()))
        target.at(source[f"s{n}"], f"s{n}")
        before = f"s{n}"
    for name in source.contents:
        same(target.read(name), source[name], f"older mark {name}")


def from_both(days, options=(), source=None, **where):
    from_files(Target(**where), days, *options)
    from_image(Target(**where), Source(SIZES[0], **(source or {})), days, *options)


@test
def whole_and_ten_increments_are_equal():
    from_both(10)


@test
def a_target_of_small_objects_is_equal():
    from_both(many(3, 10), ["--object-size", "64K"])


@test
def a_striped_target_made_like_another_is_equal():
    like = Source(MiB, order=20, stripe_unit=64 * KiB, stripe_count=5)
    from_both(many(4, 10), ["--like", like.path], source={"order": 21, "stripe_unit": 4096, "stripe_count": 3})


@test
def a_target_with_a_data_pool_in_a_namespace_is_equal():
    data = pool("siphon-data")
    io = lab()[1].open_ioctx("rbd")
    if not librbd().RBD().namespace_exists(io, "guests"):
        librbd().RBD().namespace_create(io, "guests")
    from_both(many(3, 10), ["--data-pool", data], namespace="guests")


@test
def an_image_is_made_as_the_options_say():
    like = Source(MiB, order=20, stripe_unit=64 * KiB, stripe_count=4, features=1 | 4, data_pool=pool("siphon-data"))
    whole = Source(MiB).day("a").sent("a")

    def made(*options):
        t = Target()
        t.takes(whole, *options)
        with t.look() as image:
            data = image.data_pool_id() != t.io.get_pool_id()
            return image.features() & FEATURES, 1 << image.stat()["order"], image.stripe_unit(), image.stripe_count(), data
    same(made("--like", like.path), (5, MiB, 64 * KiB, 4, True))
    same(made("--like", like.path, "--object-size", "128K")[1:4], (128 * KiB, 128 * KiB, 1))
    same(made("--like", like.path, "--image-feature", "layering")[0], 1)
    same(made("--object-size", "32M", "--data-pool", pool("siphon-data"))[1:], (32 * MiB, 32 * MiB, 1, True))
    for bad in (["--object-size", "3M"], ["--object-size", "64M"], ["--image-feature", "none"]):
        assert Target().apply(whole, *bad).code == 2
    t = Target()
    refused(t.apply(whole, "--like", "rbd/none"), 4, "not-found")
    refused(t.apply(whole, "--data-pool", "none"), 4, "not-found")
    assert not t.exists()


@test
def holes_stay_holes():
    source, t = Source(96 * MiB), Target()
    source.noise(1000, 5000)
    for at in (9, 20):
        source.noise(at * 4 * MiB, 4 * MiB)
    t.takes(source.snap("three").sent("three"))
    same(t.objects(), 3, "objects of a whole image")
    with source.open() as image:
        image.write_zeroes(9 * 4 * MiB, 4 * MiB)
        image.discard(19 * 4 * MiB, 12 * MiB)
        image.write_zeroes(2000, 10_000)
        image.resize(160 * MiB)
    t.takes(source.snap("one").sent("one", "three"))
    t.at(source["one"], "one")
    same(t.objects(), 1, "objects after zeros over whole ones, and growth")
    same(t.read("three"), source["three"])


@test
def what_a_shrink_cut_off_never_comes_back():
    source, t = Source(16 * MiB), Target()
    source.noise(0, 16 * MiB)
    t.takes(source.snap("full").sent("full"))
    source.resize(5 * MiB + 100)
    t.takes(source.snap("cut").sent("cut", "full"))
    t.at(source["cut"])
    source.resize(16 * MiB)
    t.takes(source.snap("regrown").sent("regrown", "cut"))
    t.at(source["regrown"])
    source.noise(0, 16 * MiB)
    t.takes(source.snap("again").sent("again", "regrown"))
    source.resize(3 * MiB + 1, 16 * MiB)
    t.takes(source.snap("at once").sent("at once", "again"))
    t.at(source["at once"])


# --- identity

@test
def states_keep_their_ids_from_image_to_image():
    s, b, c = story(), story().target("abc"), Target()
    known = {name: state for state, name in s.source.states()}
    # Beside its own, of which the names begin with @.
    same({name: state for state, name in b.states() if name[0] != "@"}, {name: known[name] for name in "abc"}, "received ids")
    same(b.common(s.source), "c")
    # On to a third image.
    c.takes(b.sent("a"))
    same(c.common(b), "a")
    c.takes(b.sent("c", "a"))
    s.at(c, "c")
    same(c.common(s.source), "c")
    # The source itself, or a copy further down, can go on with either.
    c.takes(s("cd"))
    s.at(c, "d")
    b.takes(c.sent("d", "c"))
    s.at(b, "d")
    # The source was lost: made anew it takes what was kept, and increments go on from it.
    again = Target()
    again.takes(c.sent("d"), "--like", s.source.path)
    s.at(again, "d")
    same(again.states()[-1][0], known["d"])
    again.noise(0, 100_000)
    again.snap("own work")
    b.takes(again.sent("own work", "d"))
    b.at(again.read("own work"), "own work")
    # And back: what C holds brings it to where it was.
    again.takes(s("de"), "--rollback")
    s.at(again, "e")


@test
def common_names_the_newest_state_of_both():
    s = story()
    same(Target().common(s.source), "", "of a new target")
    same(s.target("a").common(s.source), "a")
    t = s.target("abd")
    same(t.common(s.source), "d")
    cut = t.apply(s("de")[:-100])
    same((cut.code, t.common(s.source)), (3, "d"), "receiving")
    other = Source(MiB).day("a")
    same(t.common(other), "no-common", "of a stranger")


# --- dry runs, space, permissions

@test
def a_dry_run_changes_nothing():
    s = story()

    def dry(t, stream, says, *options, code=0):
        with t.untouched():
            result = t.apply(s(stream), "--dry-run", *options)
            assert result.code == code and says in result.out + result.err, str(result)
    dry(Target(), "a", "create")
    dry(Target(), "ab", "[wrong-base]", code=4)
    t = s.target("abc")
    dry(t, "cd", "would apply")
    dry(t, "bc", "would write nothing")
    dry(t, "a", "[has-states]", code=4)
    dry(t, "a", "replace", "--replace")
    dry(t, "be", "would go back to b", "--rollback")
    assert t.apply(s("cd")[:-1], "--dry-run").code == 3
    assert t.apply(s("cd")[:-100]).code == 3
    dry(t, "cd", "would go back to c; then would apply")
    t.takes(s("cd"))
    t.noise(0, 512)
    dry(t, "de", "[written-since]", code=4)
    dry(t, "de", "would go back to d", "--rollback")


def full(name):
    dump = json.loads(monitor(prefix="osd dump", format="json"))
    return any(p["pool_name"] == name and "full" in p["flags_names"] for p in dump["pools"])


@contextlib.contextmanager
def quota(name):
    """The pool holds more than it may."""
    monitor(prefix="osd pool set-quota", pool=name, field="max_bytes", val="4096")
    try:
        wait_for(lambda: full(name))
        yield
    finally:
        monitor(prefix="osd pool set-quota", pool=name, field="max_bytes", val="0")
        wait_for(lambda: not full(name))


def no_space(result):
    assert result.code == 1 and "[no-space]" in result.err and not result.out, str(result)


@test
def a_full_pool_is_an_error_and_heals():
    source, name = Source(24 * MiB), pool("siphon-full")
    t, new, meanwhile = Target(pool=name), Target(pool=name), Target(pool=name)
    source.noise(0, MiB)
    t.takes(source.snap("a").sent("a"))
    source.noise(8 * MiB, 8 * MiB)
    increment, whole = source.snap("b").sent("b", "a"), source.sent("b")
    half = len(whole) // 2
    process = meanwhile.start()
    feed(process, whole[:half], close=False)
    wait_for(lambda: meanwhile.exists() and RECEIVING in meanwhile.metadata())
    with quota(name):
        no_space(t.apply(increment, timeout=60))
        no_space(new.apply(whole, timeout=60))
        feed(process, whole[half:]).join()
        no_space(ended(process, timeout=60))
        same((t.marks(), new.exists(), meanwhile.marks()), (["a"], False, []))
    for target, stream in ((t, increment), (new, whole), (meanwhile, whole)):
        target.takes(stream)
        target.at(source["b"], "b")


@test
def a_user_who_may_only_read_is_told_so():
    s, t = story(), story().target()
    keyring = Path(bed.work, "keyring")
    users = {"reader": ["mon", "profile rbd", "osd", "profile rbd-read-only pool=rbd"], "writer": ["mon", "profile rbd", "osd", "profile rbd pool=rbd"]}
    keyring.write_text("".join(monitor(prefix="auth get-or-create", entity=f"client.{name}", caps=caps) for name, caps in users.items()))
    as_user = lambda name: ("--id", name, "--keyring", str(keyring))
    result = t.refuses(s("bc"), "permission", *as_user("reader"), code=1)
    assert "'profile rbd pool=…' to write" in result.err, result.err
    refused(Target().apply(s("a"), *as_user("reader")), 1, "permission")
    # Reading is enough for a look.
    with t.untouched():
        assert t.apply(s("bc"), "--dry-run", *as_user("reader")).code == 0
    # And those of the page suffice for all, a dead client's lock included.
    process = t.start(*as_user("writer"))
    feed(process, s("bc")[:len(s("bc")) // 2], close=False)
    wait_for(lambda: RECEIVING in t.metadata())
    kill(process)
    t.shut_out()
    t.takes(s("bc"), *as_user("writer"))
    s.at(t, "c")
    new = Target()
    new.takes(s("a"), *as_user("writer"))


if __name__ == "__main__":
    main("ceph")
