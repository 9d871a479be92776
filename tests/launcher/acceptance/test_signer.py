# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Signatures in plain Python, checked by a library; and the blocks that they are for."""

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tests.launcher.acceptance.machine_key import signature_holds
from tools.launcher.acceptance import hostile
from tools.launcher.acceptance.signer import Signer
from tools.sev.id_block import IdBlock


def test_a_library_takes_its_signatures() -> None:
    first, second = Signer(), Signer()
    assert first.key != second.key
    key = ec.EllipticCurvePublicNumbers(first.key.x, first.key.y, ec.SECP384R1()).public_key()
    for data in (b"", b"data", bytes(96)):
        signature = first.sign(data)
        encoded = utils.encode_dss_signature(signature.r, signature.s)
        key.verify(encoded, data, ec.ECDSA(hashes.SHA384()))
        with pytest.raises(InvalidSignature):
            key.verify(encoded, data + b"x", ec.ECDSA(hashes.SHA384()))


def test_a_block_and_one_with_another_signature() -> None:
    signer = Signer()
    signed = signer.id_block(digest=bytes(range(48)), policy=0x30000)
    said = IdBlock.unpack(signed.block)
    assert (said.digest, said.policy) == (bytes(range(48)), 0x30000)
    assert signature_holds(signed.block, signed.auth)
    other = hostile.other_signature(signed)
    assert other.block == signed.block
    assert not signature_holds(other.block, other.auth)
