#!/usr/bin/python3
"""scripts/install: what it installs runs, what it removes is exactly that; here, on a machine without a C library, on the guest.

usage: tests/real/install.py [--full] [--only WORD]... [--seed N] [--bin DIR]
"""
import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import bed
import zvol
from bed import ROOT, Skipped, changed, content, main, refused, run, same, sha256, test
from zvol import Zvol

INSTALL = ROOT / "scripts/install"
TOOLS = sorted(path.stem for path in ROOT.glob("src/bin/*"))
LOADS_CEPH = [tool for tool in TOOLS if tool.startswith("rbd-")]
STATIC = [tool for tool in TOOLS if tool not in LOADS_CEPH]
PAGES = sorted(path.name for path in ROOT.glob("man/*.[1-9]"))
POOR = {"PATH": "/usr/bin:/bin"}  # as cron has it


def environment(**more):
    """What the script needs, and nothing of the bed."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "RUSTUP_HOME", "CARGO_HOME", "CARGO_BUILD_JOBS") if name in os.environ}
    return {**kept, "CARGO_TARGET_DIR": str(Path(bed.options.bin).parent), "LC_ALL": "C", **more}


def install(arguments="", check=True, ssh=None, **more):
    """Runs the script; what is built is what the tests of the bed run, too."""
    more = environment(**more, **({"SIPHON_SSH": str(ssh)} if ssh else {}))
    return run(f"{INSTALL} {arguments}", check=check, env=more, timeout=1500)


def fresh(name):
    """A directory of this run that does not exist yet."""
    path = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=bed.work))
    path.rmdir()
    return path


def installed(prefix):
    """All below it: files, and directories with a slash."""
    found = [str(path.relative_to(prefix)) + "/" * path.is_dir() for path in Path(prefix).rglob("*")]
    return sorted(found)


def program(path, text):
    path.write_text("#!/bin/bash\n" + text)
    path.chmod(0o755)
    return path


# --- here

@test
def every_tool_runs_from_where_it_was_installed():
    prefix = fresh("prefix")
    result = install(f"{prefix}")
    assert f"{prefix}: installed" in result.out and "not in PATH" in result.err, str(result)
    for tool in TOOLS:
        version = run(f"{prefix}/bin/{tool} --version", env={}).out
        assert version.startswith(tool + " "), version
        run(f"{prefix}/bin/{tool} --help", env={})
    for script in ("rbd-to-zvol", "restore-zvol-to-rbd"):
        assert "usage:" in run(f"{prefix}/bin/{script} --help", env=POOR).out
    # With the short PATH of cron the scripts find the tools beside them: what is lacking is not one of these.
    shim = fresh("rbd")
    shim.mkdir()
    program(shim / "rbd", "echo no cluster >&2; exit 1\n")
    poor = {"PATH": f"{shim}:{POOR['PATH']}", "HOME": bed.work, "SIPHON_SSH": "false"}
    result = run(f"{prefix}/bin/rbd-to-zvol rbd/vm1 nas.example tank/vm1", check=False, env=poor)
    assert result.code == 1 and "no cluster" in result.err, str(result)
    image, copy = Path(bed.work, "installed.img"), Path(bed.work, "installed.copy")
    image.write_bytes(content(300_000))
    run(f"{prefix}/bin/image-diff-stream {image} | {prefix}/bin/image-apply {copy}", env={})
    same(sha256(copy.read_bytes()), sha256(image.read_bytes()))
    for path in prefix.rglob("*"):
        mode = path.stat().st_mode & 0o777
        assert mode == (0o755 if path.is_dir() or path.parent.name == "bin" else 0o644), f"{path}: {mode:o}"


@test
def every_page_is_found_and_renders():
    if not shutil.which("man"):
        raise Skipped("man is not installed; scripts/setup installs it")
    prefix = fresh("prefix")
    install(f"{prefix}")
    for page in PAGES:
        name, section = page.rsplit(".", 1)
        path = run(f"man -M {prefix}/share/man -w {section} {name}").out.strip()
        same(path, f"{prefix}/share/man/man{section}/{page}")
        text = run(f"MANWIDTH=80 man -l {path} | col -b", env=environment(MANPAGER="cat")).out
        assert len(text) > 500 and "NAME" in text and name in text, f"{page}: {text[:200]}"


@test
def completions_load_and_complete():
    prefix = fresh("prefix")
    install(f"{prefix}")
    for tool in TOOLS:
        script = f"{prefix}/share/bash-completion/completions/{tool}"
        found = run(f"""env -i PATH=/usr/bin:/bin bash --norc -c '
            source {script}
            name=$(complete -p {tool} | sed "s/.*-F \\([^ ]*\\).*/\\1/")
            COMP_WORDS=({tool} --ver) COMP_CWORD=1 COMPREPLY=()
            "$name" {tool} --ver {tool}
            echo "${{COMPREPLY[@]}}"'""").out.split()
        same(found, ["--version"], tool)
        assert f"#compdef {tool}" in Path(prefix, "share/zsh/site-functions", "_" + tool).read_text()
        assert f"complete -c {tool}" in Path(prefix, "share/fish/vendor_completions.d", tool + ".fish").read_text()


