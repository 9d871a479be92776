# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A machine of its own for container engines: Debian from tool trees, in namespaces of its own.

    trees engines and boot ── overlayfs ── / ┐
    a folder on disk ── /var/lib, /srv       ├─ processes, mounts, network, control groups, host name of the box
    out/, read-only                          ┘

Nothing of the machine's own engines is seen or touched. All that a box has made is gone with its first process, so
what is left over in one can be counted. Root only: nobody else may make control groups and bridges.
"""

import contextlib
import fcntl
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Not /tmp, which may be a tmpfs: overlayfs of engines wants a disk.
_PLACE, _PREFIX = "/var/tmp", "sev-box-"
LIMIT = 180.0  # seconds; what hangs must end the test, however slow the machine is
_VARIABLES = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
              "PODMAN_IGNORE_CGROUPSV1_WARNING=1")  # fmt: skip
_V1 = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a program in the box ended, and what it said."""

    status: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def complaint(self) -> str:
        return self.err.decode(errors="replace")


@dataclass(kw_only=True)
class Box:
    """`trees` from the uppermost down; `shown`: folders of the host, and where they are in the box, read-only."""

    trees: Sequence[Path]
    shown: Mapping[Path, str]
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_PLACE)))
    pid: int = 0
    groups: dict[str, Path] = field(default_factory=dict)
    _lock: int | None = None
    _first: "subprocess.Popen[str] | None" = None
    _started: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def start(self) -> "Box":
        """Make the machine; an error of its first process ends the test."""
        assert os.geteuid() == 0, "engines need root: run this as root, or in a virtual machine"
        self.folder.chmod(0o755)
        self._lock = _held(self.folder)
        _remove_rests()
        for name in ("lib", "share"):
            (self.folder / name).mkdir()
        self.groups = _make_groups(self.folder.name)
        unified = list(self.groups) == [""]
        kind = "v2" if unified else f"v1 {' '.join(self.groups)}"
        script = Path(__file__).with_name("box.sh")
        lower = ":".join(str(tree) for tree in self.trees)
        argv = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--pid"]
        argv += ["--fork", "--kill-child", "sh", str(script), str(self.folder), lower, kind]
        argv += [str(word) for pair in self.shown.items() for word in pair]
        self._first = subprocess.Popen(self._inside(argv), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        assert self._first.stdout is not None
        words = self._first.stdout.readline().split()
        if words[:1] != ["ready"]:
            self.stop()
            raise AssertionError("the box does not start: see above what its shell says")
        self.pid = int(words[1])
        return self

    def stop(self) -> None:
        """End every process in the box, and remove what it had."""
        if self._first is not None:
            self._first.kill()
            self._first.wait()
        for process in self._started:
            process.wait()
        for folder in self.groups.values():
            _remove_group(folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    def argv(self, *words: str | Path, user: int = 0, env: Sequence[str] = ()) -> list[str]:
        """The command line that runs a program in the box."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        enter += ["--root", "--wdns=/"]
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        return self._inside([*enter, "env", "-i", *_VARIABLES, *env, *become, *map(str, words)])

    def _inside(self, argv: Sequence[str]) -> list[str]:
        """In the box's control groups from its first instruction on."""
        places = " ".join(shlex.quote(str(self._leaf(folder) / "cgroup.procs")) for folder in self.groups.values())
        return ["sh", "-c", f'for file in {places}; do echo $$ >"$file"; done; exec "$@"', "sh", *argv]

    def _leaf(self, folder: Path) -> Path:
        return folder / "init" if (folder / "init").is_dir() else folder

    def run(
        self, *words: str | Path, stdin: bytes = b"", user: int = 0, env: Sequence[str] = (), limit: float = LIMIT
    ) -> Done:
        """Run a program to its end."""
        argv = self.argv(*words, user=user, env=env)
        done = subprocess.run(argv, input=stdin, capture_output=True, check=False, timeout=limit)
        return Done(status=done.returncode, out=done.stdout, err=done.stderr)

    def check(self, *words: str | Path, stdin: bytes = b"", user: int = 0) -> str:
        """What a program says that must succeed."""
        done = self.run(*words, stdin=stdin, user=user)
        assert done.status == 0, f"{words}: {done.status}\n{done.text}{done.complaint}"
        return done.text

    def spawn(self, *words: str | Path, log: Path, user: int = 0) -> "subprocess.Popen[bytes]":
        """Start a program that stays; what it says goes to a file."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                self.argv(*words, user=user), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        self._started.append(process)
        return process

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Make a file in the box, and its folders."""
        self.check(
            "sh", "-euc", 'mkdir -p "${0%/*}"; cat >"$0"; chmod "$1" "$0"', path, f"{mode:o}", stdin=text.encode()
        )

    def read(self, path: str) -> str:
        return self.check("cat", path)

    @property
    def share(self) -> Path:
        """A folder of the host that is /srv in the box."""
        return self.folder / "share"

    def processes(self) -> dict[int, str]:
        """The command lines of all that runs in the box, by the pid there; without this look itself."""
        # Not echo, which makes lines of what has backslashes.
        look = 'printf "%s %s\\n" "${p#/proc/}" "$(tr "\\0\\n" "  " 2>/dev/null <$p/cmdline)"'
        script = f"for p in /proc/[0-9]*; do {look}; done"
        lines = [line.split(" ", 1) for line in self.check("sh", "-c", script).splitlines()]
        found = {int(pid): words.strip() for pid, *rest in lines for words in rest}
        return {pid: words for pid, words in found.items() if words and script[:20] not in words}


def send(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Signal a program that was started with Box.argv(), which is the child of what entered the box."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(found[0]) if found else process.pid, number)


def wait(what: Callable[[], Any], *, limit: float = LIMIT, why: str = "") -> Any:
    """The first answer that is true; the test ends when none comes."""
    end = time.monotonic() + limit
    while True:
        if found := what():
            return found
        assert time.monotonic() < end, f"waited in vain{why and f' for {why}'}"
        time.sleep(0.05)


def _held(folder: Path) -> int | None:
    """A descriptor by which the box is known to be in use; None: it is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_rests() -> None:
    """What boxes have left whose tests were killed; their processes ended with those."""
    for folder in sorted(Path(_PLACE).glob(f"{_PREFIX}*")):
        lock = _held(folder)
        if lock is not None and not _is_used(folder.name):
            for group in _places(folder.name).values():
                _remove_group(group)
            shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _is_used(name: str) -> bool:
    """Whether processes are in the box's groups."""
    return any(file.read_text() for group in _places(name).values() for file in sorted(group.glob("**/cgroup.procs")))


def _places(name: str) -> dict[str, Path]:
    """The box's groups, below our own in every hierarchy, by controller; "" is the one hierarchy of cgroup v2."""
    ours: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        ours |= {one.removeprefix("name="): path for one in names.split(",")}
    mounted = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = {}
    if not any(words[2] == "cgroup" for words in mounted):
        place = next(Path(words[1]) for words in mounted if words[2] == "cgroup2")
        found[""] = place / ours[""].lstrip("/") / name
    for words in mounted:
        for one in set(words[3].replace("name=", "").split(",")) & set(_V1):
            if words[2] == "cgroup":
                found[one] = Path(words[1]) / ours[one].lstrip("/") / name
    return dict(sorted(found.items()))


def _make_groups(name: str) -> dict[str, Path]:
    """Make them."""
    found = _places(name)
    for one, folder in found.items():
        folder.mkdir()
        for setting in ("cpuset.cpus", "cpuset.mems") if one == "cpuset" else ():
            (folder / setting).write_text((folder.parent / setting).read_text())
    return found


def _remove_group(folder: Path) -> None:
    """A group and all below it; the kernel lets a group go a moment after its last process."""

    def gone() -> bool:
        for place in [*sorted(folder.glob("**/"), reverse=True)]:
            with contextlib.suppress(OSError):
                place.rmdir()
        return not folder.exists()

    wait(gone, limit=20, why=f"{folder} to be empty")
