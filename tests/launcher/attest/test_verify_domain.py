# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`verify --nonce … --domain …`: who asked the agent for the report."""

import dataclasses
from pathlib import Path

import pytest

from tests.launcher.attest.attestation_kit import Draft
from tests.launcher.attest.test_verify_workload import SHELL, digest_of
from tests.launcher.attest.verify_kit import Desk, draft
from tests.launcher.launcher_kit import Out
from tools.sev.agent.report_data import Domain, report_data
from tools.sev.workload.document import DEFAULT_CAPABILITIES, Capabilities, Document

NONCE = b"of the relying party"
SOCKET = dataclasses.replace(SHELL, reports="socket")
HOST = dataclasses.replace(SHELL, host_reports=True)
BOTH = dataclasses.replace(SOCKET, host_reports=True)
COMMANDED = dataclasses.replace(BOTH, host_exec=True)
RAW = dataclasses.replace(SHELL, reports="raw")


def _may(capability: str, *, seccomp: bool = True) -> Document:
    sets = Capabilities.of((*DEFAULT_CAPABILITIES, capability), uid=0)
    return dataclasses.replace(BOTH, process=dataclasses.replace(BOTH.process, capabilities=sets, seccomp=seccomp))


TRACES = _may("sys_ptrace")
MOUNTS = _may("sys_admin", seccomp=False)
FILTERED = _may("sys_admin")
WITHOUT = ("unbound", "report-data")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "workload.json"


def asked(out: Out, document: Document, domain: Domain, nonce: bytes = NONCE) -> Draft:
    return draft(measurement=digest_of(out, document), report_data=report_data(domain, nonce))


@pytest.mark.parametrize("domain", ["workload", "host"])
def test_the_domain_that_was_asked_for(desk: Desk, out: Out, file: Path, domain: str) -> None:
    """The same nonce in another domain is another's report, and so is the nonce itself in REPORT_DATA."""
    file.write_bytes(BOTH.data)
    words = ("--workload", file, "--nonce", NONCE.hex(), "--domain", domain)
    outcome = desk.verify(asked(out, BOTH, Domain(domain)), *words, without=WITHOUT)
    assert (outcome.status, outcome.failed) == (0, [])
    who = {"workload": "a program of the container", "host": "the host"}[domain]
    assert outcome.detail("report data") == f"{who} asked, over this nonce"
    for other in set(Domain) - {Domain(domain)}:
        outcome = desk.verify(asked(out, BOTH, other), *words, without=WITHOUT)
        assert (outcome.status, outcome.failed) == (1, ["report data"])
        assert f"somebody else than the {domain} asked" in outcome.detail("report data")
    for raw in (asked(out, BOTH, Domain(domain), NONCE[:-1]), draft(measurement=digest_of(out, BOTH))):
        assert desk.verify(raw, *words, without=WITHOUT).failed == ["report data"]


@pytest.mark.parametrize(
    ("document", "domain"), [(FILTERED, "host"), (COMMANDED, "host"), (TRACES, "workload"), (MOUNTS, "workload")]
)
def test_a_program_that_leaves_its_container_speaks_for_itself_alone(
    desk: Desk, out: Out, file: Path, document: Document, domain: str
) -> None:
    """Beside what is refused below: the same capability under the filter, and the workload's own reports."""
    file.write_bytes(document.data)
    words = ("--workload", file, "--nonce", NONCE.hex(), "--domain", domain)
    outcome = desk.verify(asked(out, document, Domain(domain)), *words, without=WITHOUT)
    assert (outcome.status, outcome.failed) == (0, [])
    left = document not in (FILTERED, COMMANDED)
    assert ("the workload can leave it" in outcome.detail("workload")) is left


@pytest.mark.parametrize(
    ("document", "domain"),
    [
        (SHELL, "workload"),
        (HOST, "workload"),
        (RAW, "workload"),
        (COMMANDED, "workload"),
        (SHELL, "host"),
        (SOCKET, "host"),
        (RAW, "host"),
        (TRACES, "host"),
        (MOUNTS, "host"),
    ],
)
def test_a_domain_that_the_document_does_not_have(
    desk: Desk, out: Out, file: Path, document: Document, domain: str
) -> None:
    """Where nobody may ask there is no such report; where the interface is raw, root says what it likes."""
    file.write_bytes(document.data)
    words = ("--workload", file, "--nonce", NONCE.hex(), "--domain", domain)
    outcome = desk.verify(asked(out, document, Domain(domain)), *words, without=WITHOUT)
    assert (outcome.status, outcome.failed) == (1, ["report data"])
    assert f"gives the {domain} no report" in outcome.detail("report data")


def test_a_nonce_from_a_file(desk: Desk, out: Out, file: Path) -> None:
    file.write_bytes(SOCKET.data)
    nonce = desk.write("nonce", NONCE)
    words = ("--workload", file, "--nonce", f"@{nonce}", "--domain", "workload")
    assert desk.verify(asked(out, SOCKET, Domain.WORKLOAD), *words, without=WITHOUT).status == 0


def test_a_bare_digest_stays_unknown(desk: Desk, out: Out) -> None:
    words = ("--digest", digest_of(out, BOTH).hex(), "--nonce", NONCE.hex(), "--domain", "host")
    outcome = desk.verify(asked(out, BOTH, Domain.HOST), *words, without=WITHOUT)
    assert outcome.document["reasons"] == ["workload not checked"]


def test_options_that_belong_together(desk: Desk) -> None:
    def line(*words: str, without: tuple[str, ...] = WITHOUT) -> str:
        return desk.refused(draft(), *words, without=without)

    assert "--nonce and --domain belong together" in line("--nonce", "00")
    assert "--nonce and --domain belong together" in line("--domain", "host")
    both = ("--nonce", "00", "--domain", "host")
    assert "--report-data and --nonce exclude each other" in line(*both, without=("unbound",))
    assert "choose all of REPORT_DATA" in line(*both, without=("report-data",))
    assert "invalid choice" in line("--nonce", "00", "--domain", "agent")
