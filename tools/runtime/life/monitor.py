# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The process that is a container to its engine: it owns QEMU, survives `create`, and ends as the workload ends.

    create ── fork ──▶ monitor: setsid, control groups, network namespace ── "ok" ──▶ create: hooks
        ◀──────────────────────────────────────────────────────────────── "go" ──────────┘
                       boots the guest, then serves ROOT/ID/monitor.sock ── "ok" ──▶ create: pid-file, end

It stays in the tree of whoever called `create`, whose subreaper inherits it. Until the guest is there it ends with
`create`; QEMU always ends with it.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tools.launcher.base.errors import Interrupted, LauncherError
from tools.launcher.channel.session import Session
from tools.runtime.base.log import EngineLog
from tools.runtime.life import console, namespaces
from tools.runtime.life.folder import CGROUPS, EXIT, MONITOR, SOCKET, ContainerError, Folder, started_at
from tools.runtime.life.serving import Served, Workload
from tools.runtime.life.talk import PACKET_MAX

_FAILED = 125
_KILLED = 128


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A guest whose agent has spoken, the seconds that it has for its root, and what will run in it."""

    session: Session
    limit: float
    workload: Workload


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the monitor does. `network`: a namespace to join, "": a new one.

    `inside` runs there once the engine's hooks have run. `keep` are descriptors that the monitor holds open.
    """

    folder: Folder
    engine_log: EngineLog
    join_cgroups: Callable[[int, Callable[[list[str]], None]], None]
    network: str
    inside: Callable[[], None]
    console_socket: str | None
    boot: Callable[[], AbstractContextManager[Guest]]
    keep: tuple[int, ...] = ()


class Birth:
    """The monitor as `create` sees it until the guest is there."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self.pid = pid
        self._link = link

    def wait(self) -> None:
        """Until it says that its step is done; ContainerError with what it says instead, and then it has ended."""
        answer = self._link.recv(PACKET_MAX).decode("utf-8", "replace")
        verdict, _, words = answer.partition(" ")
        if verdict != "ok":
            os.waitpid(self.pid, 0)
            raise ContainerError(words or "the container's monitor was killed")

    def go(self) -> None:
        """Let it go on."""
        with contextlib.suppress(OSError):  # it has ended: wait() tells
            self._link.send(b"go")

    def end(self) -> None:
        """It shall end, and has ended when this returns."""
        self._link.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def begin(plan: Plan) -> Birth:
    """Fork the monitor; it waits for its first go()."""
    parent_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    child = os.fork()
    if child != 0:
        child_end.close()
        return Birth(child, parent_end)
    status = _FAILED
    try:
        parent_end.close()
        os.setsid()
        _close_all_but({0, 1, 2, child_end.fileno(), *plan.keep})
        status = _live(plan, child_end, parent)
    finally:
        # Not sys.exit: the caller's own cleaning up is not the monitor's to do.
        os._exit(status)


def _live(plan: Plan, creator: socket.socket, parent: int) -> int:
    """The monitor's whole life; returns its exit status."""
    served: Served | None = None
    try:
        namespaces.call_oneself("sev-monitor")
        namespaces.end_with(parent)
        plan.folder.write(MONITOR, b"%d %s" % (os.getpid(), started_at(os.getpid()) or b"0"))
        plan.join_cgroups(os.getpid(), lambda made: plan.folder.write(CGROUPS, "\n".join(made).encode()))
        namespaces.enter_network(plan.network)
        _step(creator)
        plan.inside()
        if plan.console_socket is not None:
            console.open_for(plan.console_socket)
        with plan.boot() as guest:
            guest.session.wait_ready(guest.limit)
            with _listening(plan.folder) as server:
                served = Served(
                    session=guest.session, server=server, folder=plan.folder, workload=guest.workload
                )  # fmt: skip
                plan.folder.set_status("created", pid=os.getpid())
                namespaces.end_with(None)
                creator.send(b"ok")
                creator.close()
                served.serve()
            guest.session.shut_down()
            status, reason = _status(served), None
    except (LauncherError, OSError) as error:
        status, reason = _failed(error, served), str(error)
        details = getattr(error, "details", ())
        _report(plan, creator, reason="; ".join([reason, *details]), served=served)
    with contextlib.suppress(OSError, ContainerError):
        plan.folder.write(EXIT, json.dumps({"schema": 1, "exit_status": status, "error": reason}).encode() + b"\n")
        plan.folder.set_status("stopped")
    return status


def _step(creator: socket.socket) -> None:
    """One step is done: say so, and wait until `create` has done its own."""
    creator.send(b"ok")
    if creator.recv(PACKET_MAX) != b"go":
        raise ContainerError("create has ended before the container was there")


def _status(served: Served) -> int:
    if served.relay is None or not served.relay.finished:
        return _KILLED + served.ended_by
    return served.relay.status()


def _failed(error: LauncherError | OSError, served: Served | None) -> int:
    """The status of a container that ended by a fault: as if its process had been killed where QEMU was."""
    ended = None if served is None else served.session.machine.ended
    if ended is not None and ended < 0 and not isinstance(error, Interrupted):
        return _KILLED - ended
    return error.exit_status if isinstance(error, LauncherError) else _FAILED


def _report(plan: Plan, creator: socket.socket, *, reason: str, served: Served | None) -> None:
    """Say why: to `create` while it waits, then to the engine's log and on the container's standard error."""
    if served is None:
        with contextlib.suppress(OSError):
            creator.send(f"no {reason}".encode("utf-8", "backslashreplace")[:PACKET_MAX])
    elif served.relay is None or not served.relay.failed:  # whoever asked for the start was told
        plan.engine_log.error(f"container {plan.folder.name}: {reason}")


@contextlib.contextmanager
def _listening(folder: Folder) -> Iterator[socket.socket]:
    """The socket at which the other commands ask."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    handle = os.open(folder.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    old = os.umask(0o177)
    try:
        server.bind(f"/proc/self/fd/{handle}/{SOCKET}")
    finally:
        os.umask(old)
        os.close(handle)
    with server:
        server.listen(64)
        server.setblocking(False)
        try:
            yield server
        finally:
            with contextlib.suppress(OSError):
                os.unlink(f"{folder.path}/{SOCKET}")


def _close_all_but(kept: set[int]) -> None:
    """What the caller had open beside its standard streams is not the monitor's: somebody may wait for its end."""
    for number in sorted(int(name) for name in os.listdir("/proc/self/fd")):
        if number not in kept:
            with contextlib.suppress(OSError):
                os.close(number)
