# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Public keys, as far as this Python has the package for them."""

import importlib
import site
import sys
from typing import Protocol

from tools.launcher.base.errors import UserError


class Key(Protocol):
    """A public key; `fingerprint` is the SHA-256 of its SubjectPublicKeyInfo, in hexadecimal."""

    fingerprint: str

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether the signature is this key's, over the data."""


def load_key(pem: bytes, *, where: str) -> Key:
    """The key in a PEM text; UserError when it is none that counts, or signatures cannot be checked here."""
    if sys.flags.no_site:
        # So does out/sev-launch start Python: nothing else needs what the distribution's packages bring.
        site.main()
    try:
        signatures = importlib.import_module(".signatures", __package__)
    except ImportError:
        hint = "Debian: apt-get install python3-cryptography"
        raise UserError("signatures need the Python package cryptography, 38 or later", hint=hint) from None
    try:
        key: Key = signatures.Key(pem)
    except ValueError as error:
        hint = "make one with openssl pkey -in KEY -pubout"
        raise UserError(str(error), where=where, hint=hint) from None
    return key
