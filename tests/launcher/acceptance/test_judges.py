# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Verdicts over evidence: a real Milan report where one counts; and each control that is missing takes "held" away."""

import dataclasses
import hashlib
import hmac
import ssl
import struct
import uuid
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tools.launcher.acceptance import catalogue
from tools.launcher.acceptance.measured import compared
from tools.launcher.acceptance.model import (
    End,
    Evidence,
    Expected,
    Guest,
    Measured,
    Pages,
    Result,
    Start,
    Step,
    Talk,
    Verdict,
)
from tools.launcher.attest.certificates import File, Given, Role
from tools.launcher.attest.report import SigningKey, parse_report
from tools.launcher.base.errors import GuestError
from tools.launcher.channel.attest import Report as Answer
from tools.launcher.memory.pool import Bounced
from tools.launcher.memory.verdict import Verdict as Seen
from tools.launcher.memory.verdict import Word

DATA = Path(__file__).parents[1] / "attest/data/milan"
RAW = bytes.fromhex((DATA / "report.hex").read_text())
REAL = parse_report(RAW, where="r")
FEATURES = "[0.1] Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP\n"
CAME = Start(hello=1.0, processor=0.9)
IN = Bounced(pools=((4096, 8191),), hit=(4096, 4096, 8191), forced=False)
OUT = Bounced(pools=(), hit=None, forced=False)
USER = {
    "Uid": "9 9 9 9", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "Seccomp": "2", "NoNewPrivs": "1",
}  # fmt: skip


def ended(said: str) -> Start:
    return Start(end=End.ENDED, said=(f"qemu: {said}",))


REFUSED = ended("SNP_LAUNCH_FINISH ret=-5 fw_error=11 'Bad measurement'")
UNSIGNED = ended("SNP_LAUNCH_FINISH ret=-5 fw_error=10 'Bad signature'")


def seen(word: Word) -> Seen:
    return Seen(word=word, why="because")


def real(**changes: Any) -> Evidence:
    """An SNP guest of which everything was seen; its report is one that a Milan made."""
    expected = Expected(
        digest=REAL.measurement, policy=REAL.policy, nonce=REAL.report_data, id_key_digest=REAL.id_key_digest
    )  # fmt: skip
    talk = Talk(
        log=FEATURES, memory=seen(Word.CIPHERTEXT), bounced=IN, refused=9, identity=USER,
        report=Answer(provider="sev_guest", report=RAW), seconds={"agent": 1.0},
    )  # fmt: skip
    vcek = File(where="vcek", data=(DATA / "vcek.pem").read_bytes())
    chain = File(where="chain", data=(DATA / "chain.pem").read_bytes())
    evidence = Evidence(
        guest=Guest.SNP,
        starts=dict.fromkeys(Step, REFUSED)
        | dict.fromkeys((Step.HONEST, Step.OPEN, Step.PLATFORM), CAME)
        | {Step.OTHER_SIGNATURE: UNSIGNED},
        talk=talk,
        open_talk=Talk(log=FEATURES, refused=-1, bounced=IN),
        log_without_platform="virtio_rng virtio2: device must provide VIRTIO_F_ACCESS_PLATFORM",
        expected=expected,
        given=Given(files={Role.LEAF: vcek}, chain=chain, crl=None, leaf_kind=SigningKey.VCEK),
    )
    return dataclasses.replace(evidence, **changes)


def plain(**changes: Any) -> Evidence:
    talk = Talk(log="Linux", memory=seen(Word.PLAINTEXT), bounced=IN, refused=9, identity=USER)
    evidence = Evidence(
        guest=Guest.PLAIN,
        starts=dict.fromkeys((Step.HONEST, Step.OPEN), CAME)
        | dict.fromkeys((Step.KERNEL, Step.INITRAMFS, Step.CMDLINE), Start(end=End.LOOPS, processor=4.0)),
        talk=talk,
        open_talk=Talk(log="Linux", refused=-1, bounced=OUT),
        machinery=("qemu: KVM required", "qemu: parameter length of 95 not equal to 96"),
    )
    return dataclasses.replace(evidence, **changes)


def verdict(name: str, own: Evidence, other: Evidence | None = None) -> Verdict:
    lines = catalogue.judged({Guest.PLAIN: other or plain(), own.guest: own})
    (found,) = [line.verdict for line in lines if line.check.name == name and line.guest is own.guest]
    return found


def talk(evidence: Evidence, **changes: Any) -> Evidence:
    assert evidence.talk is not None
    return dataclasses.replace(evidence, talk=dataclasses.replace(evidence.talk, **changes))


def open_talk(evidence: Evidence, **changes: Any) -> Evidence:
    assert evidence.open_talk is not None
    return dataclasses.replace(evidence, open_talk=dataclasses.replace(evidence.open_talk, **changes))


