# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The members of a tar, read strictly: what is damaged or means several things is refused, nothing is guessed.

POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU's types: tar.h of GNU tar. Python's tarfile
reads more than that, keeps extended headers of any size in memory, and gives names in the caller's encoding.
"""

import base64
import binascii
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from tools.launcher.base.errors import UserError
from tools.launcher.layers.rules import shown

BLOCK = 512
_EXTENDED_MAX = 1 << 20
_NAME_MAX = 1 << 16
_WITH_CONTENT = b"\x0007"
_KNOWN = _WITH_CONTENT + b"123456"
_XATTR, _XATTR_ENCODED = b"SCHILY.xattr.", b"LIBARCHIVE.xattr."
_NUMBER = re.compile(rb"-?[0-9]{1,19}")
_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?")
_UNKNOWN = {
    b"S": "is sparse; make the archive without tar's --sparse (-S)",
    b"V": "is a volume label; make the archive without tar's --label (-V)",
    b"M": "begins in another volume; make the archive without tar's -M",
    b"D": "is of an incremental archive; make the archive without tar's --listed-incremental (-g)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A member with its extended headers taken into account; `place` is where its content of `size` bytes begins."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    time: int
    size: int
    place: int
    linkname: bytes
    xattrs: Mapping[bytes, bytes]


def is_header(block: bytes) -> bool:
    """Whether the 512 bytes have a tar header's checksum."""
    text = block[148:156].strip(b" \0")
    if len(block) != BLOCK or re.fullmatch(rb"[0-7]+", text) is None:
        return False
    return int(text, 8) == sum(block[:148]) + 8 * 0x20 + sum(block[156:])


def members(stream: BinaryIO, *, end: int, where: str) -> Iterator[Member]:
    """Every member of the archive of `end` bytes, which must be one that can be sought in."""
    everywhere: dict[bytes, bytes] = {}
    extended: dict[bytes, bytes] = {}
    held = 0  # bytes of the headers in `extended`
    at = 0
    while True:
        stream.seek(at)
        block = stream.read(BLOCK)
        if len(block) < BLOCK:
            raise UserError("ends before its end mark: truncated?", where=where)
        if not any(block):
            if extended:
                raise UserError("ends behind an extended header", where=where)
            return
        if not is_header(block):
            what = "is damaged" if at else "is no tar, or damaged"
            raise UserError(f"{what}: no header at byte {at}", where=where)
        header = _Header(block, at=at, where=where)
        kind, size = header.kind, header.number(124, 136)
        at += BLOCK
        if kind in b"xgLK":
            held = _held(held, header, size)
            data = stream.read(size)
            if len(data) != size:
                raise UserError("ends inside of an extended header", where=where)
            if kind == b"g":
                everywhere |= _for_all(_records(data, header), header)
            elif kind == b"x":
                extended |= _records(data, header)
            else:
                # GNU's long names: a pax header's word would count more, and nobody writes both.
                extended.setdefault(b"path" if kind == b"L" else b"linkpath", data.partition(b"\0")[0])
            at += _padded(size)
            continue
        member = _member(header, {**everywhere, **extended}, place=at)
        at += _padded(member.size)
        if at > end:
            raise UserError(f"ends inside of {shown(member.name)}: truncated?", where=where)
        yield member
        extended, held = {}, 0


def _held(held: int, header: "_Header", size: int) -> int:
    """Bytes of the extended headers for the next member, with one more of `size` bytes."""
    if not 0 <= size <= (_EXTENDED_MAX if header.kind in b"xg" else _NAME_MAX):
        raise header.error(f"an extended header of {size} bytes")
    if header.kind == b"g":
        return held  # _for_all() keeps little of it
    if held + size > _EXTENDED_MAX:
        raise header.error(f"more than {_EXTENDED_MAX} bytes of extended headers for one member")
    return held + size


