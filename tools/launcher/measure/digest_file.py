# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""launch-digests.json and the summary in runtime.toml, checked against the launcher's own computation.

The build computed them with another program (docs/launch-digests.md) and asks here whether both agree.
"""

import json
from itertools import islice
from pathlib import Path
from typing import Any

from tools.launcher.base import files
from tools.launcher.base.errors import UserError
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import Artifact, RuntimeConfig
from tools.launcher.measure.cpu_signature import signature_of
from tools.launcher.measure.launch_digest import LaunchDigests, sha384_of
from tools.sev.agent import agent_abi
from tools.sev.cpu_models import CPU_MODELS
from tools.sev.errors import FormatError
from tools.sev.formats import DIGESTS_SCHEMA, DIGESTS_VCPUS, digests_beside
from tools.sev.hashes_table import hashes_table
from tools.sev.modes import Mode
from tools.sev.vmsa import SEV_ES_FEATURES, SNP_FEATURES, VMSA_GPA

_MAX = 1 << 20
_HINT = "rebuild with ./doit build, or restore the file"
# What the file says about its making, which nothing here can check.
_STATEMENTS = (("computed_with",), ("depends_on", "vmm"))


def launch_digests(config: RuntimeConfig, *, cmdline: str) -> LaunchDigests:
    """The digests of the config's artifacts under `cmdline`; UserError when the firmware is not the config's.

    Kernel and initramfs are taken by the digests that the config names.
    """
    image = artifacts.read_verified(config, config.firmware)
    initramfs = None if config.initramfs is None else bytes.fromhex(config.initramfs.sha256)
    table = hashes_table(kernel_sha256=bytes.fromhex(config.kernel.sha256), initrd_sha256=initramfs, cmdline=cmdline)
    try:
        return LaunchDigests(image, table, where=str(config.path.parent / config.firmware.file))
    except FormatError as error:
        raise UserError.of(error) from None


def check(config: RuntimeConfig) -> None:
    """UserError where the summary or the file says something else than what is computed here."""
    own = launch_digests(config, cmdline=unbound_cmdline(config))
    summary = configured(config, own)
    for mode, computed in summary.items():
        said = config.launch_digests[mode]
        if said != computed:
            raise UserError(
                f"says {said}, computed is {computed}",
                where=f"{config.path}: launch-digest.{mode}",
                hint="was the file edited? rebuild with ./doit build",
            )
    path = config.path.parent / digests_beside(config.path.name)
    found = _read(path)
    for *parents, key in _STATEMENTS:
        table = found
        for parent in parents:
            table = table.get(parent, {})
        if not isinstance(table, dict) or not isinstance(table.pop(key, None), dict):
            raise UserError("missing", where=f"{path}: {'.'.join([*parents, key])}", hint=_HINT)
    _compare(found, _expected(config, own, summary), where=str(path), key="")


def unbound_cmdline(config: RuntimeConfig) -> str:
    """What the digests in config and file are of: an unbound guest without further options."""
    return agent_abi.with_binding(config.cmdline, agent_abi.UNBOUND)


def configured(config: RuntimeConfig, own: LaunchDigests) -> dict[Mode, str]:
    """The digest of the config's machine, were it started in each mode."""
    signature = signature_of(config.machine.cpu)
    return {
        mode: own.digest(
            mode,
            signature=signature,
            vcpus=config.machine.vcpus,
            legacy_vm_type=config.sev.legacy_vm_type,
        )
        for mode in Mode
    }


def _read(path: Path) -> dict[str, Any]:
    raw = files.read(path, _MAX, hint=_HINT)
    try:
        found = json.loads(raw.decode())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError("is no JSON object", where=str(path), hint=_HINT)
    return found


def _expected(config: RuntimeConfig, own: LaunchDigests, summary: dict[Mode, str]) -> dict[str, Any]:
    return {
        "schema": DIGESTS_SCHEMA,
        "profile": str(config.profile),
        "version": config.version,
        "depends_on": {
            "artifacts": {
                "firmware": _artifact(config.firmware),
                "initramfs": _artifact(config.initramfs),
                "kernel": _artifact(config.kernel),
            },
            "base_cmdline": config.cmdline,
            "kernel_cmdline": unbound_cmdline(config),
            "guest_features": {"sev-es": f"{SEV_ES_FEATURES:#x}", "snp": f"{SNP_FEATURES:#x}"},
        },
        "configured": {
            "cpu": config.machine.cpu,
            "vcpus": config.machine.vcpus,
            "legacy_vm_type": config.sev.legacy_vm_type,
            "digests": {str(mode): digest for mode, digest in summary.items()},
        },
        "cpu_models": {
            model.name: {"signature": f"{model.signature:#x}", "qemu_models": list(model.qemu_models)}
            for model in CPU_MODELS
        },
        "modes": _modes(own),
    }


def _artifact(artifact: Artifact | None) -> dict[str, Any] | None:
    if artifact is None:
        return None
    return {"file": artifact.file, "sha256": artifact.sha256, "size": artifact.size}


def _modes(own: LaunchDigests) -> dict[str, Any]:
    variants = {f"legacy-vm-type={'on' if legacy else 'off'}": legacy for legacy in (False, True)}
    pages = {model.name: own.vmsa_pages(model.signature, features=SNP_FEATURES, fpu=True) for model in CPU_MODELS}
    return {
        "sev": {"algorithm": "sha256", "digest": own.sev()},
        "sev-es": {"algorithm": "sha256"}
        | {
            label: {model.name: _by_count(own.sev_es(model.signature, legacy_vm_type=legacy)) for model in CPU_MODELS}
            for label, legacy in variants.items()
        },
        "snp": {
            "algorithm": "sha384",
            "digests": {model.name: _by_count(own.snp(model.signature)) for model in CPU_MODELS},
            "resumable": {
                "before_vmsas": own.snp_before_vmsas.hex(),
                "vmsa_gpa": f"{VMSA_GPA:#x}",
                "vmsa_pages": {name: {"bsp": sha384_of(bsp), "ap": sha384_of(ap)} for name, (bsp, ap) in pages.items()},
            },
        },
    }


def _by_count(digests: Any) -> dict[str, str]:
    return {str(count): digest for count, digest in enumerate(islice(digests, DIGESTS_VCPUS), start=1)}


def _compare(found: Any, expected: Any, *, where: str, key: str) -> None:
    """Both are JSON values; the first difference in the order of keys is the error."""
    place = f"{where}: {key}" if key else where
    if not isinstance(expected, dict) or not isinstance(found, dict):
        # 1 == True == 1.0 in Python, not in JSON.
        if type(found) is not type(expected) or found != expected:
            raise UserError(f"says {_short(found)}, must be {_short(expected)}", where=place, hint=_HINT)
        return
    for name in sorted(found.keys() | expected.keys()):
        below = f"{key}.{name}" if key else name
        if name not in found or name not in expected:
            what = "unknown key" if name in found else "missing"
            raise UserError(what, where=f"{where}: {below[:200]}", hint=_HINT)
        _compare(found[name], expected[name], where=where, key=below)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}…"
