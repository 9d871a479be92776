# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Signature and certificate chain of an attestation report: ARK → ASK or ASVK → VCEK or VLEK → report.

The one module of the launcher that needs more than Python: the package `cryptography`. certificates.py
imports it late, and does without when it is not there. Certificates: AMD 57230, VCEK Certificate and KDS
Interface Specification, chapter 3. The report's own signature: AMD 56860, chapter 10.
"""

import re
import warnings
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding

from tools.launcher.attest.certificates import AMD_ROOTS, File, Given, Role, key_server
from tools.launcher.attest.checks import Check, failed, passed, unchecked
from tools.launcher.attest.endorsement import AMD_OID, Endorsement, check_endorsement, product_of
from tools.launcher.attest.report import ECDSA_P384_SHA384, Report
from tools.launcher.base.errors import UserError

_PSS = "1.2.840.113549.1.1.10"
_RSA_BITS = 4096
_SALT = 48  # that of SHA-384, in every certificate of AMD's
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
# What the parser raises for bytes that are no certificate, or one that it does not understand.
_BROKEN = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def check(report: Report, given: Given, *, at: datetime) -> list[Check]:
    """The lines that certificates.LINES names; UserError for a file that is no certificate."""
    with warnings.catch_warnings():
        # VCEK certificates have the serial number 0, of which cryptography warns.
        warnings.simplefilter("ignore")
        certificates = _load_all(given)
        leaf = certificates[Role.LEAF]
        endorsement = _endorsement(leaf)
        server = key_server(report, product=product_of(endorsement))
        return [
            _signature(report, leaf),
            check_endorsement(report, endorsement),
            _chain(certificates),
            _root(certificates.get(Role.ARK), given),
            _dates(certificates, at),
            _revocation(certificates, given.crl, at, server=server),
        ]


def _load(data: bytes, *, where: str) -> list[x509.Certificate]:
    """The certificates of a file: PEM, one or several, or one in DER."""
    parts = _PEM.findall(data)
    try:
        if parts:
            found = [x509.load_pem_x509_certificate(part) for part in parts]
        else:
            found = [x509.load_der_x509_certificate(data)]
        for certificate in found:
            # Lazily parsed: what is broken in them must be found here.
            _ = certificate.extensions, certificate.subject, certificate.issuer, certificate.public_key()
            _validity(certificate)
    except _BROKEN:
        raise UserError("no X.509 certificate in PEM or DER", where=where) from None
    return found


def _load_all(given: Given) -> dict[Role, x509.Certificate]:
    found: dict[Role, x509.Certificate] = {}
    for role, file in given.files.items():
        certificates = _load(file.data, where=file.where)
        if len(certificates) != 1:
            raise UserError(f"has {len(certificates)} certificates, {role} is one", where=file.where)
        found[role] = certificates[0]
    if given.chain is not None:
        where = given.chain.where
        certificates = _load(given.chain.data, where=where)
        roots = [certificate for certificate in certificates if certificate.subject == certificate.issuer]
        others = [certificate for certificate in certificates if certificate.subject != certificate.issuer]
        if len(roots) != 1 or len(others) != 1:
            raise UserError(
                f"has {len(certificates)} certificates, of which {len(roots)} self-issued: "
                "AMD's cert_chain is one ASK or ASVK and one ARK",
                where=where,
            )
        found[Role.ASK] = others[0]
        found.setdefault(Role.ARK, roots[0])
    return found


def _signature(report: Report, leaf: x509.Certificate) -> Check:
    name = "signature"
    if report.signature_algo != ECDSA_P384_SHA384:
        return failed(name, f"SIGNATURE_ALGO is {report.signature_algo}; 1 is ECDSA P-384 with SHA-384")
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        return failed(name, "the certificate's key is no P-384 key")
    holds = True
    try:
        key.verify(utils.encode_dss_signature(*report.signature), report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        holds = False
    signer = report.signing_key.name
    return passed(
        name,
        holds,
        f"over bytes 0 to 0x29f, by the key of the {signer} certificate",
        otherwise=f"not by the key of the {signer} certificate, or the report was changed",
    )


def _chain(certificates: dict[Role, x509.Certificate]) -> Check:
    name = "certificate chain"
    missing = [str(role) for role in (Role.ASK, Role.ARK) if role not in certificates]
    if missing:
        return unchecked(name, f"no {' and no '.join(missing)} given: --ask and --ark, or --chain")
    leaf, ask, ark = (certificates[role] for role in (Role.LEAF, Role.ASK, Role.ARK))
    wrong = [
        why
        for certificate, issuer in ((ark, ark), (ask, ark), (leaf, ask))
        if (why := _why_not_issued(certificate, issuer, name=_common_name(certificate))) is not None
    ]
    wrong += [f"{_common_name(ca)} is no certificate authority" for ca in (ark, ask) if not _is_ca(ca)]
    return passed(
        name,
        not wrong,
        " → ".join(_common_name(certificate) for certificate in (ark, ask, leaf)),
        otherwise=wrong,
    )


def _root(ark: x509.Certificate | None, given: Given) -> Check:
    """What the chain ends in. A root that came with the chain counts only when it is one of AMD's."""
    name = "root of trust"
    if ark is None:
        return unchecked(name, "no ARK given: --ark, or --chain")
    fingerprint = ark.fingerprint(hashes.SHA256()).hex()
    known = AMD_ROOTS.get(fingerprint)
    if known is not None:
        return passed(name, True, f"AMD's {known}, SHA-256 {fingerprint}", otherwise="")
    shown = f"{_common_name(ark)}, SHA-256 {fingerprint}, is none of AMD's roots that this program knows"
    if Role.ARK in given.files:
        return passed(name, True, f"{shown}; trusted because --ark names it", otherwise="")
    return failed(name, f"{shown}; if it is yours to trust, give it by itself with --ark")


