# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One connection to the agent as a state machine without I/O: bytes in, messages out, bytes to send.

HELLO and CONTAINER (in a bound guest WORKLOAD and PREPARE) make the guest; spawn() starts a process in it, as often as
the caller likes. Order, process ids and windows are enforced on what the guest sends, frame by frame.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from tools.launcher.channel import protocol, requests
from tools.launcher.channel.attest import Report
from tools.launcher.channel.network import Network
from tools.launcher.channel.payload import ProtocolError
from tools.launcher.channel.protocol import Exited, Failure, Output, Refused, Stream
from tools.launcher.channel.requests import Run
from tools.sev.workload.document import Doors


class Stage(IntEnum):
    """How far the connection is; only ever grows."""

    CONNECTED = 0
    GREETED = 1
    READY = 2
    ENDED = 3


class Life(IntEnum):
    """How far a process is; only ever grows."""

    SPAWNED = 0
    RUNNING = 1
    ENDED = 2


class NoVerityError(ProtocolError):
    """The root file system is not behind dm-verity, which was demanded."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """What the host wants of the guest before anything runs in it; `verity`: READY must say so.

    Lengths in bytes; `writable_limit` 0 is the agent's default.
    """

    root_kind: protocol.RootKind
    root_length: int
    hostname: bytes = b""
    writable_limit: int = 0
    verity: bool = False


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A container that a workload document describes, and what the host adds; `files` by their numbers in it.

    `network`: what the guest's network is, exactly where the document has one. `verity`: READY must say so. `commands`:
    the document lets the host start any.
    """

    document: bytes
    hostname: bytes = b""
    files: Mapping[int, bytes] = field(default_factory=dict)
    network: Network | None = None
    verity: bool = False
    commands: bool = False

    def takes(self, what: requests.Process | Run) -> bool:
        """Whether this may be asked for."""
        return isinstance(what, Run) or self.commands


class Process:
    """A process in the guest. `ending` says how it ended; `stdin_credit` are bytes that it takes now.

    `doors`: what a workload document opens of it; None in an unbound guest.
    """

    def __init__(
        self, number: int, *, stdin_credit: int, stdin_open: bool, doors: Doors | None = None, terminal: bool = False
    ) -> None:
        self.number = number
        self.doors = doors
        self.terminal = terminal
        self.life = Life.SPAWNED
        self.stdin_credit = stdin_credit
        self.stdin_open = stdin_open
        self.stdin_closed = False
        self.empty_outputs = 0
        self.ending: Exited | Failure | None = None
        self.output_credit = {Stream.STDOUT: protocol.DEFAULT_WINDOW, Stream.STDERR: protocol.DEFAULT_WINDOW}

    def takes_signal(self, number: int) -> bool:
        """Whether it may be sent this signal."""
        return self.doors is None or number in self.doors.signals

    @property
    def takes_size(self) -> bool:
        """Whether it has a terminal whose size may be said."""
        return self.terminal and (self.doors is None or self.doors.resize)


