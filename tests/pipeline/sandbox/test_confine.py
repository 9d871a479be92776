# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a step cannot do to the machine, each beside the same without the protection; and nothing outlives a build."""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.pipeline.base import children
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.tree import Tree
from tools.pipeline.sandbox import confine, sandbox, seccomp
from tools.pipeline.sandbox.sandbox import Command, Mount

Inside = Callable[..., str]
ORDINARY = 54321  # no account of that number is needed


@pytest.fixture
def inside(build_tree: Tree, tmp_path: Path) -> Inside:
    """inside("shell script") → what it prints; /build and /out as every step has them, here where only we may enter."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for name in ("build", "out"):
        (private / name).mkdir(mode=0o755)

    def run(script: str, *more: Mount) -> str:
        mounts = [Mount(host=private / name, inside=f"/{name}", writable=True) for name in ("build", "out")]
        argv = ("/bin/sh", "-euc", script)
        return sandbox.output_of(Command(argv=argv, tree=build_tree.path, mounts=(*more, *mounts))).decode()

    return run


def unprotected(tree: Tree, script: str) -> str:
    """The same program with bubblewrap alone, as root of a user namespace: what the protections take away."""
    argv = ["bwrap", "--unshare-all", "--uid", "0", "--gid", "0", "--cap-add", "ALL", "--ro-bind", str(tree.path), "/"]
    argv += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--", "/bin/sh", "-euc", script]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_kernel_settings_are_read_only(inside: Inside, build_tree: Tree) -> None:
    writable = "find /proc/sys -type f -writable 2>/dev/null | wc -l"
    assert int(unprotected(build_tree, writable)) > 100
    assert inside(writable) == "0\n"
    for name in ("kernel/core_pattern", "kernel/hostname", "vm/overcommit_memory", "net/ipv4/ip_forward"):
        with pytest.raises(BuildError, match="Read-only file system"):
            inside(f"cat /proc/sys/{name} >/build/same; cat /build/same >/proc/sys/{name}")
    same = "cat /proc/sys/net/ipv4/ip_forward >/tmp/same; cat /tmp/same >/proc/sys/net/ipv4/ip_forward"
    assert unprotected(build_tree, same) == ""


def test_no_set_uid_file(inside: Inside, build_tree: Tree, tmp_path: Path) -> None:
    made = "touch f; chmod 4755 f; stat -c %a f"
    assert unprotected(build_tree, f"cd /tmp; {made}") == "4755\n"
    with pytest.raises(BuildError, match="Operation not permitted"):
        inside(made)
    create = "import os; os.close(os.open('g', os.O_CREAT | os.O_WRONLY, 0o4755))"
    with pytest.raises(BuildError, match="Operation not permitted"):
        inside(f'python3 -c "{create}"')
    # Whatever a step leaves is not root's.
    assert inside("touch h; chmod 755 h; stat -c %u:%a h") == "1000:755\n"
    owner = (tmp_path / "private/build/h").stat().st_uid
    assert owner == os.geteuid() if os.geteuid() else owner in confine._POOL


@pytest.mark.parametrize(
    "script", ["unshare --user true", "unshare --mount true", "python3 -c 'import os; os.chroot(\"/\")'"]
)
def test_no_namespaces_or_mounts(inside: Inside, build_tree: Tree, script: str) -> None:
    assert unprotected(build_tree, script) == ""
    with pytest.raises(BuildError, match=r"Operation not permitted|No space left"):
        inside(script)


def test_no_user_namespace_where_the_filter_is_left_out(build_tree: Tree) -> None:
    """The kernel's own limit holds as well."""
    command = Command(argv=("unshare", "--user", "true"), tree=build_tree.path, chdir="/")
    argv = sandbox.bwrap_argv(command)
    code = argv.index(sandbox._ENTER)
    nothing = "from tools.pipeline.sandbox import seccomp; seccomp._REFUSED = seccomp._BITS = (); "
    argv[code] = argv[code].replace("from tools", nothing + "from tools", 1)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "unshare: unshare failed: No space left on device\n")


