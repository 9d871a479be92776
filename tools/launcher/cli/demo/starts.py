# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The guest of the demonstration: started by docker with sev-runtime, or by `sev-launch run`."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.base.errors import LauncherError, UserError
from tools.launcher.base.ui import NAME
from tools.launcher.base.values import Values
from tools.launcher.config import artifacts
from tools.launcher.guest.spec import reasons_against
from tools.launcher.host import facts as host
from tools.launcher.options import guest_options
from tools.launcher.options.arguments import own_file

RUNTIME = "sev-runtime"
_APPLETS = ("cat", "dmesg", "grep", "id", "sh", "tr")
_PATIENCE = 60
"""Seconds for an answer of docker's."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
SCRIPT = """\
echo @id
id
echo @dmesg
dmesg | grep -i -e sev -e encrypt -e "io tlb" -e swiotlb
marker=$(echo "$MASKED" | tr a-z n-za-m)
echo @ready
read -r control
echo @held
read -r control
echo "@end ${#marker}"
"""
"""What the guest does. The marker is made in it, of a masked form."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """`command` is what a user would have typed; `pid()` is of a process above QEMU.

    `why_not` says why it is not encrypted, as far as that is known. `masked` is the marker's masked form.
    """

    process: subprocess.Popen[bytes]
    command: str
    pid: Callable[[], int]
    why_not: tuple[str, ...]
    masked: str


@contextmanager
def started(values: Values) -> Iterator[Started]:
    """The guest; it is gone behind the block."""
    masked = word()
    if values.docker == "yes" or (values.docker == "auto" and values.rootfs is None and _docker_has(values.runtime)):
        with _by_docker(values, masked=masked) as guest:
            yield guest
    else:
        with tempfile.TemporaryDirectory(prefix="sev-demo-") as folder:
            root = values.rootfs or _root(Path(folder, "root"))
            with _by_launcher(values, root, masked=masked) as guest:
                yield guest


def word() -> str:
    """Letters that nobody has used before."""
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(32))


@contextmanager
def _by_launcher(values: Values, root: Path, *, masked: str) -> Iterator[Started]:
    why_not = _against(values)
    words = ["run", "--rootfs", str(root), "--cap-add", "syslog", "--open", "stdin", "--env", f"MASKED={masked}"]
    if why_not:
        # The way of an encrypted guest's data, without the encryption.
        words += ["--unprotected", "--append", "swiotlb=force"]
    elif values.mode is not None:
        words += ["--mode", values.mode]
    for name in ("config", "accel", "qemu", "timeout", "memory"):
        if values[name] is not None:
            words += [f"--{name}", f"{values[name]}M" if name == "memory" else str(values[name])]
    if values.qemu_user is not None:
        words += ["--qemu-user", ":".join(map(str, values.qemu_user))]
    file = own_file()
    program = [sys.executable, "-m", "tools.launcher"] if file is None else [str(file)]
    command = shlex.join([NAME, *words, "--", "sh"])
    with _running([*program, *words, "--quiet", "--", "sh", "-c", SCRIPT]) as process:
        yield Started(
            process=process,
            command=command,
            pid=lambda: process.pid,
            why_not=why_not,
            masked=masked,
        )


def _against(values: Values) -> tuple[str, ...]:
    """Why the guest is not encrypted; nothing when it is."""
    if values.unprotected:
        return ("--unprotected was given",)
    asked = guest_options.wanted(Values({**values, "rootfs": None}))
    config = asked.configure()
    firmware = artifacts.read_firmware(config)
    return tuple(reasons_against(host.gather(), config.sev.mode, guest_options.qemu(values, config), firmware))


def _root(place: Path) -> Path:
    """A root file system of this host's busybox."""
    found = shutil.which("busybox")
    if found is None:
        hint = "apt-get install busybox-static, or give --rootfs"
        raise UserError("has no busybox, of which a root could be made", where="this host", hint=hint)
    (place / "bin").mkdir(parents=True)
    shutil.copyfile(found, place / "bin/busybox")
    (place / "bin/busybox").chmod(0o755)
    for name in _APPLETS:
        (place / "bin" / name).symlink_to("busybox")
    return place


def _docker_has(runtime: str) -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        done = subprocess.run(
            ["docker", "info", "--format", "{{json .Runtimes}}"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False,
        )  # fmt: skip
        return done.returncode == 0 and runtime in json.loads(done.stdout)
    except (OSError, ValueError, TypeError, subprocess.TimeoutExpired):
        return False


@contextmanager
def _by_docker(values: Values, *, masked: str) -> Iterator[Started]:
    name = f"sev-demo-{masked[:8]}"
    words = ["docker", "run", "--rm", "-i", "--name", name, "--runtime", values.runtime, "--network", "none"]
    words += ["--cap-add", "SYSLOG", "-e", f"MASKED={masked}", values.image]

    def pid() -> int:
        done = _docker("inspect", "--format", "{{.State.Pid}}", name)
        if not done.strip().isdigit() or int(done) == 0:
            raise LauncherError("docker names no process of it", where=f"container {name}")
        return int(done)

    with _running([*words, "sh", "-c", SCRIPT]) as process:
        try:
            yield Started(
                process=process,
                command=shlex.join([*words, "sh"]),
                pid=pid,
                why_not=(),
                masked=masked,
            )
        finally:
            if process.poll() is None:
                subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)


def _docker(*words: str) -> str:
    try:
        done = subprocess.run(["docker", *words], capture_output=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LauncherError(f"docker does not answer: {error}") from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise LauncherError(said[-1] if said else f"docker ended with status {done.returncode}", where="docker")
    return done.stdout.decode("utf-8", "replace")


@contextmanager
def _running(argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The program, with its standard error on ours; it has ended behind the block."""
    try:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError as error:
        raise UserError(error.strerror or "cannot be run", where=argv[0]) from None
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate()
