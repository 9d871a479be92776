# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The words that recipes, runtime.toml, launch-digests.json and options share."""

from enum import StrEnum


class Mode(StrEnum):
    """The protection that a guest is started under."""

    SNP = "snp"
    SEV_ES = "sev-es"
    SEV = "sev"

    @property
    def digest_size(self) -> int:
        """Bytes of its launch digest: SHA-384 (56860, GCTX.LD) for SNP, else SHA-256 (55766, section 6.5)."""
        return 48 if self is Mode.SNP else 32


class ProfileKind(StrEnum):
    """What a guest lets its host see; the agent knows the same words."""

    PRODUCTION = "production"
    DEBUG = "debug"


class Console(StrEnum):
    """The guest's console: none, or a serial port that only writes."""

    NONE = "none"
    SERIAL = "serial"
