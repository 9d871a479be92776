# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""runtime.toml and the drop-ins for Kata Containers: templates of recipes/, rendered in the sandbox (render.py).

recipes/*.j2 ── values of the recipes ── artifacts, launch-digests.json ── render.py ── TOML
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from tools.pipeline.engine.step import CheckoutFile, Literal, Reference, Step
from tools.pipeline.recipes.guest import Guest
from tools.pipeline.recipes.profiles import Profile
from tools.sev import policy

RUNTIME = "recipes/runtime.toml.j2"
KATA = "recipes/kata/dropin.toml.j2"
CONFIG = "runtime.toml"
_PROGRAM = "tools/pipeline/publish/render.py"
_TOOLS = "python"
# QEMU target/i386/sev.c, DEFAULT_GUEST_POLICY: what Kata's plain SEV guests get, for it has no key for it.
QEMU_SEV_POLICY = 0x1


class Variant(StrEnum):
    """The protection that a drop-in for Kata asks for."""

    SNP = "snp"
    SEV = "sev"

    @property
    def file(self) -> str:
        """Name in config.d, where files are read in alphabetical order."""
        return f"50-sev-artifacts-{self}.toml"


def runtime(
    profile: Profile, guest: Guest, *, name: str, files: Mapping[str, str], artifacts: Mapping[str, Reference],
    digests: Reference, version: str,
) -> Step:  # fmt: skip
    """The step that renders a runtime.toml. `files` and `artifacts` by role: name in the output folder, and bytes.

    `name` stands after "runtime-" and, in the first line, for the profile.
    """
    values = {**_common(profile, guest), "version": version, "files": dict(files)}
    return _step(
        name=f"runtime-{name}",
        title=f"runtime config, {name}",
        template=RUNTIME,
        documents={CONFIG: values},
        artifacts=artifacts,
        digests=digests,
    )


def kata(profile: Profile, guest: Guest, *, kernel: str, firmware: str) -> Step:
    """The step that renders the drop-ins; `kernel` and `firmware` are file names in the output folder."""
    documents = {
        variant.file: {
            **_common(profile, guest),
            "name": variant.file,
            "snp": variant is Variant.SNP,
            "kernel": kernel,
            "firmware": firmware,
            "kernel_params": kernel_params(profile),
            "qemu_sev_policy": QEMU_SEV_POLICY,
            "qemu_openings": policy.openings(QEMU_SEV_POLICY, policy.SEV),
        }
        for variant in Variant
    }
    return _step(
        name=f"dropins-{profile.name}", title=f"drop-ins for Kata Containers, {profile.name}", template=KATA,
        documents=documents,
    )  # fmt: skip


def kernel_params(profile: Profile) -> str:
    """The profile's command line without what only this project's agent reads."""
    words = profile.cmdline.split(" ")
    return " ".join(word for word in words if word and not word.startswith("sev_agent."))


def _common(profile: Profile, guest: Guest) -> dict[str, Any]:
    policies = {"snp": guest.snp_policy, "sev-es": guest.sev_es_policy, "sev": guest.sev_policy}
    return {
        "profile": {"name": profile.name, "kind": profile.kind, "cmdline": profile.cmdline, "console": profile.console},
        "guest": {
            "machine": guest.machine,
            "cpu": guest.cpu,
            "vcpus": guest.vcpus,
            "memory": guest.memory,
            "mode": guest.mode,
            "reduced_phys_bits": guest.reduced_phys_bits,
            "snp_policy": guest.snp_policy,
            "sev_es_policy": guest.sev_es_policy,
            "sev_policy": guest.sev_policy,
            "sev_es_legacy_vm_type": guest.sev_es_legacy_vm_type,
            "rng": guest.rng,
        },
        "policies": {mode: policy.spell(bits, policy.LAYOUTS[mode]) for mode, bits in policies.items()},
        "openings": {mode: policy.openings(bits, policy.LAYOUTS[mode]) for mode, bits in policies.items()},
        "open_because": dict(guest.open_because),
    }


def _step(
    *, name: str, title: str, template: str, documents: Mapping[str, Mapping[str, Any]],
    artifacts: Mapping[str, Reference] | None = None, digests: Reference | None = None,
) -> Step:  # fmt: skip
    request = {"where": template, "documents": documents}
    inputs: dict[str, Reference] = {
        "/inputs/render.py": CheckoutFile(path=_PROGRAM),
        "/inputs/template.j2": CheckoutFile(path=template),
        "/inputs/request.json": Literal(data=json.dumps(request, sort_keys=True).encode()),
    }
    words = []
    for role, reference in (artifacts or {}).items():
        inputs[f"/inputs/artifacts/{role}"] = reference
        words.append(f"{role}=/inputs/artifacts/{role}")
    if digests is not None:
        inputs["/inputs/launch-digests.json"] = digests
        words.append("digests=/inputs/launch-digests.json")
    return Step(
        name=name,
        title=title,
        argv=("python3", "/inputs/render.py", "/inputs/request.json", "/inputs/template.j2", "/out", *words),
        tools=_TOOLS,
        inputs=inputs,
        outputs=tuple(documents),
        mistakes=True,
    )
