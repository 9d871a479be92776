# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch verify REPORT`: an SNP attestation report, check by check."""

import dataclasses
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from tools.launcher.attest.certificates import File, Given, Role, check_signer
from tools.launcher.attest.checks import Check, failed, passed, show, unchecked
from tools.launcher.attest.expected import Entry
from tools.launcher.attest.inputs import check_debug, config_reader, expectation, open_to_host, read_file
from tools.launcher.attest.report import (
    HOST_REQUESTED,
    POLICY_DEBUG,
    REPORT_SIZE,
    Report,
    SigningKey,
    Tcb,
    parse_report,
)
from tools.launcher.attest.vouched import check_endorsed
from tools.launcher.base import encodings
from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, Ui
from tools.launcher.base.values import Values
from tools.sev.agent.report_data import Domain, report_data
from tools.sev.modes import Mode
from tools.sev.workload.document import Document
from tools.sev.workload.openings import asks_as_anybody


def verify_report(options: Values, ui: Ui) -> int:
    """Print the lines and the verdict; returns the exit status."""
    data = read_file(options.report)
    report = parse_report(encodings.decode(data, size=REPORT_SIZE) or data, where=str(options.report))
    policy = options.policy if options.policy is not None else config_reader(options)().sev.snp_policy
    _check_options(options)
    given = _given(options)
    expected = expectation(options, Mode.SNP)
    checks = [
        _digest(report, expected.entries),
        expected.workload,
        *check_endorsed(options),
        _equal_policy(report, policy, ui),
        check_debug(report.debug, expected=bool(policy & POLICY_DEBUG), ui=ui),
        _vmpl(report, options.vmpl or 0),
        _report_data(report, options, expected.document),
        _tcb(report, options.min_tcb),
        *_identity(report, options),
        _unknown(report, refuse=bool(options.refuse_unknown)),
        *check_signer(report, given, at=options.at or datetime.now(UTC)),
    ]
    return show(checks, {"report": _facts(report)}, as_json=options.json)


def _given(options: Values) -> Given:
    files: dict[Role, File] = {}
    for role, path in (
        (Role.LEAF, options.vcek or options.vlek),
        (Role.ASK, options.ask),
        (Role.ARK, options.ark),
    ):
        if path is not None:
            files[role] = File(where=str(path), data=read_file(path))
    chain = None if options.chain is None else File(where=str(options.chain), data=read_file(options.chain))
    if chain is not None and Role.ASK in files:
        raise UserError("--ask and --chain exclude each other", hint="--ark and --chain do not")
    crl = None if options.crl is None else File(where=str(options.crl), data=read_file(options.crl))
    kind = SigningKey.VCEK if options.vcek else SigningKey.VLEK if options.vlek else None
    return Given(files=files, chain=chain, crl=crl, leaf_kind=kind)


def _digest(report: Report, entries: Sequence[Entry]) -> Check:
    found = [str(entry) for entry in entries if entry.digest == report.measurement]
    return passed(
        "launch digest",
        bool(found),
        "; ".join(found),
        otherwise=f"{report.measurement.hex()} is none of the {len(entries)} expected; options that change "
        f"the command line need the digest that `{NAME} digest` prints",
    )


def _equal_policy(report: Report, policy: int, ui: Ui) -> Check:
    said = f"{report.policy:#x}"
    equal = report.policy == policy
    findings = (said, *open_to_host(policy, Mode.SNP, ui)) if equal else said
    return passed("policy", equal, findings, otherwise=f"{said}, expected {policy:#x}")


def _vmpl(report: Report, vmpl: int) -> Check:
    host = " (the host asked for this report, not the guest)" if report.vmpl == HOST_REQUESTED else ""
    return passed("VMPL", report.vmpl == vmpl, str(vmpl), otherwise=f"{report.vmpl}{host}, expected {vmpl}")


def _check_options(options: Values) -> None:
    """UserError for options on the report data that contradict each other."""
    given = [f"--{key.replace('_', '-')}" for key in ("report_data", "report_data_file", "nonce") if options[key]]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other")
    if (options.nonce is None) is not (options.domain is None):
        raise UserError("--nonce and --domain belong together", hint="who asked: --domain workload, or --domain host")
    if options.domain is not None and options.unbound:
        raise UserError(
            "--domain: programs of an unbound guest choose all of REPORT_DATA, and so whom they look like",
            hint="give --report-data",
        )


