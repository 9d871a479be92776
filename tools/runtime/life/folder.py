# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A container's folder below the runtime's root, and what `state`, `kill` and `delete` need of it.

    ROOT/ID/state.json     what the OCI runtime specification calls the state, with the status last written
            monitor        process number and start time of the monitor
            monitor.sock   where it is asked
            config.json    the engine's, as it was at create
            document.json  the workload document
            hooks.json     poststart and poststop hooks, if there are any
            cgroups        control groups that were made, one a line
            guest          the path of the guest's private folder

Engines call these commands often, so this imports next to nothing: no json, no re, no pathlib.
"""

import os

from tools.launcher.base.errors import LauncherError

STATE, MONITOR, SOCKET = "state.json", "monitor", "monitor.sock"
DOCUMENT, HOOKS, CGROUPS, GUEST, EXIT = "document.json", "hooks.json", "cgroups", "guest", "exit.json"
CONFIG = "config.json"
ID_MAX = 255
"""Bytes: of a file's name."""
_BUSY, _TRIES = 16, 100  # EBUSY
_STATUS = b'"status": "'
_LIVE = (b"creating", b"created", b"running", b"paused")


class ContainerError(LauncherError):
    """What was asked cannot be done with this container. Exit status 1, as all of the runtime's errors."""

    exit_status = 1


def check_id(name: str) -> str:
    """The id, if it is one: it becomes a file's name, and words in other files."""
    plain = name.isascii() and all(c.isalnum() or c in "_+-." for c in name)
    if not plain or not 1 <= len(name) <= ID_MAX or name in {".", ".."}:
        raise ContainerError(
            f"{name[:80]!r} is no container id", hint=f"1 to {ID_MAX} letters, digits and _ + - . , not . or .."
        )
    return name


class Folder:
    """The folder of container `name` below `root`; nothing is read before it is asked for."""

    def __init__(self, root: str, name: str) -> None:
        self.name = check_id(name)
        self.path = f"{root}/{name}"

    def read(self, name: str) -> bytes:
        """A file's bytes; ContainerError when there is no such container."""
        try:
            file = os.open(f"{self.path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ContainerError("no such container, or it has none of these", where=f"{self.name}: {name}") from None
        try:
            return b"".join(iter(lambda: os.read(file, 1 << 16), b""))
        finally:
            os.close(file)

    def write(self, name: str, data: bytes) -> None:
        """A file, all of it or nothing."""
        partial = f"{self.path}/.{name}"
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            while data:
                data = data[os.write(file, data) :]
        finally:
            os.close(file)
        os.rename(partial, f"{self.path}/{name}")

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        return os.access(f"{self.path}/{name}", os.F_OK)

    def require(self) -> None:
        """ContainerError when there is no such container."""
        if not self.has(STATE):
            raise ContainerError("no such container", where=self.name)

    def monitor(self) -> int | None:
        """The monitor's process number while it lives."""
        try:
            number, started = self.read(MONITOR).split()
        except (ContainerError, ValueError):
            return None
        return int(number) if started_at(int(number)) == started else None

    def state(self) -> bytes:
        """The state as JSON; a container whose monitor has gone is stopped, whatever was written last."""
        try:
            text = self.read(STATE)
        except ContainerError:
            raise ContainerError("no such container", where=self.name) from None
        # The first one is the status: what comes before it are the version and the id.
        head, _, rest = text.partition(_STATUS)
        status, quote, tail = rest.partition(b'"')
        if status in _LIVE and self.monitor() is None:
            status = b"stopped"
        return head + _STATUS + status + quote + tail

    def status(self) -> str:
        """Its status alone."""
        return self.state().partition(_STATUS)[2].partition(b'"')[0].decode()

    def set_status(self, status: str, *, pid: int | None = None) -> None:
        """Write the status, and the process number where it is known by now."""
        head, _, rest = self.read(STATE).partition(_STATUS)
        tail = rest.partition(b'"')[2]
        if pid is not None:
            before, _, after = tail.partition(b'"pid": ')
            digits = len(after) - len(after.lstrip(b"0123456789"))
            tail = before + b'"pid": ' + str(pid).encode() + after[digits:]
        self.write(STATE, head + _STATUS + status.encode() + b'"' + tail)

    def remove(self) -> None:
        """Remove it with all that is in it, and the guest's; what has gone already is no fault."""
        if self.has(GUEST):
            _remove_tree(os.fsdecode(self.read(GUEST)))
        if self.has(CGROUPS):
            for path in self.read(CGROUPS).split(b"\n"):
                _remove_group(path)
        _remove_tree(self.path)


def started_at(pid: int) -> bytes | None:
    """When a process began, in the kernel's ticks (proc(5), field 22); None when it has gone or is a zombie."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # The name may hold blanks and brackets: what counts stands behind the last one.
        fields = os.read(file, 4096).rpartition(b")")[2].split()
    except OSError:
        return None
    finally:
        os.close(file)
    return None if not fields or fields[0] in {b"Z", b"X"} else fields[19]


def wait_for_end(pid: int, seconds: float) -> None:
    """Until the process has ended, which need not be a child of this one, or so many seconds have gone."""
    import select  # noqa: PLC0415  start-up

    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    poller.poll(seconds * 1000)
    os.close(handle)


def _remove_group(path: bytes) -> None:
    """A control group, which is empty as soon as QEMU, killed a moment ago, has gone."""
    for _ in range(_TRIES):
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno != _BUSY:
                return
            import time  # noqa: PLC0415  start-up

            time.sleep(0.02)
        else:
            return


def _remove_tree(path: str) -> None:
    try:
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    _remove_tree(entry.path)
                else:
                    os.unlink(entry.path)
        os.rmdir(path)
    except FileNotFoundError:
        return
