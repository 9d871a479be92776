# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Archives of folders that the workload document lets the host supply, and what they may hold, how much, and where."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part, Weaker
from tools.attack.base.target import Target
from tools.attack.guests import agent, bound
from tools.attack.guests.disks import ENVIRONMENT
from tools.sev.workload.document import Document, HostFolder, Process, Tar

_OURS, _HOSTS = b"fixed\n", b"of the host\n"
_VIRTIO = "iommu_platform=on,disable-legacy=on"
_SMALL, _LARGE = 1 << 16, 1 << 20


@dataclass(frozen=True, kw_only=True)
class Case:
    """A folder of the document, and what the host puts into its archive: names, and content or a link's target."""

    target: str
    length: int = _SMALL
    members: tuple[tuple[str, bytes | str | None], ...]


def attempt(lab: Lab, target: Target, folder: Path, *, case: Case) -> Outcome:
    """A guest that says what a file of its root holds; succeeded is that it says the host's."""
    root = agent.root_tar(lab.tree("boot") / "usr/bin/busybox", folder / "root.tar").read_bytes()
    document = Document(
        root=Tar(length=len(root), sha256=hashlib.sha256(root).hexdigest()),
        process=Process(argv=("cat", "/data/fixed/inside"), environment=ENVIRONMENT),
        folders=(HostFolder(target=case.target, length=case.length),),
    )
    archive = folder / "folder.tar"
    archive.write_bytes(_archive(case))
    options = [
        "-drive", f"if=none,id=folder0,readonly=on,format=raw,file={archive}",
        "-device", f"virtio-blk-pci,drive=folder0,serial=folder0,{_VIRTIO}",
    ]  # fmt: skip
    with bound.guest(lab, target, folder, disk=root, document=document, options=options) as guest:
        guest.bound(document.data)
        heard = guest.hear(lambda heard: heard[0].ready or bool(heard[0].error))[0]
        if not heard.ready:
            return Outcome(succeeded=False, guest=f"refused: {heard.error[1] if heard.error else 'it is gone'}")
        guest.send(agent.RUN, 1, agent.run_entry())
        said = guest.hear(lambda heard: heard[1].over)[1].out
    return Outcome(succeeded=said.startswith(_HOSTS), guest=f"its program read {said[:40]!r}")


def _archive(case: Case) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as stream:
        for name, what in case.members:
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if isinstance(what, bytes):
                member.size = len(what)
                stream.addfile(member, io.BytesIO(what))
            elif what is None:
                member.type = tarfile.DIRTYPE
                stream.addfile(member)
            else:
                member.type, member.linkname = tarfile.SYMTYPE, what
                stream.addfile(member)
    return data.getvalue()


def attacks() -> Iterator[Attack]:
    """The rows."""
    for name, (host, closed, what, open_) in _ROWS.items():
        yield Attack(
            name=name,
            host=host,
            attempt=partial(attempt, case=closed),
            control=Weaker(what=what, attempt=partial(attempt, case=open_)),
            parts=frozenset({Part.AGENT}),
            short=name == "link",
        )


# The same archive in both: in its own folder the link leads to that folder itself.
_LINKED = (("data", None), ("data/hop", "/data"), ("data/hop/fixed/inside", _HOSTS))
_FULL = (("data", None), ("data/inside", _HOSTS + bytes(_SMALL)))
_MANY = (("data", None), ("data/inside", _HOSTS), *((f"data/{number}", b"") for number in range(200)))
_ROWS: dict[str, tuple[str, Case, str, Case]] = {
    "link": (
        "gives an archive with a link out of its folder, and a file behind the link",
        Case(target="/mnt", members=_LINKED),
        "the same archive where the document lets the host supply that folder",
        Case(target="/data", members=_LINKED),
    ),
    "large": (
        "gives an archive with more bytes than the document lets it",
        Case(target="/data/fixed", members=_FULL),
        "the same archive and a document that lets it be so large",
        Case(target="/data/fixed", length=_LARGE, members=_FULL),
    ),
    "many": (
        "gives an archive with more files than fit, each of them empty",
        Case(target="/data/fixed", members=_MANY),
        "the same archive and a document that lets it be so large",
        Case(target="/data/fixed", length=_LARGE, members=_MANY),
    ),
}
