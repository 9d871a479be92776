# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""idblock: signs what is built; never runs by itself, because it takes the owner's key."""

from functools import partial
from typing import Any

from tools.pipeline.base.errors import UserError
from tools.pipeline.measure import signing
from tools.pipeline.measure.signing import Built, Wish
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks.doit_glue import Task, action
from tools.pipeline.tasks.project import Project


def _param(name: str, text: str, default: str = "") -> dict[str, Any]:
    # Everything is a string here: doit's own conversions answer a mistake with its own status and usage.
    return {"name": name, "long": name.replace("_", "-"), "type": str, "default": default, "help": text}


# But for the profile: the fields of Wish.
_PARAMS = [
    _param("key", "PEM file with the P-384 private key that signs the ID block"),
    _param("author_key", "PEM file with the P-384 private key that signs the ID key"),
    _param("profile", "profile whose artifacts are meant", DEFAULT_PROFILE),
    _param("family_id", "16 ASCII characters or 32 hexadecimal digits; default: recipes/guest.toml"),
    _param("image_id", "16 ASCII characters or 32 hexadecimal digits; default: recipes/guest.toml"),
    _param("svn", "guest security version number; default: recipes/guest.toml"),
    _param("cpu", "QEMU CPU model; default: recipes/guest.toml"),
    _param("vcpus", "number of vCPUs; default: recipes/guest.toml"),
    _param("workload", "workload document whose guest is meant (docs/workload.md)"),
    {"name": "unbound", "long": "unbound", "type": bool, "default": False, "help": "the guest that the host commands"},
    _param("digest", "launch digest in hex, instead of that of the built artifacts"),
    _param("out", "folder to write to; default: build/idblock/PROFILE"),
]


def idblock(project: Project) -> Task:
    """ID block and ID authentication information of what is built."""
    return {
        "doc": "sign an ID block for the built artifacts: ./doit idblock --key FILE (docs/id-block.md)",
        "actions": [action(partial(_sign, project))],
        "params": _PARAMS,
        "io": {"capture": False},
    }


def _sign(project: Project, *, profile: str, unbound: bool, **options: str) -> None:
    names = [profile.name for profile in project.recipes.profiles]
    if profile not in names:
        raise UserError(f"{profile[:80]!r} is none of: {', '.join(names)}", where="--profile")
    chosen = project.recipes.profile(profile)
    built = Built(
        root=project.root,
        out=project.out(chosen),
        guest=project.recipes.guest,
        profile=chosen,
        snp_digest=signing.compute_snp_digest,
    )
    signing.make(built, Wish(unbound=unbound, **options), folder=project.build / "idblock" / profile)
