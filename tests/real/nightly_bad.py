"""Bad nights: what the nightly lines do when something went wrong. Part of nightly.py."""
import os
import subprocess

import bed
from bed import refused, run, same, vm
from nightly_lab import Image, MiB, counted, test, wait_for, word


def sent(nights=1, size=8 * MiB):
    """An image that was sent some nights."""
    image = Image(size)
    image.noise(0, size)
    for day in range(nights):
        image.noise(day * MiB, 100_000)
        image.night()
    return image


# --- the base

@test
def a_base_removed_on_the_source_is_refused_and_rolls_back_on_request():
    image = sent(2)
    first, second = image.nights
    image.remove_snapshot(second)
    image.noise(5 * MiB, MiB)
    result = image.bad_night(4, "wrong-base")
    assert "--rollback" in result.err, result
    image.by_hand("--rollback", "--from", first)
    image.noise(7 * MiB, MiB)
    image.night()


@test
def no_base_left_on_the_source_is_no_common():
    image = sent(1)
    image.remove_snapshot(*image.nights)
    image.bad_night(4, "no-common")
    with image.untouched():
        refused(image.send(image.at(image.nights[-1]), check=False), 4, "has-states")
    image.by_hand("--replace")
    same(len(image.marks()), 2, "marks after --replace")


@test
def an_image_made_anew_under_its_name_is_no_common():
    image = sent(1)
    image.remove()
    image.create(16 * MiB)
    image.noise(0, 2 * MiB)
    image.day = 0  # the same snapshot name, too
    image.bad_night(4, "no-common")


@test
def a_renamed_image_goes_on():
    image = sent(1)
    image.rbd.RBD().rename(image.pool, image.name, image.name + "-new")
    image.name += "-new"
    image.noise(3 * MiB, MiB)
    result = image.night()
    assert '"from":null' not in result.out and len(image.marks()) == 2, result


@test
def a_snapshot_made_anew_under_its_name_is_another_state():
    image = sent(2)
    first, second = image.nights
    image.remove_snapshot(second)
    image.noise(0, 4 * MiB)
    image.snapshot(second)
    image.bad_night(4, "wrong-base")
    with image.untouched():
        refused(image.send("--from", second, image.at(image.nights[-1]), check=False), 4, "wrong-base")
    image.remove_snapshot(first, second)
    image.snapshot(second)
    image.bad_night(4, "no-common")


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


@test
def of_two_first_runs_at_once_exactly_one_wins():
    image = Image(24 * MiB)
    image.noise(0, 20 * MiB)
    two_at_once(image)
    same(len(image.marks()), 1, "marks")
    image.noise(0, MiB)
    image.night()


@test
def a_night_sent_twice_is_already_there():
    image = sent(2)
    first, second = image.nights
    bases = [["--from", first], [], ["--from", second]]
    for base in bases if bed.options.full else bases[:2]:
        with image.untouched():
            result = image.send(*base, image.at(second))
        assert '"already":true' in result.out, result


@test
def dead_ssh_sends_nothing_and_is_no_new_target():
    image = sent(1)
    image.noise(0, MiB)
    with image.untouched():
        result = image.lines(check=False, DEAD="yes")
    assert result.code == 255 and not result.out, result
    image.night()


def saved(image, snapshot, *base):
    """A stream to a snapshot made now, in a file, and its length."""
    image.snapshot(snapshot)
    path = f"{bed.work}/stream"
    run(f"rbd-diff-stream {' '.join(base)} {image.at(snapshot)} >{path}")
    return path, os.path.getsize(path)


def cut_at_half(image, *base):
    """A stream to the snapshot "cut", of which only the first half arrives: no mark comes of it."""
    path, length = saved(image, "cut", *base)
    marks = image.marks() if base else []
    refused(run(f"head -c {length // 2} {path} | ssh nas zvol-apply --mark {image.target}", check=False), 3, "truncated")
    same(image.marks(), marks, "marks of a cut stream")


@test
def ssh_killed_in_mid_stream_heals_with_the_next_lines():
    image = sent(1, size=24 * MiB)
    for part in (1, 5, 9) if bed.options.full else (5,):
        image.noise(0, 20 * MiB)
        path, length = saved(image, f"killed{part}", "--from", image.nights[-1])
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


@test
def a_whole_stream_cut_at_half_then_a_trimmed_source_is_equal():
    """What the cut stream wrote and the source no longer holds must be gone."""
    image = Image(12 * MiB)
    image.noise(0, 12 * MiB)
    cut_at_half(image)
    image.discard(2 * MiB, 6 * MiB)
    image.remove_snapshot("cut")
    image.night()


@test
def an_increment_cut_at_half_then_other_changes_is_equal():
    image = sent(1, size=12 * MiB)
    first = image.marks()[0]
    image.noise(0, 10 * MiB)
    cut_at_half(image, "--from", image.nights[0])
    image.roll_back(image.nights[0])
    image.remove_snapshot("cut")
    image.resize(12 * MiB + 4321)
    image.night()
    same(image.marks()[0], first, "the first mark")


@test
def a_target_full_of_ff_is_replaced_whole():
    image = Image(12 * MiB + 513)
    image.noise(5 * MiB, 4 * MiB)
    vm(f"""zfs create -s -V 16M -b 16k {image.target}; udevadm settle
        head -c 16M /dev/zero | tr '\\0' '\\377' | dd of=/dev/zvol/{image.target} bs=1M iflag=fullblock oflag=direct status=none""")
    refused(image.lines(check=False), 4, "foreign")
    image.by_hand("--replace")
    image.noise(0, 100)
    image.night()


# --- what vanishes

READ = 256 << 10  # of the tool
SIZE = 24 * MiB


@test
def what_is_removed_at_every_tenth_read_is_never_marked():
    """Snapshot, or whole image, removed behind the source's back; the target takes whatever comes. With one read at a time
    and a reader as slow as this, the source is a pipe and a frame ahead of what came through."""
    planned = [(read, what) for read in range(0, SIZE // READ - 12, 10) for what in ("snapshot", "image")]
    points = planned if bed.options.full else planned[1::5]
    image = Image(create=False)
    for read, what in points:
        image.create(SIZE)
        image.noise(0, SIZE)
        image.snapshot("s")
        source = subprocess.Popen(["rbd-diff-stream", "-j", "1", image.at("s")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        sink = subprocess.Popen(["ssh", "nas", "zvol-apply", "--mark", image.target], stdin=subprocess.PIPE,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        sink.stdin.write(source.stdout.read(1 + read * READ))
        image.remove_snapshot("s")
        if what == "image":
            image.remove()
        while block := source.stdout.read(READ):
            sink.stdin.write(block)
        sink.stdin.close()
        told, refusal = source.stderr.read().decode(), sink.stderr.read().decode()
        codes = source.wait(), sink.wait()
        assert codes == (4, 3) and "[vanished]" in told and "[truncated]" in refusal, (read, what, codes, told, refusal)
        same(vm(f"zfs-snapmark list {image.target} | grep -vc '^#end'", check=False).out.strip(), "0", "marks")
        if what == "snapshot":
            image.remove()
    counted(len(points), len(planned))


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
