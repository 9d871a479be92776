# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Who signed a report, as far as Python alone can tell; signature.py tells the rest if importable."""

import importlib
import site
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import ModuleType

from tools.launcher.attest.checks import Check, failed, unchecked
from tools.launcher.attest.report import Product, Report, SigningKey

AMD_ROOTS = {
    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd": "ARK-Milan",
    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1": "ARK-Genoa",
    "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a": "ARK-Turin",
}
"""SHA-256 of AMD's root certificates in DER. Its key server has them in PRODUCT/cert_chain.

Computed from the copies in microsoft/CCF (src/pal/test/snp_attestation_validation_data.h: Milan, Genoa) and
virtee/sev (tests/certs_data/cert_chain_turin), whose own signatures verify.
"""
_KDS = "https://kdsintf.amd.com"
LINES = ("signature", "certificate", "certificate chain", "root of trust", "validity dates", "revocation")
"""Names of the lines, in their order."""
_SPL = {"fmc": "fmcSPL", "bootloader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}


class Role(StrEnum):
    """Places in the chain, from the key that signs reports to AMD's root."""

    LEAF = "VCEK or VLEK"
    ASK = "ASK"
    ARK = "ARK"


@dataclass(frozen=True, kw_only=True)
class File:
    """What a file that the user named holds; `where` names it in messages."""

    where: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Given:
    """The certificates of the command line. `leaf_kind` is what the option said that the leaf is."""

    files: Mapping[Role, File]
    chain: File | None
    crl: File | None
    leaf_kind: SigningKey | None


def check_signer(report: Report, given: Given, *, at: datetime) -> list[Check]:
    """The lines about who signed the report. Where it cannot be told, the first of them says why."""
    if report.mask_chip_key:
        return _nothing(failed, "MASK_CHIP_KEY: the host had the firmware leave the report unsigned")
    if report.signing_key is SigningKey.NONE:
        return _nothing(failed, "SIGNING_KEY: the report says that it is not signed")
    if given.leaf_kind is None:
        option = f"--{report.signing_key.name.lower()}"
        return _nothing(unchecked, f"no certificate given: {option} FILE; {certificate_source(report)}")
    if given.leaf_kind is not report.signing_key:
        return _nothing(
            failed,
            f"the report is signed by a {report.signing_key.name}, the certificate is a {given.leaf_kind.name}'s",
        )
    signature = _signature_module()
    if signature is None:
        return _nothing(
            unchecked,
            "the Python package cryptography is not here (Debian: python3-cryptography, 38 or later)",
        )
    lines: list[Check] = signature.check(report, given, at=at)
    return lines


def _nothing(make: Callable[[str, str], Check], why: str) -> list[Check]:
    first, *others = LINES
    why_not = "needs the signature's certificate"
    return [make(first, why), *(unchecked(name, why_not, mandatory=name != LINES[-1]) for name in others)]


def _signature_module() -> ModuleType | None:
    if sys.flags.no_site:
        # So does out/sev-launch start Python: nothing else needs what the distribution's packages bring.
        site.main()
    try:
        return importlib.import_module(".signature", __package__)
    except ImportError:
        return None


def key_server(report: Report, *, product: Product | None = None) -> str:
    """Where AMD serves chain and revocation list of the key that signed; `product`: what the certificate says.

    A report in version 2 does not name its processor.
    """
    kind = "vlek" if report.signing_key is SigningKey.VLEK else "vcek"
    product = report.product or product or (Product.TURIN if report.reported_tcb.fmc is not None else None)
    return f"{_KDS}/{kind}/v1/{product.value if product else 'PRODUCT (Milan or Genoa)'}"


def certificate_source(report: Report) -> str:
    """Where the certificate for this report comes from."""
    server = key_server(report)
    if report.signing_key is not SigningKey.VCEK:
        return f"it comes from the cloud provider, its chain from {server}/cert_chain"
    if not any(report.chip_id):
        return "the host masks CHIP_ID, so only the host can name it"
    turin = report.reported_tcb.fmc is not None
    chip = report.chip_id[:8] if turin else report.chip_id
    levels = "&".join(f"{_SPL[part]}={level:02}" for part, level in report.reported_tcb.parts.items())
    return f"AMD serves it at {server}/{chip.hex()}?{levels}"
