# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A process that owns a guest's QEMU and survives whoever asked for the guest.

    create() ── fork, setsid ──▶ monitor: boots the guest, then serves FOLDER/monitor.sock
        │  returns once the guest is ready                 ▲ start, signal, state, stop
        ▼  (or raises what went wrong)              ask(), from any later process

The workload's standard streams are those that create() was called with. The monitor's exit status is the
workload's; FOLDER/status.json has it too, for who is not its parent. QEMU dies with the monitor.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.launcher.base.errors import GuestError, LauncherError, UserError
from tools.launcher.channel import requests
from tools.launcher.channel.relay import Relay
from tools.launcher.channel.session import Session, listen
from tools.launcher.channel.streams import STANDARD

SOCKET, STATUS = "monitor.sock", "status.json"
_REQUEST_MAX = 4096
_ANSWER_TIMEOUT = 60.0
_KILLED = 137  # as shells say it: 128 and SIGKILL
Guest = Callable[[], AbstractContextManager[tuple[Session, float]]]
"""Starts a guest: the session, and the seconds that it has for its root file system (bring_up.brought_up)."""


@dataclass(kw_only=True)
class _Monitored:
    """The guest and its one workload, and what is asked about them."""

    session: Session
    server: socket.socket
    workload: requests.Process | requests.Run
    relay: Relay | None = None
    stopped: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing is left to wait for."""
        return self.stopped or (self.relay is not None and self.relay.finished)

    def answer(self) -> None:
        """Serve one request: a connection, a line in, a line out."""
        with contextlib.suppress(OSError):
            connection, _ = self.server.accept()
            with connection:
                connection.settimeout(1.0)  # nobody may hold up the guest
                reply = self._reply(connection.recv(_REQUEST_MAX))
                connection.sendall(json.dumps(reply).encode() + b"\n")

    def _reply(self, request: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(request)
            return getattr(self, f"_do_{asked['do']}")(asked) or self._state()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return {"error": f"cannot be done: {error}"}

    def _state(self) -> dict[str, Any]:
        return {"state": "created" if self.relay is None else "running", "pid": os.getpid()}

    def _do_state(self, _: dict[str, Any]) -> None:
        """Nothing but the answer."""

    def _do_start(self, _: dict[str, Any]) -> None:
        if self.relay is not None:
            raise ValueError("it was started before")
        self.relay = self.session.start(self.workload, STANDARD)

    def _do_signal(self, asked: dict[str, Any]) -> None:
        number = asked["number"]
        if self.relay is None or type(number) is not int or not 1 <= number <= 64:
            raise ValueError("no signal from 1 to 64 to a running workload")
        if not self.relay.process.takes_signal(number):
            raise ValueError(f"the workload document does not let signal {number} through")
        self.session.link.send_signal(self.relay.process, number)

    def _do_stop(self, _: dict[str, Any]) -> dict[str, Any]:
        self.stopped = True
        return {"state": "stopped", "pid": os.getpid()}


def create(folder: Path, guest: Guest, workload: requests.Process | requests.Run) -> int:
    """Have a monitor bring up `guest` and keep it; returns the monitor's process id once it is ready.

    `folder` is an empty private folder, where socket and status will lie. Raises UserError or GuestError with what
    went wrong in the monitor; then nothing is left of it but its status.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        status = 125
        try:
            os.setsid()
            _close_all_but(write_end)
            status = _monitor(folder, guest, workload, write_end)
        finally:
            # Not sys.exit: the caller's own cleaning up is not the monitor's to do.
            os._exit(status)
    os.close(write_end)
    with open(read_end, "rb") as pipe:  # noqa: PTH123  a descriptor
        said = pipe.read()
    if said == b"ready":
        return child
    os.waitpid(child, 0)
    number, _, text = said.decode("utf-8", "replace").partition(" ")
    if number == str(UserError.exit_status):
        raise UserError(text)
    raise GuestError(text or "the guest's monitor ended without a word")


def ask(folder: Path, do: str, **values: object) -> dict[str, Any]:
    """Ask the monitor of `folder`: state, start, signal (number=N), stop; UserError when it cannot be done."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_ANSWER_TIMEOUT)
        # By way of a descriptor: a socket's own path may have no more than 107 bytes.
        handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            client.connect(f"/proc/self/fd/{handle}/{SOCKET}")
            client.sendall(json.dumps({"do": do, **values}).encode())
            with client.makefile("rb") as stream:
                reply: dict[str, Any] = json.loads(stream.readline() or b'{"error": "the monitor has ended"}')
        except OSError as error:
            raise UserError(f"no monitor answers: {error.strerror or error}", where=str(folder)) from None
        finally:
            os.close(handle)
    if "error" in reply:
        raise UserError(reply["error"], where=str(folder))
    return reply


def _monitor(folder: Path, guest: Guest, workload: requests.Process | requests.Run, report: int) -> int:
    """The monitor's whole life; returns its exit status."""
    record: dict[str, Any] = {"schema": 1, "error": None}
    try:
        record["exit_status"] = status = _serve(folder, guest, workload, report)
    except LauncherError as error:
        status = error.exit_status
        record |= {"exit_status": status, "error": str(error)}
        # Whoever called create() has gone if the guest was ready: then the record alone tells.
        with contextlib.suppress(OSError):
            os.write(report, f"{status} {error}".encode("utf-8", "backslashreplace"))
    partial = folder / f".{STATUS}"
    partial.write_text(json.dumps(record) + "\n")
    partial.replace(folder / STATUS)
    return status


def _serve(folder: Path, guest: Guest, workload: requests.Process | requests.Run, report: int) -> int:
    with guest() as (session, limit):
        session.wait_ready(limit)
        with listen(folder, SOCKET) as server:
            monitored = _Monitored(session=session, server=server, workload=workload)
            session.watch(server.fileno(), monitored.answer)
            os.write(report, b"ready")
            os.close(report)
            try:
                session.serve(lambda: monitored.over)
            finally:
                (folder / SOCKET).unlink()
        session.shut_down()
        if monitored.relay is None:
            return 0
        return monitored.relay.status() if monitored.relay.finished else _KILLED


def _close_all_but(descriptor: int) -> None:
    """What the caller had open beside its standard streams is not the monitor's: somebody may wait for its end."""
    for number in sorted(int(path.name) for path in Path("/proc/self/fd").iterdir()):
        if number not in (0, 1, 2, descriptor):
            with contextlib.suppress(OSError):
                os.close(number)
