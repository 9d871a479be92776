# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Which guests are started on this host, in which order; what is seen of them becomes the evidence."""

import base64
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tools.launcher.acceptance import hostile, probe, sizes
from tools.launcher.acceptance.ambient import chance
from tools.launcher.acceptance.measured import Monitor, of_guest
from tools.launcher.acceptance.model import End, Evidence, Expected, Guest, Start, Step, Talk
from tools.launcher.acceptance.starts import TIMES, Bench, Prepare, digest_of, outcome, running, signed_as
from tools.launcher.acceptance.talk import talked
from tools.launcher.base.errors import GuestError, Interrupted, LauncherError
from tools.launcher.guest.spec import Accel, Spec
from tools.launcher.guest.start import Change
from tools.sev.agent.report_data import Domain, report_data
from tools.sev.modes import Mode

PLAIN_MIB = 5120
"""More than 32-bit devices reach: only then does the kernel of a plain guest say where its bounce buffers are."""
_ROOM_MIB = 8192
"""What the host must have for that."""
_BLOBS: tuple[tuple[Step, Prepare], ...] = (
    (Step.KERNEL, hostile.kernel),
    (Step.INITRAMFS, hostile.initramfs),
    (Step.CMDLINE, hostile.cmdline),
)
_NO_KEY = (
    "only the owner's key tells what the secure processor measured: give --dh-cert, --session and --tik with --mode "
    "(docs/attestation.md makes them)"
)


def gather(bench: Bench, guest: Guest, *, timed: bool) -> Evidence:
    """All that this host shows of one kind of guest. `timed`: the time of the secure processor too."""
    run = _Run(bench, guest)
    for what, step in run.steps(timed=timed):
        bench.note(f"{guest}: {what}")
        step()
    return run.evidence


