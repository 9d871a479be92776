# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a VCEK or VLEK certificate says of chip and firmware, and whether a report says the same.

AMD 57230, VCEK Certificate and KDS Interface Specification, chapter 3: AMD's own X.509 extensions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tools.launcher.attest.checks import Check, passed
from tools.launcher.attest.report import Product, Report, SigningKey

_SUBJECT = {SigningKey.VCEK: "SEV-VCEK", SigningKey.VLEK: "SEV-VLEK"}
AMD_OID = "1.3.6.1.4.1.3704.1."
# Below it: security patch levels, product, chip, cloud provider.
_LEVELS = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
_RESERVED_LEVELS = ("3.4", "3.5", "3.6", "3.7")
_PRODUCT_NAME, _HWID, _CSP_ID = "2", "4", "5"


@dataclass(frozen=True, kw_only=True)
class Endorsement:
    """Common name of the subject, and the raw values of AMD's extensions by their OID below AMD_OID."""

    subject: str
    extensions: Mapping[str, bytes]


def check_endorsement(report: Report, leaf: Endorsement) -> Check:
    """Whether the certificate is for the chip and the TCB that the report names."""
    name = "certificate"
    wrong: list[str] = []
    if leaf.subject != _SUBJECT.get(report.signing_key):
        wrong.append(f"its subject is {leaf.subject}, the report says that it is signed by {report.signing_key.name}")
    product = _text(leaf, _PRODUCT_NAME)
    line = _product_line(product)
    if line is None:
        wrong.append(f"its product {product!r} is none of {', '.join(p.value for p in Product)}")
    elif line is not (report.product or line) or (line is Product.TURIN) != _turin(report):
        other = report.product.value if report.product else "a Turin" if _turin(report) else "no Turin"
        wrong.append(f"it is for {product}, the report for {other}")
    for part, level in report.reported_tcb.parts.items():
        certified = _level(leaf, _LEVELS[part])
        if certified != level:
            shown = "missing" if certified is None else certified
            wrong.append(f"its {part} level is {shown}, the report's {level}")
    if any(oid in leaf.extensions and _level(leaf, oid) != 0 for oid in _RESERVED_LEVELS):
        wrong.append("a reserved level in it is not zero")
    chip, more = _chip(report, leaf)
    wrong += more
    return passed(
        name,
        not wrong,
        f"{leaf.subject} for {product}, {chip}, TCB {report.reported_tcb} as in the report",
        otherwise=wrong,
    )


def product_of(leaf: Endorsement) -> Product | None:
    """The product line that the certificate names, None when it is none."""
    return _product_line(_text(leaf, _PRODUCT_NAME))


def _product_line(product: str | None) -> Product | None:
    """From a product name, which may have a stepping: Milan-B0."""
    found = [line for line in Product if re.fullmatch(rf"{line.value}(-[A-Za-z0-9]+)?", product or "")]
    return found[0] if found else None


def _turin(report: Report) -> bool:
    return report.reported_tcb.fmc is not None


def _chip(report: Report, leaf: Endorsement) -> tuple[str, list[str]]:
    """What the certificate binds the key to, and what is wrong with that."""
    hwid, provider = leaf.extensions.get(_HWID), _text(leaf, _CSP_ID)
    if report.signing_key is SigningKey.VLEK:
        if provider is None or hwid is not None:
            return "", ["a VLEK certificate names a cloud provider and no chip, this one does not"]
        return f"cloud provider {provider}", []
    size = 8 if _turin(report) else 64
    # The key server leaves out the OCTET STRING that the specification asks for.
    if hwid is not None and hwid[:2] == bytes((0x04, size)) and len(hwid) == size + 2:
        hwid = hwid[2:]
    if hwid is None or len(hwid) != size or provider is not None:
        return "", [f"a VCEK certificate has a HWID of {size} bytes and no CSP_ID, this one has not"]
    if not any(report.chip_id):
        return "", ["CHIP_ID in the report is masked by the host and cannot be compared with the HWID"]
    if hwid.ljust(len(report.chip_id), b"\0") != report.chip_id:
        return "", ["its HWID is another chip's than CHIP_ID in the report"]
    return f"chip {hwid[:8].hex()}…", []


def _level(leaf: Endorsement, oid: str) -> int | None:
    """A security patch level: a DER INTEGER from 0 to 255, in its only encoding."""
    raw = leaf.extensions.get(oid)
    if raw is None or len(raw) not in (3, 4) or raw[0] != 0x02 or raw[1] != len(raw) - 2:
        return None
    value = int.from_bytes(raw[2:], "big")
    return value if (len(raw) == 4) == (value > 127) and value <= 255 else None


def _text(leaf: Endorsement, oid: str) -> str | None:
    """A DER IA5String shorter than 128 characters."""
    raw = leaf.extensions.get(oid)
    if raw is None or len(raw) < 2 or raw[0] != 0x16 or raw[1] != len(raw) - 2 or not raw.isascii():
        return None
    return raw[2:].decode("ascii")
