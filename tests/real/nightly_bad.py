"""Bad nights: what the nightly lines do when something went wrong. Part of nightly.py."""
import os
import subprocess

import bed
from bed import refused, run, same, test, vm
from nightly_lab import Image, MiB, counted, wait_for, word


def sent(nights=1, size=16 * MiB):
    """An image that was sent some nights."""
    image = Image(size)
    image.noise(0, size)
    for day in range(nights):
        image.noise(day * MiB, 100_000)
        image.night()
    return image


def unchanged(image, marks):
    """The target is as it was: its marks, and nothing written since."""
    same(image.marks(), marks, "marks")
    vm(f"zfs-snapmark verify {image.target}")


# --- the base

@test
def a_base_removed_on_the_source_is_refused_and_rolls_back_on_request():
    image = sent(2)
    marks = image.marks()
    first, second = image.nights
    image.remove_snapshot(second)
    image.noise(5 * MiB, MiB)
    result = refused(image.lines(check=False), 4, "wrong-base")
    assert "--rollback" in result.err, result
    unchanged(image, marks)
    image.send("--from", first, image.at(image.nights[-1]), options="--rollback")
    image.equal(image.nights[-1])
    image.noise(7 * MiB, MiB)
    image.night()
    image.drop()


@test
def no_base_left_on_the_source_is_no_common():
    image = sent(1)
    marks = image.marks()
    image.remove_snapshot(*image.nights)
    refused(image.lines(check=False), 4, "no-common")
    unchanged(image, marks)
    refused(image.send(image.at(image.nights[-1]), check=False), 4, "has-states")
    unchanged(image, marks)
    image.send(image.at(image.nights[-1]), options="--replace")
    image.equal(image.nights[-1])
    same(len(image.marks()), 2, "marks after --replace")
    image.drop()


@test
def an_image_made_anew_under_its_name_is_no_common():
    image = sent(1)
    marks = image.marks()
    image.remove_snapshot(*image.nights)
    image.rbd.RBD().remove(image.pool, image.name)
    image.rbd.RBD().create(image.pool, image.name, 16 * MiB, old_format=False)
    image.noise(0, 2 * MiB)
    image.day = 0
    refused(image.lines(check=False), 4, "no-common")  # the same snapshot name, too
    unchanged(image, marks)
    image.drop()


@test
def a_renamed_image_goes_on():
    image = sent(1)
    image.rbd.RBD().rename(image.pool, image.name, image.name + "-new")
    image.name += "-new"
    image.noise(3 * MiB, MiB)
    result = image.night()
    assert '"from":null' not in result.out and len(image.marks()) == 2, result
    image.drop()


@test
def a_snapshot_made_anew_under_its_name_is_another_state():
    image = sent(2)
    marks = image.marks()
    first, second = image.nights
    image.remove_snapshot(second)
    image.noise(0, 4 * MiB)
    with image.open() as it:
        it.create_snap(second)
    refused(image.lines(check=False), 4, "wrong-base")
    refused(image.send("--from", second, image.at(image.nights[-1]), check=False), 4, "wrong-base")
    unchanged(image, marks)
    image.remove_snapshot(first, second)
    with image.open() as it:
        it.create_snap(second)
    refused(image.lines(check=False), 4, "no-common")
    unchanged(image, marks)
    image.drop()


# --- runs

def two_at_once(image):
    """Two runs that both asked `common` before either sends; gives their codes, sorted, the better first."""
    gate = f"{bed.work}/gate.{image.name}.{image.day}"
    runs = [image.start(GATE=gate) for _ in range(2)]
    wait_for(lambda: all(os.path.exists(f"{gate}.{name}") for name, _ in runs))
    open(gate, "w").close()
    results = []
    for name, started in runs:
        out, err = started.communicate(timeout=300)
        results.append(bed.Result(name, started.returncode, out, err))
    codes = sorted(result.code for result in results)
    told = "\n".join(map(str, results))
    assert codes[0] == 0 and codes[1] in (4, 6), told
    for result in results:
        assert result.code == 0 or word(result) in ("busy", "wrong-base", "has-states"), told
        if result.code == 0:
            image.equal(result.command)
    print("    the other run:", sorted(filter(None, map(word, results))), flush=True)


@test
def of_two_runs_at_once_exactly_one_wins():
    image = sent(1, size=24 * MiB)
    image.noise(0, 20 * MiB)
    two_at_once(image)
    same(len(image.marks()), 2, "marks")
    image.noise(0, MiB)
    image.night()
    image.drop()


@test
def of_two_first_runs_at_once_exactly_one_wins():
    image = Image(24 * MiB)
    image.noise(0, 20 * MiB)
    two_at_once(image)
    same(len(image.marks()), 1, "marks")
    image.noise(0, MiB)
    image.night()
    image.drop()


@test
def a_night_sent_twice_is_already_there():
    image = sent(2)
    marks = image.marks()
    first, second = image.nights
    for arguments in (["--from", second, image.at(second)], ["--from", first, image.at(second)], [image.at(second)]):
        result = image.send(*arguments)
        assert '"already":true' in result.out, result
        unchanged(image, marks)
    image.drop()


@test
def dead_ssh_sends_nothing_and_is_no_new_target():
    image = sent(1)
    marks = image.marks()
    image.noise(0, MiB)
    result = image.lines(check=False, DEAD="yes")
    assert result.code == 255 and not result.out, result
    unchanged(image, marks)
    image.night()
    image.drop()


