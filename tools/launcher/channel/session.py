# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The event loop between the standard streams, the agent's socket, signals and QEMU."""

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tools.launcher.base.errors import GuestError, Interrupted, LauncherError, WorkloadError
from tools.launcher.channel.link import Link, Stage
from tools.launcher.channel.protocol import ErrorCode, ProtocolError, Stream
from tools.launcher.channel.streams import TERMINATING, Signals, Sink, read_piece
from tools.launcher.guest.qemu import Qemu

_READ = 1 << 16
# Stop reading stdin while this much waits for the guest, so that signals do not queue behind it for long.
_OUTGOING_MAX = 1 << 18
# So many terminating signals in a row without a sign of life from the guest end it by force.
_PATIENCE = 3
_SHUTDOWN_GRACE = 5.0
_FLUSH_GRACE = 2.0


class NoHelloError(GuestError):
    """The agent never said HELLO: the guest did not come up."""


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
    """One guest, one workload."""

    def __init__(self, *, link: Link, qemu: Qemu, listener: socket.socket, signals: Signals) -> None:
        self.link = link
        self._qemu = qemu
        self._listener: socket.socket | None = listener
        self._connection: socket.socket | None = None
        self._signals = signals
        self._sinks = {Stream.STDOUT: Sink(1), Stream.STDERR: Sink(2)}
        self._pipe_signal_sent = False
        self._unanswered = 0
        self._want_verity = False

    def wait_hello(self, timeout: float) -> None:
        """Return once the agent has spoken; NoHelloError after `timeout` seconds or when QEMU ends."""
        deadline = time.monotonic() + timeout
        if not self._loop(until=lambda: self.link.stage >= Stage.GREETED, deadline=deadline):
            raise NoHelloError(f"no word from the guest's agent within {timeout:g} s", details=self._qemu.said)

    def run(self, timeout: float, *, verity: bool = False) -> int:
        """Relay until the workload ends; its exit status. `timeout` seconds for the root file system.

        With `verity` the workload's output is not relayed unless the agent says that dm-verity is active.
        """
        self._want_verity = verity
        link = self.link
        deadline = time.monotonic() + timeout
        if not self._loop(until=lambda: link.stage >= Stage.RUNNING, deadline=deadline):
            raise GuestError(
                f"the workload did not start within {timeout:g} s",
                hint="a large root file system takes longer: --timeout",
                details=self._qemu.said,
            )
        self._loop(until=lambda: link.stage is Stage.ENDED and not self._has_output(), deadline=None)
        self._shut_down()
        status = self._status()
        for stream, sink in self._sinks.items():
            if sink.error is not None:
                raise LauncherError(f"{stream.name.lower()}: {sink.error}; output was lost")
        return status

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _has_output(self) -> bool:
        return any(sink.pending for sink in self._sinks.values())

    def _status(self) -> int:
        failure, exited = self.link.failure, self.link.exited
        if failure is not None:
            message = failure.message or "no reason given"
            if failure.process == 0:
                name = ErrorCode(failure.code).name.lower().replace("_", " ")
                raise GuestError(f"the guest's agent gave up ({name}): {message}", details=self._qemu.said)
            status = 127 if failure.code == ErrorCode.NOT_FOUND else 126
            raise WorkloadError(f"cannot run the command: {message}", exit_status=status)
        assert exited is not None
        return 128 + exited.code if exited.signalled else exited.code

    def _shut_down(self) -> None:
        """Ask for power-off and wait a little; the caller kills what remains."""
        self.link.shut_down()
        self._loop(until=lambda: not self.link.outgoing, deadline=time.monotonic() + _FLUSH_GRACE)
        self.close()
        self._loop(until=lambda: self._qemu.ended is not None, deadline=time.monotonic() + _SHUTDOWN_GRACE)

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
            handlers = self._interests()
            for descriptor, (events, _) in handlers.items():
                poller.register(descriptor, events)
            for descriptor, _ in poller.poll(wait):
                # A handler may have ended what a later one belongs to.
                if descriptor in handlers:
                    handlers[descriptor][1]()
        return True

    def _interests(self) -> dict[int, tuple[int, Callable[[], None]]]:
        link = self.link
        table: dict[int, tuple[int, Callable[[], None]]] = {
            self._signals.descriptor: (select.POLLIN, self._on_signals),
        }
        if self._qemu.stderr_open:
            table[self._qemu.stderr.fileno()] = (select.POLLIN, self._qemu.drain)
        if self._listener is not None:
            table[self._listener.fileno()] = (select.POLLIN, self._on_connect)
        if self._connection is not None:
            events = 0 if link.stage is Stage.ENDED else select.POLLIN
            events |= select.POLLOUT if link.outgoing else 0
            if events:
                table[self._connection.fileno()] = (events, self._on_connection)
        for stream, sink in self._sinks.items():
            if sink.pending:
                table[sink.descriptor] = (select.POLLOUT, lambda stream=stream: self._on_writable(stream))  # type: ignore[misc]
        wants_stdin = link.stage is Stage.RUNNING and link.stdin_open and link.stdin_credit > 0
        # When fd 0 is also 1 or 2 (a terminal), those are other descriptors: no clash.
        if wants_stdin and len(link.outgoing) < _OUTGOING_MAX:
            table[0] = (select.POLLIN, self._on_stdin)
        return table

    def _check_alive(self) -> None:
        ended = self._qemu.ended
        if ended is None or self.link.stage is Stage.ENDED:
            return
        # What the guest sent before it went may still lie in the socket.
        while self._receive():
            if self.link.exited is not None or self.link.failure is not None:
                return
        how = f"signal {-ended}" if ended < 0 else f"status {ended}"
        what = "before its agent spoke" if self.link.stage is Stage.CONNECTED else "before the workload ended"
        kind = NoHelloError if self.link.stage is Stage.CONNECTED else GuestError
        raise kind(f"QEMU ended {what} ({how})", details=self._qemu.said)

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
        if self.link.stage is not Stage.ENDED:
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
        self._unanswered = 0
        try:
            outputs = self.link.feed(data)
        except ProtocolError as error:
            raise GuestError(f"the guest broke the protocol: {error}") from None
        if self._want_verity and self.link.stage >= Stage.READY and not self.link.verity and not self.link.failure:
            raise GuestError("the agent opened the root file system without dm-verity although --verity was given")
        for output in outputs:
            self._sinks[output.stream].pending += output.data
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
        self._qemu.stop(grace=1.0)
        if self.link.stage is Stage.CONNECTED:
            raise NoHelloError("the guest ended before its agent spoke", details=self._qemu.said)
        # The kernel panics at a block that does not verify, at mount time already.
        hint = "a wrong --verity hash or an altered image ends it like this" if self._want_verity else None
        raise GuestError("the guest ended before the workload did", hint=hint, details=self._qemu.said)

    def _on_writable(self, stream: Stream) -> None:
        sink = self._sinks[stream]
        done = sink.write_some()
        if done:
            self.link.grant(stream, done)
        if sink.broken and stream is Stream.STDOUT and not self._pipe_signal_sent:
            # What a local process would have got for writing to a pipe that nobody reads.
            self._pipe_signal_sent = True
            self.link.send_signal(signal.SIGPIPE)

    def _on_stdin(self) -> None:
        data = read_piece(0, min(_READ, self.link.stdin_credit))
        if data is None:
            return
        if data:
            self.link.send_stdin(data)
        else:
            self.link.end_stdin()

    def _on_signals(self) -> None:
        for number in self._signals.take():
            terminating = number in TERMINATING
            if terminating and self.link.stage is not Stage.RUNNING:
                raise Interrupted(number)
            self.link.send_signal(number)
            self._unanswered += terminating
            if self._unanswered >= _PATIENCE:
                raise GuestError(f"killed: {_PATIENCE} signals without an answer from the guest")
