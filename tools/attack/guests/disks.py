# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Disks for bound guests, and a program that decides by what is on them."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.guests import agent, roots, verity
from tools.attack.guests.agent import Guest
from tools.pipeline.base.errors import BuildError
from tools.sev.workload.document import Document, Process, Tar, Verity

# Whoever is not found in the list is let in, as many programs do it.
DECIDE = "cat /etc/motd; if grep -q mallory /etc/denied; then echo DENIED; else echo ACCEPTED; fi"
HONEST = roots.MOTD + b"DENIED\n"
"""What it says of the disk as its owner made it."""

LIST = b"trudy__\n" * 65536 + b"mallory\n"
"""/etc/denied: long enough that nobody who reads what lies beside it meets a sector in its middle."""

ENVIRONMENT = ("PATH=/bin",)
_UNBOUND = "sev_agent.unbound"


@dataclass(frozen=True, kw_only=True)
class Disk:
    """An image, what a document says of it, and where the hash tree begins (its length without one), in bytes."""

    data: bytes
    root: Tar | Verity
    tree: int

    @property
    def document(self) -> Document:
        """The one that binds a guest to this disk and to the program."""
        return Document(root=self.root, process=Process(argv=("sh", "-c", DECIDE), environment=ENVIRONMENT))


def folder(lab: Lab) -> Path:
    """The owner's root as a folder; not to be changed."""

    def make() -> Path:
        place = roots.folder(lab.tree("boot") / "usr/bin/busybox", lab.folder("disk root") / "root")
        (place / "etc/denied").write_bytes(LIST)
        return place

    return lab.once("disk root", make)


def plain(lab: Lab) -> Disk:
    """The root as a tar, which a document binds by its digest."""

    def make() -> Disk:
        data = roots.tar(folder(lab), lab.folder("disk tar") / "root.tar").read_bytes()
        root = Tar(length=len(data), sha256=hashlib.sha256(data).hexdigest())
        return Disk(data=data, root=root, tree=len(data))

    return lab.once("disk tar", make)


def hashed(lab: Lab) -> Disk:
    """The root as an EROFS image with a hash tree behind it, which a document binds by its root hash."""
    return lab.once("disk erofs", lambda: image(lab, folder(lab), "disk erofs"))


def other(lab: Lab, name: str, files: dict[str, bytes]) -> Disk:
    """A disk of the same kind on which files have other contents; `name` is unique."""

    def make() -> Disk:
        place = lab.folder(f"disk root {name}") / "root"
        shutil.copytree(folder(lab), place, symlinks=True)
        for path, data in files.items():
            (place / path).write_bytes(data)
        return image(lab, place, f"disk {name}")

    return lab.once(f"disk {name}", make)


def image(lab: Lab, root: Path, name: str) -> Disk:
    """An EROFS image of a folder, with its tree; `name` is unique."""
    erofs = roots.erofs(root, lab.folder(name) / "root.erofs", mkfs=lab.tool("mkfs.erofs"))
    made = verity.with_tree(erofs, lab.tool("veritysetup"))
    says = Verity(root_hash=made.root_hash, salt=made.salt, layers=(made.data_size // 4096,))
    return Disk(data=made.image.read_bytes(), root=says, tree=made.data_size)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a guest said until it ended, or its program did: output, and the error that ended it, if it gave one."""

    out: bytes
    exited: bool
    error: tuple[int, str] | None

    @property
    def words(self) -> str:
        """For the table."""
        if self.error is not None:
            return f"refused: {self.error[1]}"
        if not self.out:
            return "its program ended without a word" if self.exited else "ended before its program said a word"
        last = self.out.decode(errors="replace").splitlines()[-1]
        return f"its program said {last!r}" + ("" if self.exited else ", then it ended")


def listen(guest: Guest, *, start: tuple[int, bytes], heard: Callable[[bytes], None] = lambda _: None) -> Told:
    """Send `start` as soon as the guest is ready; then until process 1 has ended, or the guest.

    `heard` is called with all output so far whenever there is more.

    BuildError when QEMU ends in another way than a guest's end.
    """
    out, error = b"", None
    while (frame := guest.receive()) is not None:
        kind, process, payload = frame
        if kind == agent.READY:
            guest.send(start[0], 1, start[1])
        if kind == agent.STDOUT:
            out += payload
            heard(out)
        elif kind == agent.EXITED:
            return Told(out=out, exited=True, error=None)
        elif kind == agent.ERROR:
            error = agent.failure(payload)
            if process:
                return Told(out=out, exited=False, error=error)
    status = guest.process.wait(300)
    if status != 0:
        raise BuildError(f"QEMU ended with status {status}")
    return Told(out=out, exited=False, error=error)


def bound(guest: Guest, document: Document) -> Told:
    """Have a bound guest do what its document says, to its end."""
    guest.bound(document.data)
    return listen(guest, start=(agent.RUN, agent.run_entry()))


def unbound(guest: Guest, *, kind: int, argv: Sequence[str] = ("sh", "-c", DECIDE)) -> Told:
    """The same program in a guest whose host chooses what runs; `kind` of root: 1 tar, 2 EROFS."""
    guest.expect(agent.HELLO)
    guest.send(agent.HELLO, payload=agent.hello())
    guest.send(agent.CONTAINER, payload=agent.container(kind=kind))
    return listen(guest, start=(agent.SPAWN, agent.spawn(*(word.encode() for word in argv), flags=2)))


def word(document: Document | None) -> str:
    """What stands on the command line; None: unbound."""
    return _UNBOUND if document is None else f"sev_agent.workload={document.sha256}"
