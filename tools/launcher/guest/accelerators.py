# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""KVM, or emulation: which one a guest starts on, and the trial that decides it once a boot of the host."""

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tools.launcher.base.errors import UserError
from tools.launcher.channel.link import Bound, Container
from tools.launcher.channel.session import NoHelloError, Session
from tools.launcher.channel.streams import Signals
from tools.launcher.guest.rootfs import Note, Rootfs
from tools.launcher.guest.run_folder import RunDir
from tools.launcher.guest.spec import Accel, Spec
from tools.launcher.guest.staging import Staging
from tools.launcher.guest.start import booted
from tools.launcher.host import kvm_trial
from tools.launcher.host.facts import HostFacts
from tools.sev.workload.document import Document

# How long to wait for the agent, in seconds. Emulation on a busy machine is slow; a trial of KVM that hangs
# is paid once a boot of the host.
TIMEOUTS = {Accel.KVM: 120.0, Accel.TCG: 300.0}
KVM_TRIAL = 20.0


def trial_time(timeout: float | None) -> float:
    """Seconds that KVM gets to prove itself; `timeout` is the caller's own limit."""
    return min(KVM_TRIAL, timeout or KVM_TRIAL)


@contextmanager
def started(
    staging: Staging,
    *,
    accel: Accel | None,
    facts: HostFacts,
    container: Container | Bound,
    signals: Signals,
    timeout: float | None,
    note: Note,
) -> Iterator[tuple[Session, float]]:
    """A guest whose agent has spoken, and the seconds that it has for its root file system.

    `accel` None: KVM where a guest really runs on it, else emulation. A protected guest takes KVM.
    """
    spec = staging.spec
    boot = functools.partial(booted, staging, container=container, signals=signals)
    trial = False
    if spec.protection is not None:
        accel = Accel.KVM
    elif accel is None:
        accel, trial = _choose(spec, facts=facts, timeout=timeout, note=note)
    elif accel is Accel.KVM and facts.kvm_error is not None:
        raise UserError(facts.kvm_error, where="/dev/kvm", hint="--accel tcg emulates")
    with ExitStack() as stack:
        if trial:
            try:
                session = stack.enter_context(boot(accel=Accel.KVM, timeout=trial_time(timeout)))
            except NoHelloError as error:
                note(f"no guest runs on this KVM ({error}): emulating instead, which is slow")
                accel = Accel.TCG
        limit = timeout or TIMEOUTS[accel]
        if not trial or accel is Accel.TCG:
            session = stack.enter_context(boot(accel=accel, timeout=limit))
        if trial:
            # After a failure: only now is it known that KVM was at fault and not the artifacts.
            kvm_trial.remember(spec.qemu, spec.config, works=accel is Accel.KVM)
        yield session, limit


def settled(
    spec: Spec, *, root: Rootfs, facts: HostFacts, signals: Signals, timeout: float | None, note: Note
) -> Accel:
    """Whichever works for an unprotected guest; one is started up to its agent's first word where that is not known."""
    if facts.kvm_error is not None or kvm_trial.recall(spec.qemu, spec.config) is not None:
        return _choose(spec, facts=facts, timeout=timeout, note=note)[0]
    assert isinstance(spec.binding, Document)
    with RunDir() as folder:
        staging = Staging(spec, folder.path, rootfs=root)
        container = Bound(document=spec.binding.data, commands=spec.binding.host_exec)
        with started(
            staging, accel=None, facts=facts, container=container, signals=signals, timeout=timeout, note=note
        ):
            pass
    signals.early = True
    return Accel.KVM if kvm_trial.recall(spec.qemu, spec.config) else Accel.TCG


def _choose(spec: Spec, *, facts: HostFacts, timeout: float | None, note: Note) -> tuple[Accel, bool]:
    """The accelerator, and whether KVM still has to prove itself."""
    if facts.kvm_error is not None:
        note(f"no KVM here (/dev/kvm: {facts.kvm_error}): emulating, which is slow")
        return Accel.TCG, False
    verdict = kvm_trial.recall(spec.qemu, spec.config)
    if verdict is None:
        note(f"trying KVM, for up to {trial_time(timeout):g} s; the result is remembered")
    elif not verdict:
        note("no guest ran on this KVM before: emulating, which is slow (doctor --retry tries again)")
        return Accel.TCG, False
    return Accel.KVM, True