class _Header:
    def __init__(self, block: bytes, *, at: int, where: str) -> None:
        self._block = block
        self._at = at
        self._where = where
        self.kind = block[156:157]

    def text(self, start: int, stop: int) -> bytes:
        return self._block[start:stop].partition(b"\0")[0]

    def number(self, start: int, stop: int) -> int:
        """Octal, or GNU's base 256 with the top bit of the first byte set; empty is 0."""
        data = self._block[start:stop]
        if data[0] & 0x80:
            bits = 8 * len(data) - 1
            value = int.from_bytes(data, "big") & ((1 << bits) - 1)
            return value - (1 << bits) if value >> (bits - 1) else value
        text = data.strip(b" \0")
        if text and re.fullmatch(rb"[0-7]+", text) is None:
            raise self.error(f"a number {shown(text)}")
        return int(text, 8) if text else 0

    def name(self) -> bytes:
        prefix = self.text(345, 500) if self._block[257:263] == b"ustar\0" else b""
        return b"/".join(part for part in (prefix, self.text(0, 100)) if part)

    def error(self, what: str) -> UserError:
        return UserError(f"is damaged: {what} in the header at byte {self._at}", where=self._where)

    def refused(self, name: bytes, what: str) -> UserError:
        return UserError(f"{shown(name)} {what}", where=self._where)


def _member(header: _Header, pax: Mapping[bytes, bytes], *, place: int) -> Member:
    name = pax.get(b"path") or header.name()
    kind = header.kind
    if kind in _UNKNOWN or any(key.startswith(b"GNU.sparse.") for key in pax):
        raise header.refused(name, _UNKNOWN.get(kind, _UNKNOWN[b"S"]))
    if kind not in _KNOWN:
        raise header.refused(name, f"is a member of unknown type {shown(kind)}")
    if any(key.startswith(b"SCHILY.acl.") for key in pax):
        raise header.refused(name, "has an access control list, which layers lack; make the archive without --acls")
    if kind in _WITH_CONTENT and name.endswith(b"/"):
        kind = b"5"  # of before there was a type for folders
    content = kind in _WITH_CONTENT
    size = _pax_number(pax, b"size", header) if b"size" in pax else header.number(124, 136)
    if size < 0:
        raise header.error(f"a size of {size}")
    return Member(
        name=name,
        kind=b"0" if content else kind,
        mode=header.number(100, 108),
        uid=_pax_number(pax, b"uid", header) if b"uid" in pax else header.number(108, 116),
        gid=_pax_number(pax, b"gid", header) if b"gid" in pax else header.number(116, 124),
        time=_pax_time(pax[b"mtime"], header) if b"mtime" in pax else header.number(136, 148),
        # Links, folders and devices may give a size and have no content.
        size=size if content else 0,
        place=place,
        linkname=pax.get(b"linkpath") or header.text(157, 257),
        xattrs=_xattrs(pax, header),
    )


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _records(data: bytes, header: _Header) -> dict[bytes, bytes]:
    """A pax header's records, `LENGTH KEY=VALUE\\n`."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        head, space, _ = data[at : at + 21].partition(b" ")
        length = int(head) if head.isdigit() else 0
        record = data[at + len(head) + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if not space or length > len(data) - at or record[-1:] != b"\n" or not equals or not key:
            raise header.error("an extended header that is none")
        records[key] = value
        at += length
    return records


def _for_all(records: Mapping[bytes, bytes], header: _Header) -> Mapping[bytes, bytes]:
    """Those of a global header that are of use; it may not name what can only be one member's."""
    for key in records:
        if key in {b"path", b"linkpath", b"size"} or key.startswith((_XATTR, _XATTR_ENCODED, b"GNU.", b"SCHILY.acl.")):
            raise header.error(f"{shown(key)} for all members")
    # There may be any number of such headers.
    return {key: value for key, value in records.items() if key in {b"uid", b"gid", b"mtime"}}


def _pax_number(pax: Mapping[bytes, bytes], key: bytes, header: _Header) -> int:
    if _NUMBER.fullmatch(pax[key]) is None:
        raise header.error(f"{shown(key)} {shown(pax[key])} before it")
    return int(pax[key])


def _pax_time(text: bytes, header: _Header) -> int:
    """Whole seconds, rounded down."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise header.error(f"a time {shown(text)} before it")
    seconds, fraction = int(match[2]), (match[3] or b"").strip(b"0")
    return seconds if not match[1] else -seconds - (1 if fraction else 0)


def _xattrs(pax: Mapping[bytes, bytes], header: _Header) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for key, value in pax.items():
        if key.startswith(_XATTR_ENCODED):
            name = urllib.parse.unquote_to_bytes(key.removeprefix(_XATTR_ENCODED))
            try:
                # libarchive leaves the padding out.
                found.setdefault(name, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True))
            except (binascii.Error, ValueError):
                raise header.error(f"attribute {shown(name)} that is not in base64 before it") from None
    for key, value in pax.items():
        if key.startswith(_XATTR):
            found[key.removeprefix(_XATTR)] = value
    return found
