# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch digest`: the launch digest of what `run` would start with the same options."""

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, Ui, write_json, write_stdout
from tools.launcher.base.values import Values
from tools.launcher.config.runtime_config import load_config
from tools.launcher.guest.binding import Binding, compose
from tools.launcher.measure.cpu_signature import parse_signature, signature_of
from tools.launcher.measure.digest_file import unbound_cmdline
from tools.launcher.options import launch_digests
from tools.launcher.options.arguments import (
    BUNDLE,
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
from tools.launcher.options.launch_digests import Answer, Request
from tools.launcher.options.parser import Group, Option, Syntax
from tools.launcher.options.program import EXCLUSIVE, PROGRAM, chosen, unfold
from tools.sev.limits import VCPUS_MAX
from tools.sev.modes import Mode
from tools.sev.workload.document import Document

_EXAMPLES = f"""examples:
  {NAME} digest --workload workload.json
      the digest that an attestation report of a guest bound to this document must carry
  {NAME} digest --rootfs app.erofs --verity HASH --cpus 4 -- /app
      … for `{NAME} run --rootfs app.erofs --verity HASH --cpus 4 -- /app`
  {NAME} digest --bundle app
      … for `{NAME} run --bundle app`
  {NAME} digest --unbound --mode all --json
      every mode, SEV-ES under both VM types, with all that the digests depend on
  {NAME} digest --workload workload.json --cpu-signature 0xa00f11
      for -cpu host on a machine whose CPUID Fn0000_0001_EAX is that"""


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
        BUNDLE,
        ROOTFS,
        ROOTFS_LIMIT,
        VERITY,
        JSON,
        QUIET,
    ),
    PROGRAM,
    exclusive=(("--cpu", "--cpu-signature"), *EXCLUSIVE),
    workload=True,
    usage=(
        "[options] --rootfs PATH -- COMMAND [ARGUMENT …]",
        "[options] --workload FILE",
        "[options] --bundle DIR",
        "[options] --unbound",
    ),
    examples=_EXAMPLES,
)


def run(given: Values, ui: Ui) -> int:
    """Print the digests of what is asked for."""
    unfold(given)
    with chosen(given, ui, memory=None) as (binding, _):
        request = _request(given, binding)
    launch_digests.check_artifacts(request.config)
    answers = launch_digests.answers(request)
    if not isinstance(binding, Document):  # the config knows of no workload
        _note_changes(request, answers, ui)
    if given.json:
        write_json(launch_digests.as_json(request, answers))
    else:
        write_stdout("".join(f"{answer.digest}  {launch_digests.label(request, answer)}\n" for answer in answers))
    return 0


def _request(given: Values, binding: Binding | None) -> Request:
    if given.verity is not None and given.rootfs is None:
        raise UserError("--verity belongs to --rootfs")
    config = load_config(given.config or default_config())
    modes = tuple(Mode) if given.mode == "all" else (Mode(given.mode) if given.mode else config.sev.mode,)
    cpu, signature = given.cpu or config.machine.cpu, given.cpu_signature
    if signature is not None:
        cpu = None
    elif modes != (Mode.SEV,):
        signature = signature_of(cpu)
    return Request(
        config=config,
        cmdline=compose(config, append=given.append or "", binding=binding, verity=given.verity, rootfs=given.rootfs),
        cpu=cpu,
        signature=signature,
        vcpus=given.cpus or config.machine.vcpus,
        modes=modes,
        both_vm_types=given.mode == "all",
    )


def _note_changes(request: Request, answers: list[Answer], ui: Ui) -> None:
    """Say where the answer is not what runtime.toml says, and by what."""
    config = request.config
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