def _dates(certificates: dict[Role, x509.Certificate], at: datetime) -> Check:
    wrong = []
    for certificate in certificates.values():
        begin, end = _validity(certificate)
        if at < begin:
            wrong.append(f"{_common_name(certificate)} is valid from {begin:%Y-%m-%d %H:%M} UTC only")
        elif at > end:
            wrong.append(f"{_common_name(certificate)} expired on {end:%Y-%m-%d %H:%M} UTC")
    day = f"{at.astimezone(UTC):%Y-%m-%d}"
    return passed("validity dates", not wrong, f"every certificate is valid on {day}", otherwise=wrong)


def _revocation(certificates: dict[Role, x509.Certificate], file: File | None, at: datetime, *, server: str) -> Check:
    """The ARK's list of what it revoked. Not mandatory: AMD's server has it, which not everybody reaches."""
    name = "revocation"
    if file is None:
        return unchecked(name, f"no --crl given; AMD serves one at {server}/crl", mandatory=False)
    crl, serials = _load_crl(file)
    ark, ask = certificates.get(Role.ARK), certificates.get(Role.ASK)
    if ark is None or ask is None:
        return unchecked(name, "needs ARK and ASK", mandatory=False)
    begin, end = _crl_dates(crl)
    if (forged := _why_not_issued(crl, ark, name="the list")) is not None:
        return failed(name, forged)
    if not begin <= at or end is None or at > end:
        until = "no date" if end is None else f"{end:%Y-%m-%d %H:%M} UTC"
        return failed(name, f"the list holds from {begin:%Y-%m-%d %H:%M} UTC to {until}: fetch a new one")
    revoked = [
        _common_name(certificate)
        for certificate in (ask, ark)  # what the ARK issued; VCEKs are the ASK's
        if certificate.serial_number in serials
    ]
    return passed(
        name,
        not revoked,
        f"{_common_name(ask)} is not in {_common_name(ark)}'s list of {begin:%Y-%m-%d}",
        otherwise=f"revoked: {', '.join(revoked)}",
    )


