"""Nights that go wrong: part of forty.py. Each ends right, or refused with its class and healed by the step of the page."""
import os
import time
from pathlib import Path

import bed
from bed import ROOT, run, same, test
from forty_lab import MEANT, MiB, Machine, Nas, block, fleet, wait_for

# An ssh that sends SENT bytes of a stream and then no more, until the file GO tells it to die.
STALLS = """#!/bin/bash
case "$*" in *zvol-apply*"$STALLED"*) ;; *) exec ssh "$@" ;; esac
mkfifo "$HOME/stall.$$"
ssh -o ControlPath=none "$@" <"$HOME/stall.$$" &
exec 7>"$HOME/stall.$$"
rm "$HOME/stall.$$"
head -c "$SENT" >&7
touch "$HOME/stalled"
until [ -e "$HOME/go" ]; do sleep 0.1; done
kill -9 $!
wait $! 2>/dev/null
exit 255
"""
PLANNED, FIRED = [], []  # the names of all bad nights, and of those that came to their end


def bad(*numbers, in_short_run=True):
    """Marks a bad night, and which machines it is about. It runs for these and for others, twelve in all; in a short run, which has
    a sample of these nights, for one other. A night that is about the NAS runs for all."""
    def mark(function):
        PLANNED.append(function.__name__)

        def night():
            if not (bed.options.full or in_short_run or bed.options.only):
                raise bed.Skipped("a sample without --full")
            of = fleet()
            about = [of.machines[number] for number in numbers]
            others = [each for each in of.machines if each not in about]
            of.scope = [*about, *others[:12 - len(about) if bed.options.full else 1]] if about else None
            function(of, *about)
            FIRED.append(function.__name__)
        night.__name__ = function.__name__
        return test(night)
    return mark


def refused_night(of, machine, word, code, options=""):
    """All images but this one, or these, end well; it is refused with this class. The NAS is as it was for it."""
    machines = machine if isinstance(machine, list) else [machine]
    targets = " ".join(each.target for each in machines)
    look = f"zfs list -Hpt snapshot -o name,guid -d 1 {targets}"
    before, snapshots = of.nas.sh(look).out, [each.snapshots() for each in machines]
    result = of.night(options, check=False)
    names = [each.name for each in machines]
    for name, line in result.images.items():
        if name in names:
            same((line["class"], line["exit"]), (word, code), f"{name}\n{result}")
        else:
            assert line["exit"] == 0, f"{name}: {line}\n{result}"
    assert all(f"FAILED   {name}  [{word}] exit {code}" in result.out for name in names), result
    same(of.nas.sh(look).out, before, "snapshots of the refused")
    if word != "io":
        # A night that is refused leaves no snapshot behind.
        same([each.snapshots() for each in machines], snapshots, "RBD snapshots of the refused")
    assert result.code >= code, result
    return result


def healed(of, machine, *hows, options=""):
    """The next night is right for all; the machine got there as one of these."""
    of.days()
    result = of.night(options)
    machines = machine if isinstance(machine, list) else [machine]
    for each in machines:
        assert result.images[each.name]["how"] in hows, f"{each.name}: {result.images[each.name]}\n{result}"
    same(result.totals["failed"], 0, f"failed\n{result}")
    of.equal(sums=1 if bed.options.full else 0)
    return result


def stalled_night(of, machine):
    """A night that stands still in the midst of one image, which is receiving; gives the process."""
    home = of.sender.home / "home/siphon"
    script = of.sender.home / "bin/ssh-that-stalls"
    script.write_text(STALLS)
    script.chmod(0o755)
    for name in ("go", "stalled"):
        (home / name).unlink(missing_ok=True)
    of.days()
    machine.noise(0, 24 * MiB)
    before = (home / "record").stat().st_size
    run_ = of.sender.begin(of.command(), SIPHON_SSH="ssh-that-stalls", STALLED=machine.target, SENT=str(9 * MiB))
    wait_for(lambda: (home / "stalled").exists() or run_.poll() is not None, 120)
    wait_for(lambda: of.nas.sh(f"zfs get -Hpo value siphon:receiving {machine.target}").out.strip() != "-", 30, "it is not receiving")
    return run_, before


