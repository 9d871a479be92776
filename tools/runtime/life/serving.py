# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The monitor's part in the event loop: it starts the workload, further processes, and answers what it is asked.

Nobody who asks holds up the guest: requests are packets, and an answer that is not taken is thrown away.
"""

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.launcher.base.errors import LauncherError
from tools.launcher.channel import requests
from tools.launcher.channel.link import Life
from tools.launcher.channel.protocol import ErrorCode, Failure
from tools.launcher.channel.relay import Relay
from tools.launcher.channel.session import Session
from tools.launcher.channel.streams import Streams
from tools.launcher.channel.terminal import Terminal
from tools.runtime.life.folder import Folder
from tools.runtime.life.talk import PACKET_MAX
from tools.sev.workload.document import Exec

_DESCRIPTORS_MAX = 4
_REQUEST_MAX = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What `start` starts, and what it is connected to; `entries`: those of `exec` in the workload document."""

    what: requests.Run
    argv: tuple[str, ...]
    streams: Streams
    terminal: Terminal | None
    entries: tuple[Exec, ...] = ()


@dataclass(kw_only=True)
class _Exec:
    """A further process, and the exec relay on whose connection it hangs."""

    relay: Relay
    client: socket.socket
    descriptors: list[int]
    argv: Sequence[str]
    told: bool = False