class Link:
    """State of the connection. `outgoing` is what must be written next; the owner empties it."""

    def __init__(self, container: Container | Bound) -> None:
        self.stage = Stage.CONNECTED
        self.outgoing = bytearray()
        self.hello: protocol.Hello | None = None
        self.failure: Failure | None = None
        self.processes: dict[int, Process] = {}
        self._last = 0
        self.container = container
        # Whether a report was asked for that has not come, and the last that came.
        self.attesting = False
        self.report: Report | None = None
        # Encoded at once: a container beyond the protocol's limits fails before a guest is started.
        self._request = _request(container)
        self._decoder = protocol.Decoder()

    def feed(self, data: bytes) -> Iterator[protocol.Message]:
        """Bytes from the guest; gives each message once it is known to be allowed. ProtocolError is final.

        A message has taken effect when it is given, and the next one is not even decoded: whoever has heard
        enough stops.
        """
        for message in self._decoder.feed(data):
            _HANDLERS[type(message)](self, message)
            yield message
            if self.stage is Stage.ENDED:
                break

    def spawn(self, what: requests.Process | Run) -> Process:
        """Ask for a process, from READY on; ValueError when a limit of the protocol is exceeded."""
        if self.stage is not Stage.READY or self.hello is None:
            raise ValueError("there is no container to run a process in")
        container = self.container
        if not (container.takes(what) if isinstance(container, Bound) else isinstance(what, requests.Process)):
            raise ValueError("the workload document says what runs, or nothing does")
        doors = what.doors if isinstance(what, Run) else None
        # Ids only ever grow on a connection.
        self._last += 1
        process = Process(
            self._last,
            stdin_credit=self.hello.stdin_window,
            stdin_open=not what.stdin_at_end and (doors is None or doors.stdin),
            doors=doors,
            terminal=what.size is not None,
        )
        number = process.number
        self.outgoing += requests.run(number, what) if isinstance(what, Run) else requests.spawn(number, what)
        self.processes[process.number] = process
        return process

    def forget(self, process: Process) -> None:
        """Nothing more is expected of a process that has ended."""
        if process.life is not Life.ENDED:
            raise ValueError("a process that has not ended cannot be forgotten")
        del self.processes[process.number]

    def send_stdin(self, process: Process, data: bytes) -> None:
        """Queue stdin bytes; the caller keeps within `process.stdin_credit`."""
        if len(data) > process.stdin_credit or not process.stdin_open:
            raise ValueError("stdin beyond the window")
        process.stdin_credit -= len(data)
        for start in range(0, len(data), protocol.PAYLOAD_MAX):
            part = data[start : start + protocol.PAYLOAD_MAX]
            self.outgoing += protocol.frame(protocol.Kind.STDIN, process=process.number, payload=part)

    def end_stdin(self, process: Process) -> None:
        """The host has no more stdin for the process."""
        if process.stdin_open:
            process.stdin_open = False
            self.outgoing += protocol.frame(protocol.Kind.STDIN_EOF, process=process.number)

    def grant(self, process: Process, stream: Stream, size: int) -> None:
        """`size` bytes of output have been passed on: the guest may send as many again."""
        process.output_credit[stream] += size
        if process.life < Life.ENDED:
            self.outgoing += requests.window_frame(process.number, stream, size)

    def send_signal(self, process: Process, number: int) -> None:
        """Forward a signal that the process takes; the agent keeps it until the process exists."""
        if process.life < Life.ENDED and process.takes_signal(number):
            self.outgoing += requests.signal_frame(process.number, number)

    def send_size(self, process: Process, rows: int, columns: int) -> None:
        """The size of the terminal that the process is shown on, where it takes one; 0: unknown."""
        if process.life < Life.ENDED and process.takes_size and rows and columns:
            self.outgoing += requests.resize_frame(process.number, rows, columns)

    def attest(self, data: bytes) -> None:
        """Ask for a report over `data`, 1 to 64 bytes; it comes as `report`, once `attesting` is False again."""
        if self.stage is not Stage.READY:
            raise ValueError("the guest is not ready yet, or no more; ask again once its workload runs")
        if self.attesting:
            raise ValueError("another report is being made; ask again")
        self.attesting, self.report = True, None
        self.outgoing += protocol.frame(protocol.Kind.ATTEST, payload=data)

    def shut_down(self) -> None:
        """Ask the guest to power off."""
        if self.stage >= Stage.GREETED:
            self.outgoing += protocol.frame(protocol.Kind.SHUTDOWN)

    def _expect(self, stage: Stage, name: str) -> None:
        if self.stage is not stage:
            raise ProtocolError(f"{name} at the wrong time")

    def _process(self, number: int, name: str, *lives: Life) -> Process:
        process = self.processes.get(number)
        if process is None:
            raise ProtocolError(f"message for process {number}, which does not exist")
        if process.life not in lives:
            raise ProtocolError(f"{name} at the wrong time")
        return process

    def _on_hello(self, message: protocol.Hello) -> None:
        self._expect(Stage.CONNECTED, "HELLO")
        if message.bound is not isinstance(self.container, Bound):
            said = "a workload document decides" if message.bound else "the host decides"
            raise ProtocolError(f"the agent says that {said} what runs, the command line says otherwise")
        self.hello = message
        self.stage = Stage.GREETED
        self.outgoing += requests.host_hello() + self._request

    def _on_ready(self, message: protocol.Ready) -> None:
        self._expect(Stage.GREETED, "READY")
        if self.container.verity and not message.verity:
            raise NoVerityError("the agent opened the root file system without dm-verity, which was demanded")
        self.stage = Stage.READY

    def _on_started(self, message: protocol.Started) -> None:
        self._process(message.process, "STARTED", Life.SPAWNED).life = Life.RUNNING

    def _on_output(self, message: Output) -> None:
        process = self._process(message.process, "output", Life.RUNNING)
        # Every other message costs the guest a piece of a window, or comes once: nothing can be sent without end.
        process.empty_outputs = 0 if message.data else process.empty_outputs + 1
        if process.empty_outputs > protocol.EMPTY_MAX:
            raise ProtocolError(f"more than {protocol.EMPTY_MAX} outputs without a byte")
        if len(message.data) > process.output_credit[message.stream]:
            raise ProtocolError(f"{message.stream.name.lower()} beyond its window")
        process.output_credit[message.stream] -= len(message.data)

    def _on_window(self, message: protocol.Window) -> None:
        process = self._process(message.process, "WINDOW", Life.SPAWNED, Life.RUNNING)
        if process.stdin_closed:
            raise ProtocolError("WINDOW for a stdin that was closed")
        if process.stdin_credit + message.more > protocol.WINDOW_MAX:
            raise ProtocolError("stdin window beyond 2 GiB")
        process.stdin_credit += message.more
        if message.more == 0:
            # The process closed its stdin: nothing more will be taken, and no end need be sent.
            process.stdin_open, process.stdin_closed = False, True

    def _on_exited(self, message: Exited) -> None:
        process = self._process(message.process, "EXITED", Life.RUNNING)
        process.life, process.ending = Life.ENDED, message

    def _on_failure(self, message: Failure) -> None:
        if message.process:
            process = self._process(message.process, "ERROR for a process", Life.SPAWNED)
            process.life, process.ending = Life.ENDED, message
            return
        self.failure = message
        self.stage = Stage.ENDED

    def _on_report(self, message: Report) -> None:
        if not self.attesting:
            raise ProtocolError("REPORT that nobody asked for")
        self.attesting, self.report = False, message

    def _on_refused(self, message: Refused) -> None:
        # Nothing is sent here that the document does not open.
        raise ProtocolError(f"the agent refused message {message.kind:#04x}: {message.message}")


def _request(container: Container | Bound) -> bytes:
    """What follows the host's HELLO."""
    if isinstance(container, Bound):
        files = [requests.supplied_file(number, content) for number, content in sorted(container.files.items())]
        network = [] if container.network is None else [requests.network(container.network)]
        prepare = requests.prepare(container.hostname)
        return b"".join([requests.workload(container.document), *files, *network, prepare])
    return requests.container(
        kind=container.root_kind,
        length=container.root_length,
        writable_limit=container.writable_limit,
        hostname=container.hostname,
    )


# SLF001: the table stands outside the class because its values do not exist before the class does.
_HANDLERS: dict[type, Callable[..., None]] = {
    protocol.Hello: Link._on_hello,  # noqa: SLF001
    protocol.Ready: Link._on_ready,  # noqa: SLF001
    protocol.Started: Link._on_started,  # noqa: SLF001
    Output: Link._on_output,  # noqa: SLF001
    protocol.Window: Link._on_window,  # noqa: SLF001
    Exited: Link._on_exited,  # noqa: SLF001
    Failure: Link._on_failure,  # noqa: SLF001
    Refused: Link._on_refused,  # noqa: SLF001
    Report: Link._on_report,  # noqa: SLF001
}
