# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From evidence to verdicts. Pure functions: what was not seen is never said to hold, whatever a host has.

A refusal holds beside its control only: the same guest without the change, which started in the same run.
"""

import re

from tools.launcher.acceptance.model import End, Evidence, Guest, Judge, Result, Start, Step, Verdict
from tools.launcher.acceptance.talk import IDENTITY, RAN
from tools.launcher.channel.protocol import ErrorCode
from tools.launcher.memory.verdict import Word

_FEATURES = re.compile(r"Memory Encryption Features active: *(.*)")
_WORDS = {Guest.SEV: "AMD SEV", Guest.SEV_ES: "AMD SEV SEV-ES", Guest.SNP: "AMD SEV SEV-ES SEV-SNP"}
"""print_mem_encrypt_feature_info() of arch/x86/mm/mem_encrypt.c."""
_PROCESSOR_SAYS = re.compile(r"(SNP_LAUNCH_\w+) .*fw_error=(\d+) '([^']*)'")
_FINISH, _BAD_SIGNATURE, _BAD_MEASUREMENT = "SNP_LAUNCH_FINISH", 10, 11
"""Where the secure processor looks at the ID block, and what it says against it: linux/psp-sev.h. Any other error is
of a host that cannot start guests: too few of them left, a page that it does not like."""
_PLATFORM = re.compile(r"device must provide VIRTIO_F_ACCESS_PLATFORM")


def held(seen: str, control: str = "") -> Verdict:
    """It was seen."""
    return Verdict(result=Result.HELD, seen=seen, control=control)


def failed(seen: str, control: str = "") -> Verdict:
    """The opposite was seen, or what should have been seen did not come."""
    return Verdict(result=Result.FAILED, seen=seen, control=control)


def not_run(why: str) -> Verdict:
    """Nothing could be seen."""
    return Verdict(result=Result.NOT_RUN, seen=why)


def troubled(start: Start | None) -> str | None:
    """Why nothing more can be said of a guest that had to start; None when it did."""
    if start is None:
        return "it was not started"
    if start.hello is None:
        return f"it did not start: {start.why}"
    return None


def _because(start: Start | None) -> str:
    """The same at the end of a sentence on a control that is missing; nothing where it started."""
    why = troubled(start)
    return f": {why}" if why else ""


def _unfinished(start: Start | None) -> str:
    """Why the conversation did not come as far as this."""
    why = troubled(start)
    return why or f"the guest was not heard to the end: {start.trouble if start else ''}"


def starts(own: Evidence, _: Evidence) -> Verdict:
    """The guest came up and its program ran."""
    start = own.starts.get(Step.HONEST)
    if start is None or start.hello is None or own.talk is None or own.talk.log is None:
        return failed(_unfinished(start))
    if start.trouble:
        return failed(f"it came up, and then: {start.trouble}")
    return held(f"its agent spoke after {start.hello:.1f} s, and the bound program ran to its end")


def kernel_says(own: Evidence, plain: Evidence) -> Verdict:
    """The kernel's own line on memory encryption."""
    log = own.talk.log if own.talk else None
    if log is None:
        return failed(_unfinished(own.starts.get(Step.HONEST)))
    found = _FEATURES.search(log)
    words = found[1].strip() if found else ""
    if words != _WORDS[own.guest]:
        return failed(f"the kernel says {words!r}, expected {_WORDS[own.guest]!r}")
    other = plain.talk.log if plain.talk else None
    if other is None:
        why = _because(plain.starts.get(Step.HONEST))
        return not_run(
            f"the kernel says {words!r}, but the log of the unprotected guest is missing to compare with{why}"
        )
    if _FEATURES.search(other):
        return failed(f"the kernel says {words!r}, and that of the unprotected guest says such a line too")
    return held(f"{words!r}", "the unprotected guest's kernel says no such line")


def memory_closed(own: Evidence, plain: Evidence) -> Verdict:
    """What this host reads of the guest's memory."""
    seen = own.talk.memory if own.talk else None
    if seen is None:
        return _unread(own)
    if seen.word not in (Word.CIPHERTEXT, Word.NOT_ACCESSIBLE):
        return failed(f"{seen.word}: {seen.why}")
    other = plain.talk.memory if plain.talk else None
    if other is None or other.word is not Word.PLAINTEXT:
        why = _because(plain.starts.get(Step.HONEST))
        return not_run(f"{seen.word}, but the unprotected guest could not be read either: this shows nothing{why}")
    touched, size = (own.talk.touched if own.talk else None) or (0, 0)
    amount = f"{touched >> 20} of {size >> 20} MiB are in QEMU's memory"
    return held(f"{seen.word}: {seen.why}; {amount}", "the unprotected guest: plaintext")


