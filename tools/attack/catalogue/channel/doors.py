# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a workload document does not open to the host, the host cannot do: each beside the same where it is open."""

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part, Weaker
from tools.attack.base.target import Target
from tools.attack.guests import agent, bound
from tools.attack.guests.agent import Guest, Result
from tools.attack.guests.disks import ENVIRONMENT
from tools.sev.workload.document import Document, Doors, Exec, Process, SuppliedFile, Tar, Variable

_TERM = 15
_HIDES = "echo hush > /tmp/secret; chmod 600 /tmp/secret; echo up; exec sleep 1000"
_ASKS = "trap 'echo caught; exit 0' TERM; read x; echo \"got $x $LEVEL\"; echo up; sleep 2 & wait"
Play = Callable[[Guest, "Case"], Outcome]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A guest and its host: what it is bound to (None: nothing), and the document that the host sends it."""

    document: Document | None
    sent: bytes = b""

    @property
    def data(self) -> bytes:
        """What is sent."""
        return self.sent or (self.document.data if self.document else b"")


def attempt(lab: Lab, target: Target, folder: Path, *, play: Play, case: Callable[[Tar], Case]) -> Outcome:
    """Start the guest of the case, and play."""
    root, data = _root(lab)
    made = case(root)
    with bound.guest(lab, target, folder, disk=data, document=made.document) as guest:
        return play(guest, made)


def attacks() -> Iterator[Attack]:
    """The rows."""
    for name, (host, play, closed, what, open_) in _ROWS.items():
        yield Attack(
            name=name,
            host=host,
            attempt=partial(attempt, play=play, case=closed),
            control=Weaker(what=what, attempt=partial(attempt, play=play, case=open_)),
            parts=frozenset({Part.AGENT}),
            short=name in {"spawn", "stdin", "other-document"},
        )


def _root(lab: Lab) -> tuple[Tar, bytes]:
    def make() -> tuple[Tar, bytes]:
        path = agent.root_tar(lab.tree("boot") / "usr/bin/busybox", lab.folder("small tar") / "root.tar")
        data = path.read_bytes()
        return Tar(length=len(data), sha256=hashlib.sha256(data).hexdigest()), data

    return lab.once("small tar", make)


# ---- guests


def _sh(script: str, **doors: object) -> Process:
    host = Doors(**doors)  # type: ignore[arg-type]  # fields of several types
    return Process(argv=("sh", "-c", script), environment=ENVIRONMENT, host=host)


def _bound(root: Tar, **fields: object) -> Case:
    return Case(document=Document(root=root, process=_sh(_HIDES), **fields))  # type: ignore[arg-type]  # several types


def _unbound(_: Tar) -> Case:
    return Case(document=None)


def _asking(root: Tar, **doors: object) -> Case:
    return Case(document=Document(root=root, process=_sh(_ASKS, **doors)))


def _with_entry(root: Tar, *, count: int) -> Case:
    return _bound(root, exec=(Exec(name="one", count=count, process=_sh("echo one")),))


def _with_variable(root: Tar, *, allow: str) -> Case:
    return _asking(root, environment=(Variable(name="LEVEL", allow=allow, length=16),))


def _with_file(root: Tar, *, length: int) -> Case:
    return _bound(root, files=(SuppliedFile(target="/tmp/given", length=length),))  # noqa: S108 (in the guest)


def _other(root: Tar, *, named: bool) -> Case:
    """The host's document: it runs another program."""
    owners = Document(root=root, process=_sh("echo owner"))
    hosts = replace(owners, process=_sh("echo host"))
    return Case(document=hosts if named else owners, sent=hosts.data)


# ---- what the host does


def _started(guest: Guest, case: Case) -> None:
    """The workload runs, in a guest of either kind, and has said its first line."""
    if case.document is None:
        guest.ready()
        guest.send(agent.SPAWN, 1, agent.spawn(b"sh", b"-c", _HIDES.encode(), flags=2))
    else:
        guest.bound(case.data).expect(agent.READY)
        guest.send(agent.RUN, 1, agent.run_entry())
    guest.hear(lambda heard: heard[1].out == b"up\n" or heard[1].over)


