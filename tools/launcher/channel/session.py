# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The event loop between the standard streams, the agent's socket, signals and QEMU."""

import contextlib
import dataclasses
import functools
import operator
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from tools.launcher.base.errors import GuestError, Interrupted, LauncherError
from tools.launcher.channel import requests
from tools.launcher.channel.attest import Report
from tools.launcher.channel.link import Life, Link, NoVerityError, Stage
from tools.launcher.channel.payload import ProtocolError
from tools.launcher.channel.protocol import ErrorCode, Output, Stream
from tools.launcher.channel.relay import Relay, reason
from tools.launcher.channel.streams import TERMINATING, Signals, Streams, read_piece
from tools.launcher.channel.terminal import Terminal

_READ = 1 << 16
# Stop reading stdin while this much waits for the guest, so that signals do not queue behind it for long.
_OUTGOING_MAX = 1 << 18
# Nothing is taken from a guest for which this much waits: one that does not read makes each byte of its output cost us
# a frame. More than stdin ever leaves waiting: an honest guest may be busy.
_UNREAD_MAX = 1 << 20
# So many terminating signals end the guest by force when nothing came from it in between, or when they came within so
# many seconds: what a guest says must not keep it alive, and somebody who is still working in it sends fewer.
_PATIENCE = 3
_INSISTENCE = 10.0
_SHUTDOWN_GRACE = 5.0
_FLUSH_GRACE = 2.0
# What poll() reports unasked.
_ALWAYS = select.POLLERR | select.POLLHUP | select.POLLNVAL
_CLOSED = "and the workload, which takes no signals, with its guest"
Handler = Callable[[], None]


class NoHelloError(GuestError):
    """The agent never said HELLO: the guest did not come up."""


class Machine(Protocol):
    """What a session needs of the process that runs the guest (guest/qemu.py)."""

    stderr_open: bool

    @property
    def pid(self) -> int:
        """Its process number."""

    @property
    def stderr(self) -> IO[bytes]:
        """Its messages."""

    @property
    def said(self) -> tuple[str, ...]:
        """The last of them."""

    @property
    def ended(self) -> int | None:
        """Exit status (negative: signal), None while it runs."""

    def drain(self) -> None:
        """Take what it wrote to stderr, without waiting."""

    def stop(self, *, grace: float = 0.0) -> None:
        """Wait up to `grace` seconds for its end, then kill it."""