def memory_read(own: Evidence, _: Evidence) -> Verdict:
    """The control of the one above."""
    seen = own.talk.memory if own.talk else None
    if seen is None:
        return _unread(own)
    return (held if seen.word is Word.PLAINTEXT else failed)(f"{seen.word}: {seen.why}")


def _unread(own: Evidence) -> Verdict:
    if own.talk is not None and own.talk.unread:
        return not_run(f"QEMU's memory was not read: {own.talk.unread}")
    return failed(_unfinished(own.starts.get(Step.HONEST)))


def bounce_buffers(own: Evidence, plain: Evidence) -> Verdict:
    """What a device gave the guest lies in them; in a plain guest without swiotlb=force it cannot."""
    found = own.talk.bounced if own.talk else None
    if found is None:
        return _unread(own)
    if found.hit is None:
        if own.guest is Guest.PLAIN and found.forced and not found.pools:
            return not_run("the kernel says where they are only with more memory than this host has to give")
        return failed(found.said)
    other = plain.open_talk.bounced if plain.open_talk else None
    if other is None:
        why = _because(plain.starts.get(Step.OPEN))
        return not_run(f"what was sent lies in them, but the guest without them is missing to compare with{why}")
    if other.hit is not None:
        return failed("what was sent lies in the same place in a guest that has none: this shows nothing")
    control = "not there" if other.pools else "its kernel names none"
    return held(found.said.removeprefix("In use: ").rstrip("."), f"an unprotected guest without them: {control}")


def exec_refused(own: Evidence, _: Evidence) -> Verdict:
    """A command of the host's choice, in a guest whose document does not open that."""
    code = own.talk.refused if own.talk else None
    if code is None:
        return failed(_unfinished(own.starts.get(Step.HONEST)))
    if code == RAN:
        return failed("a command of the host's choice ran, though the document does not open that")
    if code != ErrorCode.REFUSED:
        return failed(f"a command of the host's choice did not run, but was not refused either: error {code}")
    other = own.open_talk.refused if own.open_talk else None
    if other is None:
        why = _unfinished(own.starts.get(Step.OPEN))
        return failed(f"refused, but not tried where the document opens it: {why}")
    if other != RAN:
        return failed("refused, but it does not run where the document opens it either: this shows nothing")
    return held("refused by the agent", "the same command ran where the document opens it")


def qemu_user(own: Evidence, _: Evidence) -> Verdict:
    """QEMU is not root and cannot become it."""
    said = own.talk.identity if own.talk else {}
    if not said:
        return failed(_unfinished(own.starts.get(Step.HONEST)))
    text = ", ".join(f"{name} {said.get(name, '?')}" for name in IDENTITY)
    root = "0" in said.get("Uid", "0").split()
    capable = any(int(said.get(name, "1"), 16) for name in ("CapPrm", "CapEff"))
    # Without new privileges no program that QEMU might execute gives it any, whoever owns that file.
    way = said.get("NoNewPrivs") != "1" or said.get("Seccomp") != "2"
    return (failed if root or capable or way else held)(f"QEMU has {text}")


def changed(step: Step) -> Judge:
    """Another blob than what was measured."""

    def judge(own: Evidence, _: Evidence) -> Verdict:
        if step in own.without:
            return not_run(own.without[step])
        why = troubled(own.starts.get(Step.OPEN))
        if why is not None:
            return failed(f"the same guest without the change: {why}")
        if own.guest in (Guest.SEV, Guest.SEV_ES):
            return _measured_otherwise(own, step)
        if own.guest is Guest.PLAIN:
            return _refused_by_firmware(own, own.starts.get(step))
        return _refused_by_processor(own, own.starts.get(step), _BAD_MEASUREMENT)

    return judge


def _control(own: Evidence) -> str:
    hello = own.starts[Step.OPEN].hello
    return f"unchanged it started, in {hello:.1f} s"