def _spawn(guest: Guest, case: Case, *, argv: tuple[bytes, ...], wants: bytes) -> Outcome:
    _started(guest, case)
    guest.send(agent.SPAWN, 2, agent.spawn(*argv))
    result = guest.hear(lambda heard: heard[2].over)[2]
    return Outcome(succeeded=wants in result.out + result.err, guest=_words(result))


def _run_again(guest: Guest, case: Case, *, entry: int, times: int) -> Outcome:
    """Once more than the document says."""
    _started(guest, case)
    last = 1 + times
    for process in range(2, last + 1):
        if case.document is None:
            guest.send(agent.SPAWN, process, agent.spawn(b"true"))
        else:
            guest.send(agent.RUN, process, agent.run_entry(entry=entry))
    result = guest.hear(lambda heard: heard[last].over)[last]
    return Outcome(succeeded=result.exited is not None, guest=_words(result))


def _variable(guest: Guest, case: Case, *, value: bytes) -> Outcome:
    guest.bound(case.data).expect(agent.READY)
    guest.send(agent.RUN, 1, agent.run_entry(b"LEVEL=" + value))
    result = guest.hear(lambda heard: heard[1].over)[1]
    return Outcome(succeeded=value in result.out, guest=_words(result))


def _stdin(guest: Guest, case: Case) -> Outcome:
    guest.bound(case.data).expect(agent.READY)
    guest.send(agent.RUN, 1, agent.run_entry(flags=0))
    guest.send(agent.STDIN, 1, b"input\n")
    result = guest.hear(lambda heard: heard[1].over)[1]
    return Outcome(succeeded=b"input" in result.out, guest=_words(result))


def _signal(guest: Guest, case: Case) -> Outcome:
    guest.bound(case.data).expect(agent.READY)
    guest.send(agent.RUN, 1, agent.run_entry())
    guest.hear(lambda heard: heard[1].out.endswith(b"up\n") or heard[1].over)
    guest.send(agent.SIGNAL, 1, struct.pack("<I", _TERM))
    result = guest.hear(lambda heard: heard[1].over)[1]
    return Outcome(succeeded=b"caught" in result.out, guest=_words(result))


def _output(guest: Guest, case: Case) -> Outcome:
    guest.bound(case.data).expect(agent.READY)
    guest.send(agent.RUN, 1, agent.run_entry())
    result = guest.hear(lambda heard: heard[1].over)[1]
    return Outcome(succeeded=b"got" in result.out, guest=_words(result))


def _file(guest: Guest, case: Case) -> Outcome:
    content = struct.pack("<I", 0) + agent.counted(b"of the host\n")
    guest.bound(case.data, (agent.FILE, content))
    heard = guest.hear(lambda heard: heard[0].ready or bool(heard[0].error))[0]
    return Outcome(succeeded=heard.ready and not heard.refused, guest=_words(heard))


def _hostname(guest: Guest, case: Case) -> Outcome:
    guest.expect(agent.HELLO)
    guest.send(agent.HELLO, payload=agent.hello())
    guest.send(agent.WORKLOAD, payload=case.data)
    guest.send(agent.PREPARE, payload=agent.counted(b"elsewhere"))
    heard = guest.hear(lambda heard: heard[0].ready or bool(heard[0].refused) or bool(heard[0].error))[0]
    return Outcome(succeeded=heard.ready, guest=_words(heard))


def _document(guest: Guest, case: Case) -> Outcome:
    guest.bound(case.data)
    heard = guest.hear(lambda heard: heard[0].ready or bool(heard[0].error))[0]
    if not heard.ready:
        return Outcome(succeeded=False, guest=_words(heard))
    guest.send(agent.RUN, 1, agent.run_entry())
    result = guest.hear(lambda heard: heard[1].over)[1]
    return Outcome(succeeded=result.out == b"host\n", guest=_words(result))


def _container(guest: Guest, _: Case) -> Outcome:
    """As if the guest were unbound."""
    guest.expect(agent.HELLO)
    guest.send(agent.HELLO, payload=agent.hello())
    guest.send(agent.CONTAINER, payload=agent.container())
    heard = guest.hear(lambda heard: heard[0].ready or bool(heard[0].error))[0]
    return Outcome(succeeded=heard.ready, guest=_words(heard))


