# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Archives made byte by byte: nothing writes such as tests need to see refused."""

END = bytes(1024)


def member(
    name: bytes = b"f",
    kind: bytes = b"0",
    data: bytes = b"",
    *,
    link: bytes = b"",
    mode: bytes = b"0000644\0",
    uid: bytes = b"0000000\0",
    size: bytes | None = None,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    spoil: bool = False,
) -> bytes:
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108], block[108:116], block[116:124] = mode, uid, b"0000000\0"
    block[124:136] = size or b"%011o\0" % len(data)
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[157 : 157 + len(link)] = link
    block[257:265] = magic
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) + spoil)
    return bytes(block) + data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d" % length + body


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    return member(b"pax", kind, b"".join(record(key, value) for key, value in records))


def folder(name: bytes) -> bytes:
    return member(name, b"5", mode=b"0000755\0")