def end_of(of, run_, before):
    (of.sender.home / "home/siphon/go").touch()
    out, err = run_.communicate(timeout=300)
    of.nights += 1
    return of.heard(bed.Result("the night that stalled", run_.returncode, out, err), before)


@bad(3)
def ssh_dead_in_the_middle_goes_on_by_itself(of, machine):
    result = end_of(of, *stalled_night(of, machine))
    line = result.images[machine.name]
    same((line["class"], line["exit"], line["held"], result.code), ("io", 1, "maybe", 1), str(result))
    # The other end learns of it when it reads on.
    healed(of, machine, "resumed", "increment")


@bad(2)
def a_nas_that_restarts_in_the_middle_goes_on_by_itself(of, machine):
    run_, before = stalled_night(of, machine)
    of.nas.reset(of.sender)
    result = end_of(of, run_, before)
    same(result.images[machine.name]["class"], "io", str(result))
    healed(of, machine, "resumed", "increment")


@bad(1, in_short_run=False)
def somebodys_snapshot_in_the_way_is_refused_and_stays(of, machine):
    """It lies above the newest mark when a transfer is cut, so that there is no way back but over it."""
    of.nas.sh(f"zfs snapshot {machine.target}@autosnap_hourly")
    guid = of.nas.sh(f"zfs get -Hpo value guid {machine.target}@autosnap_hourly").out.strip()
    of.foreign["zfs", guid] = f"{machine.target}@autosnap_hourly"
    end_of(of, *stalled_night(of, machine))
    refused_night(of, machine, "foreign-snapshot", 4)
    of.nas.sh("set -e\n" + block("in-the-way").replace(f"{MEANT}/vm1", machine.target))
    healed(of, machine, "increment")


@bad(2, in_short_run=False)
def a_full_pool_is_no_space_and_goes_on(of, machine):
    of.days()
    machine.noise(0, 48 * MiB)
    left = int(of.nas.sh(f"zfs get -Hpo value available {of.nas.pool}").out)
    of.nas.sh(f"zfs set reservation={left - 24 * MiB} {of.nas.pool}/other")
    try:
        result = of.night(check=False)
    finally:
        of.nas.sh(f"zfs set reservation=none {of.nas.pool}/other")
    line = result.images[machine.name]
    same((line["class"], line["exit"]), ("no-space", 1), str(result))
    failed = {name: line["class"] for name, line in result.images.items() if line["exit"]}
    same(set(failed.values()), {"no-space"}, f"{failed}\n{result}")
    healed(of, machine, "resumed", "increment")


@bad(5, 0)
def a_base_removed_on_the_source_is_no_common_and_resyncs(of, gone, older):
    for name in gone.ours():
        run(f"rbd snap rm --no-progress {gone.path}@{name}")
    run(f"rbd snap rm --no-progress {older.path}@{older.ours()[-1]}")
    of.days()
    result = of.night(check=False)
    same({name: line["class"] for name, line in result.images.items() if line["exit"]}, {gone.name: "no-common", older.name: "wrong-base"}, str(result))
    same(result.code, 4, "exit code")
    marks = {each.name: of.nas.sh(f"zfs-snapmark list {each.target}").out.splitlines()[:-1] for each in (gone, older)}
    of.sender.sh(of.typed(block("resync")), user="siphon")
    of.equal(sums=0)
    for each in (gone, older):
        now = of.nas.sh(f"zfs-snapmark list {each.target}").out.splitlines()[:-1]
        same((now[:-1], len(now)), (marks[each.name], len(marks[each.name]) + 1), f"marks of {each.name}")
    result = healed(of, [gone, older], "increment")


@bad(1)
def a_base_mark_destroyed_on_the_target_is_written_since(of, machine):
    of.nas.sh(f"m=$(zfs-snapmark last {machine.target}); zfs release siphon $m; zfs destroy $m")
    of.days()
    refused_night(of, machine, "written-since", 4)
    of.nas.sh("set -e\n" + block("mark-gone").replace(f"{MEANT}/vm1", machine.target))
    healed(of, machine, "increment")