FAMILIES = {"vsock": 40, "alg": 38, "packet": 17}  # linux/socket.h


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_no_sockets_that_know_no_network_namespace(inside: Inside, family: int) -> None:
    code = f"import socket\ntry: socket.socket({family}, 1)\nexcept OSError as error: print(error.errno)"
    assert inside(f'python3 -c "{code}"') == f"{errno.EPERM}\n"
    assert inside(f'python3 -c "{code.replace(str(family), str(int(socket.AF_UNIX)))}"') == ""


def test_system_call_numbers(build_tree: Tree) -> None:
    header = (build_tree.path / "usr/include/x86_64-linux-gnu/asm/unistd_64.h").read_text()
    known = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", header)}
    newer = {"open_tree_attr"}  # Linux 6.15
    assert {name: known.get(name, number) for name, number in seccomp.NUMBERS.items()} == seccomp.NUMBERS
    assert seccomp.NUMBERS.keys() - known.keys() == newer - known.keys()


def test_a_step_has_no_descriptor_of_ours(inside: Inside) -> None:
    # 3 is that of the folder that is being listed.
    assert inside("ls /proc/self/fd") == "0\n1\n2\n3\n"


def test_sources_where_only_we_may_enter(inside: Inside, tmp_path: Path) -> None:
    source = tmp_path / "private/source"
    source.write_text("of mine")
    source.chmod(0o644)
    assert (tmp_path / "private").stat().st_mode & 0o077 == 0
    assert inside("cat /inputs/x; echo >/out/y", Mount(host=source, inside="/inputs/x")) == "of mine"
    assert (tmp_path / "private/out/y").read_text() == "\n"


def may_mount() -> bool:
    """Whether we are root with CAP_SYS_ADMIN (bit 21 of linux/capability.h), and so can be somebody else elsewhere."""
    status = Path("/proc/self/status").read_text()
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> 21 & 1)


LOOKS = "id; stat -c '%u %g %a %n' / /usr /build /inputs/in; echo $(umask) $(pwd); wc -c </inputs/in; env | sort"
AS_USER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tools.pipeline.sandbox import sandbox
from tools.pipeline.sandbox.sandbox import Command, Mount
where = Path(sys.argv[3])
(where / "build").mkdir(mode=0o755)
(where / "in").write_text("input")
(where / "in").chmod(0o644)
mounts = (Mount(host=where / "in", inside="/inputs/in"), Mount(host=where / "build", inside="/build", writable=True))
command = Command(argv=("/bin/sh", "-euc", sys.argv[4]), tree=Path(sys.argv[2]), mounts=mounts)
print(sandbox.output_of(command).decode(), end="")
"""


def test_root_and_others_see_the_same(build_tree: Tree, repository: Path, tmp_path: Path) -> None:
    """All but the owner of the tree, which is somebody else's in one of the two."""
    mine, others, third = tmp_path / "mine", tmp_path / "others", tmp_path / "third"
    script = LOOKS.replace(" / /usr", "")
    argv = [sys.executable, "-c", AS_USER, str(repository), str(build_tree.path)]
    mine.mkdir()
    others.mkdir()
    third.mkdir()
    first = subprocess.run([*argv, str(mine), script], capture_output=True, text=True, check=True).stdout
    # Root's inputs are shown as the step's own where the file system and root's capabilities allow it.
    shown = subprocess.run(
        [*argv, str(third), "grep -c idmapped /proc/self/mounts || true"], capture_output=True, check=True
    )
    owner = "65534" if os.geteuid() == 0 and shown.stdout == b"0\n" else "1000"
    assert first.startswith(f"uid=1000 gid=1000 groups=1000\n1000 1000 755 /build\n{owner} {owner} 644 /inputs/in\n")
    first = first.replace(f"{owner} {owner}", "1000 1000")
    if may_mount():
        shutil.chown(others, ORDINARY)
        # Whoever it is may not enter root's home: all that is needed lies elsewhere, too.
        change = ["bwrap", "--dev-bind", "/", "/", "--tmpfs", "/mnt"]
        places = {"repository": repository, "tree": build_tree.path, "python": Path(sys.base_prefix), "work": others}
        for name, path in places.items():
            change += ["--bind", str(path), f"/mnt/{name}"]
        change += ["--", "setpriv", "--reuid", str(ORDINARY), "--clear-groups", "--"]
        python = f"/mnt/python/{Path(sys.executable).resolve().relative_to(sys.base_prefix)}"
        argv = [*change, python, "-c", AS_USER, "/mnt/repository", "/mnt/tree"]
        others = Path("/mnt/work")
    second = subprocess.run([*argv, str(others), script], capture_output=True, text=True, check=True).stdout
    assert first == second