def _refused_by_firmware(own: Evidence, start: Start | None) -> Verdict:
    if start is None or start.trouble:
        return failed(start.trouble if start else "it was not started")
    if start.hello is not None:
        return failed(f"it started, in {start.hello:.1f} s", _control(own))
    if start.end is End.SILENT:
        return failed("it neither started nor used the processor's time: it hangs, or this host is too busy to tell")
    if start.end is not End.LOOPS:
        # Its refusal is a loop; a QEMU that ends has no use for what it was given, or its guest crashed.
        return failed(f"it did not start, but it was not the firmware that refused it: {start.why}")
    twin = own.starts[Step.OPEN].processor
    seen = f"no word in {start.processor:.1f} s of the processor's time; unchanged it takes {twin:.1f} s"
    return held(seen, _control(own))


def _refused_by_processor(own: Evidence, start: Start | None, error: int) -> Verdict:
    if start is None or start.trouble:
        return failed(start.trouble if start else "it was not started")
    if start.hello is not None:
        return failed(f"it started, in {start.hello:.1f} s", _control(own))
    said = next((found for line in start.said if (found := _PROCESSOR_SAYS.search(line))), None)
    if start.end is not End.ENDED or said is None or said[2] == "0":
        return failed(f"it did not start, but it was not the secure processor that refused it: {start.why}")
    seen = f"{said[1]}: error {said[2]}, {said[3]}"
    if (said[1], said[2]) != (_FINISH, str(error)):
        return failed(f"it did not start, for another reason than its ID block ({_FINISH}, error {error}): {seen}")
    return held(seen, _control(own))


def other_block(step: Step) -> Judge:
    """An ID block that is not this guest's, or not signed."""
    error = _BAD_SIGNATURE if step is Step.OTHER_SIGNATURE else _BAD_MEASUREMENT

    def judge(own: Evidence, _: Evidence) -> Verdict:
        why = troubled(own.starts.get(Step.OPEN))
        if why is not None:
            return failed(f"the same guest with its own ID block: {why}")
        return _refused_by_processor(own, own.starts.get(step), error)

    return judge


def _measured_otherwise(own: Evidence, step: Step) -> Verdict:
    """SEV and SEV-ES have no ID block: the host starts it, and the measurement tells."""
    found, honest = own.changed.get(step), own.open_talk.measured if own.open_talk else None
    if honest is None:
        return failed(f"the same guest without the change: {_unfinished(own.starts.get(Step.OPEN))}")
    if found is None:
        return failed(_unfinished(own.starts.get(step)))
    if not honest.expected:
        return failed("even the unchanged guest's launch measurement is not the expected one")
    control = "unchanged it is the expected one"
    if found.expected:
        return failed("its launch measurement is that of the unchanged guest", control)
    return held("it starts, and its launch measurement is not the expected one", control)


def platform_device(own: Evidence, _: Evidence) -> Verdict:
    """The kernel's refusal of a device that wants to reach all of the memory."""
    if Step.PLATFORM in own.without:
        return not_run(own.without[Step.PLATFORM])
    log, other = own.log_without_platform, own.open_talk.log if own.open_talk else None
    if log is None:
        return failed(_unfinished(own.starts.get(Step.PLATFORM)))
    if other is None:
        return failed(f"the same guest with an ordinary device: {_unfinished(own.starts.get(Step.OPEN))}")
    if not _PLATFORM.search(log):
        return failed("the kernel refused no device")
    if _PLATFORM.search(other):
        return failed("the kernel refuses a device in the guest that has ordinary ones, too: this shows nothing")
    return held("the kernel says that the device must provide it", "with ordinary devices it says no such line")


def machinery(own: Evidence, _: Evidence) -> Verdict:
    """ID blocks as far as the missing processor."""
    if own.machinery is None:
        return failed("it was not tried")
    whole, cut = own.machinery
    # It asks for KVM when it has read all of the object's properties; a property that it does not take, it names first.
    if "parameter length" in whole or "KVM" not in whole:
        return failed(f"QEMU says of a whole one: {whole}")
    if "parameter length" not in cut:
        return failed(f"QEMU says of one that is cut short: {cut}")
    return held(f"made, signed and taken by QEMU as far as {whole!r}", f"cut short: {cut!r}")