def expected(**changes: Any) -> Evidence:
    evidence = real()
    assert evidence.expected is not None
    return dataclasses.replace(evidence, expected=dataclasses.replace(evidence.expected, **changes))


def start(evidence: Evidence, step: Step, what: Start) -> Evidence:
    return dataclasses.replace(evidence, starts=evidence.starts | {step: what})


BEYOND = {"policy-enforced", "injected-events", "hypervisor-reset"}


def test_everything_that_was_seen_holds() -> None:
    """With the certificates of the Milan whose report it is."""
    lines = catalogue.judged({Guest.PLAIN: plain(), Guest.SNP: real()})
    assert {line.check.name for line in lines if line.verdict.result is not Result.HELD} == BEYOND, lines
    assert catalogue.status(lines, asked=None) == 0


SILENT = Start(end=End.SILENT)
OTHER_END = ended("cannot allocate memory")
# The secure processor's word, but not on the ID block.
NO_ROOM = ended("sev_snp_launch_start: SNP_LAUNCH_START ret=-5 fw_error=23 'Required firmware resource depleted'")
NO_PAGE = ended("SNP_LAUNCH_UPDATE ret=-5 fw_error=22 'Invalid parameter'")
NO_TALK = Talk()
LATE = Start(end=End.ENDED, how="QEMU ended before its agent spoke (status 3)", said=("qemu: late",))
WRONG: list[tuple[str, Evidence, Evidence | None, str]] = [
    ("starts", start(real(talk=NO_TALK), Step.HONEST, SILENT), None, "it did not start: nothing within the time"),
    ("starts", start(real(), Step.HONEST, dataclasses.replace(CAME, trouble="it broke off")), None, "it broke off"),
    ("kernel-says", talk(real(), log="nothing"), None, "the kernel says ''"),
    ("kernel-says", talk(real(), log=FEATURES.replace(" SEV-SNP", "")), None, "'AMD SEV SEV-ES', expected"),
    ("kernel-says", real(), talk(plain(), log=FEATURES), "the unprotected guest says such a line too"),
    ("launch-digest", expected(digest=bytes(48)), None, "reported 5feee30d"),
    ("launch-digest", expected(nonce=b"x" * 64), None, "not over what was asked"),
    ("launch-digest", talk(real(), report=Answer(failure="no processor")), None, "no processor"),
    ("launch-digest", talk(real(), report=Answer(report=b"x")), None, "no attestation report"),
    ("policy", expected(nonce=b"x" * 64), None, "not over what was asked"),
    ("signed-report", expected(nonce=b"x" * 64), None, "not over what was asked"),
    ("id-block-accepted", expected(nonce=b"x" * 64), None, "not over what was asked"),
    ("policy", expected(policy=0x30000), None, "reported 0x3001f, expected 0x30000"),
    ("id-block-accepted", expected(id_key_digest=bytes(48)), None, "the report names the ID key"),
    ("id-block-digest", start(real(), Step.OTHER_DIGEST, CAME), None, "it started, in 1.0 s"),
    ("id-block-digest", start(real(), Step.OTHER_DIGEST, OTHER_END), None, "not the secure processor that refused"),
    ("id-block-digest", start(real(), Step.OTHER_DIGEST, SILENT), None, "not the secure processor that refused"),
    ("id-block-digest", start(real(), Step.OTHER_DIGEST, NO_ROOM), None, "for another reason than its ID block"),
    ("id-block-digest", start(real(), Step.OTHER_DIGEST, UNSIGNED), None, "for another reason than its ID block"),
    ("id-block-signature", start(real(), Step.OTHER_SIGNATURE, REFUSED), None, "for another reason than its ID block"),
    ("id-block-digest", start(real(), Step.OPEN, REFUSED), None, "the same guest with its own ID block"),
    ("changed-kernel", start(real(), Step.KERNEL, NO_PAGE), None, "for another reason than its ID block"),
    ("changed-kernel", start(real(), Step.KERNEL, CAME), None, "it started, in 1.0 s"),
    ("changed-kernel", start(real(), Step.OPEN, SILENT), None, "the same guest without the change"),
    ("changed-kernel", start(plain(), Step.KERNEL, CAME), None, "it started, in 1.0 s"),
    ("changed-kernel", start(plain(), Step.KERNEL, SILENT), None, "it hangs, or this host is too busy"),
    ("changed-kernel", start(plain(), Step.KERNEL, OTHER_END), None, "not the firmware that refused it: QEMU ended: q"),
    ("changed-kernel", start(plain(), Step.OPEN, OTHER_END), None, "the same guest without the change"),
    ("exec-refused", talk(real(), refused=-1), None, "a command of the host's choice ran"),
    ("exec-refused", talk(real(), refused=5), None, "was not refused either: error 5"),
    ("exec-refused", open_talk(real(), refused=9), None, "does not run where the document opens it either"),
    (
        "exec-refused",
        start(open_talk(real(), refused=None), Step.OPEN, LATE),
        None,
        "did not start: QEMU ended before its agent spoke (status 3): qemu: late",
    ),
    ("launch-digest", start(real(talk=None), Step.HONEST, LATE), None, "no report: QEMU ended before its agent spoke"),
    ("bounce-buffers", talk(real(), bounced=OUT), None, "has no bounce buffers"),
    ("bounce-buffers", real(), open_talk(plain(), bounced=IN), "a guest that has none"),
    ("platform-device", real(log_without_platform="Linux"), None, "the kernel refused no device"),
    ("platform-device", open_talk(real(), log=real().log_without_platform), None, "that has ordinary ones, too"),
    ("memory-closed", talk(real(), memory=seen(Word.PLAINTEXT)), None, "plaintext: because"),
    ("memory-closed", talk(real(), memory=seen(Word.INCONCLUSIVE)), None, "inconclusive: because"),
    ("memory-read", talk(plain(), memory=seen(Word.INCONCLUSIVE)), None, "inconclusive: because"),
    ("qemu-user", talk(real(), identity=USER | {"Uid": "0 0 0 0"}), None, "Uid 0 0 0 0"),
    ("qemu-user", talk(real(), identity=USER | {"CapEff": "0000000000000001"}), None, "CapEff 0000000000000001"),
    ("qemu-user", talk(real(), identity=USER | {"CapPrm": "0000000000000001"}), None, "CapPrm 0000000000000001"),
    ("qemu-user", talk(real(), identity=USER | {"NoNewPrivs": "0"}), None, "NoNewPrivs 0"),
    ("qemu-user", talk(real(), identity=USER | {"Seccomp": "0"}), None, "Seccomp 0"),
    ("id-block-machinery", plain(machinery=("parameter length", "parameter length")), None, "of a whole one"),
    (
        "id-block-machinery",
        plain(machinery=("qemu: Property 'sev-snp-guest.x' not found", "parameter length")),
        None,
        "of a whole one",
    ),
    ("id-block-machinery", plain(machinery=("KVM required", "KVM required")), None, "of one that is cut short"),
]


