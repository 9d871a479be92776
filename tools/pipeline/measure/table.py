# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""launch-digests.json: the launch digests of a profile's artifacts, beside all that they depend on.

docs/launch-digests.md documents every key.
"""

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tools.pipeline.base import files as digest
from tools.pipeline.base.errors import BuildError
from tools.pipeline.measure import cpu_models
from tools.pipeline.measure.cpu_models import CPU_MODELS, CpuModel
from tools.pipeline.measure.digest import SEV_ES_FEATURES, SNP_FEATURES, VMSA_GPA, Inputs, Launch
from tools.pipeline.publish.runtime_config import Artifact
from tools.pipeline.recipes.guest import Guest, SevMode
from tools.pipeline.recipes.profiles import Profile
from tools.pipeline.tasks.project import Project

NAME = "launch-digests.json"
SCHEMA = 1
TABLE_VCPUS = 64
"""The tables go from 1 to this many vCPUs."""
_CPU_KEY = "recipes/guest.toml: machine.cpu"
_TOOL = "sev-snp-measure"
# What a VMM must do for the digests to hold; docs/launch-digests.md says where each is from.
_VMM = {
    "name": "QEMU",
    "kernel_hashes": True,
    "firmware": "the whole file, ending at 4 GiB: pflash unit 0 for sev and sev-es, -bios for snp",
    "vmsa": "registers as QEMU 9.1 or later resets them, written into the VMSA by KVM of Linux 6.10 or later",
    "debug_swap": False,
}


def write(project: Project, profile: Profile, *, parts: Mapping[str, tuple[str, Path]], target: Path) -> None:
    """Compute the digests of the artifacts in `parts` (role → file name and path) and write them to `target`.

    Raises BuildError for firmware without what a measured launch needs, UserError for an unknown CPU.
    """
    guest = project.recipes.guest
    # First, because it takes no time.
    cpu_models.find(guest.cpu, where=_CPU_KEY)
    files = {role: path for role, (_, path) in parts.items()}
    inputs = Inputs(
        firmware=files["firmware"],
        firmware_size=profile.firmware.size.bytes,
        kernel=files["kernel"],
        initramfs=files.get("initramfs"),
        cmdline=profile.cmdline,
    )
    artifacts = {role: Artifact.of(path, file=name) for role, (name, path) in parts.items()}
    found = document(
        Launch(inputs),
        profile=profile,
        guest=guest,
        artifacts=artifacts,
        version=project.version(),
    )
    digest.write_if_changed(target, serialise(found).encode())


def document(
    launch: Launch, *, profile: Profile, guest: Guest, artifacts: Mapping[str, Artifact], version: str
) -> dict[str, Any]:
    """The whole document, as JSON values."""
    own = cpu_models.find(guest.cpu, where=_CPU_KEY)
    return {
        "schema": SCHEMA,
        "profile": str(profile.kind),
        "version": version,
        "computed_with": {"name": _TOOL, "version": metadata.version(_TOOL)},
        "depends_on": {
            "artifacts": {role: _artifact(artifacts.get(role)) for role in ("firmware", "initramfs", "kernel")},
            "kernel_cmdline": profile.cmdline,
            "guest_features": {"sev-es": f"{SEV_ES_FEATURES:#x}", "snp": f"{SNP_FEATURES:#x}"},
            "vmm": _VMM,
        },
        "configured": {
            "cpu": guest.cpu,
            "vcpus": guest.vcpus,
            "legacy_vm_type": guest.sev_es_legacy_vm_type,
            "digests": _configured(launch, guest, own),
        },
        "cpu_models": {
            model.name: {"signature": f"{model.signature:#x}", "qemu_models": list(model.qemu_models)}
            for model in CPU_MODELS
        },
        "modes": _modes(launch),
    }


def _artifact(artifact: Artifact | None) -> dict[str, Any] | None:
    if artifact is None:
        return None
    return {"file": artifact.file, "sha256": artifact.sha256, "size": artifact.size}


def _configured(launch: Launch, guest: Guest, cpu: CpuModel) -> dict[str, str]:
    """What the runtime config says, were it started in each mode."""
    count, legacy = guest.vcpus, guest.sev_es_legacy_vm_type
    return {
        SevMode.SEV: launch.sev(),
        SevMode.SEV_ES: launch.sev_es(cpu.signature, legacy_vm_type=legacy, up_to=count)[-1],
        SevMode.SNP: launch.snp(cpu.signature, up_to=count)[-1],
    }


def _modes(launch: Launch) -> dict[str, Any]:
    starts = {model.name: launch.snp_start(model.signature) for model in CPU_MODELS}
    before = {start.before_vmsas for start in starts.values()}
    return {
        SevMode.SEV: {"algorithm": "sha256", "digest": launch.sev()},
        SevMode.SEV_ES: {
            "algorithm": "sha256",
            **{
                f"legacy-vm-type={'on' if legacy else 'off'}": {
                    model.name: _by_count(launch.sev_es(model.signature, legacy_vm_type=legacy, up_to=TABLE_VCPUS))
                    for model in CPU_MODELS
                }
                for legacy in (False, True)
            },
        },
        SevMode.SNP: {
            "algorithm": "sha384",
            "digests": {model.name: _by_count(launch.snp(model.signature, up_to=TABLE_VCPUS)) for model in CPU_MODELS},
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


def read_configured(path: Path) -> dict[str, str]:
    """From the file that write() made: mode → digest of exactly what the runtime config says."""
    try:
        digests: dict[str, str] = json.loads(path.read_bytes())["configured"]["digests"]
    except (ValueError, LookupError, TypeError):
        raise BuildError("is damaged", where=str(path), hint="delete it and build again") from None
    return digests
