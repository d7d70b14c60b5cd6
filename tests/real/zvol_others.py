#!/usr/bin/python3
"""What others do to a target between two runs and in the middle of one: the next nightly run is right or refused, never wrong."""
import json

import bed
from bed import main, refused, run, same, test, vm
from zvol import SIZE, Zvol, images, source, volume


@test
def a_hand_rollback_to_an_older_mark_is_the_older_state():
    of, t = volume("hand", "s1", "s2", "s3")
    t.cut(of.stream("s4", "s3"))
    t.sh("zfs release siphon {t}@s3; zfs rollback -r {t}@s1")
    same(t.common(of).out, "s1\n", "common")
    refused(t.apply(of.stream("s4", "s3"), check=False), 4, "wrong-base")
    t.nightly(of, "s4")
    t.at(images["s4"])
    same(t.snapshots(), ["s1", "s4"], "snapshots")


@test
def a_mark_destroyed_by_hand_is_not_believed_to_be_there():
    of, t = volume("destroyed", "s1", "s2")
    t.sh("zfs release siphon {t}@s2; zfs destroy {t}@s2")
    refused(t.nightly(of, "s3", check=False), 4, "written-since")
    refused(t.apply(of.stream("s3", "s2"), check=False), 4, "wrong-base")
    t.apply(of.stream("s3", "s1"), "--mark --rollback")
    t.at(images["s3"])


@test
def snapshots_of_others_in_mid_receive_are_neither_lost_nor_believed():
    of, t = volume("sanoid", "s1", "s2")
    t.cut(of.stream("s3", "s2")).sh("zfs snapshot {t}@autosnap_hourly")
    for to in ("s4", "s3"):
        refused(t.nightly(of, to, check=False), 4, "foreign-snapshot")
    same(t.snapshots(), ["s1", "s2", "autosnap_hourly"], "snapshots")
    said = t.apply(of.stream("s4", "s2"), "--mark --rollback").err
    assert "autosnap_hourly" in said, said
    t.at(images["s4"])


@test
def snapshots_of_others_above_an_unchanged_mark_are_no_obstacle():
    of, t = volume("above", "s1")
    for to in ("s2", "s3"):
        t.sh("zfs snapshot {t}@auto-" + to)
        t.nightly(of, to)
        t.at(images[to])
    same(t.snapshots(), ["s1", "auto-s2", "s2", "auto-s3", "s3"], "snapshots")


@test
def snapshots_of_others_between_the_marks_go_with_a_roll_back_that_was_asked_for():
    of, t = volume("between", "s1")
    t.sh("zfs snapshot {t}@auto")
    t.nightly(of, "s2")
    t.sh("zfs hold keep {t}@auto")
    before = t.print()
    refused(t.apply(of.stream("s3", "s1"), "--mark --rollback", check=False), 4, "foreign-snapshot")
    same(t.print(), before)
    t.sh("zfs release keep {t}@auto")
    said = t.apply(of.stream("s3", "s1"), "--mark --rollback").err
    assert "auto, s2" in said, said
    t.at(images["s3"])
    same(t.snapshots(), ["s1", "s3"])


@test
def a_hold_of_others_keeps_all_that_would_be_given_up():
    of, t = volume("held_by_others", "s1", "s2", "s3")
    t.sh("zfs hold keep {t}@s2; zfs snapshot {t}@autosnap_daily")
    before = t.print()
    refused(t.apply(of.stream("s4", "s1"), "--mark --rollback", check=False), 4, "foreign-snapshot")
    same(t.print(), before)
    t.sh("zfs release keep {t}@s2")
    # What it goes back to is held before anything is given up: retention that runs meanwhile does not take it.
    t.cut(of.stream("s4", "s1"), options="--mark --rollback")
    same(t.sh("zfs holds -H {t}@s1").out.split()[1:2], ["siphon"], "hold on the mark gone back to")
    t.apply(of.stream("s4", "s1"), "--mark --rollback")
    t.at(images["s4"])
    same(t.snapshots(), ["s1", "s4"])


@test
def a_snapshot_of_others_does_not_hide_a_write():
    of, t = volume("hidden", "s1")
    t.write(4096, 512)
    t.sh("zfs snapshot {t}@auto")
    refused(t.nightly(of, "s2", check=False), 4, "written-since")
    same(t.snapshots(), ["s1", "auto"], "snapshots")
    same(t.sh("zfs-snapmark verify {t}", check=False).code, 5, "verify")