@pytest.mark.parametrize(("name", "own", "other", "says"), WRONG, ids=[f"{w[0]}: {w[3]}" for w in WRONG])
def test_what_was_seen_otherwise_fails(name: str, own: Evidence, other: Evidence | None, says: str) -> None:
    found = verdict(name, own, other)
    assert found.result is Result.FAILED, found
    assert says in found.seen


UNSEEN: list[tuple[str, Evidence, Evidence | None, str]] = [
    ("kernel-says", real(), plain(talk=None), "missing to compare with"),
    ("kernel-says", real(), start(plain(talk=None), Step.HONEST, LATE), "compare with: it did not start: QEMU ended"),
    ("memory-closed", real(), start(plain(talk=None), Step.HONEST, LATE), "nothing: it did not start: QEMU ended"),
    (
        "bounce-buffers",
        real(),
        start(plain(open_talk=None), Step.OPEN, LATE),
        "compare with: it did not start: QEMU ended",
    ),
    ("memory-closed", real(), plain(talk=None), "could not be read either"),
    ("memory-closed", real(), talk(plain(), memory=seen(Word.INCONCLUSIVE)), "could not be read either"),
    ("memory-closed", talk(real(), memory=None, unread="not by this user"), None, "was not read: not by this user"),
    ("bounce-buffers", real(), plain(open_talk=None), "missing to compare with"),
    ("signed-report", real(given=None), None, "no certificate given"),
    ("changed-initramfs", real(without={Step.INITRAMFS: "in the kernel"}), None, "in the kernel"),
    ("platform-device", real(without={Step.PLATFORM: "none"}), None, "none"),
    ("launch-digest", real(guest=Guest.SEV, without={Step.KERNEL: "no key"}), None, "no key"),
    ("starts", real(why_not=("no SEV", "no KVM")), None, "no SEV; no KVM"),
]


@pytest.mark.parametrize(("name", "own", "other", "says"), UNSEEN, ids=[f"{u[0]}: {u[3]}" for u in UNSEEN])
def test_what_was_not_seen_is_not_said_to_hold(name: str, own: Evidence, other: Evidence | None, says: str) -> None:
    found = verdict(name, own, other)
    assert found.result is Result.NOT_RUN, found
    assert says in found.seen


