#!/usr/bin/python3
"""rbd-diff-stream on a real Ceph cluster: every stream is what the snapshot holds, and what cannot be sent right has no END.

usage: tests/real/rbd_source.py [--full] [--only WORD]... [--seed N] [--bin DIR]
"""
import json
import os
import struct
import subprocess
import tempfile
import time

import bed
from bed import main
from rbd_images import DATA, POOL, RNG, Cut, Img, MiB, apply, frames, life, pools, refused, run, test, tool

import rbd  # behind rbd_images, which sees to the python that has it


@test
def whole_and_increments_are_equal():
    life(Img(24 * MiB)).all()


@test
def odd_sizes_are_exact():
    image = Img(10_485_761)
    image.noise(10_485_700, 61)
    image.snap("a")
    image.noise(10_485_760, 1)
    image.snap("b")
    image.i.discard(8 * MiB, 10_485_761 - 8 * MiB)
    image.snap("c").all()
    life(Img(10_485_761)).all()
    life(Img(4095)).all()
    Img(0).snap("nothing").all()


@test
def discards_across_object_edges_and_small_writes():
    image = Img(16 * MiB)
    image.noise(0, 16 * MiB)
    image.snap("full")
    image.i.discard(3000 << 10, 2000 << 10)
    image.snap("edge")
    image.i.discard(8 * MiB, 4 * MiB)
    image.snap("object")
    image.noise(5_000_001, 100)
    image.snap("hundred")
    image.all()
    assert image.step("full", "edge")[0]["free"] > 0
    seen = image.step("edge", "object")[0]
    assert seen["free"] == seen["zero"] == 4 * MiB and seen["data"] == 0, seen
    seen = image.step("object", "hundred")[0]
    assert seen["extents"] == [(5_000_001 // 4096 * 4096, 4096, False)], seen


@test
def rewritten_by_512_bytes_is_sent_once_a_grain():
    image = Img(8 * MiB)
    image.noise(0, 8 * MiB)
    image.snap("a")
    for block in range(0, 64):
        image.noise(block * 8192 + 512, 512)
        image.noise(block * 8192 + 2048, 512)
    image.snap("b")
    assert image.step("a", "b")[0]["data"] == 64 * 4096


@test
def shrink_and_regrow_and_growth():
    image = Img(20 * MiB)
    image.noise(0, 20 * MiB)
    image.snap("full")
    image.i.resize(9 * MiB + 12345)
    image.i.resize(20 * MiB)
    image.snap("regrown")
    image.noise(18 * MiB, 5000)
    image.i.resize(5 * MiB + 1)
    image.snap("small")
    image.i.resize(30 * MiB + 7)
    image.noise(30 * MiB, 7)
    image.snap("large")
    image.i.resize(3 * MiB)
    image.i.resize(40 * MiB)
    image.snap("huge")
    image.all()


@test
def random_histories_are_equal():
    """Small objects, many resizes, snapshots removed: where object maps of old librbd went wrong."""
    told, sample, full = 0, 12, 200
    for history in range(full if bed.options.full else sample):
        image = Img(RNG.randrange(1, 1 << 20), order=16)
        for step in range(RNG.randrange(3, 7)):
            for _ in range(RNG.randrange(5)):
                size = image.i.size()
                what = RNG.randrange(6)
                if what == 0 or not size:
                    image.i.resize(RNG.choice([RNG.randrange(1 << 20), 65536 * RNG.randrange(17)]))
                    continue
                at = RNG.randrange(size)
                room = min(RNG.choice([1, 4096, 65536, 300_000]), size - at)
                if what == 1:
                    image.i.discard(at, room)
                elif what == 2:
                    image.i.write_zeroes(at, room)
                elif what == 3 and image.contents:
                    image.i.rollback_to_snap(RNG.choice(sorted(image.contents)))
                    image.rolled_back = True
                else:
                    image.noise(at, room)
            image.snap(f"s{step}")
            if RNG.randrange(4) == 0:
                gone = RNG.choice(sorted(image.contents))
                image.i.remove_snap(gone)
                del image.contents[gone]
        names = sorted(image.contents)
        for at, name in enumerate(names):
            image.whole(name)
            for later in names[at + 1:]:
                try:
                    image.step(name, later)
                    if not image.rolled_back:
                        told += "shrunk" in image.step(name, later, "--trust-map")[2]
                except AssertionError:
                    print("    history", history, image.name, [(s["name"], s["size"]) for s in image.i.list_snaps()])
                    raise
        image.remove()
    print(f"    {full if bed.options.full else sample} of {full} histories; maps distrusted after a shrink in {told} increments")


@test
def an_image_can_grow_from_and_shrink_to_nothing():
    image = Img(0)
    image.snap("a")
    image.i.resize(5 * MiB)
    image.snap("b")
    image.noise(MiB, MiB)
    image.snap("c")
    image.i.resize(0)
    image.snap("d")
    image.i.resize(9 * MiB)
    image.snap("e").all()


@test
def from_equal_to_is_an_empty_increment():
    image = Img(8 * MiB)
    image.noise(0, MiB)
    image.snap("a")
    seen = image.step("a", "a")[0]
    assert seen["extents"] == [] and seen["ids"][1] == seen["ids"][2] != bytes(16)


@test
def clones_show_their_parents():
    for flatten in (False, True) if bed.options.full else (True,):
        parent = Img(20 * MiB)
        parent.noise(0, 9 * MiB)
        parent.noise(13 * MiB + 77, 1000)
        parent.snap("base")
        parent.i.protect_snap("base")
        rbd.RBD().clone(parent.io, parent.name, "base", parent.io, "clone%d" % flatten,
                        features=rbd.RBD_FEATURE_LAYERING | 60)
        clone = Img(open_only="clone%d" % flatten)
        clone.snap("untouched")
        life(clone, 3)
        clone.i.discard(4 * MiB, 4 * MiB)
        clone.snap("discarded")
        clone.i.resize(6 * MiB + 100)
        clone.i.resize(24 * MiB)
        clone.snap("regrown")
        # rolled back to before an object was written: the parent shows through again, and librbd reports a removal
        clone.i.rollback_to_snap("untouched")
        clone.rolled_back = True
        clone.snap("back")
        if flatten:
            clone.i.flatten()
            clone.snap("flat")
            clone.noise(0, 100)
            clone.snap("last")
        clone.all()
        # a clone of the clone
        clone.i.protect_snap("back")
        rbd.RBD().clone(clone.io, clone.name, "back", clone.io, "grandchild%d" % flatten,
                        features=rbd.RBD_FEATURE_LAYERING | 60)
        life(Img(open_only="grandchild%d" % flatten), 2).all()


@test
def striped_images():
    for unit, count, size in ((64 << 10, 8, 70 * MiB), (4096, 3, 22 * MiB)):
        image = Img(size + 3, order=22, stripe_unit=unit, stripe_count=count, features=rbd.RBD_FEATURE_STRIPINGV2 | 61)
        life(image, 3)
        image.i.resize(size // 2 - 2 * MiB)
        image.i.resize(size)
        image.snap("regrown").all()
    plain = Img(40 * MiB, order=20, stripe_unit=16384, stripe_count=5, features=rbd.RBD_FEATURE_STRIPINGV2 | 1)
    assert "no fast-diff" in life(plain, 2).all().step("s0", "s1", "--trust-map")[2]


@test
def namespaces_data_pools_and_object_sizes():
    try:
        rbd.RBD().namespace_create(pools().open_ioctx(POOL), "tenant")
    except rbd.ImageExists:
        pass
    life(Img(12 * MiB, ns="tenant"), 2).all()
    life(Img(12 * MiB, data_pool=DATA), 2).all()
    life(Img(12 * MiB, order=16), 2).all()
    life(Img(70 * MiB, order=25), 2).all()


@test
def what_a_roll_back_changed_is_not_lost():
    # The map of `later` is that of `quiet`, where nothing was written, and calls all objects clean.
    image = Img(7 * 65536, order=16)
    image.noise(0, 7 * 65536)
    image.snap("first").snap("quiet")
    image.noise(6 * 65536, 4096)
    image.snap("written")
    image.i.rollback_to_snap("quiet")
    image.rolled_back = True
    image.snap("later").all()
    assert image.contents["written"] != image.contents["later"]


@test
def maps_marked_invalid_are_not_believed():
    image = life(Img(24 * MiB), 4)
    ids = image.ids()
    for bad in ("s0", "s1", "s2", "s3"):
        def mark(on):
            image.io.execute("rbd_header." + image.i.id(), "rbd", "set_flags", struct.pack("<QQQ", on, 3, ids[bad]))
        good = image.step("s0", "s3", "--trust-map")
        assert "note:" not in good[2]
        mark(RNG.choice([1, 2, 3]))
        assert "note:" in image.whole("s3")[2]
        _, stream, err = image.step("s0", "s3", "--trust-map")
        assert f"snapshot {bad} is marked as invalid" in err and stream == good[1], err
        assert ("note:" in image.step("s1", "s2", "--trust-map")[2]) == (bad in ("s1", "s2"))
        mark(0)


@test
def a_deleted_snapshot_in_between_changes_nothing():
    image = life(Img(24 * MiB), 5)
    streams = [image.step("s0", "s4")[1], image.whole("s4")[1]]
    for gone in ("s1", "s3", "s2"):
        image.i.remove_snap(gone)
        assert [image.step("s0", "s4")[1], image.whole("s4")[1]] == streams


@test
def states_are_sealed_and_oldest_first():
    image = Img(4 * MiB)
    out, _ = run("--states", image.path)
    assert out.startswith(b"#end\t0\t"), out
    image.snap("b")
    image.i.resize(5 * MiB)
    image.snap("a odd%name")
    before = run("--states", image.path)[0].decode()
    lines = [line.split("\t") for line in before.splitlines()]
    assert [line[3] for line in lines[:-1]] == ["b", "a%20odd%25name"] and lines[-1][:2] == ["#end", "2"]
    assert [line[2] for line in lines[:-1]] == [str(4 * MiB), str(5 * MiB)]
    assert abs(int(lines[0][1]) - time.time()) < 600
    seen = image.whole("a odd%name")[0]
    assert seen["ids"][2].hex() == lines[1][0]
    # names are no part of an identity
    stream = run("--from", "b", image.at("a odd%name"))[0]
    image.i.rename_snap("b", "c")
    image.i.close()
    rbd.RBD().rename(image.io, image.name, "renamed")
    image = Img(open_only="renamed")
    after = run("--states", image.path)[0].decode()
    assert [line.split("\t")[0] for line in after.splitlines()[:2]] == [line[0] for line in lines[:2]]
    assert apply(run("--from", "c", image.at("a odd%name"))[0], bytes(4 * MiB))[1]["ids"] == apply(stream, bytes(4 * MiB))[1]["ids"]


@test
def refusals_have_names():
    image = Img(8 * MiB)
    image.noise(0, MiB)
    image.snap("a")
    image.snap("b")
    assert "name a snapshot" in refused("usage", image.path, rc=2)
    assert "one state" in refused("usage", "--states", image.at("a"), rc=2)
    refused("not-found", image.at("none"))
    refused("not-found", "--from", "none", image.at("b"))
    refused("not-found", f"{POOL}/none@a")
    refused("not-found", f"{POOL}/no-namespace/none@a")
    refused("not-found", "no-such-pool/none@a")
    assert "newer" in refused("wrong-base", "--from", "b", image.at("a"))
    for bad in ("", "x", "x@y", "/x@y", "a/b/c/d@e", "a/b@", "a/b@c@d"):
        run(bad, rc=2)
    run("--from", "a", "--states", image.path, rc=2)
    run("-j", "0", image.at("a"), rc=2)
    refused("usage", "--conf", "/nonexistent", image.at("a"), rc=2)
    refused("permission", "--id", "nobody", image.at("a"), rc=1)
    # groups
    rbd.RBD().group_create(image.io, "group")
    group = rbd.Group(image.io, "group")
    group.add_image(image.io, image.name)
    group.create_snap("g")
    name = [snap["name"] for snap in image.i.list_snaps() if snap["namespace"] == 1][0]
    image.snap("c")
    assert "group" in refused("unsupported", "--from", name, image.at("c"))
    assert "group" in refused("unsupported", image.at(name))
    assert run("--states", image.path)[0].count(b"\n") == 4, "a b c and #end"
    image.step("b", "c")
    # trash: a snapshot that still has a clone, then an image
    subprocess.run(["rbd", "clone", "--rbd-default-clone-format", "2", image.at("b"), f"{POOL}/child"], check=True)
    image.i.remove_snap("b")
    name = [snap["name"] for snap in image.i.list_snaps() if snap["namespace"] == 2][0]
    refused("unsupported", image.at(name))
    kid = Img(open_only="child")
    kid.noise(5 * MiB, 100)
    kid.snap("k").whole("k")
    old = Img(MiB).snap("s")
    old.i.close()
    rbd.RBD().trash_move(old.io, old.name)
    assert "trash restore" in refused("unsupported", old.at("s"))
    # migration
    moving = Img(MiB).snap("s")
    moving.i.close()
    rbd.RBD().migration_prepare(moving.io, moving.name, moving.io, "moved")
    assert "migration" in refused("unsupported", f"{POOL}/moved@s")
    rbd.RBD().migration_abort(moving.io, "moved")
    # mirroring
    rbd.RBD().mirror_mode_set(image.io, rbd.RBD_MIRROR_MODE_IMAGE)
    rbd.RBD().mirror_peer_add(image.io, "elsewhere", "client.mirror")
    mirrored = Img(MiB).snap("s")
    mirrored.i.mirror_image_enable(rbd.RBD_MIRROR_IMAGE_MODE_SNAPSHOT)
    mirrored.i.mirror_image_create_snapshot()
    name = [snap["name"] for snap in mirrored.i.list_snaps() if snap["namespace"] == 3][0]
    refused("unsupported", mirrored.at(name))
    mirrored.whole("s")
    mirrored.i.mirror_image_demote()
    assert "mirror" in refused("unsupported", mirrored.at("s"))
    mirrored.i.mirror_image_promote(False)
    mirrored.i.mirror_image_disable(False)


@test
def without_librbd_it_says_what_to_install():
    with tempfile.TemporaryDirectory() as folder:
        for library in ("librbd.so.1", "librados.so.2"):
            # The first of that name that the loader finds is no library.
            empty = os.path.join(folder, library)
            open(empty, "w").close()
            env = {**os.environ, "LD_LIBRARY_PATH": folder}
            done = subprocess.run([tool(), "rbd/x@y"], capture_output=True, env=env)
            assert done.returncode == 2 and b"librbd1" in done.stderr and b"[usage]" in done.stderr, done
            done = subprocess.run([tool(), "--help"], capture_output=True, env=env)
            assert done.returncode == 0
            os.unlink(empty)


def slow_read(image, args, k, meanwhile):
    """Reads k bytes, does something meanwhile, reads the rest."""
    reader = subprocess.Popen([tool(), *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    stream = reader.stdout.read(k)
    meanwhile()
    stream += reader.stdout.read()
    err = reader.stderr.read().decode()
    return stream, reader.wait(), err


def never_sealed(stream, rc, err, k):
    try:
        list(frames(stream))
    except Cut:
        assert rc == 4 and "[vanished]" in err, (k, rc, err)
        return
    raise AssertionError(f"sealed in spite of a removal at byte {k}")


@test
def what_is_removed_while_it_is_read_is_never_sealed():
    size = 24 * MiB
    step = size // (40 if bed.options.full else 10)
    fired = 0
    # The look at the end comes when all was read and 1 MiB, a pipe and a frame are still to be written.
    for at, k in enumerate([1, 3000, *range(step, size - 3 * MiB, step), size - 3 * MiB]):
        for what in ("snapshot", "image"):
            image = Img(size)
            image.noise(0, size)
            image.i.create_snap("s")
            def gone():
                if what == "snapshot":
                    image.i.remove_snap("s")
                else:
                    image.remove()
            never_sealed(*slow_read(image, ["-j", ("8", "64")[at % 2], image.at("s")], k, gone), k)
            fired += 1
    # the base of an increment; a snapshot made anew under the old name; a parent's snapshot cannot go
    for again in (False, True):
        image = Img(size)
        image.i.create_snap("a")
        image.noise(0, size)
        image.i.create_snap("b")
        def base():
            image.i.remove_snap("a")
            if again:
                image.i.create_snap("a")
        never_sealed(*slow_read(image, ["--from", "a", image.at("b")], MiB, base), "base")
        image.i.create_snap("c")
        def both():
            image.i.remove_snap("c")
            image.i.create_snap("c")
        never_sealed(*slow_read(image, [image.at("c")], MiB, both), "made anew")
        fired += 2
    # With the pipe as long as what is left, this comes before the look or after it: no seal, or one on what is right.
    image = Img(size)
    image.noise(0, size)
    image.snap("s")
    stream, rc, err = slow_read(image, [image.at("s")], size - MiB, image.remove)
    if rc == 0:
        assert apply(stream)[0] == image.contents["s"], err
    else:
        never_sealed(stream, rc, err, size - MiB)
    print(f"    removals fired {fired} of {fired}")


@test
def harmless_changes_while_it_is_read_do_no_harm():
    size = 24 * MiB
    image = Img(size)
    image.noise(0, size)
    image.snap("a")
    def busy():
        image.noise(0, size)
        image.i.resize(30 * MiB)
        image.i.create_snap("later")
        image.i.rename_snap("a", "renamed")
        image.i.close()
        rbd.RBD().rename(image.io, image.name, "elsewhere")
    stream, rc, err = slow_read(image, [image.at("a")], MiB, busy)
    assert rc == 0 and apply(stream)[0] == image.contents["a"], err


@test
def a_flattened_clone_is_not_sealed():
    parent = Img(24 * MiB)
    parent.noise(0, 24 * MiB)
    parent.i.create_snap("p")
    parent.i.protect_snap("p")
    rbd.RBD().clone(parent.io, parent.name, "p", parent.io, "flattened", features=61)
    clone = Img(open_only="flattened")
    clone.i.create_snap("s")
    def flatten():
        clone.i.flatten()
        parent.i.unprotect_snap("p")
        parent.remove()
    stream, rc, err = slow_read(clone, [clone.at("s")], MiB, flatten)
    assert rc == 4 and ("[changed]" in err or "[vanished]" in err), err
    try:
        list(frames(stream))
        raise AssertionError("sealed")
    except Cut:
        pass


@test
def a_reader_that_goes_away_is_silent():
    image = Img(64 * MiB)
    image.noise(0, 64 * MiB)
    image.i.create_snap("s")
    # Many times: an exit that runs librados's destructors under its threads crashes one time in ten.
    for k in [0, 1, 100_000, 30 * MiB, 60 * MiB] * 5:
        cut = subprocess.Popen([tool(), image.at("s")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        cut.stdout.read(k)
        cut.stdout.close()
        err = cut.stderr.read()
        assert cut.wait(timeout=20) == 1 and err == b"", (cut.returncode, err)


@test
def receipts_follow_the_seal():
    image = Img(4 * MiB)
    image.noise(0, 4 * MiB)
    image.snap("a")
    path = f"/tmp/siphon-receipt.{os.getpid()}"
    run("--receipt", path, image.at("a"))
    receipt = json.load(open(path))
    os.unlink(path)
    assert receipt["size"] == receipt["data_bytes"] == 4 * MiB and receipt["to"], receipt
    subprocess.run([tool(), "--receipt", path, image.at("none")], capture_output=True)
    assert not os.path.exists(path)


if __name__ == "__main__":
    # Other histories each time; a seed makes them come back.
    bed.seed = int(time.time())
    main("ceph")
