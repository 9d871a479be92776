# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a guest's attestation report, or launch measurement, is held against."""

import struct

from tools.launcher.acceptance.ambient import now
from tools.launcher.acceptance.judges import failed, held, not_run
from tools.launcher.acceptance.model import Evidence, Guest, Measured, Step, Verdict
from tools.launcher.attest.certificates import File, Given, Role, check_signer
from tools.launcher.attest.checks import Result as Word
from tools.launcher.attest.report import Report, SigningKey, parse_report
from tools.launcher.base.errors import UserError
from tools.sev.guid import guid

_WHERE = "the guest's report"
_ENTRY = struct.Struct("<16sII")
_ROLES = {
    guid("63da758d-e664-4564-adc5-f4b93be8accd"): (Role.LEAF, SigningKey.VCEK),
    guid("a8074bc2-a25a-483e-aae6-39c045a0b8a1"): (Role.LEAF, SigningKey.VLEK),
    guid("4ab7b379-bbac-4fe4-a02f-05aef327c782"): (Role.ASK, None),
    guid("c0b406a4-a803-4952-9743-3fb6014cd0ae"): (Role.ARK, None),
}
"""Guest-Host Communication Block Standardization (AMD 56421), "SNP Extended Guest Request"."""


def _report(own: Evidence) -> Report | Verdict:
    """The guest's, over this run's nonce: of another one nothing here is said."""
    answer = own.talk.report if own.talk else None
    if answer is None:
        start = own.starts.get(Step.HONEST)
        return failed(f"there is no report: {start.why if start else 'no guest was started'}")
    if answer.failure is not None:
        return failed(f"the guest has no report: {answer.failure}")
    try:
        report = parse_report(answer.report, where=_WHERE)
    except UserError as error:
        return failed(str(error))
    assert own.expected is not None
    if report.report_data != own.expected.nonce:
        return failed("the report is not over what was asked in this run")
    return report


def _measured(own: Evidence) -> Measured | Verdict:
    """SEV and SEV-ES: digest and policy are in one measurement."""
    if Step.KERNEL in own.without:
        return not_run(own.without[Step.KERNEL])
    found = own.talk.measured if own.talk else None
    if found is None:
        start = own.starts.get(Step.HONEST)
        return failed(f"there is no measurement: {start.why if start else 'no guest was started'}")
    return found if found.expected else failed("the launch measurement is not the expected one")


def launch_digest(own: Evidence, _: Evidence) -> Verdict:
    """The digest that the secure processor reports is the computed one."""
    if own.guest is not Guest.SNP:
        found = _measured(own)
        if isinstance(found, Verdict):
            return found
        if found.other_digest:
            return failed("the launch measurement fits another digest as well: this shows nothing")
        return held("the launch measurement is of the expected digest", "it is not of one with a bit changed")
    report = _report(own)
    if isinstance(report, Verdict):
        return report
    assert own.expected is not None
    said, expected = report.measurement.hex(), own.expected.digest.hex()
    return (
        held(f"reported and expected: {said}", "over a nonce of this run")
        if said == expected
        else failed(f"reported {said}, expected {expected}")
    )


def policy(own: Evidence, _: Evidence) -> Verdict:
    """The policy that the secure processor reports is the config's."""
    if own.guest is not Guest.SNP:
        found = _measured(own)
        if isinstance(found, Verdict):
            return found
        if found.other_policy:
            return failed("the launch measurement fits another policy as well: this shows nothing")
        return held("the launch measurement is under the config's policy", "it is not under one with a bit changed")
    report = _report(own)
    if isinstance(report, Verdict):
        return report
    assert own.expected is not None
    said, expected = report.policy, own.expected.policy
    return (
        held(f"reported and expected: {said:#x}")
        if said == expected
        else failed(f"reported {said:#x}, expected {expected:#x}")
    )


def block_accepted(own: Evidence, _: Evidence) -> Verdict:
    """The guest started with its ID block, and its report names the key that signed it."""
    report = _report(own)
    if isinstance(report, Verdict):
        return report
    assert own.expected is not None
    said = report.id_key_digest.hex()
    if report.id_key_digest != own.expected.id_key_digest:
        return failed(f"the report names the ID key {said}, expected {own.expected.id_key_digest.hex()}")
    return held(f"the report names the ID key that was made for this run, {said[:16]}…")


def signed(own: Evidence, _: Evidence) -> Verdict:
    """The report's signature, up to AMD's root."""
    report = _report(own)
    if isinstance(report, Verdict):
        return report
    given = own.given
    answer = own.talk.report if own.talk else None
    if given is None or (Role.LEAF not in given.files and answer is not None):
        given = _of_guest(answer.auxblob if answer else b"", given)
    checks = [check for check in check_signer(report, given, at=now()) if check.mandatory]
    wrong = [check for check in checks if check.result is Word.FAILED]
    if wrong:
        return failed("; ".join(f"{check.name}: {check.detail}" for check in wrong))
    missing = [check for check in checks if check.result is Word.UNCHECKED]
    if missing:
        return not_run(f"{missing[0].name}: {missing[0].detail}")
    return held("; ".join(f"{check.name}: {check.detail}" for check in checks))


def _of_guest(auxblob: bytes, given: Given | None) -> Given:
    """The certificates that the host gave the guest, which the guest passed on; the chain is the caller's, if any."""
    files: dict[Role, File] = {}
    kind = None
    chain = None if given is None else given.chain
    for at in range(0, len(auxblob) - _ENTRY.size + 1, _ENTRY.size):
        name, offset, length = _ENTRY.unpack_from(auxblob, at)
        if not any(name):
            break
        role, leaf = _ROLES.get(name, (None, None))
        data = auxblob[offset : offset + length]
        if role is None or not data or (role is not Role.LEAF and chain is not None):
            continue
        files[role] = File(where=f"the host's {role}", data=data)
        kind = kind if leaf is None else leaf
    return Given(files=files, chain=chain, crl=None, leaf_kind=kind)