def _report_data(report: Report, options: Values, document: Document | None) -> Check:
    name, said = "report data", report.report_data.hex()
    if options.nonce is not None:
        domain = Domain(options.domain)
        wanted = report_data(domain, options.nonce)
        if document is not None and not _asks(document, domain):
            return failed(name, f"{said}; this document gives the {domain} no report with a domain in it")
        said_of = {
            Domain.WORKLOAD: "a program of the container asked, over this nonce",
            Domain.HOST: "the host asked, over this nonce",
        }
        otherwise = f"{said}, expected {wanted.hex()}: not this nonce, or somebody else than the {domain} asked"
        return passed(name, report.report_data == wanted, said_of[domain], otherwise=otherwise)
    if options.report_data is not None:
        wanted = options.report_data
    elif options.report_data_file is not None:
        wanted = hashlib.sha512(read_file(options.report_data_file)).digest()
    else:
        return unchecked(name, f"{said}; without --report-data an old report passes for a new one")
    return passed(name, report.report_data == wanted, said, otherwise=f"{said}, expected {wanted.hex()}")


def _asks(document: Document, domain: Domain) -> bool:
    """Whether the agent asks for this one in guests of the document, and nobody else can choose REPORT_DATA."""
    if domain is Domain.HOST:
        return document.host_reports and not asks_as_anybody(document)
    # A host that starts programs in the container asks at the socket as well as they.
    return document.reports == "socket" and not document.host_exec


def _tcb(report: Report, minimum: dict[str, int] | None) -> Check:
    """Both the level that the signing key stands for and the one that the guest was launched under."""
    name = "minimum TCB"
    if minimum is None:
        why = "without --min-tcb firmware with known holes passes"
        return unchecked(name, f"{report.reported_tcb}; {why}")
    parts = report.reported_tcb.parts
    if minimum.keys() != parts.keys():
        raise UserError(f"--min-tcb must name exactly {', '.join(parts)} for this report's processor")
    low = [
        f"{what} {part} {tcb.parts[part]} is below {level}"
        for what, tcb in (("reported", report.reported_tcb), ("launch", report.launch_tcb))
        for part, level in minimum.items()
        if tcb.parts[part] < level
    ]
    return passed(name, not low, str(report.reported_tcb), otherwise=low)


def _identity(report: Report, options: Values) -> list[Check]:
    """What only some verifiers know to expect: not mandatory, but shown."""
    pairs = [
        ("host data", report.host_data, options.host_data),
        ("ID key digest", report.id_key_digest, options.id_key_digest),
        ("author key digest", report.author_key_digest, options.author_key_digest),
        ("family ID", report.family_id, options.family_id),
        ("image ID", report.image_id, options.image_id),
    ]
    lines = []
    for name, said, wanted in pairs:
        shown = said.hex() if any(said) else "none (zeros)"
        if wanted is None:
            lines.append(unchecked(name, shown, mandatory=False))
        else:
            otherwise = f"{shown}, expected {wanted.hex()}"
            lines.append(passed(name, said == wanted, shown, otherwise=otherwise, mandatory=False))
    name, svn = "guest SVN", report.guest_svn
    if options.min_svn is None:
        lines.append(unchecked(name, str(svn), mandatory=False))
    else:
        low = f"{svn} is below {options.min_svn}"
        lines.append(passed(name, svn >= options.min_svn, str(svn), otherwise=low, mandatory=False))
    return lines


def _unknown(report: Report, *, refuse: bool) -> Check:
    """Newer firmware gives meanings to bits that were reserved: named in any case, refused when asked for."""
    name = "reserved bits"
    if report.unknown and not refuse:
        return unchecked(name, f"set, with a meaning not known here: {', '.join(report.unknown)}", mandatory=False)
    return passed(name, not report.unknown, "none set", otherwise=f"set: {', '.join(report.unknown)}", mandatory=False)


def _facts(report: Report) -> dict[str, Any]:
    """Every field but `raw`, as JSON has it."""
    names = [field.name for field in dataclasses.fields(report) if field.name != "raw"]
    return {name: _plain(getattr(report, name)) for name in names}


def _plain(value: Any) -> Any:
    """Bytes in hexadecimal, TCB levels by name, key and product by the names of the specification."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Tcb):
        return value.parts
    if isinstance(value, SigningKey):
        return value.name
    if isinstance(value, Enum):
        return value.value
    return value if value is None or isinstance(value, int | tuple) else str(value)
