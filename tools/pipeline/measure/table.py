# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""launch-digests.json: the launch digests of a profile's artifacts, beside all that they depend on.

A function of plain values and files: program.py runs it in the sandbox. docs/launch-digests.md documents every
key.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tools.pipeline.measure.digest import Inputs, Launch
from tools.sev import cpu_models
from tools.sev.agent import agent_abi
from tools.sev.cpu_models import CPU_MODELS, CpuModel
from tools.sev.formats import DIGESTS_SCHEMA, DIGESTS_VCPUS
from tools.sev.modes import Mode, ProfileKind
from tools.sev.vmsa import SEV_ES_FEATURES, SNP_FEATURES, VMSA_GPA

ROLES = ("firmware", "initramfs", "kernel")
CPU_KEY = "recipes/guest.toml: machine.cpu"
_TOOL = "sev-snp-measure"
# What a VMM must do for the digests to hold; docs/launch-digests.md says where each is from.
_VMM = {
    "name": "QEMU",
    "kernel_hashes": True,
    "firmware": "the whole file, ending at 4 GiB: pflash unit 0 for sev and sev-es, -bios for snp",
    "vmsa": "registers as QEMU 9.1 or later resets them, written into the VMSA by KVM of Linux 6.10 or later",
    "debug_swap": False,
}


@dataclass(frozen=True, kw_only=True)
class Guest:
    """The guest whose digests are wanted: one that leaves it to the host what runs.

    `cmdline` is what all guests of the profile have in common; what follows says who decides.
    `artifacts` are file names by role, without initramfs where the kernel brings it; `firmware_size` is in
    bytes and what the firmware must have.
    """

    profile: ProfileKind
    version: str
    cpu: str
    vcpus: int
    legacy_vm_type: bool
    cmdline: str
    firmware_size: int
    artifacts: Mapping[str, str]


def document(guest: Guest, files: Mapping[str, Path]) -> dict[str, Any]:
    """The whole document, as JSON values; `files` are the artifacts by role.

    FormatError for an unknown CPU model (where: CPU_KEY) and for firmware without what a measured launch needs,
    OSError for an artifact that cannot be read.
    """
    cmdline = agent_abi.with_binding(guest.cmdline, agent_abi.UNBOUND)
    # First, because it takes no time.
    own = cpu_models.find(guest.cpu, where=CPU_KEY)
    launch = Launch(
        Inputs(
            firmware=files["firmware"],
            firmware_size=guest.firmware_size,
            kernel=files["kernel"],
            initramfs=files.get("initramfs"),
            cmdline=cmdline,
        )
    )
    return {
        "schema": DIGESTS_SCHEMA,
        "profile": str(guest.profile),
        "version": guest.version,
        "computed_with": {"name": _TOOL, "version": metadata.version(_TOOL)},
        "depends_on": {
            "artifacts": {
                role: _artifact(guest.artifacts[role], files[role]) if role in files else None for role in ROLES
            },
            "base_cmdline": guest.cmdline,
            "kernel_cmdline": cmdline,
            "guest_features": {"sev-es": f"{SEV_ES_FEATURES:#x}", "snp": f"{SNP_FEATURES:#x}"},
            "vmm": _VMM,
        },
        "configured": {
            "cpu": guest.cpu,
            "vcpus": guest.vcpus,
            "legacy_vm_type": guest.legacy_vm_type,
            "digests": _configured(launch, guest, own),
        },
        "cpu_models": {
            model.name: {"signature": f"{model.signature:#x}", "qemu_models": list(model.qemu_models)}
            for model in CPU_MODELS
        },
        "modes": _modes(launch),
    }


def _artifact(name: str, path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def _configured(launch: Launch, guest: Guest, cpu: CpuModel) -> dict[str, str]:
    """What the runtime config says, were it started in each mode."""
    count, legacy = guest.vcpus, guest.legacy_vm_type
    return {
        Mode.SEV: launch.sev(),
        Mode.SEV_ES: launch.sev_es(cpu.signature, legacy_vm_type=legacy, up_to=count)[-1],
        Mode.SNP: launch.snp(cpu.signature, up_to=count)[-1],
    }


def _modes(launch: Launch) -> dict[str, Any]:
    starts = {model.name: launch.snp_start(model.signature) for model in CPU_MODELS}
    before = {start.before_vmsas for start in starts.values()}
    return {
        Mode.SEV: {"algorithm": "sha256", "digest": launch.sev()},
        Mode.SEV_ES: {
            "algorithm": "sha256",
            **{
                f"legacy-vm-type={'on' if legacy else 'off'}": {
                    model.name: _by_count(launch.sev_es(model.signature, legacy_vm_type=legacy, up_to=DIGESTS_VCPUS))
                    for model in CPU_MODELS
                }
                for legacy in (False, True)
            },
        },
        Mode.SNP: {
            "algorithm": "sha384",
            "digests": {
                model.name: _by_count(launch.snp(model.signature, up_to=DIGESTS_VCPUS)) for model in CPU_MODELS
            },
            "resumable": {
                "before_vmsas": before.pop(),
                "vmsa_gpa": f"{VMSA_GPA:#x}",
                "vmsa_pages": {name: {"bsp": start.bsp, "ap": start.ap} for name, start in starts.items()},
            },
        },
    }


def _by_count(digests: Sequence[str]) -> dict[str, str]:
    return {str(count): text for count, text in enumerate(digests, start=1)}


def serialise(found: Mapping[str, Any]) -> str:
    """The bytes of the file: keys sorted, numbers among them by value, one entry a line."""
    return json.dumps(_sorted(found), indent=1, ensure_ascii=False) + "\n"


def _sorted(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    keys = sorted(value, key=lambda key: (int(key) if key.isdecimal() else 0, key))
    return {str(key): _sorted(value[key]) for key in keys}