SLEEPING = """
import sys
from pathlib import Path
from tools.pipeline.sandbox import sandbox
script = "echo ready; exec sleep 1000 " + sys.argv[2]
command = sandbox.Command(argv=("sh", "-c", script), tree=Path(sys.argv[1]), chdir="/")
sandbox.run(command, title="t", log=Path(sys.argv[3]) / "log", replay=Path(sys.argv[3]) / "replay")
"""


def processes(word: str) -> list[str]:
    """Command lines of all processes that mention the word, from outside."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [line for line in found if word in line]


def wait_until(done: Callable[[], bool]) -> None:
    for _ in range(1000):
        if done():
            return
        time.sleep(0.02)
    pytest.fail("nothing happened for 20 s")


@pytest.mark.parametrize("moment", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("ready", [True, False], ids=["running", "starting"])
def test_nothing_survives(
    build_tree: Tree, repository: Path, tmp_path: Path, moment: signal.Signals, ready: bool
) -> None:
    word = f"# {tmp_path}"
    argv = [sys.executable, "-c", SLEEPING, str(build_tree.path), word, str(tmp_path)]
    with subprocess.Popen(argv, cwd=repository, stderr=subprocess.DEVNULL) as process:
        log = tmp_path / "log"
        # The positive control: what is searched for below is found while it runs.
        wait_until(lambda: len(processes(word)) >= 2 and (not ready or (log.exists() and log.read_text() == "ready\n")))
        process.send_signal(moment)
        assert process.wait() != 0
    wait_until(lambda: processes(word) == [])


def test_nothing_survives_a_stop_from_another_thread(build_tree: Tree, tmp_path: Path) -> None:
    word = f"# {tmp_path}"
    command = Command(argv=("sh", "-c", f"echo ready; exec sleep 1000 {word}"), tree=build_tree.path, chdir="/")
    ended: list[BaseException] = []

    def work() -> None:
        try:
            sandbox.run(command, title="t", log=tmp_path / "log", replay=tmp_path / "replay")
        except children.Interrupted as stopped:
            ended.append(stopped)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        wait_until(lambda: len(processes(word)) >= 2)
        children.stop()
        thread.join(20)
    finally:
        children.resume()
    assert len(ended) == 1
    assert processes(word) == []


def test_bubblewrap_itself_may_lie_where_only_we_may_enter(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(sandbox.bwrap_program(), tmp_path / "private/bwrap")
    monkeypatch.setenv("PATH", str(tmp_path / "private"))
    assert inside("id -u") == "1000\n"


def test_what_cannot_be_set_up_is_one_line(inside: Inside, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"ended with status \d+: (sandbox|bwrap): .*none: No such file or directory"):
        inside("true", Mount(host=tmp_path / "none", inside="/src"))


def test_no_file_without_end_and_no_core_dump(inside: Inside, tmp_path: Path) -> None:
    inside("truncate -s 8G large")
    assert (tmp_path / "private/build/large").stat().st_size == 8 << 30
    with pytest.raises(BuildError, match=f"status {128 + signal.SIGXFSZ}"):
        inside("exec truncate -s 1T huge")
    # Standard output may be a file as well: the log.
    assert inside("prlimit --noheadings -o HARD --core").split() == ["1"]


def test_signals_are_as_at_the_start_of_any_program(inside: Inside) -> None:
    """Python ignores two, and whatever our caller ignores or blocks is inherited."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        assert inside("grep -E '^Sig(Blk|Ign)' /proc/self/status").split()[1::2] == ["0" * 16] * 2
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