def _probe(guest: Guest, case: Case) -> Outcome:
    """Try a door, and go on."""
    _started(guest, case)
    guest.send(agent.SPAWN, 2, agent.spawn(b"id"))
    heard = guest.hear(lambda heard: heard[2].over or bool(heard[0].error))
    if heard[0].error:
        return Outcome(succeeded=False, guest=f"ended: {heard[0].error[1]}")
    return Outcome(succeeded=heard[2].over, guest="refused that, and went on")


def _words(result: Result) -> str:
    if result.error is not None:
        return f"refused: {result.error[1]}"
    said = (result.out + result.err).decode(errors="replace").strip().splitlines()
    what = f"a program said {' / '.join(said)[:80]!r}" if said else "nothing came out"
    if result.ready:
        what = "made the container"
    return f"{what}; messages were refused" if result.refused else what


_FREE = "the same in an unbound guest"
_OPEN = "the same where the document opens it"
_ROWS: dict[str, tuple[str, Play, Callable[[Tar], Case], str, Callable[[Tar], Case]]] = {
    "spawn": (
        "starts a second process that reads the workload's 0600 file",
        partial(_spawn, argv=(b"cat", b"/tmp/secret"), wants=b"hush"),
        _bound, _FREE, _unbound,
    ),
    "spawn-environment": (
        "starts a second process that reads the environment of the others",
        partial(_spawn, argv=(b"sh", b"-c", b"cat /proc/[0-9]*/environ"), wants=b"PATH=/bin"),
        _bound, _FREE, _unbound,
    ),
    "spawn-report": (
        "starts a second process that asks the processor for a report",
        partial(_spawn, argv=(b"mkdir", b"/sys/kernel/config/tsm/report/r"), wants=b"No such device or address"),
        _bound, _FREE, _unbound,
    ),
    "command": (
        "starts a command that no entry has",
        partial(_spawn, argv=(b"cat", b"/tmp/secret"), wants=b"hush"),
        _bound, _OPEN, partial(_bound, host_exec=True),
    ),
    "workload-twice": (
        "starts the workload a second time",
        partial(_run_again, entry=0, times=1),
        _bound, _FREE, _unbound,
    ),
    "entry-unlisted": (
        "starts an entry of exec that is not there",
        partial(_run_again, entry=1, times=1),
        _bound, _OPEN, partial(_with_entry, count=1),
    ),
    "entry-again": (
        "starts an entry of exec once more than its count",
        partial(_run_again, entry=1, times=2),
        partial(_with_entry, count=1), _OPEN, partial(_with_entry, count=2),
    ),
    "variable": (
        "sets an environment variable of the workload",
        partial(_variable, value=b"high"),
        _asking, _OPEN, partial(_with_variable, allow="word"),
    ),
    "variable-value": (
        "sets a variable to a value outside its grammar",
        partial(_variable, value=b"so high;"),
        partial(_with_variable, allow="word"), _OPEN, partial(_with_variable, allow="line"),
    ),
    "stdin": ("writes to the workload's standard input", _stdin, _asking, _OPEN, partial(_asking, stdin=True)),
    "signal": ("sends the workload a signal", _signal, _asking, _OPEN, partial(_asking, signals=(_TERM,))),
    "output": ("reads output that is to stay in the guest", _output, partial(_asking, output=False), _OPEN, _asking),
    "file": ("supplies a file", _file, _bound, _OPEN, partial(_with_file, length=64)),
    "file-long": (
        "supplies a file that is longer than allowed",
        _file, partial(_with_file, length=8), _OPEN, partial(_with_file, length=64),
    ),
    "file-empty": (
        "puts something into a file that may only be empty",
        _file, partial(_with_file, length=0), _OPEN, partial(_with_file, length=64),
    ),
    "hostname": ("gives the guest a name", _hostname, _bound, _OPEN, partial(_bound, host_names_it=True)),
    "other-document": (
        "sends a document of its own",
        _document, partial(_other, named=False),
        "a command line that names this document, under another launch digest", partial(_other, named=True),
    ),
    "no-document": (
        "sends no document, and commands the guest as if it were unbound",
        _container, _bound, _FREE, _unbound,
    ),
    "probing": (
        "tries a door of a guest that ends when it is refused",
        _probe, partial(_bound, end_on_refusal=True), "a document with which a refused guest goes on", _bound,
    ),
}  # fmt: skip
