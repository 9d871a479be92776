# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A key of one run, and the ID blocks that it signs.

ECDSA on P-384 in plain Python, since the launcher has nothing but that: NIST FIPS 186-5, section 6, curve of NIST SP
800-186, 3.2.1.4. Its time depends on the key: good for a key that is made, used and forgotten within minutes on the
host that may know it, and for nothing else. `./doit idblock` signs for owners.
"""

import hashlib

from tools.launcher.acceptance.ambient import chance
from tools.launcher.config.owner import SignedIdBlock
from tools.sev.id_block import IdBlock, Identity, IdKey, Signature, id_auth, parse_id

_P = 2**384 - 2**128 - 2**96 + 2**32 - 1
_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
_G = (
    0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
    0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
)
_Point = tuple[int, int] | None
"""None: the point at infinity."""


def _add(one: _Point, other: _Point) -> _Point:
    if one is None or other is None:
        return one or other
    if one[0] == other[0]:
        if (one[1] + other[1]) % _P == 0:
            return None
        slope = 3 * (one[0] * one[0] - 1) * pow(2 * one[1], -1, _P)  # the curve's a is -3
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, _P)
    x = (slope * slope - one[0] - other[0]) % _P
    return x, (slope * (one[0] - x) - one[1]) % _P


def _times(factor: int) -> tuple[int, int]:
    found: _Point = None
    power: _Point = _G
    while factor:
        if factor & 1:
            found = _add(found, power)
        power = _add(power, power)
        factor >>= 1
    assert found is not None
    return found


def _number() -> int:
    """From 1 to N - 1; so many more bits than N has make each as good as likely."""
    return 1 + int.from_bytes(chance(64)) % (_N - 1)


class Signer:
    """A key that nobody has used before."""

    def __init__(self) -> None:
        self._secret = _number()
        x, y = _times(self._secret)
        self.key = IdKey(x=x, y=y)

    def sign(self, data: bytes) -> Signature:
        """ECDSA with SHA-384."""
        digest = int.from_bytes(hashlib.sha384(data).digest())
        while True:
            once = _number()
            r = _times(once)[0] % _N
            s = pow(once, -1, _N) * (digest + r * self._secret) % _N
            if r and s:
                return Signature(r=r, s=s)

    def id_block(self, *, digest: bytes, policy: int) -> SignedIdBlock:
        """A block for this launch digest and policy, signed; without an author's key."""
        identity = Identity(family_id=parse_id("sev-artifacts"), image_id=parse_id("acceptance"), svn=0)
        block = IdBlock(digest=digest, identity=identity, policy=policy).packed
        auth = id_auth(block_signature=self.sign(block), id_key=self.key, author=None)
        return SignedIdBlock(block=block, auth=auth, author_key=False)
