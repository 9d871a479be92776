# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Attestation reports and the certificates over them, as AMD makes them, under a test root of our own."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding

AMD = "1.3.6.1.4.1.3704.1"
BEGIN, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2045, 1, 1, tzinfo=UTC)
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
LEVELS = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
MILAN, GENOA, TURIN = (0x19, 0x01, 0x01), (0x19, 0x11, 0x00), (0x1A, 0x02, 0x01)
TCB = {"bootloader": 4, "tee": 1, "snp": 24, "microcode": 219}
TURIN_TCB = {"fmc": 1, **TCB}
CHIP = bytes(range(1, 65))
TURIN_CHIP = bytes(range(1, 9)).ljust(64, b"\0")
DIGEST = bytes(range(100, 148))


def name(common: str) -> x509.Name:
    """A subject as AMD's, but not AMD's."""
    pairs = ((x509.NameOID.ORGANIZATION_NAME, "sev-artifacts tests"), (x509.NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def integer(value: int) -> bytes:
    """A DER INTEGER of one byte's range."""
    return bytes((2, 1, value)) if value < 128 else bytes((2, 2, 0, value))


def ia5(text: str) -> bytes:
    return bytes((0x16, len(text))) + text.encode("ascii")


@dataclass(kw_only=True)
class Issued:
    """A certificate with its private key."""

    key: Any
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def rsa_key(bits: int = 4096) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def issue(
    key: Any,
    common: str,
    *,
    by: Issued | None = None,
    signer: Any = None,
    ca: bool = True,
    dates: tuple[datetime, datetime] = (BEGIN, END),
    extensions: dict[str, bytes] | None = None,
    pss: Any = PSS,
    serial: int = 1,
) -> Issued:
    """A certificate; without `by` its own issuer. `signer`: another key than the issuer's, a forgery."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common))
        .issuer_name(name(common) if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(dates[0])
        .not_valid_after(dates[1])
    )
    if ca:
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "crl_sign", "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, **usage), critical=True)
    for oid, value in (extensions or {}).items():
        full = x509.ObjectIdentifier(f"{AMD}.{oid}")
        builder = builder.add_extension(x509.UnrecognizedExtension(full, value), critical=False)
    chosen = signer or (key if by is None else by.key)
    rsa_padding = pss if isinstance(chosen, rsa.RSAPrivateKey) else None
    return Issued(key=key, certificate=builder.sign(chosen, hashes.SHA384(), rsa_padding=rsa_padding))


def leaf_extensions(
    *, tcb: dict[str, int], product: str = "Milan-B0", hwid: bytes | None = CHIP, csp: str | None = None
) -> dict[str, bytes]:
    """AMD's extensions of a VCEK (hwid) or VLEK (csp)."""
    result = {"1": integer(0), "2": ia5(product)}
    result |= {LEVELS[part]: integer(level) for part, level in tcb.items()}
    result |= {f"3.{n}": integer(0) for n in (4, 5, 6, 7)}
    if hwid is not None:
        result["4"] = hwid
    if csp is not None:
        result["5"] = ia5(csp)
    return result


@dataclass(kw_only=True)
class Draft:
    """A report to be: fields by name, then bytes over them; `raw` makes it."""

    version: int = 3
    guest_svn: int = 2
    policy: int = 0x30000
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    vmpl: int = 0
    algorithm: int = 1
    platform_info: int = 0x25
    key_info: int = 0
    report_data: bytes = bytes(64)
    measurement: bytes = DIGEST
    host_data: bytes = bytes(32)
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    cpuid: tuple[int, int, int] = MILAN
    chip_id: bytes = CHIP
    tcb: dict[str, int] = field(default_factory=lambda: dict(TCB))
    launch_tcb: dict[str, int] | None = None
    patches: dict[int, bytes] = field(default_factory=dict)

    def _tcb(self, levels: dict[str, int]) -> bytes:
        if "fmc" in levels:
            order = (levels["fmc"], levels["bootloader"], levels["tee"], levels["snp"], 0, 0, 0)
        else:
            order = (levels["bootloader"], levels["tee"], 0, 0, 0, 0, levels["snp"])
        return bytes((*order, levels["microcode"]))

    def body(self) -> bytes:
        """What gets signed: 0x2A0 bytes."""
        out = bytearray(0x2A0)
        tcb, launch = self._tcb(self.tcb), self._tcb(self.launch_tcb or self.tcb)
        struct.pack_into("<IIQ", out, 0, self.version, self.guest_svn, self.policy)
        struct.pack_into("<II", out, 0x30, self.vmpl, self.algorithm)
        struct.pack_into("<QI", out, 0x40, self.platform_info, self.key_info)
        for at, value in (
            (0x10, self.family_id), (0x20, self.image_id), (0x38, tcb), (0x50, self.report_data),
            (0x90, self.measurement), (0xC0, self.host_data), (0xE0, self.id_key_digest),
            (0x110, self.author_key_digest), (0x140, b"\x11" * 32), (0x160, b"\xff" * 32), (0x180, tcb),
            (0x1A0, self.chip_id), (0x1E0, tcb), (0x1E8, bytes((21, 55, 1, 0, 20, 55, 1, 0))),
            (0x1F0, launch),
        ):  # fmt: skip
            out[at : at + len(value)] = value
        if self.version >= 3:
            out[0x188:0x18B] = bytes(self.cpuid)
        if self.version >= 5:
            struct.pack_into("<QQ", out, 0x1F8, 3, 7)
        for at, value in self.patches.items():
            out[at : at + len(value)] = value
        return bytes(out)

    def raw(self, key: ec.EllipticCurvePrivateKey) -> bytes:
        """The whole report, signed."""
        body = self.body()
        r, s = utils.decode_dss_signature(key.sign(body, ec.ECDSA(hashes.SHA384())))
        return (body + r.to_bytes(72, "little") + s.to_bytes(72, "little")).ljust(0x4A0, b"\0")


def revocation_list(
    issuer: Issued, revoked: Sequence[int], *, begin: datetime, end: datetime, signer: Any = None
) -> bytes:
    """A CRL in DER that names the serial numbers."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(begin).next_update(end)
    for number in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(begin).build()
        builder = builder.add_revoked_certificate(entry)
    made = builder.sign(signer or issuer.key, hashes.SHA384(), rsa_padding=PSS)
    return made.public_bytes(Encoding.DER)
