# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The checks. Their names are stable: docs/threat-model.md has each that needs hardware, as acceptance/NAME."""

from collections.abc import Iterable, Mapping

from tools.launcher.acceptance import judges, reports
from tools.launcher.acceptance.judges import not_run
from tools.launcher.acceptance.model import PROTECTED, Check, Evidence, Guest, Judge, Line, Result, Step, Verdict

_ALL = (Guest.PLAIN, *PROTECTED)
_SNP = (Guest.SNP,)
_OWN_HYPERVISOR = "on no host: it takes a hypervisor that is written to attack"
_NO_WAY = "on no host: its commands go through QEMU's own descriptors, and QEMU has no option for them"


def _check(name: str, says: str, guests: tuple[Guest, ...], judge: Judge) -> Check:
    return Check(name=name, says=says, guests=guests, judge=judge)


# fmt: off
CHECKS = (
    _check("starts", "a guest that is bound to a workload document starts, and runs it", _ALL, judges.starts),
    _check("kernel-says", "the guest's kernel names the encryption of its mode", PROTECTED, judges.kernel_says),
    _check("launch-digest", "the reported launch digest is the computed one", PROTECTED, reports.launch_digest),
    _check("policy", "the reported guest policy is the config's", PROTECTED, reports.policy),
    _check("signed-report", "the report is signed, up to AMD's root", _SNP, reports.signed),
    _check("id-block-accepted", "a guest starts with its ID block, and reports its key", _SNP, reports.block_accepted),
    _check("id-block-digest", "an ID block for another launch digest is refused", _SNP,
           judges.other_block(Step.OTHER_DIGEST)),
    _check("id-block-signature", "an ID block with another signature is refused", _SNP,
           judges.other_block(Step.OTHER_SIGNATURE)),
    _check("id-block-machinery", "an ID block is made and taken, up to the missing processor", (Guest.PLAIN,),
           judges.machinery),
    _check("changed-kernel", "another kernel than the measured one is refused", _ALL, judges.changed(Step.KERNEL)),
    _check("changed-initramfs", "another initramfs is refused", _ALL, judges.changed(Step.INITRAMFS)),
    _check("changed-cmdline", "another command line is refused", _ALL, judges.changed(Step.CMDLINE)),
    _check("exec-refused", "a command that the document does not open is refused", _ALL, judges.exec_refused),
    _check("bounce-buffers", "what devices give the guest goes through bounce buffers", _ALL, judges.bounce_buffers),
    _check("platform-device", "a device without VIRTIO_F_ACCESS_PLATFORM is refused", PROTECTED,
           judges.platform_device),
    _check("memory-closed", "this host cannot read the guest's memory", PROTECTED, judges.memory_closed),
    _check("memory-read", "this host reads the memory of a guest without encryption", (Guest.PLAIN,),
           judges.memory_read),
    _check("qemu-user", "the guest's QEMU is not root, and has no way to it", _ALL, judges.qemu_user),
    Check(name="policy-enforced", guests=PROTECTED, beyond=_NO_WAY,
          says="the secure processor refuses what the policy forbids: debugging, key sharing, sending"),
    Check(name="injected-events", guests=PROTECTED, beyond=_OWN_HYPERVISOR,
          says="events that a hypervisor injects do no harm"),
    Check(name="hypervisor-reset", guests=PROTECTED, beyond=_OWN_HYPERVISOR,
          says="a reset by a hypervisor gives the guest to nobody"),
)
# fmt: on


def judged(evidence: Mapping[Guest, Evidence]) -> list[Line]:
    """Every check, for each of its guests that there is evidence of."""
    plain = evidence[Guest.PLAIN]
    return [
        Line(check=check, guest=guest, verdict=_verdict(check, own, plain))
        for check in CHECKS
        for guest in check.guests
        if (own := evidence.get(guest)) is not None
    ]


def _verdict(check: Check, own: Evidence, plain: Evidence) -> Verdict:
    if check.beyond:
        return not_run(check.beyond)
    return not_run("; ".join(own.why_not)) if own.why_not else check.judge(own, plain)


def status(lines: Iterable[Line], *, asked: Guest | None) -> int:
    """0: all that could be run held; 1: something failed, or of the guest that was asked for nothing could be run."""
    ran = [line for line in lines if line.verdict.result is not Result.NOT_RUN]
    nothing = asked is not None and not any(line.guest is asked for line in ran)
    return 1 if nothing or any(line.verdict.result is Result.FAILED for line in ran) else 0
