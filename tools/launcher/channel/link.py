# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One connection to the agent as a state machine without I/O: bytes in, events out, bytes to send.

Runs one workload (process id 1). Enforces order and windows on what the guest sends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from tools.launcher.channel import protocol
from tools.launcher.channel.protocol import Failure, Output, ProtocolError, Stream

WORKLOAD = 1


class Stage(IntEnum):
    """How far the conversation is; only ever grows."""

    CONNECTED = 0
    GREETED = 1
    READY = 2
    RUNNING = 3
    ENDED = 4


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the host wants of the guest."""

    root_kind: protocol.RootKind
    root_length: int
    process: protocol.Process
    hostname: bytes = b""
    writable_limit: int = 0


class Link:
    """State of the connection. `outgoing` is what must be written next; the owner empties it."""

    def __init__(self, request: Request) -> None:
        self.stage = Stage.CONNECTED
        self.outgoing = bytearray()
        self.hello: protocol.Hello | None = None
        self.verity = False
        self.stdin_credit = 0
        self.stdin_open = not request.process.stdin_at_end
        self.exited: protocol.Exited | None = None
        self.failure: Failure | None = None
        self._request = request
        # Encoded at once: a request beyond the protocol's limits fails before a guest is started.
        self._spawn = protocol.spawn(WORKLOAD, request.process)
        self._decoder = protocol.Decoder()
        self._output_credit = {Stream.STDOUT: protocol.DEFAULT_WINDOW, Stream.STDERR: protocol.DEFAULT_WINDOW}
        self._pending_signals: list[int] = []

    def feed(self, data: bytes) -> list[Output]:
        """Bytes from the guest; returns output to relay, in order. ProtocolError is final."""
        outputs = []
        for message in self._decoder.feed(data):
            if isinstance(message, Output):
                self._on_output(message)
                outputs.append(message)
            else:
                _HANDLERS[type(message)](self, message)
            if self.stage is Stage.ENDED:
                break  # the answer is known; nothing that follows is even decoded
        return outputs

    def send_stdin(self, data: bytes) -> None:
        """Queue stdin bytes; the caller keeps within `stdin_credit`."""
        if len(data) > self.stdin_credit or not self.stdin_open:
            raise ValueError("stdin beyond the window")
        self.stdin_credit -= len(data)
        for start in range(0, len(data), protocol.PAYLOAD_MAX):
            part = data[start : start + protocol.PAYLOAD_MAX]
            self.outgoing += protocol.frame(protocol.Kind.STDIN, process=WORKLOAD, payload=part)

    def end_stdin(self) -> None:
        """The host's stdin is at its end."""
        if self.stdin_open:
            self.stdin_open = False
            self.outgoing += protocol.frame(protocol.Kind.STDIN_EOF, process=WORKLOAD)

    def grant(self, stream: Stream, size: int) -> None:
        """`size` bytes of output have been passed on: the guest may send as many again."""
        self._output_credit[stream] += size
        if self.stage < Stage.ENDED:
            self.outgoing += protocol.window_frame(WORKLOAD, stream, size)

    def send_signal(self, number: int) -> None:
        """Forward a signal; before the workload exists it is kept until SPAWN."""
        if self.stage >= Stage.ENDED:
            return
        if self.stage < Stage.READY:
            self._pending_signals.append(number)
        else:
            self.outgoing += protocol.signal_frame(WORKLOAD, number)

    def shut_down(self) -> None:
        """Ask the guest to power off."""
        if self.stage >= Stage.GREETED:
            self.outgoing += protocol.frame(protocol.Kind.SHUTDOWN)

    def _expect(self, stage: Stage, name: str) -> None:
        if self.stage is not stage:
            raise ProtocolError(f"{name} at the wrong time")

    def _own(self, process: int) -> None:
        if process != WORKLOAD or self.stage < Stage.READY:
            raise ProtocolError(f"message for process {process}, which does not exist")

    def _on_hello(self, message: protocol.Hello) -> None:
        self._expect(Stage.CONNECTED, "HELLO")
        if not message.lowest <= protocol.VERSION <= message.highest:
            raise ProtocolError(
                f"the agent speaks versions {message.lowest} to {message.highest}, not {protocol.VERSION}"
            )
        self.hello = message
        self.stdin_credit = message.stdin_window
        self.stage = Stage.GREETED
        request = self._request
        self.outgoing += protocol.host_hello()
        self.outgoing += protocol.container(
            kind=request.root_kind,
            length=request.root_length,
            writable_limit=request.writable_limit,
            hostname=request.hostname,
        )

    def _on_ready(self, message: protocol.Ready) -> None:
        self._expect(Stage.GREETED, "READY")
        self.verity = message.verity
        self.stage = Stage.READY
        self.outgoing += self._spawn
        for number in self._pending_signals:
            self.send_signal(number)

    def _on_started(self, message: protocol.Started) -> None:
        self._own(message.process)
        self._expect(Stage.READY, "STARTED")
        self.stage = Stage.RUNNING

    def _on_output(self, message: Output) -> None:
        self._own(message.process)
        self._expect(Stage.RUNNING, "output")
        if len(message.data) > self._output_credit[message.stream]:
            raise ProtocolError(f"{message.stream.name.lower()} beyond its window")
        self._output_credit[message.stream] -= len(message.data)

    def _on_window(self, message: protocol.Window) -> None:
        self._own(message.process)
        if self.stdin_credit + message.more > protocol.WINDOW_MAX:
            raise ProtocolError("stdin window beyond 2 GiB")
        self.stdin_credit += message.more
        if message.more == 0:
            # The process closed its stdin: nothing more will be taken, and no end need be sent.
            self.stdin_open = False

    def _on_exited(self, message: protocol.Exited) -> None:
        self._own(message.process)
        self._expect(Stage.RUNNING, "EXITED")
        self.exited = message
        self.stage = Stage.ENDED

    def _on_failure(self, message: Failure) -> None:
        if message.process:
            self._own(message.process)
            self._expect(Stage.READY, "ERROR for a process")
        self.failure = message
        self.stage = Stage.ENDED


# SLF001: the table stands outside the class because its values do not exist before the class does.
_HANDLERS: dict[type, Callable[..., None]] = {
    protocol.Hello: Link._on_hello,  # noqa: SLF001
    protocol.Ready: Link._on_ready,  # noqa: SLF001
    protocol.Started: Link._on_started,  # noqa: SLF001
    protocol.Window: Link._on_window,  # noqa: SLF001
    protocol.Exited: Link._on_exited,  # noqa: SLF001
    Failure: Link._on_failure,  # noqa: SLF001
}
