# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The conversation with an honest guest's program, and what is looked at meanwhile."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.launcher.acceptance import probe
from tools.launcher.acceptance.ambient import chance
from tools.launcher.acceptance.model import Start, Talk
from tools.launcher.acceptance.starts import wait
from tools.launcher.base.errors import GuestError, Interrupted, LauncherError, UserError
from tools.launcher.channel import requests
from tools.launcher.channel.link import Bound, Life
from tools.launcher.channel.protocol import Failure
from tools.launcher.channel.relay import Relay
from tools.launcher.channel.session import Session
from tools.launcher.channel.streams import Streams
from tools.launcher.memory import check as checks
from tools.launcher.memory import pool, process
from tools.sev.workload.document import Doors

RAN = -1
"""In place of an error's number: it was not refused."""
IDENTITY = ("Uid", "CapPrm", "CapEff", "NoNewPrivs", "Seccomp")
"""What is said of who QEMU is, by the names of /proc/PID/status."""


class _Voice:
    """A process in the guest, by pipes; `heard` is its standard output."""

    def __init__(self, session: Session, limit: float) -> None:
        self._session = session
        self._limit = limit
        self._stack = contextlib.ExitStack()
        self.heard = b""
        guest_in, self._in = self._pipe()
        self._out, guest_out = self._pipe()
        self.streams = Streams(stdin=guest_in, stdout=guest_out, stderr=guest_out)
        os.set_blocking(self._out, False)
        session.watch(self._out, self._hear)

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        for end in ends:
            self._stack.callback(os.close, end)
        return ends

    def close(self) -> None:
        """Close the pipes."""
        self._session.watch(self._out, None)
        self._stack.close()

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.heard += os.read(self._out, 1 << 16)

    def say(self, data: bytes) -> None:
        """To its standard input; less than a pipe holds."""
        os.write(self._in, data)

    def until(self, mark: bytes, relay: Relay) -> bytes:
        """What it said before the mark; GuestError when that does not come in time, or never."""
        self._session.serve(lambda: mark in self.heard or relay.finished, timeout=self._limit)
        self._hear()
        if mark not in self.heard:
            how = f"ended with status {relay.status()}" if relay.finished else f"said nothing for {self._limit:g} s"
            raise GuestError(f"the program in the guest {how}, before {mark.decode().strip()}")
        before, _, self.heard = self.heard.partition(mark)
        return before


@contextmanager
def _voice(session: Session, limit: float) -> Iterator[_Voice]:
    voice = _Voice(session, limit)
    try:
        yield voice
    finally:
        voice.close()


Ask = Callable[[Session], dict[str, object]]
"""Something that is asked of the guest or its QEMU while the guest waits: fields of the Talk."""


def talked(session: Session, *, limit: float, nonce: bytes | None, ask: Ask = lambda _: {}) -> tuple[Start, Talk]:
    """All that an honest guest is put to, as far as it comes. `limit`: seconds for each of its answers.

    `nonce`: a report over it is asked for.
    """
    start, fields = wait(session, limit=limit), Talk()
    if start.hello is None:
        return start, fields
    found: dict[str, object] = {}
    try:
        for part in _parts(session, limit=limit, nonce=nonce, ask=ask, hello=start.hello):
            found |= part
    except Interrupted:
        raise
    except LauncherError as error:
        start = dataclasses.replace(start, trouble=str(error), said=error.details)
    return start, dataclasses.replace(fields, **found)  # type: ignore[arg-type]  # fields of several types


def _parts(
    session: Session, *, limit: float, nonce: bytes | None, ask: Ask, hello: float
) -> Iterator[dict[str, object]]:
    begun = time.monotonic()
    seconds = {"agent": hello}
    session.wait_ready(limit)
    seconds["root"] = time.monotonic() - begun
    if nonce is not None:
        session.link.attest(nonce)
        if not session.serve(lambda: not session.link.attesting, timeout=limit):
            raise GuestError(f"no report within {limit:g} s")
        yield {"report": session.link.report}
    yield ask(session)
    with _voice(session, limit) as voice:
        at = time.monotonic()
        relay = session.start(requests.Run(doors=Doors(stdin=True)), voice.streams)
        voice.until(probe.FIRST, relay)
        seconds["first word"] = time.monotonic() - at
        log = voice.until(probe.UP, relay).decode("utf-8", "replace")
        yield {"log": log, "seconds": seconds}
        masked = chance(probe.PIECE)
        voice.say(masked)
        voice.until(probe.MADE, relay)
        control = chance(probe.PIECE)
        voice.say(control)
        voice.until(probe.HELD, relay)
        pid = process.qemu_of(session.machine.pid)
        yield {"identity": _identity(pid)}
        yield from _memory(pid, masked=masked, control=control, log=log)
        yield {"refused": _command(session, limit)}
        voice.say(bytes(probe.PIECE))
        if not session.serve(lambda: relay.finished, timeout=limit):
            raise GuestError(f"the program in the guest did not end within {limit:g} s")
        if relay.status() != 0:
            raise GuestError(f"the program in the guest ended with status {relay.status()}")
        session.shut_down()


def _memory(pid: int, *, masked: bytes, control: bytes, log: str) -> Iterator[dict[str, object]]:
    """What can be read of it from this host, or why nothing can."""
    marker = bytes(byte ^ probe.MASK for byte in masked)
    try:
        checked = checks.check(pid, marker=marker, controls=[control])
        guest = checked.evidence.guest
        found = {
            "memory": checked.verdict,
            "touched": (guest.touched, guest.size),
            "bounced": pool.look(checked, kernel=log, control=control),
        }
    except UserError as error:
        yield {"unread": str(error)}
    else:
        yield found


def _identity(pid: int) -> dict[str, str]:
    """Who QEMU is."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
        pairs = (line.partition(":") for line in lines)
        return {name: " ".join(text.split()) for name, _, text in pairs if name in IDENTITY}
    return {}


def _command(session: Session, limit: float) -> int:
    """What becomes of a command that the host chooses: the agent's number for a refusal, or RAN."""
    container = session.link.container
    assert isinstance(container, Bound)
    # A host does not ask its launcher whether it may.
    session.link.container = dataclasses.replace(container, commands=True)
    with _voice(session, limit) as voice:
        command = session.start(requests.Process(argv=[probe.PATH.encode()], stdin_at_end=True), voice.streams)
        if not session.serve(lambda: command.process.life is Life.ENDED, timeout=limit):
            raise GuestError(f"a command of the host's was neither refused nor did it end, within {limit:g} s")
        ending = command.process.ending
        session.serve(lambda: command.finished, timeout=limit)
        session.forget(command)
        return ending.code if isinstance(ending, Failure) else RAN
