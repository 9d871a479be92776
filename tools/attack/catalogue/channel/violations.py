# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A host that breaks the protocol, in each state: the agent says so and powers off, and its kernel does not panic.

The honest case is the same conversation without the violation, to its end.
"""

import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part
from tools.attack.base.target import Target
from tools.attack.guests import agent, bound
from tools.attack.guests.agent import Guest
from tools.attack.guests.disks import plain

_VIOLATION = 1
_LIMIT = 300  # seconds for a guest to power off, on a busy machine
_SPLIT = 0x01  # the flag MORE
Break = Callable[[Guest], object]


def attempt(lab: Lab, target: Target, folder: Path, *, greeted: bool, running: bool, violate: Break) -> Outcome:
    """Come so far, then violate. Whatever the agent does but say so and power off is the host's success."""
    with bound.guest(lab, target, folder, disk=plain(lab).data, document=None) as guest:
        guest.expect(agent.HELLO)
        if greeted:
            guest.send(agent.HELLO, payload=agent.hello())
        if running:
            _run(guest)
        try:
            violate(guest)
            heard = guest.hear(lambda heard: heard[0].ready or bool(heard[0].error))
        except (BrokenPipeError, ConnectionResetError):
            return Outcome(succeeded=False, guest="hung up")
        error = heard[0].error
        if error is not None and error[0] == _VIOLATION:
            status = guest.process.wait(_LIMIT)
            return Outcome(succeeded=status != 0, guest=f"{error[1]}; powered off")
        return Outcome(succeeded=True, guest=f"{error or 'no word of a violation'}")


def honest(lab: Lab, target: Target, folder: Path) -> Outcome:
    """The conversation as it should be."""

    def run() -> Outcome:
        with bound.guest(lab, target, folder, disk=plain(lab).data, document=None) as guest:
            guest.expect(agent.HELLO)
            guest.send(agent.HELLO, payload=agent.hello())
            _run(guest)
            guest.send(agent.STDIN, 1, b"x\n")
            guest.send(agent.STDIN_EOF, 1)
            result = guest.hear(lambda heard: heard[1].over)[1]
            return Outcome(succeeded=result.out == b"x\n", guest=f"its program said {result.out!r}")

    return lab.once(f"honest conversation {target.name}", run)


def attacks() -> Iterator[Attack]:
    """The rows."""
    for name, (host, (greeted, running), violate) in _ROWS.items():
        yield Attack(
            name=name,
            host=host,
            attempt=partial(attempt, greeted=greeted, running=running, violate=violate),
            control=Honest(what="the conversation without it", attempt=honest),
            parts=frozenset({Part.AGENT}),
            short=name in {"long-frame", "window"},
        )


def _run(guest: Guest) -> None:
    guest.send(agent.CONTAINER, payload=agent.container())
    guest.expect(agent.READY)
    guest.send(agent.SPAWN, 1, agent.spawn(b"sh", b"-c", b"echo up; exec cat"))
    guest.hear(lambda heard: heard[1].out == b"up\n")


def _header(guest: Guest, kind: int, process: int, length: int, *, flags: int = 0, reserved: int = 0) -> None:
    guest.raw(struct.pack("<BBHII", kind, flags, reserved, process, length))


def _window(guest: Guest) -> None:
    """What the agent grants at first, and a frame more: the program's pipe takes one of them at most."""
    guest.send(agent.SPAWN, 2, agent.spawn(b"sleep", b"1000"))
    for _ in range(6):
        guest.send(agent.STDIN, 2, bytes(65_536))


def _parts(guest: Guest) -> None:
    """A SPAWN in parts of more than a MiB."""
    for _ in range(17):
        _header(guest, agent.SPAWN, 2, 65_536, flags=_SPLIT)
        guest.raw(bytes(65_536))


def _between(guest: Guest) -> None:
    """Two messages in parts at a time."""
    for process in (2, 3):
        _header(guest, agent.SPAWN, process, 4, flags=_SPLIT)
        guest.raw(bytes(4))


def _after_end(guest: Guest) -> None:
    guest.send(agent.STDIN_EOF, 1)
    guest.send(agent.STDIN_EOF, 1)


def _grant(guest: Guest) -> None:
    for _ in range(2):
        guest.send(agent.WINDOW, 1, struct.pack("<BBBBI", 1, 0, 0, 0, 0x7FFFFFFF))


def _sends(kind: int, process: int, payload: bytes) -> Break:
    return lambda guest: guest.send(kind, process, payload)


def _heads(kind: int, process: int, length: int, **bits: int) -> Break:
    return lambda guest: _header(guest, kind, process, length, **bits)


_BEFORE, _GREETED, _RUNNING = (False, False), (True, False), (True, True)
_ROWS: dict[str, tuple[str, tuple[bool, bool], Break]] = {
    "version": ("chooses another version", _BEFORE, _sends(agent.HELLO, 0, agent.hello(version=1))),
    "magic": ("greets with another word", _BEFORE, _sends(agent.HELLO, 0, agent.hello(magic=b"SEVB"))),
    "no-frames": ("speaks HTTP", _BEFORE, lambda guest: guest.raw(b"GET / HTTP/1.1\r\n\r\n")),
    "before-hello": (
        "asks for a container before it has greeted", _BEFORE, _sends(agent.CONTAINER, 0, agent.container()),
    ),
    "before-ready": (
        "starts a process before there is a container", _GREETED, _sends(agent.SPAWN, 1, agent.spawn(b"id")),
    ),
    "hello-again": ("replays its HELLO", _RUNNING, _sends(agent.HELLO, 0, agent.hello())),
    "container-again": ("replays its CONTAINER", _RUNNING, _sends(agent.CONTAINER, 0, agent.container())),
    "spawn-again": ("replays its SPAWN", _RUNNING, _sends(agent.SPAWN, 1, agent.spawn(b"id"))),
    "long-frame": ("announces a frame that is too long", _GREETED, _heads(agent.STDIN, 1, 65_537)),
    "longest-frame": ("announces a frame of 4 GiB", _RUNNING, _heads(agent.STDIN, 1, 0xFFFF_FFFF)),
    "unknown-type": ("sends a message of a type that is none", _RUNNING, _sends(0x7F, 1, b"")),
    "agents-type": ("sends a message that is the agent's to send", _RUNNING, _sends(agent.READY, 0, bytes(4))),
    "flags": ("sets flags that are none", _RUNNING, _heads(agent.SIGNAL, 1, 0, flags=0x80)),
    "reserved": ("sets reserved bits", _RUNNING, _heads(agent.SIGNAL, 1, 0, reserved=1)),
    "window": ("writes more standard input than it was granted", _RUNNING, _window),
    "grant": ("grants more output than there may be", _RUNNING, _grant),
    "parts": ("sends a message in parts of more than a MiB", _RUNNING, _parts),
    "parts-between": ("sends two messages in parts at a time", _RUNNING, _between),
    "end-again": ("ends standard input twice", _RUNNING, _after_end),
    "nobodys": ("signals a process that was never started", _RUNNING, _sends(agent.SIGNAL, 9, struct.pack("<I", 9))),
    "run-unbound": (
        "sends a message of bound guests to an unbound one", _RUNNING, _sends(agent.RUN, 2, agent.run_entry()),
    ),
    "cut": ("sends a payload that is too short for its message", _RUNNING, _sends(agent.SIGNAL, 1, b"\1")),
}  # fmt: skip
