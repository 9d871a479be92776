# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a secure processor does with an ID block's signature, by a library."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils


def signature_holds(block: bytes, auth: bytes) -> bool:
    """Whether the ID key in the authentication information signed the block."""

    def number(at: int) -> int:
        return int.from_bytes(auth[at : at + 72], "little")

    key = ec.EllipticCurvePublicNumbers(number(0x244), number(0x244 + 72), ec.SECP384R1()).public_key()
    signature = utils.encode_dss_signature(number(0x40), number(0x40 + 72))
    try:
        key.verify(signature, block, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True
