# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch digest`: the launch digest of what `run` would start with the same options."""

import dataclasses
from typing import Any

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, Ui, write_json, write_stdout
from tools.launcher.base.values import Values
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import RuntimeConfig, load_config
from tools.launcher.guest.binding import Binding, compose
from tools.launcher.measure.cpu_signature import parse_signature, signature_of
from tools.launcher.measure.digest_file import launch_digests, unbound_cmdline
from tools.launcher.measure.launch_digest import LaunchDigests
from tools.launcher.options.arguments import (
    CONFIG,
    JSON,
    QUIET,
    ROOTFS,
    ROOTFS_LIMIT,
    VERITY,
    cmdline_text,
    default_config,
    whole,
)
from tools.launcher.options.parser import Group, Option, Syntax
from tools.launcher.options.program import EXCLUSIVE, PROGRAM, chosen
from tools.sev.limits import VCPUS_MAX
from tools.sev.modes import Mode
from tools.sev.workload.document import Document

_EXAMPLES = f"""examples:
  {NAME} digest --workload workload.json
      the digest that an attestation report of a guest bound to this document must carry
  {NAME} digest --rootfs app.erofs --verity HASH --cpus 4 -- /app
      … for `{NAME} run --rootfs app.erofs --verity HASH --cpus 4 -- /app`
  {NAME} digest --unbound --mode all --json
      every mode, SEV-ES under both VM types, with all that the digests depend on
  {NAME} digest --workload workload.json --cpu-signature 0xa00f11
      for -cpu host on a machine whose CPUID Fn0000_0001_EAX is that"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Request:
    """What is digested. `signature` None: no mode is asked for that measures it."""

    config: RuntimeConfig
    cmdline: str
    bound: bool
    cpu: str | None
    signature: int | None
    vcpus: int
    modes: tuple[Mode, ...]
    both_vm_types: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Answer:
    """One digest, in hexadecimal; `legacy_vm_type` None where it does not matter."""

    mode: Mode
    legacy_vm_type: bool | None
    digest: str


SYNTAX = Syntax(
    Group(
        "options",
        CONFIG,
        Option("--mode", choices=[*(str(mode) for mode in Mode), "all"], text="protection; default: the config's"),
        Option("--cpus", "N", text="vCPUs, as for run", convert=whole(1, VCPUS_MAX)),
        Option("--cpu", "MODEL", text="another QEMU CPU model than the config's"),
        Option(
            "--cpu-signature",
            "0x…",
            text="CPUID Fn0000_0001_EAX of the virtual CPU, for a model that is not known here",
            convert=parse_signature,
        ),
        Option("--append", "TEXT", text="as for run", convert=cmdline_text),
        ROOTFS,
        ROOTFS_LIMIT,
        VERITY,
        JSON,
        QUIET,
    ),
    PROGRAM,
    exclusive=(("--cpu", "--cpu-signature"), *EXCLUSIVE),
    workload=True,
    usage=("[options] --rootfs PATH -- COMMAND [ARGUMENT …]", "[options] --workload FILE", "[options] --unbound"),
    examples=_EXAMPLES,
)


def run(given: Values, ui: Ui) -> int:
    """Print the digests of what is asked for."""
    with chosen(given, ui, memory=None) as (binding, _):
        request = _request(given, binding)
    config = request.config
    for artifact in config.artifacts:
        if artifact is not config.firmware:  # which is read, and verified, below
            artifacts.verify(config, artifact)
    own = launch_digests(config, cmdline=request.cmdline)
    answers = _answers(request, own)
    _note_changes(request, answers, ui)
    if given.json:
        write_json(_document(request, answers))
    else:
        write_stdout("".join(f"{answer.digest}  {_label(request, answer)}\n" for answer in answers))
    return 0


def _request(given: Values, binding: Binding | None) -> _Request:
    if given.verity is not None and given.rootfs is None:
        raise UserError("--verity belongs to --rootfs")
    config = load_config(given.config or default_config())
    modes = tuple(Mode) if given.mode == "all" else (Mode(given.mode) if given.mode else config.sev.mode,)
    cpu, signature = given.cpu or config.machine.cpu, given.cpu_signature
    if signature is not None:
        cpu = None
    elif modes != (Mode.SEV,):
        signature = signature_of(cpu)
    return _Request(
        config=config,
        cmdline=compose(config, append=given.append or "", binding=binding, verity=given.verity, rootfs=given.rootfs),
        bound=isinstance(binding, Document),
        cpu=cpu,
        signature=signature,
        vcpus=given.cpus or config.machine.vcpus,
        modes=modes,
        both_vm_types=given.mode == "all",
    )


def _answers(request: _Request, own: LaunchDigests) -> list[_Answer]:
    answers = []
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
            answers.append(_Answer(mode=mode, legacy_vm_type=legacy, digest=digest))
    return answers


def _note_changes(request: _Request, answers: list[_Answer], ui: Ui) -> None:
    """Say where the answer is not what runtime.toml says, and by what."""
    config = request.config
    if request.bound:
        return  # it knows of no workload
    differs = any(
        answer.digest != config.launch_digests[answer.mode]
        for answer in answers
        if answer.legacy_vm_type in (None, config.sev.legacy_vm_type)
    )
    vcpu_matters = request.modes != (Mode.SEV,)
    moved = [
        what
        for what, other in (
            ("kernel command line", request.cmdline != unbound_cmdline(config)),
            ("number of vCPUs", vcpu_matters and request.vcpus != config.machine.vcpus),
            ("CPU", vcpu_matters and request.cpu != config.machine.cpu),
        )
        if other
    ]
    if differs and moved:
        ui.note(f"not what {config.path.name} says: another {', another '.join(moved)}")
    elif differs:
        ui.warn(f"{config.path} says another digest; was it edited? see `{NAME} check`")


def _cpu(request: _Request) -> str:
    signature = f"{request.signature:#x}"
    return f"CPU signature {signature}" if request.cpu is None else f"{request.cpu} ({signature})"


def _label(request: _Request, answer: _Answer) -> str:
    parts = [str(answer.mode)]
    if answer.legacy_vm_type is not None:
        parts.append(f"legacy-vm-type={'on' if answer.legacy_vm_type else 'off'}")
    if answer.mode is not Mode.SEV:
        parts += [_cpu(request), f"{request.vcpus} vCPU{'' if request.vcpus == 1 else 's'}"]
    return ", ".join(parts)


def _document(request: _Request, answers: list[_Answer]) -> dict[str, Any]:
    config = request.config
    return {
        "schema": 1,
        "profile": str(config.profile),
        "artifacts": {a.role: {"file": a.file, "sha256": a.sha256, "size": a.size} for a in config.artifacts},
        "kernel_cmdline": request.cmdline,
        "cpu": request.cpu,
        "cpu_signature": None if request.signature is None else f"{request.signature:#x}",
        "vcpus": request.vcpus,
        "digests": [{"mode": str(a.mode), "legacy_vm_type": a.legacy_vm_type, "digest": a.digest} for a in answers],
    }