def listen(folder: Path, name: str) -> socket.socket:
    """A unix socket `name` in `folder`, however long the folder's path is (sun_path has 108 bytes)."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        server.bind(f"/proc/self/fd/{handle}/{name}")
        server.listen(1)
        server.setblocking(False)
    except OSError:
        server.close()
        raise
    finally:
        os.close(handle)
    return server


class Session:
    """One guest and the processes in it. Signals that come here go to the first of them."""

    def __init__(self, *, link: Link, machine: Machine, listener: socket.socket, signals: Signals) -> None:
        self.link = link
        # By the number that the protocol has for their processes.
        self.relays: dict[int, Relay] = {}
        # Called with each report that the host asked for.
        self.on_report: Callable[[Report], None] | None = None
        self.machine = machine
        self._listener: socket.socket | None = listener
        self._connection: socket.socket | None = None
        self._signals = signals
        self._watched: dict[int, Handler] = {}
        self._early_signals: list[int] = []
        # When the terminating signals came that count, oldest first.
        self._terminating: list[float] = []
        self._answered = False
        self._closing = False

    def wait_hello(self, timeout: float) -> None:
        """Return once the agent has spoken; NoHelloError after `timeout` seconds or when QEMU ends."""
        deadline = time.monotonic() + timeout
        if not self._loop(until=lambda: self.link.stage >= Stage.GREETED, deadline=deadline):
            raise NoHelloError(f"no word from the guest's agent within {timeout:g} s", details=self.machine.said)

    def wait_ready(self, timeout: float) -> None:
        """Return once the root file system is in place; GuestError after `timeout` seconds."""
        self._in_time(lambda: self.link.stage >= Stage.READY, timeout, timeout)

    def start(self, what: requests.Process | requests.Run, streams: Streams, terminal: Terminal | None = None) -> Relay:
        """Ask for a process, whose terminal is shown on `terminal`; ValueError when a protocol's limit is exceeded."""
        sized = what.size is not None and (isinstance(what, requests.Process) or what.doors.resize)
        if terminal is not None and sized:
            what = dataclasses.replace(what, size=terminal.size)
        relay = Relay(self.link.spawn(what), streams, terminal)
        self.relays[relay.process.number] = relay
        for number in self._early_signals:
            self.link.send_signal(relay.process, number)
        self._early_signals.clear()
        return relay

    def forget(self, relay: Relay) -> None:
        """Keep nothing of a process that has finished: a guest may have any number of them."""
        del self.relays[relay.process.number]
        self.link.forget(relay.process)

    def run(
        self,
        what: requests.Process | requests.Run,
        streams: Streams,
        timeout: float,
        terminal: Terminal | None = None,
    ) -> int:
        """Start one process, relay until it ends, shut the guest down: the process's exit status.

        `timeout` seconds for the root file system and the start.
        """
        begun = time.monotonic()
        self.wait_ready(timeout)
        relay = self.start(what, streams, terminal)
        self._in_time(lambda: relay.process.life > Life.SPAWNED, timeout, timeout - (time.monotonic() - begun))
        with contextlib.nullcontext() if terminal is None else terminal.raw():
            self._on_resized()  # it may have been while the guest booted
            self.serve(lambda: relay.finished)
        self.shut_down()
        return relay.status()

    def serve(self, until: Callable[[], bool], timeout: float | None = None) -> bool:
        """Relay, and answer what is watched, until `until()` holds (True), or for `timeout` seconds (False)."""
        return self._loop(until=until, deadline=None if timeout is None else time.monotonic() + timeout)

    def watch(self, descriptor: int, handler: Handler | None) -> None:
        """Have `handler` called whenever the descriptor can be read; None ends that."""
        self._watched.pop(descriptor, None)
        if handler is not None:
            self._watched[descriptor] = handler

    def shut_down(self) -> None:
        """Ask for power-off and wait a little; the caller kills what remains."""
        self._closing = True
        self.link.shut_down()
        self._loop(until=lambda: not self.link.outgoing, deadline=time.monotonic() + _FLUSH_GRACE)
        self.close()
        self._loop(until=lambda: self.machine.ended is not None, deadline=time.monotonic() + _SHUTDOWN_GRACE)

    def _in_time(self, until: Callable[[], bool], timeout: float, left: float) -> None:
        if not self._loop(until=until, deadline=time.monotonic() + left):
            raise GuestError(
                f"the workload did not start within {timeout:g} s",
                hint="a large root file system takes longer: --timeout",
                details=self.machine.said,
            )

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _over(self) -> bool:
        """Nothing that the guest may still say matters."""
        ended = [relay.process.life is Life.ENDED for relay in self.relays.values()]
        return self._closing or (bool(ended) and all(ended))

    def _loop(self, *, until: Callable[[], bool], deadline: float | None) -> bool:
        """Serve events until `until()` holds (True) or the deadline passes (False)."""
        while not until():
            self._check_alive()
            if deadline is None:
                wait = None
            else:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                wait = left * 1000
            poller = select.poll()
            interests = self._interests()
            for descriptor, wants in interests.items():
                poller.register(descriptor, functools.reduce(operator.or_, (events for events, _ in wants)))
            for descriptor, happened in poller.poll(wait):
                for events, handler in interests[descriptor]:
                    if happened & (events | _ALWAYS):
                        handler()
        return True

    def _interests(self) -> dict[int, list[tuple[int, Handler]]]:
        """For each descriptor the events to wait for, and whom to call: a terminal may be stdin and stdout."""
        table: dict[int, list[tuple[int, Handler]]] = {}

        def add(descriptor: int, events: int, handler: Handler) -> None:
            table.setdefault(descriptor, []).append((events, handler))

        add(self._signals.descriptor, select.POLLIN, self._on_signals)
        if self.machine.stderr_open:
            add(self.machine.stderr.fileno(), select.POLLIN, self.machine.drain)
        if self._listener is not None:
            add(self._listener.fileno(), select.POLLIN, self._on_connect)
        if self._connection is not None:
            events = 0 if self._over or len(self.link.outgoing) > _UNREAD_MAX else select.POLLIN
            events |= select.POLLOUT if self.link.outgoing else 0
            if events:
                add(self._connection.fileno(), events, self._on_connection)
        for descriptor, handler in self._watched.items():
            add(descriptor, select.POLLIN, functools.partial(self._watched_event, descriptor, handler))
        for relay in self.relays.values():
            self._add_streams(relay, add)
        return table

    def _watched_event(self, descriptor: int, handler: Handler) -> None:
        # Another handler of the same round may have taken it away, closed it, or put another in its place.
        if self._watched.get(descriptor) is handler:
            handler()

    def _add_streams(self, relay: Relay, add: Callable[[int, int, Handler], None]) -> None:
        for stream, sink in relay.sinks.items():
            if sink.pending:
                add(sink.descriptor, select.POLLOUT, lambda stream=stream: self._on_writable(relay, stream))  # type: ignore[misc]
        process = relay.process
        wants = process.life is Life.RUNNING and process.stdin_open and process.stdin_credit > 0
        if wants and relay.stdin is not None and len(self.link.outgoing) < _OUTGOING_MAX:
            add(relay.stdin, select.POLLIN, lambda: self._on_stdin(relay))

    def _check_alive(self) -> None:
        ended = self.machine.ended
        if ended is None or self._over:
            return
        # What the guest sent before it went may still lie in the socket.
        while self._receive():
            if self._over:
                return
        how = f"signal {-ended}" if ended < 0 else f"status {ended}"
        what = "before its agent spoke" if self.link.stage is Stage.CONNECTED else "before the workload ended"
        kind = NoHelloError if self.link.stage is Stage.CONNECTED else GuestError
        raise kind(f"QEMU ended {what} ({how})", details=self.machine.said)

    def _on_connect(self) -> None:
        assert self._listener is not None
        try:
            self._connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        self._connection.setblocking(False)
        # Exactly one connection: nothing else is let in.
        self._listener.close()
        self._listener = None

    def _on_connection(self) -> None:
        connection = self._connection
        if connection is None:
            return
        self._send(connection)
        if not self._over and len(self.link.outgoing) <= _UNREAD_MAX:
            self._receive()

    def _receive(self) -> bool:
        """Take what the guest sent; False when there was nothing."""
        connection = self._connection
        if connection is None:
            return False
        try:
            data = connection.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._connection = None
            connection.close()
            self._on_disconnect()
            return False
        self._answered = True
        try:
            for message in self.link.feed(data):
                if isinstance(message, Output):
                    self.relays[message.process].sinks[message.stream].pending += message.data
                elif isinstance(message, Report) and self.on_report is not None:
                    self.on_report(message)
                if self._over:
                    break
        except NoVerityError as error:
            raise GuestError(str(error)) from None
        except ProtocolError as error:
            raise GuestError(f"the guest broke the protocol: {error}") from None
        if self.link.failure is not None:
            name = ErrorCode(self.link.failure.code).name.lower().replace("_", " ")
            what = f"the guest's agent gave up ({name}): {reason(self.link.failure)}"
            raise GuestError(what, details=self.machine.said)
        return True

    def _send(self, connection: socket.socket) -> None:
        if not self.link.outgoing:
            return
        try:
            sent = connection.send(memoryview(self.link.outgoing)[:_READ])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.link.outgoing.clear()  # recv() will tell that the guest is gone
            return
        del self.link.outgoing[:sent]

    def _on_disconnect(self) -> None:
        # QEMU goes a moment after its guest: wait for it, its words explain more than the closed socket.
        self.machine.stop(grace=1.0)
        if self.link.stage is Stage.CONNECTED:
            raise NoHelloError("the guest ended before its agent spoke", details=self.machine.said)
        # The kernel panics at a block that does not verify, at mount time already.
        hint = "a wrong --verity hash or an altered image ends it like this" if self.link.container.verity else None
        raise GuestError("the guest ended before the workload did", hint=hint, details=self.machine.said)

    def _on_writable(self, relay: Relay, stream: Stream) -> None:
        sink = relay.sinks[stream]
        done = sink.write_some()
        if done:
            self.link.grant(relay.process, stream, done)
        if sink.broken and stream is Stream.STDOUT and not relay.pipe_signal_sent:
            # What a local process would have got for writing to a pipe that nobody reads.
            relay.pipe_signal_sent = True
            if not relay.process.takes_signal(signal.SIGPIPE):
                lost = LauncherError(f"stdout: {sink.error}; output was lost")
                raise Interrupted(signal.SIGPIPE, _CLOSED) if sink.error is None else lost
            self.link.send_signal(relay.process, signal.SIGPIPE)

    def _on_stdin(self, relay: Relay) -> None:
        assert relay.stdin is not None
        data = read_piece(relay.stdin, min(_READ, relay.process.stdin_credit))
        if data is None:
            return
        if data:
            self.link.send_stdin(relay.process, data)
        else:
            self.link.end_stdin(relay.process)

    def _on_signals(self) -> None:
        for number in self._signals.take():
            if number == signal.SIGWINCH:
                self._on_resized()
                continue
            terminating = number in TERMINATING
            first = next((relay.process for relay in self.relays.values()), None)
            if terminating and (first is None or first.life is not Life.RUNNING):
                raise Interrupted(number)
            if first is None:
                self._early_signals.append(number)
                continue
            if terminating and not first.takes_signal(number):
                raise Interrupted(number, _CLOSED)
            self.link.send_signal(first, number)
            if terminating:
                self._insist()

    def _on_resized(self) -> None:
        for relay in self.relays.values():
            if relay.terminal is not None:
                self.link.send_size(relay.process, *relay.terminal.size)

    def _insist(self) -> None:
        """Count one more terminating signal; GuestError when there were enough."""
        now = time.monotonic()
        if self._answered:
            self._terminating = [came for came in self._terminating if came > now - _INSISTENCE]
        self._answered = False
        self._terminating.append(now)
        if len(self._terminating) >= _PATIENCE:
            raise GuestError(f"killed: {_PATIENCE} signals without an answer from the guest")