@bad(2, in_short_run=False)
def a_target_rolled_back_by_hand_goes_on_by_itself(of, machine):
    marks = of.nas.sh(f"zfs-snapmark list {machine.target}").out.splitlines()[:-1]
    older = marks[-2].split("\t")[3]
    of.nas.sh(f"m=$(zfs-snapmark last {machine.target}); zfs release siphon $m; zfs rollback -r {machine.target}@{older}")
    result = healed(of, machine, "increment")
    same(result.images[machine.name]["from"], older, "base")


@bad(6, in_short_run=False)
def a_resized_image_is_equal(of, machine):
    for size in (5 * MiB + 12345, 300 * MiB + 1):
        with machine.open() as image:
            image.resize(size)
        healed(of, machine, "increment")


@bad(3)
def a_renamed_image_keeps_its_history_by_a_rename(of, machine):
    old, marks = machine.name, of.nas.sh(f"zfs-snapmark list {machine.target}").out.splitlines()[:-1]
    was = machine.target
    of.night()  # the last one before it, with this image in the record
    of.rename(machine, "web")
    result = of.night()
    same(result.images["web"]["how"], "new", str(result))
    assert f"rbd/{old}: note: no longer in the pool; its volume {was} stays" in result.err, result
    of.nas.sh("set -e\n" + block("renamed").replace(f"{MEANT}/vm1", was).replace(MEANT, of.place))
    result = healed(of, machine, "increment")
    assert "no longer in the pool" not in result.err, result
    same(of.nas.sh(f"zfs-snapmark list {machine.target}").out.splitlines()[:len(marks)], marks, "marks")
    of.nas.sh(f"zfs release siphon $(zfs list -Ht snapshot -o name -s createtxg -d 1 {machine.target}-new | tail -n 1); zfs destroy -r {machine.target}-new")


@bad(4, in_short_run=False)
def an_image_made_anew_under_its_name_is_no_common_and_resyncs(of, machine):
    with machine.open() as image:
        for snap in list(image.list_snaps()):
            image.remove_snap(snap["name"])
    of.rbd.RBD().remove(of.pool, machine.name)
    for key in [key for key in of.foreign if key[:2] == ("rbd", machine.name)]:
        del of.foreign[key]  # gone with the image: the test's own doing
    machine.create(90 * MiB + 5, 8 * MiB)
    of.days()
    refused_night(of, machine, "no-common", 4)
    healed(of, machine, "resync", options="--resync")


@bad(5)
def of_two_runs_at_once_one_is_busy(of, machine):
    run_, before = stalled_night(of, machine)
    result = of.sender.sh(of.command(), user="siphon", check=False)
    assert result.code == 6 and "[busy]" in result.err and not result.out, result
    one = of.sender.sh(f"rbd-to-zvol --id siphon {machine.path} nas {machine.target}", user="siphon", check=False)
    assert one.code == 6 and "[busy]" in one.err, one
    end_of(of, run_, before)
    healed(of, machine, "resumed", "increment")


@bad(in_short_run=False)
def a_clock_set_back_is_no_matter(of):
    """`date` on the Ceph side says a year ago; then the NAS's clock, too."""
    date = of.sender.home / "bin/date"
    date.write_text("#!/bin/sh\nexec /bin/date -d '1 year ago' \"$@\"\n")
    date.chmod(0o755)
    try:
        result = of.good_night()
        snap = result.images[of.machines[0].name]["snapshot"]
        assert snap < result.images[of.machines[0].name]["from"], result.images[of.machines[0].name]
        of.nas.sh("date -s '3 years ago' >/dev/null")
        of.good_night()
    finally:
        date.unlink()
        of.nas.sh(f"date -s @{int(time.time())} >/dev/null")
    of.good_night()
    of.good_night()


