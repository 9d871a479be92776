# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What of a tar the guest would refuse only after it has booted: found by its headers alone.

POSIX.1-2017, pax, "ustar Interchange Format"; GNU's types: tar.h of GNU tar (S sparse, V label, M continued).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tools.launcher.base.errors import UserError

BLOCK = 512
ENTRIES_MAX = 1_000_000
_PAGE = 4096
_PAX_MAX = 1 << 20
_REGULAR = b"\00007"
# A tar of image layers: what `docker save` and OCI layouts have at their top.
_LAYERS = ({b"manifest.json"}, {b"oci-layout", b"index.json"})


@dataclass(frozen=True, kw_only=True)
class _Member:
    name: bytes
    kind: bytes
    size: int
    sparse: bool


@dataclass(kw_only=True)
class _Found:
    names: set[bytes] = field(default_factory=set)  # at the top, of files and folders
    sizes: dict[bytes, int] = field(default_factory=dict)


def is_header(block: bytes) -> bool:
    """Whether the 512 bytes have a tar header's checksum."""
    field_ = block[148:156].strip(b" \0")
    if len(block) < BLOCK or not field_ or any(byte not in b"01234567" for byte in field_):
        return False
    return int(field_, 8) == sum(block[:148]) + 8 * 0x20 + sum(block[156:BLOCK])


def check(path: Path, *, where: str, memory_mib: int) -> None:
    """UserError for what the agent refuses, or what does not fit into a guest with that much RAM."""
    found = _Found()
    with path.open("rb") as stream:
        for count, member in enumerate(_members(stream, where=where)):
            if member.kind == b"S" or member.sparse:
                raise UserError(
                    f"has a sparse member, {_shown(member)}", where=where, hint="make it without tar's --sparse (-S)"
                )
            if member.kind in b"VM":
                what = "a volume label" if member.kind == b"V" else "a member that begins in another volume"
                raise UserError(f"has {what}", where=where, hint="make it without tar's --label (-V) and -M")
            name = member.name.removeprefix(b"./").rstrip(b"/")
            if count >= ENTRIES_MAX:
                raise UserError(f"has more than {ENTRIES_MAX} members", where=where, hint="make an EROFS image of them")
            found.names.add(name.partition(b"/")[0])
            if member.kind in _REGULAR:
                # By name: a later member replaces an earlier one.
                found.sizes[name] = -(-member.size // _PAGE) * _PAGE
    if not found.names:
        raise UserError("has no members: an empty archive, or a zeroed file", where=where)
    if any(found.names >= layers for layers in _LAYERS) and b"bin" not in found.names and b"usr" not in found.names:
        raise UserError(
            "holds the layers of an image (`docker save`, OCI), not a root file system",
            where=where,
            hint="`docker export CONTAINER` writes a root file system's tar",
        )
    _check_room(sum(found.sizes.values()), where=where, memory_mib=memory_mib)


def _check_room(needed: int, *, where: str, memory_mib: int) -> None:
    # The agent unpacks into a tmpfs that may take half of the RAM that the kernel has left.
    room = memory_mib << 19
    if needed > room:
        enough = -(-((needed >> 19) + 128) // 128) * 128
        raise UserError(
            f"unpacked it has {needed >> 20} MiB, a guest with {memory_mib} MiB of RAM holds {room >> 20}",
            where=where,
            hint=f"--memory {enough}M or more, or an EROFS image, which needs no RAM",
        )


def _shown(member: _Member) -> str:
    return repr(member.name[:80].decode("utf-8", "replace"))


def _members(stream: BinaryIO, *, where: str) -> Iterator[_Member]:
    """Every member's header; the contents are skipped."""
    end = os.fstat(stream.fileno()).st_size
    pax: dict[bytes, bytes] = {}
    long_name = b""
    while len(block := stream.read(BLOCK)) == BLOCK:
        if not any(block):
            return
        at = stream.tell() - BLOCK
        if not is_header(block):
            raise UserError(f"is damaged: no header at byte {at}", where=where)
        kind = block[156:157]
        size = _number(block[124:136])
        if kind in b"xg" and size <= _PAX_MAX:
            pax = _records(stream.read(size)) if kind == b"x" else pax
            stream.seek(at + BLOCK + _padded(size))
            continue
        if kind in b"LK":
            if kind == b"L" and size <= _PAX_MAX:
                long_name = stream.read(size).rstrip(b"\0")
            stream.seek(at + BLOCK + _padded(size))
            continue
        digits = pax.get(b"size", b"")
        if digits.isdigit():
            # A file of 20 digits is longer than any; int() has a limit of its own, and an error for it.
            size = int(digits[:20])
        prefix = block[345:500].rstrip(b"\0") if block[257:263] == b"ustar\0" else b""
        short = b"/".join(part for part in (prefix, block[:100].split(b"\0")[0]) if part)
        sparse = any(key.startswith(b"GNU.sparse.") for key in pax)
        yield _Member(name=pax.get(b"path") or long_name or short, kind=kind, size=size, sparse=sparse)
        pax, long_name = {}, b""
        # Links and devices may carry a size and have no contents.
        following = at + BLOCK + (_padded(size) if kind in _REGULAR or kind not in b"123456" else 0)
        if following > end:
            break
        stream.seek(following)
    raise UserError("ends before its end mark: truncated?", where=where)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _number(text: bytes) -> int:
    """A header's number: octal, or GNU's base 256 with the top bit of the first byte set."""
    if text[0] & 0x80:
        return int.from_bytes(text[1:], "big")
    digits = text.strip(b" \0")
    return int(digits, 8) if digits and all(byte in b"01234567" for byte in digits) else 0


def _records(data: bytes) -> dict[bytes, bytes]:
    """A pax header's records, `LENGTH KEY=VALUE\\n`; what is malformed is left for the agent to refuse."""
    records: dict[bytes, bytes] = {}
    while data:
        length, _, rest = data.partition(b" ")
        if len(length) > 9 or not length.isdigit() or not 0 < int(length) <= len(data):
            break
        key, equals, value = rest[: int(length) - len(length) - 1].rstrip(b"\n").partition(b"=")
        if equals:
            records[key] = value
        data = data[int(length) :]
    return records
