# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`verify` and what runs in the guest: a document, no document, and a digest that says nothing."""

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.attest.attestation_kit import Draft
from tests.launcher.attest.verify_kit import Desk, draft
from tests.launcher.launcher_kit import Out
from tools.launcher.attest.measurement import Platform, expected_mac
from tools.launcher.config.runtime_config import load_config
from tools.launcher.guest.binding import compose
from tools.launcher.measure.digest_file import launch_digests
from tools.sev.modes import Mode
from tools.sev.workload.document import Document, Doors, Process, Tar

SHELL = Document(
    root=Tar(length=512, sha256="ab" * 32), process=Process(argv=("/bin/sh",), host=Doors(stdin=True, signals=(15,)))
)
OTHER = Document(root=SHELL.root, process=Process(argv=("/bin/true",)))


def digest_of(out: Out, document: Document, mode: Mode = Mode.SNP, *, append: str = "") -> bytes:
    """Of a guest that is bound to it, on a Milan with two vCPUs."""
    config = load_config(out.config)
    cmdline = compose(config, append=append, binding=document, verity=None, rootfs=None)
    own = launch_digests(config, cmdline=cmdline)
    return bytes.fromhex(own.digest(mode, signature=0xA00F11, vcpus=2, legacy_vm_type=False))


def report(out: Out, document: Document, **more: Any) -> Draft:
    return draft(measurement=digest_of(out, document, **more))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "workload.json"
    path.write_bytes(SHELL.data)
    return path


def test_a_guest_that_is_bound_to_the_document(desk: Desk, out: Out, file: Path) -> None:
    outcome = desk.verify(report(out, SHELL), "--workload", file, without=("unbound",))
    assert (outcome.status, outcome.failed) == (0, [])
    assert outcome.detail("launch digest") == "EPYC-Milan, 2 vCPUs"
    said = outcome.detail("workload")
    assert SHELL.sha256 in said
    for opening in ("stdin: the host writes", "signals: the host may send the workload 15", "output: ", "refusals: "):
        assert opening in said
    # The control: another document, another digest.
    outcome = desk.verify(report(out, OTHER), "--workload", file, without=("unbound",))
    assert outcome.failed == ["launch digest"]


def test_a_guest_whose_host_may_do_nothing(desk: Desk, out: Out, file: Path) -> None:
    """And the same of the debug profile, whose kernel log is an opening that no document closes."""
    process = Process(argv=("/bin/true",), host=Doors(output=False))
    shut = Document(root=SHELL.root, process=process, end_on_refusal=True)
    file.write_bytes(shut.data)
    said = desk.verify(report(out, shut), "--workload", file, without=("unbound",)).detail("workload")
    assert said == f"SHA-256 {shut.sha256}; the host may do nothing to it but end it"
    out.data["profile"] = "debug"
    out.data["kernel"]["cmdline"] = out.data["kernel"]["cmdline"].replace("production", "debug")
    out.write()
    outcome = desk.verify(report(out, shut), "--workload", file, without=("unbound",))
    assert outcome.status == 0
    assert "the host reads the kernel's log" in outcome.detail("workload")


def test_options_that_move_the_digest(desk: Desk, out: Out, file: Path) -> None:
    raw = report(out, SHELL, append="quiet2")
    assert desk.verify(raw, "--workload", file, "--append", "quiet2", without=("unbound",)).status == 0
    assert desk.verify(raw, "--workload", file, without=("unbound",)).failed == ["launch digest"]
    bound = ("--workload", file)
    assert (
        desk.verify(report(out, SHELL), *bound, "--cpus", "2", "--cpu", "EPYC-Milan", without=("unbound",)).status == 0
    )
    assert desk.verify(report(out, SHELL), *bound, "--cpus", "3", without=("unbound",)).failed == ["launch digest"]


def test_a_bare_digest_is_never_verified(desk: Desk, out: Out) -> None:
    words = ("--digest", digest_of(out, SHELL).hex())
    outcome = desk.verify(report(out, SHELL), *words, without=("unbound",))
    assert (outcome.status, outcome.failed, outcome.document["reasons"]) == (1, [], ["workload not checked"])
    assert outcome.detail("workload").startswith("unknown: a launch digest alone does not say what runs")
    # Nor are the digests of the file, which are those of unbound guests.
    outcome = desk.verify(draft(), without=("unbound",))
    assert outcome.document["reasons"] == ["workload not checked"]


def test_an_unbound_guest_is_verified_only_by_name(desk: Desk, out: Out) -> None:
    outcome = desk.verify(draft())
    assert outcome.status == 0
    assert outcome.detail("workload").startswith("none: the host chooses what runs")
    assert desk.verify(report(out, SHELL), "--digest", digest_of(out, SHELL).hex()).status == 0


def test_options_that_contradict_each_other(desk: Desk, file: Path) -> None:
    assert "not allowed with argument" in desk.refused(draft(), "--workload", file)
    words = [word for word in desk.words(draft()) if word != "--unbound"]
    for more, said in (
        (["--workload", file, "--digest", "00" * 48], "leave out --digest"),
        (["--append", "x"], "--append belongs to --workload"),
        (["--workload", file.parent / "none"], "No such file"),
    ):
        answer = desk.call("verify", *words, *more)
        assert answer.status == 2
        assert said in answer.one_line()
    file.write_bytes(SHELL.data + b" ")
    assert "is not in canonical form" in desk.call("verify", *words, "--workload", file).one_line()


@pytest.mark.parametrize(("mode", "policy"), [(Mode.SEV, 1), (Mode.SEV_ES, 5)])
def test_sev_and_sev_es_get_another_word(desk: Desk, out: Out, file: Path, mode: Mode, policy: int) -> None:
    tik, nonce, platform = bytes(range(16)), b"n" * 16, Platform(api_major=1, api_minor=55, build=21)
    digest = digest_of(out, SHELL, mode)
    mac = expected_mac(tik=tik, platform=platform, policy=policy, digest=digest, mnonce=nonce)
    words = ["--measurement", base64.b64encode(mac + nonce).decode(), "--tik", str(desk.write("tik", tik))]
    words += [
        "--mode",
        str(mode),
        "--api-major",
        "1",
        "--api-minor",
        "55",
        "--build",
        "21",
        "--policy",
        hex(policy),
        "--config",
        str(out.config),
    ]
    answer = desk.call("verify", *words, "--workload", file)
    assert (answer.status, answer.out.splitlines()[-1]) == (0, "launch measured")
    assert "no report can be asked for at run time" in answer.out
    assert "replay and remap memory" in answer.out
    assert ("registers are the host's" in answer.out) is (mode is Mode.SEV)
    answer = desk.call("verify", *words, "--digest", digest.hex())
    assert (answer.status, answer.out.splitlines()[-1]) == (1, "not verified: workload not checked")
