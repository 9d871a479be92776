# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Private keys of the guest's owner: read from the owner's file, used, kept nowhere.

No message quotes a key file's content, and nothing here writes one.
"""

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tools.pipeline.base import files
from tools.pipeline.base.errors import UserError
from tools.sev.id_block import IdKey, Signature

_MAX_SIZE = 64 << 10
_MAKE = "make one with openssl ecparam -name secp384r1 -genkey -noout -out FILE"


class SigningKey:
    """A private key on P-384."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        numbers = key.public_key().public_numbers()
        self.public = IdKey(x=numbers.x, y=numbers.y)

    def sign(self, data: bytes) -> Signature:
        """ECDSA with SHA-384, its nonce made from key and data (RFC 6979): equal input gives equal bytes."""
        der = self._key.sign(data, ec.ECDSA(hashes.SHA384(), deterministic_signing=True))
        r, s = utils.decode_dss_signature(der)
        return Signature(r=r, s=s)


def load(path: Path) -> SigningKey:
    """Read a PEM file with an unencrypted P-384 private key.

    Raises UserError naming the file, also when it is another's or others can read it.
    """
    where = str(path)
    pem, status = _read(path)
    if b"ENCRYPTED" in pem:
        # PKCS #8 says so in its label, OpenSSL's older format in a header.
        raise UserError("is encrypted", where=where, hint="give an unencrypted copy and delete it afterwards")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UserError("holds no private key in PEM", where=where, hint=_MAKE) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        kind = key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else "not of an elliptic curve"
        raise UserError(f"the key is {kind}, SEV-SNP takes P-384 only", where=where, hint=_MAKE)
    files.check_private(status, path)
    return SigningKey(key)


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        # O_NONBLOCK: opening a fifo must not wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor, not a path
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UserError("is not a regular file", where=str(path))
            data = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(data) > _MAX_SIZE:
        raise UserError(f"is larger than {_MAX_SIZE} bytes, so no key file", where=str(path))
    return data, status