def saved(image, *arguments):
    """A stream in a file, and its length."""
    path = f"{bed.work}/stream"
    run(f"rbd-diff-stream {' '.join(arguments)} >{path}")
    return path, os.path.getsize(path)


@test
def ssh_killed_in_mid_stream_heals_with_the_next_lines():
    image = sent(1, size=24 * MiB)
    for part in (1, 5, 9) if bed.options.full else (5,):
        image.noise(0, 20 * MiB)
        with image.open() as it:
            it.create_snap(f"killed{part}")
        path, length = saved(image, "--from", image.nights[-1], image.at(f"killed{part}"))
        remote = subprocess.Popen(["ssh", "-o", "ControlPath=none", "nas", "zvol-apply", "--mark", image.target],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with open(path, "rb") as stream:
            remote.stdin.write(stream.read(length * part // 10))
        remote.stdin.flush()
        remote.kill()
        remote.communicate()
        image.noise(0, 2 * MiB)
        # The other end learns of it when it reads on; until then the volume is busy, as exit 6 says.
        tries = [image.lines(check=False)]
        while tries[-1].code == 6 and len(tries) < 20:
            tries.append(image.lines(check=False))
        assert tries[-1].code == 0, tries[-1]
        image.equal(image.nights[-1])
    image.drop()


@test
def a_whole_stream_cut_at_half_then_a_trimmed_source_is_equal():
    """What the cut stream wrote and the source no longer holds must be gone."""
    image = Image(24 * MiB)
    image.noise(0, 24 * MiB)
    with image.open() as it:
        it.create_snap("cut")
    path, length = saved(image, image.at("cut"))
    result = run(f"head -c {length // 2} {path} | ssh nas zvol-apply --mark {image.target}", check=False)
    refused(result, 3, "truncated")
    same(image.marks(), [], "marks of a cut stream")
    with image.open() as it:
        it.discard(4 * MiB, 12 * MiB)
    image.remove_snapshot("cut")
    image.night()
    image.drop()


@test
def an_increment_cut_at_half_then_other_changes_is_equal():
    image = sent(1, size=24 * MiB)
    marks = image.marks()
    image.noise(0, 20 * MiB)
    with image.open() as it:
        it.create_snap("cut")
    path, length = saved(image, "--from", image.nights[0], image.at("cut"))
    refused(run(f"head -c {length // 2} {path} | ssh nas zvol-apply --mark {image.target}", check=False), 3, "truncated")
    same(image.marks(), marks, "marks of a cut stream")
    with image.open() as it:
        it.rollback_to_snap(image.nights[0])
    image.remove_snapshot("cut")
    image.resize(24 * MiB + 4321)
    image.night()
    same(image.marks()[0], marks[0], "the first mark")
    image.drop()


@test
def a_target_full_of_ff_is_replaced_whole():
    image = Image(24 * MiB + 513)
    image.noise(5 * MiB, 4 * MiB)
    vm(f"""zfs create -s -V 32M -b 16k {image.target}; udevadm settle
        head -c 32M /dev/zero | tr '\\0' '\\377' | dd of=/dev/zvol/{image.target} bs=1M iflag=fullblock oflag=direct status=none""")
    refused(image.lines(check=False), 4, "foreign")
    image.send(image.at(image.nights[-1]), options="--replace")
    image.equal(image.nights[-1])
    image.noise(0, 100)
    image.night()
    image.drop()


# --- what vanishes

READ = 256 << 10  # of the tool
SIZE = 24 * MiB


@test
def what_is_removed_at_every_tenth_read_is_never_marked():
    """Snapshot, or whole image, removed behind the source's back; the target takes whatever comes. With one read at a time
    and a reader as slow as this, the source is a pipe and a frame ahead of what came through."""
    planned = [(read, what) for read in range(0, SIZE // READ - 12, 10) for what in ("snapshot", "image")]
    points = planned if bed.options.full else planned[1::5]
    target = Image(create=False).target
    for read, what in points:
        image = Image(SIZE)
        image.noise(0, SIZE)
        with image.open() as it:
            it.create_snap("s")
        source = subprocess.Popen(["rbd-diff-stream", "-j", "1", image.at("s")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        sink = subprocess.Popen(["ssh", "nas", "zvol-apply", "--mark", target], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE)
        sink.stdin.write(source.stdout.read(1 + read * READ))
        image.remove_snapshot("s")
        if what == "image":
            image.rbd.RBD().remove(image.pool, image.name)
        while block := source.stdout.read(READ):
            sink.stdin.write(block)
        sink.stdin.close()
        told, refusal = source.stderr.read().decode(), sink.stderr.read().decode()
        codes = source.wait(), sink.wait()
        assert codes == (4, 3) and "[vanished]" in told and "[truncated]" in refusal, (read, what, codes, told, refusal)
        same(vm(f"zfs-snapmark list {target} | grep -vc '^#end'", check=False).out.strip(), "0", "marks")
        if what == "snapshot":
            image.drop()
    counted(len(points), len(planned))
    vm(f"zfs destroy -r {target}")


# --- the script

@test
def the_script_for_one_image_does_the_same_lines():
    script = bed.ROOT / "scripts/rbd-to-zvol"
    if not script.exists():
        raise bed.Skipped("there is no scripts/rbd-to-zvol")
    image = Image(16 * MiB + 5)
    image.noise(0, 4 * MiB)
    for night in (1, 2):
        result = run(f"NIGHT=script{night} {script} {image.path} nas {image.target}")
        assert image.target in result.out, result
        name = image.states()[-1][3]
        image.equal(name)
        image.noise(MiB, MiB)
    same(len(image.marks()), 2, "marks")
    image.drop()
