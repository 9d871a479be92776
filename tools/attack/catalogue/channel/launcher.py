# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The other way round: a guest that lies to the host's sev-launch. It is in QEMU's place, so no guest is booted.

The honest case is a guest that says the same things in their order.
"""

import signal
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part
from tools.attack.base.target import Target
from tools.attack.guests import agent, disks
from tools.attack.guests.liar import WAIT, Host, exited, frame, hello, ready, said, started

_FAILED = 125  # sev-launch's status when the guest failed
_SIGNALS, _PAUSE, _LIMIT = 3, 0.3, 60.0
_RELAYED = b"relayed"
_MUCH = 32 << 20  # bytes of output that no window allows at once
_UP: tuple[bytes | None, ...] = (hello() + ready(), WAIT, started())


def attempt(lab: Lab, target: Target, folder: Path, *, parts: Sequence[bytes | None], how: str = "unbound") -> Outcome:
    """Success is a launcher that takes it: it relays output, gives the guest's status, or falls over."""
    done = _host(lab, target, folder, how).run(parts)
    said_of_it = done.stderr.decode(errors="replace")
    words = said_of_it.strip().splitlines() or [""]
    # What came within its window was relayed already.
    silent = not done.stdout or len(done.stdout) < _MUCH <= sum(len(part or b"") for part in parts)
    refused = done.returncode == _FAILED and silent and not any(bad in said_of_it for bad in ("Traceback", "\x1b"))
    return Outcome(succeeded=not refused, guest=f"sev-launch, status {done.returncode}: {words[-1].partition(': ')[2]}")


def honest(lab: Lab, target: Target, folder: Path, *, how: str = "unbound") -> Outcome:
    """Greets, gets ready, starts what is asked for, says a word, ends."""
    first = hello(bound=int(how == "bound")) + ready(verity=how == "verity")
    done = _host(lab, target, folder, how).run([first, WAIT, started() + said(_RELAYED) + exited(3)])
    right = (done.stdout, done.returncode) == (_RELAYED, 3)
    return Outcome(succeeded=right, guest=f"its output was relayed, status {done.returncode}")


def flood(lab: Lab, target: Target, folder: Path, *, endless: bytes) -> Outcome:
    """Talk without end; the launcher is asked to end three times. Success: it goes on."""
    with _host(lab, target, folder, "unbound").running([*_UP, said(_RELAYED)], endless=endless) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(len(_RELAYED))
        readers = [threading.Thread(target=_drain, args=[pipe]) for pipe in (process.stdout, process.stderr)]
        for reader in readers:
            reader.start()
        for _ in range(_SIGNALS):
            process.send_signal(signal.SIGTERM)
            time.sleep(_PAUSE)
        try:
            status = process.wait(_LIMIT)
        except subprocess.TimeoutExpired:
            return Outcome(succeeded=True, guest=f"sev-launch went on for {_LIMIT:g} s")
        finally:
            process.kill()
            for reader in readers:
                reader.join()
    return Outcome(succeeded=False, guest=f"sev-launch ended with status {status}")


def quiet(lab: Lab, target: Target, folder: Path) -> Outcome:
    """The same signals to the launcher of a guest that says nothing more."""
    outcome = flood(lab, target, folder, endless=b"")
    return Outcome(succeeded=not outcome.succeeded, guest=outcome.guest)


def attacks() -> Iterator[Attack]:
    """The rows."""
    for name, (host, parts, how) in _LIES.items():
        yield Attack(
            name=name,
            host=f"(a guest) {host}",
            attempt=partial(attempt, parts=parts, how=how),
            control=Honest(what="the same in order", attempt=partial(honest, how=how)),
            parts=frozenset({Part.LAUNCHER}),
            short=name in {"burst-verity", "burst"},
        )
    for name, (host, endless) in _FLOODS.items():
        yield Attack(
            name=name,
            host=f"(a guest) {host}, while its host sends SIGTERM",
            attempt=partial(flood, endless=endless),
            control=Honest(what="a guest that is quiet", attempt=quiet),
            parts=frozenset({Part.LAUNCHER}),
            short=name == "flood-empty",
        )


def _host(lab: Lab, target: Target, folder: Path, how: str) -> Host:
    disk = disks.hashed(lab) if how == "verity" else disks.plain(lab)
    (folder / "root").write_bytes(disk.data)
    options = {
        "unbound": ("--unbound",),
        "bound": (),
        "verity": ("--unbound", "--verity", getattr(disk.root, "root_hash", "")),
    }[how]
    return Host(target=target, folder=folder, rootfs=folder / "root", options=options)


def _drain(pipe: object) -> None:
    while pipe.read(1 << 16):  # type: ignore[attr-defined]  # a pipe
        pass


_BURST = hello() + ready() + started() + said(_RELAYED) + exited()
_LIES: dict[str, tuple[str, Sequence[bytes | None], str]] = {
    "burst-verity": ("says in one burst that it has no dm-verity, and that its program has run", [_BURST], "verity"),
    "no-verity": (
        "has no dm-verity where that was asked for",
        [hello() + ready(), WAIT, started() + said(_RELAYED) + exited()],
        "verity",
    ),
    "unbound": (
        "is unbound where it should be bound",
        [hello() + ready(), WAIT, started() + said(_RELAYED) + exited()],
        "bound",
    ),
    "debug": (
        "runs as a debug guest where production was asked for",
        [hello(profile=1) + ready(), WAIT, started() + said(_RELAYED) + exited()],
        "unbound",
    ),
    "burst": ("starts what nobody has asked for", [_BURST], "unbound"),
    "ready-twice": ("is ready twice", [hello() + ready() + ready(), WAIT, started() + exited()], "unbound"),
    "output-early": (
        "gives output of a process that was not started",
        [hello() + ready(), WAIT, said(_RELAYED) + started() + exited()],
        "unbound",
    ),
    "output-late": ("gives output after the window is used up", [*_UP, frame(agent.STDOUT, 1, bytes(65536)) * 600],
                    "unbound"),
    "other-process": ("starts another process", [hello() + ready(), WAIT, started(2) + said(_RELAYED)], "unbound"),
    "status": ("ends with a status that there is not", [*_UP, exited(256)], "unbound"),
    "kind": ("ends in a way that there is not", [*_UP, exited(kind=2)], "unbound"),
    "longest-frame": ("announces a frame of 4 GiB", [*_UP, struct.pack("<BBHII", agent.STDOUT, 0, 0, 1, 0xFFFFFFFF)],
                      "unbound"),
    "hosts-type": ("sends a message that is the host's to send", [*_UP, frame(agent.SPAWN, 1)], "unbound"),
    "window": ("grants more input than there may be",
               [*_UP, frame(agent.WINDOW, 1, struct.pack("<B3xI", 0, 0x7FFFFFFF))], "unbound"),
    "empty": ("gives empty output without end", [*_UP, said(b"") * 1025], "unbound"),
    "garbage": ("says nothing that is a frame", [b"\xff" * 4096], "unbound"),
    "escape": (
        "gives up with an error that holds a terminal's commands",
        [hello() + frame(agent.ERROR, 0, struct.pack("<HI", 4, 5) + b"\x1b]0;x")],
        "unbound",
    ),
}  # fmt: skip
_FLOODS = {
    "flood-empty": ("gives empty output, and a byte now and then, without end", said(b"") * 1024 + said(b"x")),
    "flood-output": ("gives output without end", said(b"y" * 64)),
}
