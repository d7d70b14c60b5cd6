#!/usr/bin/python3
"""What others do to the name of a volume, and to one that has no snapshots yet, while a run is under way or was cut."""
from bed import changed, content, main, refused, same, test, vm
from zvol import Source, Zvol, half_way, images, source, volume


def properties(t):
    """What of a volume is somebody's business: snapshots, and what was set on it."""
    return t.snapshots(checks=True), t.sh("zfs get -H -s local -o property,value all {t}").out


# --- names

@test
def a_volume_renamed_in_its_first_run_leaves_another_of_its_name_alone():
    of, old, new = source(), Zvol("first_renamed"), Zvol("first_renamed_away")
    with half_way(old, of.stream("s1"), code=4) as said:
        old.sh(f"zfs rename {{t}} {new}; zfs create -s -V 3M {{t}}")
        before = properties(old)
    assert "[changed]" in said[0] and "another dataset" in said[0], said
    same(properties(old), before, "the other volume")
    refused(old.sh("zfs-snapmark last {t}", check=False), 4, "not-found")
    # And where it went, it is healed.
    new.nightly(of, "s1")
    new.at(images["s1"])


@test
def a_volume_renamed_in_an_increment_leaves_another_of_its_name_alone():
    of, old = volume("renamed", "s1")
    new = Zvol("renamed_away")
    with half_way(old, of.stream("s2", "s1"), code=4) as said:
        old.sh(f"zfs rename {{t}} {new}; zfs create -s -V 3M {{t}}")
        before = properties(old)
    assert "[changed]" in said[0] and "rolled" not in said[0], said
    same(properties(old), before, "the other volume")
    new.nightly(of, "s2")
    new.at(images["s2"])


@test
def no_checkpoint_is_put_on_another_volume_of_the_name():
    of, old, new = source(), Zvol("paused_renamed"), Zvol("paused_renamed_away")
    with half_way(old, of.stream("s1"), code=3, rest=False) as said:
        old.sh(f"zfs rename {{t}} {new}; zfs create -s -V 3M {{t}}")
        before = properties(old)
    assert "what has arrived is kept" not in said[0], said
    same(properties(old), before, "the other volume")
    same(old.common(of).out, "", "common")
    old.nightly(of, "s1")
    old.at(images["s1"])


@test
def a_link_that_lags_behind_a_rename_is_waited_for():
    """The name leads to another volume's node for a while, and somebody has that."""
    of, old, new = source(), Zvol("lagging"), Zvol("lagging_away")
    with half_way(old, of.stream("s1"), code=4):
        old.sh(f"held=$(readlink -f /dev/zvol/{{t}}); zfs rename {{t}} {new}; sleep 1; ln -sfn $held /dev/zvol/{{t}}")
        old.apply(of.stream("s1"))
    old.at(images["s1"])


# --- nothing below it to go back to

@test
def what_was_received_over_a_cut_first_run_is_foreign():
    of, t, seed = source(), Zvol("reseeded"), Zvol("seed")
    seed.sh("zfs create -s -V 3M {t}")
    seed.write(0, 4096)
    seed.sh("zfs snapshot {t}@seed")
    t.cut(of.stream("s1"))
    seed.sh(f"zfs destroy {t}@%; zfs send {{t}}@seed | zfs recv -F {t}")
    refused(t.nightly(of, "s1", check=False), 4, "foreign")
    same(t.snapshots(), ["seed"], "snapshots")
    t.apply(of.stream("s1"), "--mark --replace")
    t.at(images["s1"])


# --- nothing was ever written to it

def pool(name, ashift):
    vm(f"truncate -s 256M /tmp/{name}; zpool create -o ashift={ashift} -O compression=off -O mountpoint=none {name} /tmp/{name}")


def in_pool(name, leaf):
    t = Zvol(leaf)
    t.name = f"{name}/{leaf}"
    return t