class _Run:
    """The starts of one kind of guest; each adds to `evidence`."""

    def __init__(self, bench: Bench, guest: Guest) -> None:
        self.bench = bench
        self.guest = guest
        self.evidence = Evidence(guest=guest)
        plain = guest is Guest.PLAIN
        room = plain and _room() >= _ROOM_MIB
        sign = guest is Guest.SNP
        closed = probe.document(bench.tar, commands=False)
        self.honest = bench.spec(
            guest, closed, sign=sign, append="swiotlb=force" if plain else "", memory_mib=PLAIN_MIB if room else None
        )
        self.open = bench.spec(guest, probe.document(bench.tar, commands=True), sign=sign)

    def steps(self, *, timed: bool) -> list[tuple[str, Callable[[], None]]]:
        """What is done, for people, and how."""
        steps: list[tuple[str, Callable[[], None]]] = [
            ("a bound guest, and what is seen of it", self._honest),
            ("a guest whose document lets the host run commands", self._open),
        ]
        measured = self.guest in (Guest.SEV, Guest.SEV_ES)
        for step, prepare in _BLOBS:
            if step is Step.INITRAMFS and self.open.config.initramfs is None:
                self.evidence.without[step] = "the kernel carries its initramfs in itself"
            elif measured and self.bench.tik is None:
                self.evidence.without[step] = _NO_KEY
            else:
                steps.append((str(step), partial(self._changed, step, prepare)))
        if self.guest is Guest.PLAIN:
            steps.append(("ID blocks, as far as QEMU takes them without the device", self._machinery))
        else:
            steps.append((str(Step.PLATFORM), self._platform))
        if self.guest is Guest.SNP:
            steps += [
                (str(step), partial(self._other_block, step)) for step in (Step.OTHER_DIGEST, Step.OTHER_SIGNATURE)
            ]
        if timed:
            steps.append(("the same with more firmware, for the time of a page", self._pages))
        return steps

    def _honest(self) -> None:
        nonce = chance(32) if self.guest is Guest.SNP else None
        start, self.evidence.talk = self._started(Step.HONEST, self.honest, nonce=nonce)
        self.evidence.starts[Step.HONEST] = start
        if nonce is not None:
            self.evidence.expected = Expected(
                digest=digest_of(self.honest, Mode.SNP),
                policy=self.honest.config.sev.snp_policy,
                nonce=report_data(Domain.HOST, nonce),
                id_key_digest=self.bench.signer.key.digest,
            )

    def _open(self) -> None:
        self.evidence.starts[Step.OPEN], self.evidence.open_talk = self._started(Step.OPEN, self.open)

    def _started(self, step: Step, spec: Spec, *, nonce: bytes | None = None) -> tuple[Start, Talk]:
        """A guest that must start. Emulated, it is begun anew once where QEMU ended before the agent spoke.

        On a busy machine a late timer looks like a broken one to an emulated kernel. A guest that may be refused does
        not come here, and none on KVM: how those end is what is judged.
        """
        start, talk = self._talk(spec, nonce=nonce)
        if start.end is not End.ENDED or self.bench.accelerator(self.guest) is not Accel.TCG:
            return start, talk
        self.bench.note(f"{self.guest}: begun anew, as emulated guests may end on a busy machine: {start.why}")
        again, talk = self._talk(spec, nonce=nonce)
        return dataclasses.replace(again, anew=f"{step}: {start.why}"), talk

    def _changed(self, step: Step, prepare: Prepare) -> None:
        if self.guest in (Guest.SEV, Guest.SEV_ES):
            start, talk = self._talk(self.open, prepare=prepare)
            self.evidence.changed[step] = talk.measured
        else:
            start = outcome(self.bench, self.guest, self.open, prepare=[prepare], enough=self._enough())
        self.evidence.starts[step] = start

    def _enough(self) -> float | None:
        """Seconds of the processor's behind which a guest will not speak; None where an honest one did not either."""
        twin = self.evidence.starts.get(Step.OPEN)
        return None if twin is None or twin.hello is None else TIMES * twin.processor + 1.0

    def _talk(
        self,
        spec: Spec,
        *,
        nonce: bytes | None = None,
        prepare: Prepare = lambda _: None,
        change: Change = lambda same: same,
    ) -> tuple[Start, Talk]:
        limit = self.bench.limit(self.guest)
        monitor, ask = Monitor(), None
        prepared: list[Prepare] = [prepare]
        if self.guest in (Guest.SEV, Guest.SEV_ES) and self.bench.tik is not None:
            mode = Mode(str(self.guest))
            policy, digest = spec.config.sev.policy(mode), digest_of(spec, mode)
            ask = partial(of_guest, monitor, tik=self.bench.tik, policy=policy, digest=digest)
            prepared.append(monitor.prepare)
            own, change = change, lambda options: monitor.change(own(options))
        try:
            with running(self.bench, self.guest, spec, prepare=prepared, change=change) as session:
                return talked(session, limit=limit, nonce=nonce, **({} if ask is None else {"ask": ask}))
        except Interrupted:
            raise
        except LauncherError as error:
            return Start(trouble=str(error), said=error.details), Talk()
        finally:
            monitor.close()

    def _platform(self) -> None:
        if not self.open.config.devices.rng:
            self.evidence.without[Step.PLATFORM] = "the config gives guests no random number generator to take it from"
            return
        start, talk = self._talk(self.open, change=hostile.without_platform)
        self.evidence.starts[Step.PLATFORM] = start
        self.evidence.log_without_platform = talk.log

    def _other_block(self, step: Step) -> None:
        policy, digest = self.open.config.sev.snp_policy, digest_of(self.open, Mode.SNP)
        if step is Step.OTHER_DIGEST:
            digest = bytes([digest[0] ^ 1]) + digest[1:]
        signed = self.bench.signer.id_block(digest=digest, policy=policy)
        if step is Step.OTHER_SIGNATURE:
            signed = hostile.other_signature(signed)
        spec = signed_as(self.open, signed)
        self.evidence.starts[step] = outcome(self.bench, self.guest, spec, enough=self._enough())

    def _machinery(self) -> None:
        """QEMU parses the block before it looks for the processor: cut short, it says so instead."""
        document = probe.document(self.bench.tar, commands=True)
        spec = dataclasses.replace(self.bench.spec(Guest.SNP, document, sign=True), cbit=51)
        signed = spec.owner.id_block
        assert signed is not None
        whole, cut = (
            base64.b64encode(block).decode() for block in (signed.block, signed.block[:-1])
        )  # fmt: skip
        self.evidence.machinery = (
            self._refusal(spec, lambda options: options),
            self._refusal(spec, lambda options: [tuple(w.replace(whole, cut) for w in option) for option in options]),
        )

    def _refusal(self, spec: Spec, change: Change) -> str:
        """QEMU's last line where it emulates, and so cannot start such a guest on any host."""
        start = outcome(self.bench.on(Accel.TCG), Guest.PLAIN, spec, change=change)
        if start.trouble or start.said:
            return start.trouble or start.said[-1]
        return f"QEMU says nothing: {start.how or start.end or 'the guest started'}"

    def _pages(self) -> None:
        unsigned = dataclasses.replace(self.open, owner=dataclasses.replace(self.open.owner, id_block=None))
        try:
            self.evidence.pages = sizes.pages(self.bench, self.guest, unsigned)
        except GuestError as error:
            self.bench.note(f"{self.guest}: {error}")


def _room() -> int:
    """MiB of this host's memory that a guest may take."""
    for line in Path("/proc/meminfo").read_text("ascii", "replace").splitlines():
        name, _, text = line.partition(":")
        if name == "MemAvailable":
            return int(text.split()[0]) >> 10
    return 0