@dataclass(kw_only=True)
class Served:
    """A guest, its workload, and who asks for what."""

    session: Session
    server: socket.socket
    folder: Folder
    workload: Workload
    relay: Relay | None = None
    stopped: bool = False
    ended_by: int = signal.SIGKILL
    paused: bool = False
    _asked_start: socket.socket | None = None
    _execs: dict[int, _Exec] = field(default_factory=dict)
    _started: dict[int, int] = field(default_factory=dict)

    def serve(self) -> None:
        """Serve until the workload has ended and its output is written, or until somebody says stop."""
        self.session.watch(self.server.fileno(), self._on_connect)
        try:
            self.session.serve(self._settled)
        finally:
            self.session.watch(self.server.fileno(), None)

    def _settled(self) -> bool:
        """Tell who waits what has become of their processes; whether all is over."""
        relay = self.relay
        if relay is not None and self._asked_start is not None and relay.process.life is not Life.SPAWNED:
            self._answer_start(relay, self._asked_start)
            self._asked_start = None
        for number in list(self._execs):
            self._settle_exec(number)
        return self.stopped or (relay is not None and relay.finished)

    def _answer_start(self, relay: Relay, client: socket.socket) -> None:
        failure = fault(relay, self.workload.argv)
        if failure is None:
            self.folder.set_status("running")
        _say(client, "ok" if failure is None else f"over {failure}")
        self._drop(client)

    def _settle_exec(self, number: int) -> None:
        execution = self._execs[number]
        relay = execution.relay
        if not execution.told and relay.process.life is not Life.SPAWNED:
            failure = fault(relay, execution.argv)
            _say(execution.client, "ok started" if failure is None else f"no {failure}")
            execution.told = True
        if relay.finished:
            try:
                status = relay.status()
            except LauncherError as error:
                status = error.exit_status
            _say(execution.client, f"ok exited {status}")
            self._end_exec(number)

    def _end_exec(self, number: int) -> None:
        execution = self._execs.pop(number)
        for descriptor in execution.descriptors:
            os.close(descriptor)
        self.session.forget(execution.relay)
        self._drop(execution.client)

    def _on_connect(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self.server.accept()
            client.setblocking(False)
            self.session.watch(client.fileno(), lambda: self._on_request(client))

    def _drop(self, client: socket.socket) -> None:
        self.session.watch(client.fileno(), None)
        client.close()

    def _on_request(self, client: socket.socket) -> None:
        if client.fileno() < 0:
            return  # closed in the round of events that this one belongs to
        try:
            packet, descriptors, _, _ = socket.recv_fds(client, PACKET_MAX, _DESCRIPTORS_MAX)
        except BlockingIOError:
            return
        except OSError:
            packet, descriptors = b"", []
        if not packet:
            self._hung_up(client)
            return
        verb, _, words = packet.decode("utf-8", "replace").partition(" ")
        try:
            handler = _VERBS.get(verb)
            if handler is None:
                raise ValueError("the monitor knows no such request")  # noqa: TRY301  answered as any refusal
            answer = handler(self, client, words, descriptors)
        except (ValueError, LookupError, TypeError, RecursionError, OSError) as error:
            answer = f"no {error}"
            for descriptor in descriptors:
                os.close(descriptor)
        if answer is not None:
            _say(client, answer)

    def _hung_up(self, client: socket.socket) -> None:
        """An exec relay that goes takes its process with it, as a killed process would go."""
        number = next((n for n, execution in self._execs.items() if execution.client is client), None)
        if client is self._asked_start:
            self._asked_start = None
        if number is not None:
            execution = self._execs[number]
            self.session.link.send_signal(execution.relay.process, signal.SIGKILL)
            # It stays in the list until it has ended: its output is still ours to take.
            self.session.watch(client.fileno(), None)
            return
        self._drop(client)

    def start(self, client: socket.socket, _words: str, _descriptors: list[int]) -> None:
        """`start`: run the workload; answered once it runs, or cannot be run."""
        if self.relay is not None:
            raise ValueError("cannot be started: it was started before")
        workload = self.workload
        self.relay = self.session.start(workload.what, workload.streams, workload.terminal)
        self._asked_start = client

    def signal(self, _client: socket.socket, words: str, _descriptors: list[int]) -> str:
        """`signal N`: to the workload."""
        number = int(words)
        if self.relay is None:
            # Nothing is there yet that could handle a signal: it ends, as a process would.
            self.stopped, self.ended_by = True, number
            return "ok"
        if number == signal.SIGSTOP:
            self._signal_qemu(signal.SIGSTOP)  # all of the guest: what stops it is the host's, whatever the guest does
            return "ok"
        if number == signal.SIGCONT and not self.paused:
            self._signal_qemu(signal.SIGCONT)
        if not self.relay.process.takes_signal(number):
            raise ValueError(f"the workload document does not let signal {number} through")
        self.session.link.send_signal(self.relay.process, number)
        return "ok"

    def stop(self, _client: socket.socket, _words: str, _descriptors: list[int]) -> str:
        """`stop`: end the guest."""
        self.stopped = True
        return "ok"

    def processes(self, _client: socket.socket, _words: str, _descriptors: list[int]) -> str:
        """`processes`: the monitor's number, and QEMU's."""
        return f"ok {os.getpid()} {self.session.machine.pid}"

    def pause(self, _client: socket.socket, _words: str, _descriptors: list[int]) -> str:
        """`pause`: QEMU stands still, and so does the guest."""
        if self.relay is None or self.paused:
            raise ValueError("cannot be paused: it is " + ("paused already" if self.paused else "not running"))
        self._signal_qemu(signal.SIGSTOP)
        self.paused = True
        self.folder.set_status("paused")
        return "ok"

    def resume(self, _client: socket.socket, _words: str, _descriptors: list[int]) -> str:
        """`resume`."""
        if not self.paused:
            raise ValueError("cannot be resumed: it is not paused")
        self._signal_qemu(signal.SIGCONT)
        self.paused = False
        self.folder.set_status("running")
        return "ok"

    def _signal_qemu(self, number: int) -> None:
        # QEMU leads a group of its own, of which it may not be the only member: it may be started by a script.
        os.killpg(self.session.machine.pid, number)

    def execute(self, client: socket.socket, _words: str, descriptors: list[int]) -> None:
        """`exec`, with a file that says what, and three descriptors that it is connected to.

        Answered by `started`, and at the end by `exited N`.
        """
        if self.relay is None or self.relay.process.life is not Life.RUNNING:
            raise ValueError("cannot exec in a container that is not running")
        if self.paused:
            raise ValueError("cannot exec in a container that is paused")
        request, *streams = descriptors
        asked = json.loads(_contents(request))
        what = process_of(asked, self.workload, self._started)
        stdin, stdout, stderr = streams
        terminal = Terminal(stdin, keys=True) if asked["terminal"] else None
        connected = Streams(stdin=stdin, stdout=stdout, stderr=stderr)
        relay = self.session.start(what, connected, terminal)
        if isinstance(what, requests.Run):
            self._started[what.entry] = self._started.get(what.entry, 0) + 1
        os.close(request)
        self._execs[relay.process.number] = _Exec(relay=relay, client=client, descriptors=streams, argv=asked["argv"])

    def _exec_of(self, client: socket.socket) -> _Exec:
        execution = next((one for one in self._execs.values() if one.client is client), None)
        if execution is None:
            raise ValueError("this connection has no process")
        return execution

    def signal_exec(self, client: socket.socket, words: str, _descriptors: list[int]) -> None:
        """`exec-signal N`, on the connection of an exec: to that process."""
        self.session.link.send_signal(self._exec_of(client).relay.process, int(words))

    def resize_exec(self, client: socket.socket, _words: str, _descriptors: list[int]) -> None:
        """`exec-resized`, on the connection of an exec: its terminal has another size."""
        relay = self._exec_of(client).relay
        if relay.terminal is not None:
            self.session.link.send_size(relay.process, *relay.terminal.size)


_VERBS: dict[str, Callable[[Served, socket.socket, str, list[int]], str | None]] = {
    "start": Served.start,
    "signal": Served.signal,
    "stop": Served.stop,
    "processes": Served.processes,
    "pause": Served.pause,
    "resume": Served.resume,
    "exec": Served.execute,
    "exec-signal": Served.signal_exec,
    "exec-resized": Served.resize_exec,
}


def fault(relay: Relay, argv: Sequence[str]) -> str | None:
    """Why a process never ran, in words in which engines look for the status (126, 127); None when it did."""
    ending = relay.process.ending
    if not isinstance(ending, Failure):
        return None
    said = ending.message or "no reason given"
    if ending.code == ErrorCode.NOT_FOUND:
        what = "no such file or directory" if "/" in argv[0] else "executable file not found in $PATH"
    else:
        what = said[:1].lower() + said[1:]
        if "Permission denied" in said:
            what = f"permission denied: {said}"
    return f'exec: "{argv[0][:200]}": {what}'


def process_of(asked: dict[str, Any], workload: Workload, started: dict[int, int]) -> requests.Process | requests.Run:
    """What an exec asks for; ValueError when it may not be started (any more)."""
    size = (0, 0) if asked["terminal"] else None
    entry = asked.get("entry")
    if entry is None:
        return requests.Process(
            argv=[os.fsencode(word) for word in asked["argv"]],
            env=[os.fsencode(word) for word in asked["env"]],
            cwd=os.fsencode(asked["cwd"]),
            uid=asked["uid"],
            gid=asked["gid"],
            groups=asked["groups"],
            stdin_at_end=asked["stdin_at_end"],
            size=size,
        )
    of_document = workload.entries[entry - 1]
    if started.get(entry, 0) >= of_document.count:
        raise ValueError(f"the workload document lets the host start {of_document.name} no more often")
    doors = of_document.process.host
    env = workload.what.env if doors.environment else ()
    return requests.Run(doors=doors, entry=entry, env=env, stdin_at_end=asked["stdin_at_end"], size=size)


def _contents(descriptor: int) -> bytes:
    data = os.pread(descriptor, _REQUEST_MAX + 1, 0)
    if len(data) > _REQUEST_MAX:
        raise ValueError(f"more than {_REQUEST_MAX} bytes of arguments and environment")
    return data


def _say(client: socket.socket, answer: str) -> None:
    with contextlib.suppress(OSError):
        client.send(answer.encode("utf-8", "backslashreplace")[:PACKET_MAX])
