# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch digest`: the launch digest of what `run` would start with the same options."""

from decimal import Decimal

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, Ui, write_json, write_stdout
from tools.launcher.base.values import Values
from tools.launcher.config import sums
from tools.launcher.config.runtime_config import RuntimeConfig, load_config
from tools.launcher.guest.binding import Binding, compose
from tools.launcher.kata import pod
from tools.launcher.measure.cpu_signature import parse_signature, signature_of
from tools.launcher.measure.digest_file import unbound_cmdline
from tools.launcher.oci.settings import Settings
from tools.launcher.options import kata_options, launch_digests
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
    ids,
)
from tools.launcher.options.container import CONTAINER, check_alone, cpus, options_of
from tools.launcher.options.launch_digests import Answer, Request
from tools.launcher.options.parser import Group, Option, Syntax
from tools.launcher.options.program import EXCLUSIVE, PROGRAM, chosen, unfold, warn_of_secrets
from tools.launcher.options.progress import MKFS, OWN_MKFS, progress
from tools.sev.formats import MKFS_NAME, NETWORK, with_addition
from tools.sev.modes import Mode
from tools.sev.workload.document import Document

_EXAMPLES = f"""examples:
  {NAME} digest --workload workload.json
      the digest that an attestation report of a guest bound to this document must carry
  {NAME} digest --rootfs app.erofs --verity "$HASH" --cpus 4 -- /app
      … for `{NAME} run --rootfs app.erofs --verity "$HASH" --cpus 4 -- /app`
  {NAME} digest --bundle app
      … for `{NAME} run --bundle app`
  {NAME} digest --unbound --mode all --json
      every mode, SEV-ES under both VM types, with all that the digests depend on
  {NAME} digest --workload workload.json --cpu-signature 0xa00f11
      for -cpu host on a machine whose CPUID Fn0000_0001_EAX is that
  {NAME} digest --image app.tar --env LOG=debug --read-only -- --serve
      … for `docker run --runtime sev-runtime --env LOG=debug --read-only app --serve` of that image
  {NAME} digest --vmm kata-go --initrd kata-initrd.img --kernel-params 'cgroup_no_v1=all'
      of a pod that Kata's Go runtime starts with this kernel and firmware"""
_NOT_BESIDE_IMAGE = ("--rootfs", "--workload", "--bundle", "--unbound", "--verity", "--append")
_ASKED = {"reports": "socket", "raw-reports": "raw"}


SYNTAX = Syntax(
    Group(
        "options",
        CONFIG,
        Option("--mode", choices=[*(str(mode) for mode in Mode), "all"], text="protection; default: the config's"),
        Option("--cpus", "N", text="vCPUs, as for run; with --image, as for an engine's", convert=cpus),
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
        MKFS,
        JSON,
        QUIET,
    ),
    Group(
        PROGRAM.title,
        Option("--user", "USER[:GROUP]", text="numbers, default 0:0; with --image names, too, default: the image's"),
        *(option for option in PROGRAM.options if option.name != "--user"),
    ),
    CONTAINER,
    kata_options.KATA,
    exclusive=(("--cpu", "--cpu-signature"), *EXCLUSIVE, *(("--image", other) for other in _NOT_BESIDE_IMAGE)),
    workload=True,
    usage=(
        "[options] --rootfs PATH -- COMMAND [ARGUMENT …]",
        "[options] --workload FILE",
        "[options] --bundle DIR",
        "[options] --unbound",
        "[options] --image PATH [options of an engine's run] [-- ARGUMENT …]",
        "[options] --vmm {kata-go,kata-rust} --initrd FILE",
    ),
    examples=_EXAMPLES,
    stranger=" (with --image: what --help does not list of an engine's options changes no digest; leave it out)",
)


def run(given: Values, ui: Ui) -> int:
    """Print the digests of what is asked for."""
    if given.vmm:
        line, document = pod.answer(given, load_config(given.config or default_config()), ui)
        if given.json:
            write_json(document)
        else:
            write_stdout(line)
        return 0
    kata_options.check_alone(given)
    if given.image is not None:
        return _of_image(given, ui)
    check_alone(given)
    given["user"] = _numbers(given)
    unfold(given)
    with chosen(given, ui, memory=None) as (binding, _):
        network = isinstance(binding, Document) and binding.network != "none"
        request = _request(given, binding, load_config(given.config or default_config(network=network)))
    launch_digests.check_artifacts(request.config)
    answers = launch_digests.answers(request)
    if not isinstance(binding, Document):  # the config knows of no workload
        _note_changes(request, answers, ui)
    if given.json:
        write_json(launch_digests.as_json(request, answers))
    else:
        write_stdout("".join(f"{answer.digest}  {launch_digests.label(request, answer)}\n" for answer in answers))
    return 0


def _request(given: Values, binding: Binding | None, config: RuntimeConfig) -> Request:
    if given.verity is not None and given.rootfs is None:
        raise UserError("--verity belongs to --rootfs")
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
        vcpus=_vcpus(given.cpus) or config.machine.vcpus,
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


def _numbers(given: Values) -> tuple[int, int] | None:
    """A user where no image says who has a name."""
    try:
        return None if given.user is None else ids(given.user)
    except ValueError as error:
        raise UserError(f"argument --user: {error}", hint=f"see {NAME} digest --help") from None


def _vcpus(count: Decimal | None) -> int | None:
    if count is not None and count != int(count):
        raise UserError(f"argument --cpus: {count} is no whole number", hint="parts of a CPU belong to --image")
    return None if count is None else int(count)


def _of_image(given: Values, ui: Ui) -> int:
    """The digests of the guest that a runtime makes of an image."""
    options = options_of(given)
    plain = given.config or default_config()
    # A guest without a network has a kernel without any driver for one.
    networks = plain.with_name(with_addition(plain.name, NETWORK))
    config = load_config(networks if options.network and given.config is None else plain)
    launch_digests.check_artifacts(config)
    other = sorted(set(given.open) - {*_ASKED, "host-reports"})
    if other:
        raise UserError(
            f"--open {other[0]}: an engine opens it where it is asked to", hint="say --interactive or --tty"
        )
    settings = Settings(
        exec=tuple(given.exec),
        reports=next((_ASKED[word] for word in given.open if word in _ASKED), "none"),
        host_reports="host-reports" in given.open,
        writable=tuple(volume.source for volume in options.volumes if volume.write),
    )
    # Only an image needs what starts mkfs.erofs.
    from tools.launcher.bundle.sources import Wanted  # noqa: PLC0415
    from tools.launcher.oci.from_image import translated  # noqa: PLC0415

    mkfs = given.mkfs or sums.checked(plain.parent / MKFS_NAME, hint=OWN_MKFS)
    with progress(ui) as begin:
        done = translated(
            Wanted(source=given.image, name=given.image_name),
            options,
            settings=settings,
            stdin=given.interactive,
            mkfs=mkfs.absolute(),
            note=ui.note,
            begin=begin,
        )
    warn_of_secrets(given, ui)
    for line in done.notes:
        ui.note(line)
    if given.document:
        write_stdout(done.document.data.decode())
        return 0
    given["cpus"] = Decimal(done.vcpus)
    request = _request(given, done.document, config)
    answers = launch_digests.answers(request)
    if given.json:
        write_json({**launch_digests.as_json(request, answers), "workload": done.document.sha256})
    else:
        write_stdout("".join(f"{answer.digest}  {launch_digests.label(request, answer)}\n" for answer in answers))
    return 0
