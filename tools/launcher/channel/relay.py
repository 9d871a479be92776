# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A process in the guest and what stands for it here."""

from tools.launcher.base.errors import LauncherError, WorkloadError
from tools.launcher.channel.link import Life, Process
from tools.launcher.channel.protocol import ErrorCode, Failure, Stream
from tools.launcher.channel.streams import Sink, Streams
from tools.launcher.channel.terminal import Terminal


class Relay:
    """A process in the guest, the descriptors here that its standard streams go through, and where it is shown."""

    def __init__(self, process: Process, streams: Streams, terminal: Terminal | None = None) -> None:
        self.process = process
        self.terminal = terminal
        self.stdin = streams.stdin
        self.sinks = {Stream.STDOUT: Sink(streams.stdout), Stream.STDERR: Sink(streams.stderr)}
        self.pipe_signal_sent = False

    @property
    def finished(self) -> bool:
        """Whether it has ended and all its output is written."""
        return self.process.life is Life.ENDED and not any(sink.pending for sink in self.sinks.values())

    @property
    def failed(self) -> bool:
        """Whether it never ran, and will not."""
        return isinstance(self.process.ending, Failure)

    def status(self) -> int:
        """The exit status as shells give it, once it has finished; WorkloadError when it never ran.

        LauncherError when some of its output could not be written.
        """
        ending = self.process.ending
        if isinstance(ending, Failure):
            status = 127 if ending.code == ErrorCode.NOT_FOUND else 126
            raise WorkloadError(f"cannot run the command: {reason(ending)}", exit_status=status)
        assert ending is not None
        for stream, sink in self.sinks.items():
            if sink.error is not None:
                raise LauncherError(f"{stream.name.lower()}: {sink.error}; output was lost")
        return 128 + ending.code if ending.signalled else ending.code


def reason(failure: Failure) -> str:
    """What the agent says of it."""
    return failure.message or "no reason given"
