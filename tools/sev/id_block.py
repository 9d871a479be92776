# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""ID block and ID authentication information of SEV-SNP: what they hold, byte for byte.

The secure processor compares launch digest and policy of the ID block with those of the guest, checks the
signatures, and refuses a guest that is another; attestation reports then carry ids, SVN and key digests.

SEV-SNP Firmware ABI specification (AMD 56860): SNP_LAUNCH_FINISH, tables "ID Block" and "ID Authentication
Information Structure"; chapter 10, "Digital Signatures", for keys and signatures. Numbers are little-endian.
"""

import hashlib
import re
import struct
from dataclasses import dataclass

VERSION = 1
BLOCK_SIZE = 96
AUTH_SIZE = 4096
ID_SIZE = 16
DIGEST_SIZE = 48
KEY_SIZE = 1028
SIGNATURE_SIZE = 512
NUMBER_SIZE = 72
"""Bytes of a coordinate of a key, and of r and s of a signature."""
SVN_MAX = (1 << 32) - 1
ECDSA_P384_SHA384 = 1
"""The one signature algorithm of chapter 10."""

_CURVE_P384 = 2
_BLOCK = struct.Struct("<48s16s16sIIQ")
_ALGORITHMS = struct.Struct("<II")
# Offsets in the ID authentication information.
_BLOCK_SIGNATURE = 0x040
_ID_KEY = 0x240
_ID_KEY_SIGNATURE = 0x680
_AUTHOR_KEY = 0x880

_TEXT_ID = re.compile(r"[!-~]{1,16}")
_HEX_ID = re.compile(r"[0-9a-fA-F]{32}")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What the owner of a guest calls it: family and image id (16 bytes each), guest security version."""

    family_id: bytes
    image_id: bytes
    svn: int


@dataclass(frozen=True, kw_only=True)
class IdKey:
    """The affine coordinates of a public key on P-384."""

    x: int
    y: int

    @property
    def packed(self) -> bytes:
        """The key as the secure processor takes it, 1028 bytes."""
        return (_CURVE_P384.to_bytes(4, "little") + _number(self.x) + _number(self.y)).ljust(KEY_SIZE, b"\0")

    @property
    def digest(self) -> bytes:
        """SHA-384 of those bytes: ID_KEY_DIGEST and AUTHOR_KEY_DIGEST of attestation reports."""
        return hashlib.sha384(self.packed).digest()


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The two numbers of an ECDSA signature."""

    r: int
    s: int

    @property
    def packed(self) -> bytes:
        """The signature as the secure processor takes it, 512 bytes."""
        return (_number(self.r) + _number(self.s)).ljust(SIGNATURE_SIZE, b"\0")


@dataclass(frozen=True, kw_only=True)
class Author:
    """The author key, and its signature of the ID key's 1028 bytes."""

    key: IdKey
    id_key_signature: Signature


@dataclass(frozen=True, kw_only=True)
class IdBlock:
    """An ID block: what it was signed for. `version` is VERSION unless it is something else altogether."""

    digest: bytes
    identity: Identity
    policy: int
    version: int = VERSION

    @property
    def packed(self) -> bytes:
        """The 96 bytes that the ID key signs."""
        assert len(self.digest) == DIGEST_SIZE
        own = self.identity
        return _BLOCK.pack(self.digest, own.family_id, own.image_id, self.version, own.svn, self.policy)

    @classmethod
    def unpack(cls, block: bytes) -> "IdBlock":
        """Read 96 bytes, whatever they say."""
        digest, family_id, image_id, version, svn, policy = _BLOCK.unpack(block)
        identity = Identity(family_id=family_id, image_id=image_id, svn=svn)
        return cls(digest=digest, identity=identity, policy=policy, version=version)


def parse_id(text: str) -> bytes:
    """16 bytes from 32 hexadecimal digits, or from ASCII text padded with zeros; ValueError otherwise."""
    if _HEX_ID.fullmatch(text):
        return bytes.fromhex(text)
    if _TEXT_ID.fullmatch(text):
        return text.encode("ascii").ljust(ID_SIZE, b"\0")
    raise ValueError(f"{text[:80]!r} is neither 1 to 16 ASCII characters without spaces nor 32 hexadecimal digits")


def id_auth(*, block_signature: Signature, id_key: IdKey, author: Author | None) -> bytes:
    """The ID authentication information, 4096 bytes; without an author key its fields are zero."""
    data = bytearray(AUTH_SIZE)
    _ALGORITHMS.pack_into(data, 0, ECDSA_P384_SHA384, 0 if author is None else ECDSA_P384_SHA384)
    data[_BLOCK_SIGNATURE : _BLOCK_SIGNATURE + SIGNATURE_SIZE] = block_signature.packed
    data[_ID_KEY : _ID_KEY + KEY_SIZE] = id_key.packed
    if author is not None:
        data[_ID_KEY_SIGNATURE : _ID_KEY_SIGNATURE + SIGNATURE_SIZE] = author.id_key_signature.packed
        data[_AUTHOR_KEY : _AUTHOR_KEY + KEY_SIZE] = author.key.packed
    return bytes(data)


def key_algorithms(auth: bytes) -> tuple[int, int]:
    """The algorithms that ID authentication information names for the ID key and the author key."""
    id_key, author_key = _ALGORITHMS.unpack_from(auth)
    return id_key, author_key


def _number(value: int) -> bytes:
    return value.to_bytes(NUMBER_SIZE, "little")
