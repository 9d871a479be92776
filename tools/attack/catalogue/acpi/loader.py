# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Scripts of the host's for the firmware's loader of ACPI tables (etc/table-loader).

A script that is accepted to its end installs a table of the host's, which is then seen in memory at a page's beginning.
A command that reaches out of its file must keep that from happening.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tools.attack.acpi import script
from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part, Reach, Undefended
from tools.attack.base.target import Target
from tools.attack.guests import firmware
from tools.attack.guests.firmware import Became, Host
from tools.attack.undefended.firmware import upstream
from tools.pipeline.base.errors import BuildError

_FILE, _OTHER, _WRITTEN = "etc/acpi/one", "etc/acpi/two", "etc/acpi/written"
_MARK = b"MARK"
_PAGE = 4096
_CPU = 30.0  # seconds of QEMU's processor time without a sign of anything
_FACS = struct.pack("<4sI", b"FACS", 64).ljust(64, b"\0")


def _table(signature: bytes) -> bytes:
    table = bytearray(struct.pack("<4sI", signature, 36).ljust(36, b"\0"))
    table[9] = -sum(table) % 256
    return bytes(table)


# The table stands off a page's beginning: what is found there is a copy that the firmware has installed.
_ONE = struct.pack("<QQ", 16, 0) + _table(_MARK).ljust(240, b"\0")
_FILES = {_FILE: _ONE, _OTHER: bytes(64), _WRITTEN: bytes(64)}
_BEFORE = [script.allocate(_FILE), script.allocate(_OTHER)]
_AFTER = [script.pointer(_FILE, _FILE, 0)]


def attempt(
    lab: Lab,
    target: Target,
    folder: Path,
    *,
    commands: Sequence[bytes],
    files: Mapping[str, bytes],
    signature: bytes,
    cut: int = 0,
) -> Outcome:
    """Whether a table of this signature is installed; `cut`: bytes that the script lacks at its end."""
    honest = lab.once(f"host of {target.name}", partial(Host.of, target, lab.qemu))
    whole = b"".join(commands)
    words = script.options(folder / "script", [whole[: len(whole) - cut]], files)
    memory = folder / "memory"
    options: list[tuple[str, ...]] = []
    for option in honest.options:
        match option:
            case ("-machine", value):
                options.append(("-machine", f"{value},acpi=off,memory-backend=shared"))
            case ("-m", size):
                shared = f"memory-backend-file,id=shared,size={size},mem-path={memory},share=on"
                options += [option, ("-object", shared)]
            case _:
                options.append(option)
    run = folder / "run"
    run.mkdir()
    became = firmware.watch(replace(honest, options=(*options, tuple(words[2:]))), run, cpu_limit=_CPU)
    if became is Became.ENDED and not memory.exists():
        raise BuildError((run / "qemu.log").read_text(errors="replace").strip()[-200:] or became)
    with memory.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        found = any(view[at : at + 4] == signature for at in range(0, len(view), _PAGE))
    memory.unlink()
    return Outcome(succeeded=found, guest=f"{'took' if found else 'refused'} the script; {became}")


def _marked(lab: Lab, target: Target, folder: Path, *, commands: Sequence[bytes], cut: int = 0) -> Outcome:
    return attempt(lab, target, folder, commands=commands, files=_FILES, signature=_MARK, cut=cut)


def honest(lab: Lab, target: Target, folder: Path) -> Outcome:
    """Without the command in question; once for all rows."""
    return lab.once(f"loader script, {target.name}", lambda: _marked(lab, target, folder, commands=[*_BEFORE, *_AFTER]))


