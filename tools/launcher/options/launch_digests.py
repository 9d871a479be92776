# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Launch digests of one guest in several modes, as `digest` and `bundle` give them."""

import dataclasses
from typing import Any

from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.guest.binding import compose
from tools.launcher.measure.cpu_signature import signature_of
from tools.launcher.measure.digest_file import launch_digests
from tools.sev.modes import Mode
from tools.sev.workload.document import Document


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is digested. `signature` None: no mode is asked for that measures it."""

    config: RuntimeConfig
    cmdline: str
    cpu: str | None
    signature: int | None
    vcpus: int
    modes: tuple[Mode, ...]
    both_vm_types: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """One digest, in hexadecimal; `legacy_vm_type` None where it does not matter."""

    mode: Mode
    legacy_vm_type: bool | None
    digest: str


def of_document(config: RuntimeConfig, document: Document) -> Request:
    """All digests of a guest that is bound to the document, on the config's CPUs."""
    return Request(
        config=config,
        cmdline=compose(config, append="", binding=document, verity=None, rootfs=None),
        cpu=config.machine.cpu,
        signature=signature_of(config.machine.cpu),
        vcpus=config.machine.vcpus,
        modes=tuple(Mode),
        both_vm_types=True,
    )


def check_artifacts(config: RuntimeConfig) -> None:
    """UserError unless the artifacts are the config's."""
    for artifact in config.artifacts:
        if artifact is not config.firmware:  # which is read, and verified, when something is digested
            artifacts.verify(config, artifact)


def answers(request: Request) -> list[Answer]:
    """In the order of the modes."""
    own = launch_digests(request.config, cmdline=request.cmdline)
    found = []
    for mode in request.modes:
        variants: list[bool | None] = [None]
        if mode is Mode.SEV_ES:
            variants = [False, True] if request.both_vm_types else [request.config.sev.legacy_vm_type]
        for legacy in variants:
            digest = own.digest(
                mode,
                signature=request.signature or 0,
                vcpus=request.vcpus,
                legacy_vm_type=bool(legacy),
            )
            found.append(Answer(mode=mode, legacy_vm_type=legacy, digest=digest))
    return found


def _cpu(request: Request) -> str:
    signature = f"{request.signature:#x}"
    return f"CPU signature {signature}" if request.cpu is None else f"{request.cpu} ({signature})"


def label(request: Request, answer: Answer) -> str:
    """What a digest is of."""
    parts = [str(answer.mode)]
    if answer.legacy_vm_type is not None:
        parts.append(f"legacy-vm-type={'on' if answer.legacy_vm_type else 'off'}")
    if answer.mode is not Mode.SEV:
        parts += [_cpu(request), f"{request.vcpus} vCPU{'' if request.vcpus == 1 else 's'}"]
    return ", ".join(parts)


def as_json(request: Request, found: list[Answer]) -> dict[str, Any]:
    """All of it, with what the digests depend on."""
    config = request.config
    return {
        "schema": 1,
        "profile": str(config.profile),
        "artifacts": {a.role: {"file": a.file, "sha256": a.sha256, "size": a.size} for a in config.artifacts},
        "kernel_cmdline": request.cmdline,
        "cpu": request.cpu,
        "cpu_signature": None if request.signature is None else f"{request.signature:#x}",
        "vcpus": request.vcpus,
        "digests": [{"mode": str(a.mode), "legacy_vm_type": a.legacy_vm_type, "digest": a.digest} for a in found],
    }