@bad(in_short_run=False)
def a_replica_of_the_nas_is_foreign_and_begins_anew(of):
    """zfs send -R of all volumes onto a pool of another name, which takes the place of the first."""
    old = of.nas
    new = Nas("vault", "ubdb")
    new.make_pool()
    new.sh(f"zfs snapshot -r {old.pool}/backup@move; zfs send -R {old.pool}/backup@move | zfs recv -u {new.pool}/backup", timeout=1800)
    of.foreign_there("backup/pve1", "backup/pve2")
    of.nas, of.place = new, MEANT.replace("tank", "vault")
    new.sh("set -e\n" + block("nas-dataset").replace("tank", "vault"))
    change_key(of)
    refused_night(of, of.asked, "foreign", 4)
    new.sh("set -e\n" + block("replica").replace("tank", "vault"))
    new.make_place()
    healed(of, of.asked, "new")
    of.good_night()
    assert "@move" in new.sh(f"zfs list -Hrt snapshot -o name {new.pool}/backup/pve1-until-2026").out


@bad(in_short_run=False)
def an_empty_nas_begins_anew(of):
    """Another machine, with an empty pool."""
    of.nothing_foreign_is_gone()
    of.nas.sh("zpool destroy tank")
    there = of.nas.sh("zfs list -Hpt snapshot -o guid").out.split()
    of.foreign = {key: name for key, name in of.foreign.items() if key[0] == "rbd" or key[1] in there}
    of.nas = Nas("blank", "ubda")
    of.place = MEANT.replace("tank", "blank")
    of.nas.make_pool()
    of.nas.make_place()
    change_key(of)
    healed(of, of.asked, "new")
    of.good_night()


def change_key(of):
    """The line of the key names the dataset."""
    of.nas.sh("rm /home/siphon/.ssh/authorized_keys")
    of.nas.sh("set -e\n" + block("nas-key").replace("ssh-ed25519 AAAA...", of.sender.key).replace(MEANT, of.place))
    of.sender.sh("ssh -O exit nas", user="siphon", check=False)


@bad()
def an_older_sender_is_understood(of):
    """Streams of 1.0 as they were frozen, by the same key; and an older rbd-diff-stream, where OLD_BIN has one."""
    volume = f"{of.place}/frozen"
    for name in ("ok_whole", "ok_whole_over_old_content", "ok_touching_extents", "ok_checkpoint_after_64_mib"):
        stream, result = frozen(name)
        (of.sender.home / "home/siphon/stream").write_bytes(stream)
        said = of.sender.sh(f"ssh nas zvol-apply --mark {volume} <~/stream", user="siphon").out
        assert '"marked":true' in said, said
        here = Path(bed.work, "frozen")
        of.nas.sh(f"zvol-diff-stream $(zfs-snapmark last {volume}) | extent-convert --to raw >{here}")
        same(blake3(here), result, name)
        of.nas.sh(f"zfs release siphon $(zfs-snapmark last {volume}); zfs destroy -r {volume}")
    if "OLD_BIN" in os.environ:
        now = (of.sender.home / "bin/rbd-diff-stream").read_bytes()
        Path(of.sender.home, "bin/rbd-diff-stream").write_bytes(Path(os.environ["OLD_BIN"], "rbd-diff-stream").read_bytes())
        try:
            of.good_night()
        finally:
            Path(of.sender.home, "bin/rbd-diff-stream").write_bytes(now)


def frozen(name):
    """A vector of tests/vectors: the stream, and BLAKE3 of the image."""
    head, body = (ROOT / f"tests/vectors/{name}.vec").read_text().split("---\n")
    out = bytearray()
    for line in body.splitlines():
        words = line.split("#")[0].split()
        if words[:1] == ["fill"]:
            out += bytes.fromhex(words[1]) * int(words[2])
        elif words:
            assert words[0] != "zeros", "a vector with many zeros"
            out += bytes.fromhex("".join(words))
    return bytes(out), head.split("result: ")[1].split()[0]


def blake3(path):
    """By a program that is not ours."""
    python = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "siphon-venv/bin/python3"
    return run(f"{python} -c 'import blake3, sys; print(blake3.blake3(open(sys.argv[1], \"rb\").read()).hexdigest())' {path}").out.strip()


@test
def bad_nights_are_counted():
    print(f"    {len(FIRED)} of {len(PLANNED)}", flush=True)
