# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch digest --vmm kata-go|kata-rust`: the launch digest of a pod.

kernel and firmware of runtime.toml ─┐
an initramfs of the user's, or none ─┼── launch digest
command line, composed or given ─────┘
"""

import hashlib
from pathlib import Path
from typing import Any

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import Ui
from tools.launcher.base.values import Values
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.kata import cmdline
from tools.launcher.kata.cmdline import RELEASES, Shape
from tools.launcher.measure.cpu_signature import signature_of
from tools.launcher.measure.launch_digest import LaunchDigests
from tools.sev.errors import FormatError
from tools.sev.hashes_table import hashes_table
from tools.sev.modes import Mode

# qemu_amd64.go, cpuModel(): what Kata's Go runtime starts SEV-SNP guests as.
_CPU = "EPYC-v4"
_CHUNK = 1 << 20
_OTHERS = ("image", "workload", "unbound", "bundle", "rootfs", "verity", "append")
"""Options of this project's own guests, which mean nothing to Kata."""


def answer(given: Values, config: RuntimeConfig, ui: Ui) -> tuple[str, dict[str, Any]]:
    """A line for people, and the same for programs. UserError for options that do not go together."""
    for name in _OTHERS:
        if given[name]:
            raise UserError(f"--vmm {given.vmm}: --{name} is for sev-launch's own guests")
    if given.argv:
        raise UserError(f"--vmm {given.vmm}: a command is for sev-launch's own guests")
    mode = Mode(given.mode) if given.mode and given.mode != "all" else Mode.SNP
    if given.mode == "all" or mode is Mode.SEV_ES or (mode is Mode.SEV and given.vmm == cmdline.GO):
        raise UserError(f"--mode {given.mode}: {given.vmm} starts no such guest", hint="snp; kata-rust: sev, too")
    if (given.initrd is None) == (given.root_image is None):
        raise UserError("give either --initrd FILE or --root-image FILESYSTEM", where=f"--vmm {given.vmm}")
    line = given.cmdline or cmdline.compose(_shape(given))
    initrd = None if given.initrd is None else _sha256(given.initrd)
    artifacts.verify(config, config.kernel)
    image = artifacts.read_verified(config, config.firmware)
    table = hashes_table(kernel_sha256=bytes.fromhex(config.kernel.sha256), initrd_sha256=initrd, cmdline=line)
    vcpus = _vcpus(given)
    signature = given.cpu_signature or signature_of(given.cpu or _CPU)
    try:
        own = LaunchDigests(image, table, where=str(config.path.parent / config.firmware.file))
    except FormatError as error:
        raise UserError.of(error) from None
    digest = own.digest(mode, signature=signature, vcpus=vcpus, legacy_vm_type=False)
    if not given.cmdline:
        ui.note(f"the command line is: {line}")
        ui.note("compare it with that of a pod that runs: docs/kata.md")
    of = f"{given.vmm} {given.kata_release or _newest(given)}" if not given.cmdline else f"{given.vmm}, line as given"
    document = {
        "schema": 1,
        "vmm": given.vmm,
        "kata_release": None if given.cmdline else given.kata_release or _newest(given),
        "mode": str(mode),
        "kernel_cmdline": line,
        "kernel_sha256": config.kernel.sha256,
        "firmware_sha256": config.firmware.sha256,
        "initrd_sha256": None if initrd is None else initrd.hex(),
        "cpu_signature": f"{signature:#x}",
        "vcpus": vcpus,
        "digest": digest,
    }
    return f"{digest}  {mode}, {of}, CPU signature {signature:#x}, {vcpus} vCPU{'' if vcpus == 1 else 's'}\n", document


def _vcpus(given: Values) -> int:
    count = given.cpus or 1
    if count != int(count):
        raise UserError(f"argument --cpus: {count} is no whole number", hint="Kata rounds up")
    return int(count)


def _newest(given: Values) -> str:
    return list(RELEASES[str(given.vmm)])[-1]


def _shape(given: Values) -> Shape:
    most = given.max_cpus
    return Shape(
        vmm=given.vmm,
        release=given.kata_release or _newest(given),
        image=given.root_image,
        verity=given.root_verity or "",
        kernel_params=given.kernel_params or "",
        agent=given.agent_params,
        vcpus_max=None if most == 0 else most or _vcpus(given),
        selinux=given.guest_selinux,
        debug=given.kata_debug,
        scsi=given.scsi,
    )


def _sha256(path: Path) -> bytes:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", where=f"--initrd {path}") from None
    return digest.digest()