@test
def a_blank_volume_is_taken_whatever_sectors_its_pool_has():
    of = source()
    for ashift in (9, 12, 13):
        pool(f"ashift{ashift}", ashift)
        try:
            blank, written, small, home = (in_pool(f"ashift{ashift}", leaf) for leaf in ("blank", "written", "small", "home"))
            for t in (blank, written, small):
                t.sh(f"zfs create -s -V 3M {'-b 4K' if t is small else ''} {{t}}")
            same((blank.common(of).out, blank.common(of).code), ("", 0), "common of a blank volume")
            written.write(65536, 4096)
            small.write(0, 4096)
            for t in (written, small):
                refused(t.apply(of.stream("s1"), check=False), 4, "foreign")
                refused(t.apply(of.stream("s1"), "--dry-run", check=False), 4, "foreign")
                same(t.snapshots(checks=True), [], "snapshots of what is foreign")
            blank.apply(of.stream("s1"), "--dry-run")
            blank.nightly(of, "s1")
            blank.at(images["s1"])
            home.sh("zfs create {t}")
            same((home.common(of).out, home.common(of).code), ("", 0), "common of a file system in which nothing is")
        finally:
            vm(f"zpool destroy -f ashift{ashift}; rm /tmp/ashift{ashift}")


@test
def a_volume_of_a_run_that_died_before_its_record_is_taken():
    of, t = source(), Zvol("died_early")
    t.sh("zfs create -s -V 3M -o volmode=none -o siphon:hidden=yes {t}")
    guid = t.get("guid")
    t.sh(f"zfs snapshot -o siphon:check='v=1 dataset={guid} run=7' {{t}}@siphon-check-7.0")
    t.nightly(of, "s1")
    t.at(images["s1"])


# --- sizes

@test
def a_sparse_volume_whose_size_was_set_is_what_it_was():
    image = content(1 << 20).replace(b"\0", b"\1") + bytes(1 << 20)
    source("s0")
    of, t = Source("sparse-tail"), Zvol("sparse_tail")
    of.snap("s0", image)
    of.snap("s1", changed(image[:1 << 20], salt=1) + image[1 << 20:])
    t.apply(of.stream("s0"))
    t.sh("zfs set volsize=6M {t}; zpool sync")
    t.at(image)
    t.nightly(of, "s1")
    t.at(of.images["s1"])
    # What lost data by that is not.
    t.sh("zfs set volsize=512K {t}; zfs set volsize=6M {t}; zpool sync")
    refused(t.sh("zfs-snapmark verify {t}", check=False), 5, "differs")
    of.snap("s2", changed(of.images["s1"], salt=2))
    refused(t.nightly(of, "s2", check=False), 4, "written-since")
    t.apply(of.stream("s2", "s1"), "--mark --rollback")
    t.at(of.images["s2"])


# --- properties

@test
def lines_in_a_property_of_a_child_are_nobodys():
    """Who may set properties of a file system below the target could else write marks and records of it."""
    source("s0")
    for kind, make in (("child", "zfs create -o mountpoint=none"), ("volume", "zfs create -s -V 1M")):
        home = Zvol(f"home_{kind}")
        home.sh(f"zfs create -o mountpoint=none {{t}}; {make} {{t}}/joe; zfs snapshot {{t}}@x")
        guid, record = home.get("guid"), f"source={'1' * 32} state={'2' * 32} size=0 digest={'3' * 64}"
        ghost = "".join(f"\n{home}@ghost\t{name}\t{value}\tlocal" for name, value in
                        (("guid", 5), ("createtxg", 99999999), ("creation", 5), ("userrefs", 1), ("siphon:mark", f"v=1 dataset={guid} {record} name=ghost")))
        forged = f"a\tlocal\n{home}@x\tsiphon:mark\tv=1 dataset={guid} {record} name=x\tlocal{ghost}"
        home.sh(f"zfs set siphon:mark=$'{forged.encode('unicode_escape').decode()}' {{t}}/joe")
        home.sh(f"zfs set siphon:receiving=$'a\\tlocal\\n{home}\\tsiphon:receiving\\tv=1 dataset={guid} newest=- stream={'1' * 32} from=- to=-' {{t}}/joe")
        listed = home.sh("zfs-snapmark list {t}").out
        assert "ghost" not in listed and "\tx\n" not in listed, listed
        refused(home.sh("zfs-snapmark last {t}", check=False), 4, "not-found")


if __name__ == "__main__":
    main("zfs")