def test_no_evidence_holds_nothing() -> None:
    for guest in Guest:
        lines = catalogue.judged({Guest.PLAIN: Evidence(guest=Guest.PLAIN), guest: Evidence(guest=guest)})
        assert not [line for line in lines if line.verdict.result is Result.HELD], guest


def test_a_forged_report_is_not_signed() -> None:
    forged = bytearray(RAW)
    forged[0x90] ^= 1
    found = verdict("signed-report", talk(real(), report=Answer(report=bytes(forged))))
    assert found.result is Result.FAILED
    assert found.seen.startswith("signature: ")


def test_certificates_that_the_host_gave_the_guest() -> None:
    """In a table as AMD 56421 has it, instead of the options."""
    end = "-----END CERTIFICATE-----"
    text = (DATA / "vcek.pem").read_text() + (DATA / "chain.pem").read_text()
    vcek, ask, ark = (ssl.PEM_cert_to_DER_cert(part.strip() + f"\n{end}") for part in text.split(end)[:3])
    names = (
        "63da758d-e664-4564-adc5-f4b93be8accd",
        "4ab7b379-bbac-4fe4-a02f-05aef327c782",
        "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    )
    entries, data = b"", b""
    for name, der in zip(names, (vcek, ask, ark), strict=True):
        entries += struct.pack("<16sII", uuid.UUID(name).bytes_le, 24 * 4 + len(data), len(der))
        data += der
    own = talk(real(given=None), report=Answer(report=RAW, auxblob=entries + bytes(24) + data))
    assert verdict("signed-report", own).result is Result.HELD
    cut = talk(real(given=None), report=Answer(report=RAW, auxblob=entries[:24] + bytes(24)))
    assert verdict("signed-report", cut).result is not Result.HELD


@pytest.mark.parametrize("guest", [Guest.SEV, Guest.SEV_ES])
def test_a_launch_measurement(guest: Guest) -> None:
    """SEV and SEV-ES: digest and policy by the owner's key, and a change by the same."""
    right = Measured(expected=True, other_digest=False, other_policy=False)
    wrong = dataclasses.replace(right, expected=False)
    own = open_talk(talk(real(guest=guest), measured=right), measured=right)
    own = dataclasses.replace(own, changed=dict.fromkeys((Step.KERNEL, Step.INITRAMFS, Step.CMDLINE), wrong))
    names = ("launch-digest", "policy", "changed-kernel", "changed-cmdline")
    assert {verdict(name, own).result for name in names} == {Result.HELD}
    assert {verdict(name, talk(own, measured=wrong)).result for name in names[:2]} == {Result.FAILED}
    assert {verdict(name, open_talk(own, measured=wrong)).result for name in names[2:]} == {Result.FAILED}
    loose = dataclasses.replace(right, other_digest=True, other_policy=True)
    assert {verdict(name, talk(own, measured=loose)).result for name in names[:2]} == {Result.FAILED}
    same = dataclasses.replace(own, changed={Step.KERNEL: right})
    assert "that of the unchanged guest" in verdict("changed-kernel", same).seen


def test_what_qemu_says_of_a_measurement() -> None:
    tik, digest, nonce = bytes(16), bytes(range(32)), bytes(range(16))
    sev = {"api-major": 1, "api-minor": 55, "build-id": 29}
    head = struct.pack("<BBBBI", 4, 1, 55, 29, 0x3B)
    mac = hmac.new(tik, head + digest + nonce, hashlib.sha256).digest()
    said = {"data": b64encode(mac + nonce).decode()}
    right = Measured(expected=True, other_digest=False, other_policy=False)
    assert compared(sev, said, tik=tik, policy=0x3B, digest=digest) == right
    assert not compared(sev, said, tik=tik, policy=0x3B, digest=bytes(32)).expected
    assert not compared(sev, said, tik=b"x" * 16, policy=0x3B, digest=digest).expected
    for broken in ({}, {"data": "x"}):
        with pytest.raises(GuestError, match="says no launch measurement"):
            compared(sev, broken, tik=tik, policy=0x3B, digest=digest)


def test_the_exit_status() -> None:
    lines = catalogue.judged({Guest.PLAIN: plain(), Guest.SNP: real(why_not=("no SEV",))})
    assert catalogue.status(lines, asked=None) == 0
    # What was asked for by name and could not be run is no success.
    assert catalogue.status(lines, asked=Guest.SNP) == 1
    bad = catalogue.judged({Guest.PLAIN: talk(plain(), refused=-1)})
    assert catalogue.status(bad, asked=None) == 1


def test_the_price_of_a_page() -> None:
    pages = Pages(seconds={256: 1.0, 1024: 1.2, 2048: 1.5}, tries=3)
    assert pages.of_one == pytest.approx(0.5 / 1792)