@test
def uninstall_leaves_nothing_and_takes_nothing_else():
    prefix = fresh("prefix")
    before = {}
    for name in ("bin/foreign", "share/man/man1/foreign.1", "share/siphon/notes"):
        path = Path(prefix, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        before[name] = path.stat().st_ino
    there = installed(prefix)
    install(f"--no-build {prefix}")
    told = install(f"--uninstall --dry-run {prefix}").out.split()
    same(sorted(word for word in told if word != "remove"), sorted(set(installed(prefix)) - set(there)), "what it says it removes")
    install(f"--uninstall {prefix}")
    same(installed(prefix), there)
    same({name: Path(prefix, name).stat().st_ino for name in before}, before)
    # Nothing of others: nothing is left.
    prefix = fresh("prefix")
    install(f"--no-build {prefix}")
    install(f"--uninstall {prefix}")
    same(installed(prefix), [])
    refused(install(f"--uninstall {prefix}", check=False), 4, "not-found")
    # The same below DESTDIR, and without libraries.
    destdir = fresh("destdir")
    install("--no-build --static /usr", DESTDIR=str(destdir))
    assert Path(destdir, "usr/bin/zvol-apply").exists()
    install("--uninstall /usr", DESTDIR=str(destdir))
    same(installed(destdir), ["usr/"])


@test
def what_others_put_there_is_not_replaced():
    for name in ("bin/zvol-apply", "share/man/man7/siphon.7"):
        for kind in ("file", "link", "directory"):
            prefix = fresh("prefix")
            path = Path(prefix, name)
            path.parent.mkdir(parents=True)
            {"file": path.touch, "link": lambda: path.symlink_to("nowhere"), "directory": path.mkdir}[kind]()
            there = installed(prefix)
            for how in ("--no-build", "--dry-run"):
                result = refused(install(f"{how} {prefix}", check=False), 4, "exists")
                assert name in result.err, str(result)
            same(installed(prefix), there, kind)


@test
def a_list_that_somebody_changed_removes_nothing():
    for line in ("../victim", "bin/../../victim", "/etc/victim", "etc/victim", "share/../../victim", "bin//x", "share/x;y"):
        prefix = fresh("prefix")
        install(f"--no-build {prefix}")
        victim = Path(prefix.parent, "victim")
        victim.touch()
        with Path(prefix, "share/siphon/installed").open("a") as file:
            file.write(line + "\n")
        there = installed(prefix)
        refused(install(f"--uninstall {prefix}", check=False), 3, "list")
        refused(install(f"--no-build {prefix}", check=False), 3, "list")
        same(installed(prefix), there, line)
        assert victim.exists()
        shutil.rmtree(prefix)


@test
def what_is_no_longer_installed_goes_with_the_next_version():
    prefix = fresh("prefix")
    install(f"--no-build {prefix}")
    there = installed(prefix)
    # As if an older version had had a tool and a page more.
    for name in ("bin/zvol-forgotten", "share/man/man3/", "share/man/man3/forgotten.3"):
        path = Path(prefix, name)
        path.mkdir() if name.endswith("/") else path.touch()
        with Path(prefix, "share/siphon/installed").open("a") as file:
            file.write(name + "\n")
    assert "remove bin/zvol-forgotten" in install(f"--dry-run {prefix}").out
    install(f"--no-build {prefix}")
    same(installed(prefix), there)
    install(f"--uninstall {prefix}")
    same(installed(prefix), [])


@test
def programs_that_run_are_not_hurt_and_none_is_missing_meanwhile():
    prefix = fresh("prefix")
    install(f"--no-build {prefix}")
    inodes = {name: Path(prefix, name).stat().st_ino for name in installed(prefix) if not name.endswith("/")}
    image, copy = Path(bed.work, "long.img"), Path(bed.work, "long.copy")
    image.write_bytes(content(400_000))
    stream = run(f"{prefix}/bin/image-diff-stream {image} >{image}.stream; stat -c %s {image}.stream").out
    assert int(stream) > 100_000
    # A receiver that has read half, and a program that is started again and again.
    long = subprocess.Popen([f"{prefix}/bin/image-apply", copy], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    data = Path(f"{image}.stream").read_bytes()
    long.stdin.write(data[:len(data) // 2])
    long.stdin.flush()
    loop = subprocess.Popen(["bash", "-c", f"n=0; while [ ! -e {prefix}.stop ]; do {prefix}/bin/extent-inspect --version >/dev/null || exit 1; n=$((n + 1)); done; echo $n"],
                            stdout=subprocess.PIPE, text=True)
    rounds = 20 if bed.options.full else 3
    for _ in range(rounds):
        install(f"--no-build {prefix}")
    Path(f"{prefix}.stop").touch()
    starts = loop.communicate(timeout=60)[0]
    assert loop.returncode == 0 and int(starts) > rounds, "a program was not there for a moment"
    long.communicate(data[len(data) // 2:], timeout=60)
    same(long.returncode, 0)
    same(sha256(copy.read_bytes()), sha256(image.read_bytes()))
    kept = [name for name, inode in inodes.items() if Path(prefix, name).stat().st_ino == inode]
    same(kept, [], "written over in place")
    print(f"     {starts.strip()} starts in {rounds} installations")


@test
def an_installation_that_dies_anywhere_can_be_ended_or_removed():
    # The n-th move kills the shell that asked for it.
    shim = fresh("shim")
    shim.mkdir()
    program(shim / "mv", 'n=$(($(cat "$COUNT") + 1)); echo $n >"$COUNT"\n[ "$n" != "$DIE" ] || { kill -9 $PPID; exit 1; }\nexec /bin/mv "$@"\n')
    count = Path(bed.work, "moves")

    def dies(prefix, at):
        count.write_text("0")
        return install(f"--no-build {prefix}", check=False, PATH=f"{shim}:{os.environ['PATH']}", COUNT=str(count), DIE=str(at)).code
    prefix = fresh("prefix")
    same(dies(prefix, 0), 0)
    total = int(count.read_text())
    whole = installed(prefix)
    every = range(1, total + 1)
    points = every if bed.options.full else sorted({*every[:2], *every[::57], *every[-2:]})
    fired = 0
    for at in points:
        prefix = fresh("prefix")
        fired += dies(prefix, at) != 0
        # Killed so, nothing tidied up: the next one says what to remove.
        left = prefix / ".siphon-install"
        assert str(left) in refused(install(f"--no-build {prefix}", check=False), 6, "busy").err
        shutil.rmtree(left)
        if at % 2 or not Path(prefix, "share/siphon/installed").exists():
            install(f"--no-build {prefix}")
            same(installed(prefix), whole, f"ended after move {at}")
        install(f"--uninstall {prefix}")
        rest = [name for name in installed(prefix) if not name.endswith("/.siphon-new")]
        same([name for name in rest if not name.endswith("/")], [], f"removed after move {at}")
        shutil.rmtree(prefix)
    same(fired, len(points), "kills that struck")
    print(f"     {fired}/{len(points)} of {total} moves")


@test
def what_makes_no_sense_is_refused_before_anything_is_built():
    cases = {"--frobnicate": 2, "a b": 2, "--to": 2, "--to '' x": 2, "--to -oProxyCommand=x": 2, "'/tmp/a b'": 2, "'/tmp/a;b'": 2, "--prefix": 2,
             "--to 'nas;reboot'": 2, "/proc/siphon": 1}
    for arguments, code in cases.items():
        result = install(arguments, check=False, CARGO_TARGET_DIR="/proc/none", CARGO="/bin/false")
        assert result.code == code and "error:" in result.err, str(result)
    text = INSTALL.read_text()
    for option in re.findall(r"^    (--[a-z-]+)[) |]", text, re.MULTILINE):
        assert option in install("--help").out, option


# --- another machine: a root directory with busybox, and no C library at all

def pretend_ssh(name, body):
    """Something that is called as ssh is."""
    return program(Path(bed.work, f"ssh-{name}"), f'while [ "$1" != -- ]; do shift; done; shift 2\n{body}\n')


def chroot(root, user="0:0", home="/root", path="/usr/bin:/bin"):
    """A session of a user in another root directory."""
    line = f'exec /usr/bin/env -i HOME={home} PATH={path} /usr/sbin/chroot --userspec={user} {root} /bin/sh -c "cd; $*"'
    return pretend_ssh(f"{root.name}-{user}-{len(path)}".replace(":", "-"), line)


def busybox():
    """A small system: one static program under many names."""
    if not shutil.which("busybox"):
        raise Skipped("busybox is not installed; scripts/setup installs it")
    root = fresh("busybox")
    for name in ("bin", "root", "home/user", "usr/local", "dev", "tmp"):
        Path(root, name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    for name in "sh tar mv rm mkdir rmdir cat head uname ls".split():
        Path(root, "bin", name).symlink_to("busybox")
    os.mknod(root / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (root / "dev/null").chmod(0o666)
    (root / "tmp").chmod(0o1777)
    os.chown(root / "home/user", 1000, 1000)
    return root


def static_tools_run_there(root, ssh, prefix):
    for tool in STATIC:
        assert run(f"{ssh} -- x {prefix}/bin/{tool} --version").out.startswith(tool + " "), tool
    image = content(500_000)
    Path(root, "tmp/a.img").write_bytes(image)
    tool = f"{prefix}/bin"
    run(f"{ssh} -- x '{tool}/image-diff-stream /tmp/a.img | {tool}/image-apply /tmp/b.img'")
    same(sha256(Path(root, "tmp/b.img").read_bytes()), sha256(image))
    mine = run(f"{bed.options.bin}/extent-digest --root --image {root}/tmp/a.img").out
    same(run(f"{ssh} -- x '{tool}/image-diff-stream /tmp/b.img | {tool}/extent-digest --root'").out, mine)
    result = run(f"{ssh} -- x {tool}/zfs-snapmark list tank/x", check=False)
    assert result.code == 2 and "zfs is not installed" in result.err, str(result)
    for name in ("a.img", "b.img", "b.img.siphon"):
        Path(root, "tmp", name).unlink()


def rbd_tools_stayed_away(result, root, prefix, why):
    assert f"do not start here ({why}" in result.err and ": " + " ".join(LOADS_CEPH) in result.err, str(result)
    for tool in LOADS_CEPH:
        assert not Path(root, prefix.strip("/"), "bin", tool).exists(), tool


@test
def static_programs_hold_no_library_and_ask_no_name_service():
    destdir = fresh("destdir")
    install("--static /usr", DESTDIR=str(destdir))
    for tool in STATIC:
        path = destdir / "usr/bin" / tool
        assert "statically linked" in run(f"ldd {path}", check=False).out, tool
        assert "INTERP" not in run(f"readelf -lW {path}").out, tool
        # What static glibc would need its shared self for.
        asked = run(f"nm {path} | grep -E ' [TtWw] (getpw|getgr|getaddrinfo|gethostby|getserv)[a-z]*(_r)?$'", check=False).out
        same(re.sub(r".* (getgroups)\n", "", asked), "", tool)
    shutil.rmtree(destdir)


@test
def a_machine_without_a_c_library_gets_the_static_programs():
    root = busybox()
    before = installed(root)
    ssh = chroot(root)
    assert "install bin/zvol-apply" in install("--to box --dry-run", ssh=ssh).out
    same(installed(root), before, "after a dry run")
    result = install("--to box", ssh=ssh)
    rbd_tools_stayed_away(result, root, "/usr/local", "not found")
    assert "not in the PATH of an ssh session" in result.err and "extent-digest /usr/bin/\n" in result.err, str(result)
    static_tools_run_there(root, ssh, "/usr/local")
    for path in Path(root, "usr/local").rglob("*"):
        same((path.stat().st_uid, path.stat().st_gid), (0, 0), str(path))
    # Once more, into a session that has it in PATH.
    result = install("--to box", ssh=chroot(root, path="/usr/local/bin:/bin"))
    assert re.search(r"^ssh box zvol-apply --version: zvol-apply \d", result.out, re.MULTILINE), str(result)
    # What starts here, and would not any more, stays.
    old = Path(root, "usr/local/bin", LOADS_CEPH[0])
    program(old, "echo an older one\n")
    with open(root / "usr/local/share/siphon/installed", "a") as listed:
        listed.write(f"bin/{LOADS_CEPH[0]}\n")
    result = install("--no-build --to box", ssh=ssh)
    assert f"new ones do not start here (not found): bin/{LOADS_CEPH[0]}\n" in result.err and " ".join(LOADS_CEPH[1:]) in result.err, str(result)
    assert "an older one" in old.read_text()
    # A user without rights, with a prefix of their own; none elsewhere.
    user = chroot(root, user="1000:1000", home="/home/user")
    refused(install("--to user@box", ssh=user, check=False), 1, "permission")
    result = install("--to user@box --prefix .local", ssh=user)
    assert "/home/user/.local/bin is not in the PATH" in result.err and "ln -s /home/user/.local/bin/zvol-apply" in result.err, str(result)
    static_tools_run_there(root, user, "/home/user/.local")
    install("--uninstall --to user@box --prefix .local", ssh=user)
    same(installed(root / "home/user/.local"), [])
    install("--uninstall --to box", ssh=ssh)
    same([name for name in installed(root) if name != "home/user/.local/"], before)


@test
def an_older_distribution_runs_the_static_programs():
    if not bed.options.full:
        raise Skipped("only with --full: debootstrap takes a minute")
    root = fresh("bullseye")
    mirror = run("apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' | awk '$2 == \"bookworm\" { print $1; exit }'",
                 check=False).out.strip()
    if not mirror or run(f"debootstrap --variant=minbase bullseye {root} {mirror}", check=False, timeout=900).code:
        raise Skipped("no mirror that has Debian 11")
    before = installed(root / "usr/local")
    ssh = chroot(root, path="/usr/local/bin:/usr/bin:/bin")
    result = install("--to old", ssh=ssh)
    rbd_tools_stayed_away(result, root, "/usr/local", "version `GLIBC_")
    assert "ssh old zvol-apply --version: zvol-apply" in result.out, str(result)
    static_tools_run_there(root, ssh, "/usr/local")
    install("--uninstall --to old", ssh=ssh)
    same(installed(root / "usr/local"), before)


@test
def another_kind_of_machine_is_refused_by_name():
    for kernel, machine in (("Linux", "aarch64"), ("FreeBSD", "amd64")):
        shim = fresh("uname")
        shim.mkdir()
        program(shim / "uname", f'case $1 in -s) echo {kernel};; *) echo {machine};; esac\n')
        prefix = fresh("prefix")
        ssh = pretend_ssh(machine, f'PATH={shim}:$PATH exec sh -c "$*"')
        result = refused(install(f"--to nas --prefix {prefix}", ssh=ssh, check=False), 4, "unsupported")
        assert f"{kernel} {machine}" in result.err and not prefix.exists(), str(result)


@test
def a_connection_that_fails_or_breaks_leaves_what_was_there():
    prefix = fresh("prefix")
    result = refused(install(f"--to nas --prefix {prefix}", ssh=pretend_ssh("dead", "exit 255"), check=False), 1, "io")
    assert "ssh ended with 255" in result.err, str(result)
    good = pretend_ssh("good", 'exec sh -c "$*"')
    install(f"--to nas --prefix {prefix}", ssh=good)
    there = {name: Path(prefix, name).stat().st_ino for name in installed(prefix)}
    # The stream of files is cut: tar over there sees its end too early.
    # Between two files, tar does not notice.
    for size in (0, 512, 1000, 1024, 3_000_000, *(2_000_000 + 512 * n for n in range(3))):
        cut = pretend_ssh("cut", f'if [[ $* = *"tar -x"* ]]; then head -c {size} | sh -c "$*"; else exec sh -c "$*"; fi')
        refused(install(f"--no-build --to nas --prefix {prefix}", ssh=cut, check=False), 3, "truncated")
        same({name: Path(prefix, name).stat().st_ino for name in installed(prefix)}, there, f"cut after {size}")
    # A session that says hello first, as some do, is no answer.
    loud = pretend_ssh("loud", 'echo Welcome; exec sh -c "$*"')
    install(f"--no-build --to nas --prefix {prefix}", ssh=loud)


# --- the guest: Debian 12 with ZFS, without Rust and Ceph

def session(command, check=True, **more):
    """As another machine's cron would call it: nothing of the bed in PATH."""
    line = f"ssh -F {os.environ['LAB_DIR']}/ssh_config vm {command}"
    return run(line, check=check, env=environment(), stdin=subprocess.DEVNULL, **more)


def guest_ssh():
    return f"ssh -F {os.environ['LAB_DIR']}/ssh_config"


def without_tools():
    """Takes away what other tests on this bed have linked into the guest's PATH; each of them makes its links anew."""
    # Quoted twice: the shell over there would make /host of /host*.
    session("'find /usr/bin /usr/local/bin -lname \"/host*\" -delete'", check=False)
    same(session("command -v zvol-apply", check=False).out, "")


@test
def the_receiving_side_works_on_a_machine_without_rust_and_ceph():
    without_tools()
    assert session("command -v cargo rbd ceph", check=False).out == "", "the guest has Rust or Ceph"
    zvol.source("s0")
    before = session("find /usr/local", check=False).out.split()
    result = install("--to vm", ssh=guest_ssh())
    if "not in the PATH" in result.err:
        tool = "/usr/local/bin/"
    else:
        assert "ssh vm zvol-apply --version: zvol-apply" in result.out, str(result)
        tool = ""
    prefix = fresh("prefix")
    install(f"--no-build {prefix}")
    # The nightly lines between what was installed on both sides, with a PATH in which zfs is not.
    poor = "PATH=/usr/local/bin"  # Debian has zfs in /usr/bin, too
    assert session(f"{poor} command -v zfs", check=False).code != 0, "zfs is in the poor PATH"
    target = Zvol("installed")
    images = [content(1_500_001)]
    for night in (1, 2):
        images.append(changed(images[-1], len(images[-1]) + 4096 * night, salt=night))
    base, held = "", None
    for number, image in enumerate(images):
        path = Path(bed.work, f"night{number}.img")
        path.write_bytes(image)
        if held:
            states = f"{prefix}/bin/image-diff-stream --states {held}"
            same(run(f"{states} | {guest_ssh()} vm {poor} zfs-snapmark common {target}").out.strip(), held.name)
        done = run(f"{prefix}/bin/image-diff-stream {base} {path} | {guest_ssh()} vm {poor} zvol-apply --mark {target}")
        assert '"marked":true' in done.out, str(done)
        target.at(image)
        base, held = f"--base {path}", path
    same(len(target.snapshots()), 3)
    # Back again, and are they equal?
    want = run(f"{prefix}/bin/extent-digest --root --image {held}").out
    same(run(f"{guest_ssh()} vm {poor} zvol-diff-stream {target}@{held.name} | {prefix}/bin/extent-digest --root").out, want)
    for command in ("rbd-diff-stream rbd/vm1@mon", "rbd-diff-stream --states rbd/vm1", "rbd-apply rbd/vm1"):
        result = run(f"{prefix}/bin/image-diff-stream {held} | {guest_ssh()} vm {poor} {command}", check=False)
        refused(result, 2, "usage")
        assert "apt-get install librbd1" in result.err, str(result)
    same(session(f"{tool}extent-inspect --version").code, 0)
    install("--uninstall --to vm", ssh=guest_ssh())
    same([path for path in session("find /usr/local").out.split() if path != "/usr/local"], [path for path in before if path != "/usr/local"])


@test
def a_mark_of_a_later_version_is_written_since_and_stays():
    source, target = zvol.volume("later", "s0", "s1")
    names = target.snapshots()
    record = target.sh("zfs get -H -o value siphon:mark {t}@" + names[-1]).out.strip()
    target.sh(f"zfs set 'siphon:mark={record.replace('v=1', 'v=2')} what=ever' {{t}}@{names[-1]}")
    guids = "zfs list -Hp -t snapshot -o name,guid -s createtxg -d 1 {t}; zfs get -Hp -o value siphon:mark,guid,siphon:receiving {t}"
    before = target.sh(guids).out
    same(target.common(source).out.strip(), "s0")
    for base in ("s0", "s1"):
        result = target.apply(source.stream("s2", base), check=False)
        assert result.code == 4 and re.search(r"\[(written-since|wrong-base|foreign-snapshot)\]", result.err), str(result)
    same(target.sh(guids).out, before)


@test
def a_prefix_outside_of_path_is_told_and_both_hints_help():
    without_tools()
    result = install("--no-build --to vm --prefix /opt/siphon", ssh=guest_ssh())
    assert "/opt/siphon/bin is not in the PATH of an ssh session" in result.err, str(result)
    same(session("zvol-apply --version", check=False).code, 127)
    link, known = re.search(r"(ln -s /opt/siphon/bin/zvol-apply .* (/\S+)/)$", result.err, re.MULTILINE).groups()
    line = re.search(r"a line (PATH=\S+) ", result.err)[1]
    try:
        session(f"'{link}'")
        for tool in ("zvol-apply", "zfs-snapmark", "zvol-diff-stream", "extent-digest"):
            assert session(f"{tool} --version").out.startswith(tool + " ")
        session(f"'rm {known}/{{zvol-apply,zfs-snapmark,zvol-diff-stream,extent-digest}}'")
        same(session("zvol-apply --version", check=False).code, 127)
        session(f"""'echo "{line.replace("$", chr(92) + "$")}" >~/.bashrc; cat ~/.bashrc'""")
        assert session("zvol-apply --version").out.startswith("zvol-apply ")
    finally:
        session("'rm -f ~/.bashrc'")
    install("--uninstall --to vm --prefix /opt/siphon", ssh=guest_ssh())
    same(session("find /opt/siphon").out.split(), ["/opt/siphon"])


main("zfs")
