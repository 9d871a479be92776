# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Other blobs than the hashes table names: kernel, initramfs, command line, and what stands beside them.

Each payload is one that boots where nobody verifies it: a bit of a text or a date, never of code.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part, Reach, Undefended, UnjudgedError
from tools.attack.base.target import Target
from tools.attack.guests import firmware, initramfs
from tools.attack.guests.firmware import Became, Host
from tools.attack.undefended.firmware import unverified, upstream

Change = Callable[[Lab, Host], Host]
_UNVERIFIED = Undefended(what="firmware that verifies nothing", target=unverified)
_UPSTREAM = Undefended(what="firmware without patch 0001", target=upstream)


def attempt(lab: Lab, target: Target, folder: Path, *, change: Change, flash: bool = False) -> Outcome:
    """Start what `change` makes of an honest host; booting is what the attack wants."""
    honest = lab.once(f"host of {target.name}", partial(Host.of, target, lab.qemu))
    if flash:
        honest = honest.through_pflash(target, lab.qemu)
    became = firmware.start(change(lab, honest), folder)
    return Outcome(succeeded=became in {Became.BOOTED, Became.STARTED}, guest=became)


def attacks() -> Iterator[Attack]:
    """The rows."""
    for name, (host, change) in _BLOBS.items():
        yield _attack(name, host, change, short=name in _SHORT)
    for name, (host, change) in _NAMED.items():
        yield _attack(name, host, change, control=_UPSTREAM, short=name == "shim")
    for name in ("kernel-bit", "initramfs-bit", "word-more"):
        host, change = _BLOBS[name]
        yield _attack(f"{name}-in-flash", f"firmware in flash; {host}", change, flash=True)
    host, change = _NAMED["shim"]
    yield _attack("shim-in-flash", f"firmware in flash; {host}", change, control=_UPSTREAM, flash=True)


def _attack(
    name: str, host: str, change: Change, *, control: Undefended = _UNVERIFIED, short: bool = False, flash: bool = False
) -> Attack:
    return Attack(
        name=name,
        host=host,
        attempt=partial(attempt, change=change, flash=flash),
        control=control,
        parts=frozenset({Part.FIRMWARE}),
        reach=Reach.KERNEL,
        short=short,
    )


def given(data: bytes | None) -> bytes:
    """What an honest host hands out; a kernel with its initramfs inside has none beside it."""
    if data is None:
        raise UnjudgedError("there is no such file")
    return data


def flip(data: bytes | None, at: int) -> bytes:
    """One bit differs."""
    data = given(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _version_text(kernel: bytes) -> int:
    """Where the name of who built it stands (Documentation/arch/x86/boot.rst: kernel_version, at 0x20e)."""
    return int.from_bytes(kernel[0x20E:0x210], "little") + 0x200


def other_kernel(kernel: bytes | None) -> bytes:
    """Another kernel that runs as well: its text for boot loaders differs in a bit."""
    return flip(kernel, _version_text(given(kernel)))


_BLOBS: dict[str, tuple[str, Change]] = {
    "kernel-bit": (
        "flips a bit of the kernel's version text",
        lambda _, h: replace(h, kernel=other_kernel(h.kernel)),
    ),
    "kernel-header": (
        "changes type_of_loader in the kernel's setup header, as QEMU does for guests that are not measured",
        lambda _, h: replace(h, kernel=flip(h.kernel, 0x210)),
    ),
    "kernel-longer": (
        "appends a byte to the kernel",
        lambda _, h: replace(h, kernel=given(h.kernel) + b"\0"),
    ),
    "initramfs-bit": (
        "hands out the initramfs uncompressed, with a bit of a file's date flipped",
        lambda lab, h: replace(h, initramfs=initramfs.redated(initramfs.unpacked(lab, given(h.initramfs)))),
    ),
    "initramfs-longer": (
        "appends an archive of its own to the initramfs: what is in it replaces what was there",
        lambda _, h: replace(h, initramfs=initramfs.with_file(given(h.initramfs), b"host", b"of the host")),
    ),
    "cmdline-bit": (
        "changes a letter of the command line",
        lambda _, h: replace(h, cmdline=re.sub("quiet", "puiet", h.cmdline)),
    ),
    "word-more": ("appends a word to the command line", lambda _, h: replace(h, cmdline=f"{h.cmdline} x")),
    "word-less": (
        "drops the first word of the command line",
        lambda _, h: replace(h, cmdline=h.cmdline.split(" ", 1)[1]),
    ),
}
_NAMED: dict[str, tuple[str, Change]] = {
    "shim": (
        "names a program of its own `etc/boot/shim` (QEMU's -shim), which starts in the kernel's place",
        lambda _, h: replace(h, blobs={"shim": other_kernel(h.kernel)}),
    ),
    "other-name": (
        "adds a blob of another name to fw_cfg's etc/boot/",
        lambda _, h: replace(h, blobs={"other": b"x"}),
    ),
}
_SHORT = {"kernel-bit", "initramfs-longer", "word-more"}