_HOSTILE: dict[str, tuple[str, list[bytes]]] = {
    "align-huge": ("asks for an alignment of 2^31", [script.allocate(_WRITTEN, align=1 << 31)]),
    "allocate-twice": ("allocates a file a second time", [script.allocate(_FILE)]),
    "allocate-unknown": ("allocates a file that is not there", [script.allocate("etc/acpi/none")]),
    "name-without-end": ("names a file without an end", [script.allocate("A" * 56)]),
    "pointer-behind": ("has a pointer behind its file", [script.pointer(_FILE, _OTHER, len(_ONE))]),
    "pointer-across": ("has a pointer across its file's end", [script.pointer(_FILE, _OTHER, len(_ONE) - 7)]),
    "pointer-wraps": ("has a pointer at 2^32 - 8", [script.pointer(_FILE, _OTHER, (1 << 32) - 8)]),
    "pointer-size": ("has a pointer of 3 bytes, of 0 and of 255", [script.pointer(_FILE, _OTHER, 8, size=3)]),
    "pointer-size-zero": ("has a pointer of no bytes", [script.pointer(_FILE, _OTHER, 8, size=0)]),
    "pointer-size-huge": ("has a pointer of 255 bytes", [script.pointer(_FILE, _OTHER, 8, size=255)]),
    "pointer-to-behind": ("has a pointer to behind the file that it leads to", [script.pointer(_FILE, _OTHER, 17)]),
    "pointer-narrow": ("has a pointer of a byte to an address of four", [script.pointer(_FILE, _OTHER, 8, size=1)]),
    "pointer-to-unknown": ("has a pointer to a file that was not allocated", [script.pointer(_FILE, _WRITTEN, 8)]),
    "checksum-behind": (
        "writes a checksum behind the file",
        [script.checksum(_OTHER, result=64, start=0, length=8)],
    ),
    "checksum-far": (
        "writes a checksum 4 GiB away",
        [script.checksum(_OTHER, result=0xFFFFFFFF, start=0, length=8)],
    ),
    "checksum-reads-behind": (
        "sums bytes behind the file",
        [script.checksum(_OTHER, result=0, start=1, length=64)],
    ),
    "checksum-wraps": (
        "sums bytes from 2^32 - 1 on, a number that wraps",
        [script.checksum(_OTHER, result=0, start=0xFFFFFFFF, length=2)],
    ),
    "write-behind": (
        "has an address written behind a file of the host's",
        [script.write_pointer(_WRITTEN, _OTHER, offset=64, at=0)],
    ),
    "write-of-behind": (
        "has an address behind a file written",
        [script.write_pointer(_WRITTEN, _OTHER, offset=0, at=64)],
    ),
    "write-size": (
        "has 200 bytes of an address written",
        [script.write_pointer(_WRITTEN, _OTHER, offset=0, at=0, size=200)],
    ),
}


def attacks() -> Iterator[Attack]:
    """The rows."""
    commands, files = script.moved()
    yield Attack(
        name="pointers-moved",
        host="moves pointers by checksums after they were checked: the firmware's memory as a table, which AML reads",
        attempt=partial(attempt, commands=commands, files=files, signature=script.TAKEN),
        control=Undefended(what="firmware without patch 0003", target=upstream),
        parts=frozenset({Part.FIRMWARE}),
        reach=Reach.KERNEL,
        short=True,
    )
    for name, (host, hostile) in _HOSTILE.items():
        yield _row(name, host, partial(_marked, commands=[*_BEFORE, *hostile, *_AFTER]))
    yield _row("cut", "ends its script within a command", partial(_marked, commands=[*_BEFORE, *_AFTER], cut=1))
    many = [*_BEFORE, *_AFTER, *(script.pointer(_FILE, _OTHER, 300) for _ in range(20000))]
    yield _row(
        "thousands", "has 20,000 commands in its script, all but three of them wrong", partial(_marked, commands=many)
    )


def _row(name: str, host: str, made: partial[Outcome]) -> Attack:
    return Attack(
        name=name,
        host=f"{host} (etc/table-loader)",
        attempt=made,
        control=Honest(what="the same script without that", attempt=honest),
        parts=frozenset({Part.FIRMWARE}),
        reach=Reach.KERNEL,
    )