def _load_crl(file: File) -> tuple[x509.CertificateRevocationList, set[int]]:
    """The list and the serial numbers in it."""
    read = x509.load_pem_x509_crl if b"-----BEGIN" in file.data else x509.load_der_x509_crl
    try:
        crl = read(file.data)
        # Lazily parsed, as certificates are.
        _ = crl.issuer, crl.extensions, _crl_dates(crl)
        return crl, {entry.serial_number for entry in crl}
    except _BROKEN:
        raise UserError("no certificate revocation list in PEM or DER", where=file.where) from None


def _crl_dates(crl: x509.CertificateRevocationList) -> tuple[datetime, datetime | None]:
    if hasattr(crl, "last_update_utc"):
        return crl.last_update_utc, crl.next_update_utc
    return crl.last_update.replace(tzinfo=UTC), crl.next_update and crl.next_update.replace(tzinfo=UTC)


def _validity(certificate: x509.Certificate) -> tuple[datetime, datetime]:
    if hasattr(certificate, "not_valid_before_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    # cryptography before 42, as in Debian 12: the same instants without their time zone.
    return certificate.not_valid_before.replace(tzinfo=UTC), certificate.not_valid_after.replace(tzinfo=UTC)


def _why_not_issued(
    item: x509.Certificate | x509.CertificateRevocationList, issuer: x509.Certificate, *, name: str
) -> str | None:
    """None when `issuer` signed `item` as AMD does: RSASSA-PSS, 4096 bits, SHA-384 throughout."""
    if item.issuer != issuer.subject:
        return f"{name} is not issued by {_common_name(issuer)}"
    key = issuer.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != _RSA_BITS:
        return f"{name} is issued by {_common_name(issuer)}, whose key is no RSA key of {_RSA_BITS} bits"
    if item.signature_algorithm_oid.dotted_string != _PSS:
        return f"{name} is not signed with RSASSA-PSS"
    signed = item.tbs_certificate_bytes if isinstance(item, x509.Certificate) else item.tbs_certlist_bytes
    if _algorithm_outside(item.public_bytes(Encoding.DER)) != _algorithm_inside(signed):
        return f"{name} names two signature algorithms"
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=_SALT)
    try:
        key.verify(item.signature, signed, pss, hashes.SHA384())
    except InvalidSignature:
        return f"{name} is not signed by {_common_name(issuer)}"
    return None


def _algorithm_outside(whole: bytes) -> bytes:
    """The algorithm behind what is signed; by RFC 5280, 4.1.1.2, the one in it, byte for byte."""
    start, _ = _contents(whole, 0)
    _, at = _contents(whole, start)
    return whole[at : _contents(whole, at)[1]]


def _algorithm_inside(signed: bytes) -> bytes:
    """Behind version and serial number, which are no SEQUENCE."""
    at, _ = _contents(signed, 0)
    while signed[at] != 0x30:
        _, at = _contents(signed, at)
    return signed[at : _contents(signed, at)[1]]


def _contents(data: bytes, at: int) -> tuple[int, int]:
    """Begin and end of the contents of the DER element at `at`; the parser has checked that it is one."""
    length, start = data[at + 1], at + 2
    if length >= 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(data[start : start + count], "big"), start + count
    return start, start + length


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and usage.key_cert_sign


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else "a certificate without a common name"


def _endorsement(leaf: x509.Certificate) -> Endorsement:
    """What the certificate says, in AMD's extensions and in its subject."""
    extensions: dict[str, bytes] = {}
    for extension in leaf.extensions:
        oid = extension.oid.dotted_string
        if oid.startswith(AMD_OID) and isinstance(extension.value, x509.UnrecognizedExtension):
            extensions[oid.removeprefix(AMD_OID)] = extension.value.value
    return Endorsement(subject=_common_name(leaf), extensions=extensions)