@test
def what_others_wrote_into_an_unfinished_run_does_not_stay():
    of, t = volume("meddled", "s1")
    t.cut(of.stream("s2", "s1"), 0.5)
    for offset in (0, SIZE // 2 // 4096 * 4096, SIZE // 4096 * 4096):
        t.write(offset, 4096)
    t.apply(of.stream("s2", "s1"))
    t.at(images["s2"])


@test
def a_replica_on_a_new_pool_is_foreign_there():
    of, t = volume("replica", "s1", "s2")
    t.cut(of.stream("s3", "s2"))
    vm(f"zpool create elsewhere /dev/ubdb; zfs snapshot {t}@move; zfs send -R {t}@move | zfs recv -F elsewhere/replica")
    other = Zvol("replica")
    other.name = "elsewhere/replica"
    assert "siphon" in other.sh("zfs get -H -t snapshot -s received siphon:mark -r {t}").out, "properties did not travel"
    refused(other.nightly(of, "s4", check=False), 4, "foreign")
    same(other.sh("zfs-snapmark list {t} | wc -l").out.strip(), "1", "marks of a replica")
    other.apply(of.stream("s4"), "--mark --replace")
    other.at(images["s4"])
    vm("zpool destroy elsewhere")


@test
def clones_and_promoted_clones_are_not_the_target():
    of, t = volume("origin", "s1", "s2")
    clone = Zvol("clone")
    t.sh(f"zfs clone {{t}}@s2 {clone}")
    refused(clone.nightly(of, "s3", check=False), 4, "foreign")
    t.nightly(of, "s3")
    t.at(images["s3"])
    clone.sh("zfs promote {t}")
    same(clone.snapshots(), ["s1", "s2"], "snapshots of the promoted clone")
    refused(clone.nightly(of, "s4", check=False), 4, "foreign")
    t.nightly(of, "s4")
    t.at(images["s4"])


@test
def a_renamed_volume_goes_on():
    of, t = volume("before", "s1")
    after, later = Zvol("after"), Zvol("later")
    t.sh(f"zfs rename {{t}} {after}")
    t = after
    t.nightly(of, "s2")
    t.at(images["s2"])
    t.cut(of.stream("s3", "s2")).sh(f"zfs rename {{t}} {later}")
    t = later
    t.nightly(of, "s4")
    t.at(images["s4"])


@test
def inherited_properties_are_not_believed():
    source("s0")
    family = Zvol("family")
    family.sh("zfs create {t}")
    of, t = volume("family/child", "s1", "s2")
    mark = t.sh("zfs get -Hp -o value siphon:mark {t}@s2").out.strip()
    guid, newest = t.get("guid"), t.sh("zfs get -Hp -o value guid {t}@s2").out.strip()
    t.sh("zfs snapshot {t}@auto")
    # Of the parent, and of the volume itself, whose snapshots inherit it.
    run_record = f"v=1 dataset={guid} newest={newest} stream={'1' * 32} from={'2' * 32} to={'3' * 32}"
    t.sh(f"zfs set 'siphon:receiving={run_record}' siphon:hidden=yes {family}; zfs set 'siphon:mark={mark}' {{t}}")
    assert t.sh("zfs get -H -o source siphon:mark {t}@auto").out.startswith("inherited"), "not inherited"
    same(t.sh("zfs-snapmark list {t} | cut -f4 | sed '$d'").out.split(), ["s1", "s2"], "marks")
    t.sh("zfs-snapmark verify {t}")
    t.write(0, 512)
    refused(t.nightly(of, "s3", check=False), 4, "written-since")
    same(t.snapshots(), ["s1", "s2", "auto"], "snapshots")
    t.apply(of.stream("s3", "s2"), "--mark --rollback")
    t.at(images["s3"])


@test
def a_snapshot_made_anew_under_its_old_name_is_another_state():
    of, t = volume("anew", "s1", "s2")
    of.snap("s2", images["s3"])
    refused(t.nightly(of, "s2", check=False), 4, "wrong-base")
    t.at(images["s2"])
    t.apply(of.stream("s2", "s1"), "--mark --rollback")
    t.at(images["s3"], "s2")
    of.snap("s1", images["s4"])
    t.nightly(of, "s1")
    names = t.snapshots()
    assert names[:2] == ["s1", "s2"] and names[2].startswith("s1."), names
    t.at(images["s4"])
    of.snap("s5", images["s5"])
    t.nightly(of, "s5")
    t.at(images["s5"])


@test
def a_name_taken_by_others_is_gone_round():
    of, t = volume("taken", "s1")
    pending = "siphon-pending-" + json.loads(run(f"{bed.options.bin}/extent-inspect --json {of.stream('s2', 's1')} | head -1").out)["stream"][:8]
    t.sh("zfs snapshot {t}@s2; zfs snapshot {t}@" + pending)
    t.nightly(of, "s2")
    t.at(images["s2"])
    assert {"s1", "s2", pending} < set(t.snapshots()) and len(t.snapshots()) == 4, t.snapshots()
    t.nightly(of, "s3")
    t.at(images["s3"], "s3")


@test
def a_check_snapshot_left_by_a_killed_run_is_no_obstacle():
    of, t = volume("checked", "s1")
    t.sh("zfs snapshot -o siphon:check=\"v=1 dataset=$(zfs get -Hp -o value guid {t}) run=7\" {t}@siphon-check-7.0")
    t.sh("zfs-snapmark verify {t}")
    t.cut(of.stream("s2", "s1"))
    t.nightly(of, "s3")
    t.at(images["s3"])
    same(t.snapshots(), ["s1", "s3"], "snapshots")
    t.sh("zfs snapshot -o siphon:check=\"v=1 dataset=$(zfs get -Hp -o value guid {t}) run=7\" {t}@siphon-check-7.0")
    assert '"already":true' in t.nightly(of, "s3").out
    same(t.snapshots(checks=True), ["s1", "s3"], "snapshots")


@test
def what_is_written_after_a_roll_back_by_hand_of_a_part_of_a_night_is_not_given_up():
    """To the newest mark, which is what the record of that night is bound to."""
    of, t = volume("rolled_cut", "s1")
    t.cut(of.stream("s2", "s1"))
    # Nobody goes back unwarned: zfs names what is above.
    assert "more recent snapshots" in t.sh("zfs rollback {t}@s1", check=False).err
    t.sh("zfs rollback -r {t}@s1")
    t.write(65536, 4096)
    same(t.sh("zfs-snapmark verify {t}", check=False).code, 5, "verify")
    refused(t.nightly(of, "s3", check=False), 4, "written-since")
    same(t.snapshots(checks=True), ["s1"], "snapshots")
    t.apply(of.stream("s3", "s1"), "--mark --rollback")
    t.at(images["s3"])
    # Where nothing was written, there is nothing to be asked.
    t.cut(of.stream("s4", "s3"))
    t.sh("zfs rollback -r {t}@s3; zfs-snapmark verify {t}")
    t.nightly(of, "s4")
    t.at(images["s4"])


if __name__ == "__main__":
    main("zfs")
