# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""idblock: signs what is built; never runs by itself, because it takes the owner's key."""

from functools import partial

from tools.pipeline.base.errors import UserError
from tools.pipeline.measure import signing
from tools.pipeline.measure.signing import Built, Wish
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks.doit_glue import Task, action, option, switch
from tools.pipeline.tasks.project import Project

# But for the profile: the fields of Wish.
_PARAMS = [
    option("key", "PEM file with the P-384 private key that signs the ID block"),
    option("author_key", "PEM file with the P-384 private key that signs the ID key"),
    option("profile", "profile whose artifacts are meant", DEFAULT_PROFILE),
    option("family_id", "16 ASCII characters or 32 hexadecimal digits; default: recipes/guest.toml"),
    option("image_id", "16 ASCII characters or 32 hexadecimal digits; default: recipes/guest.toml"),
    option("svn", "guest security version number; default: recipes/guest.toml"),
    option("cpu", "QEMU CPU model; default: recipes/guest.toml"),
    option("vcpus", "number of vCPUs; default: recipes/guest.toml"),
    option("workload", "workload document whose guest is meant (docs/workload.md)"),
    switch("unbound", "the guest that the host commands"),
    option("digest", "launch digest in hex, instead of that of the built artifacts"),
    option("out", "folder to write to; default: build/idblock/PROFILE"),
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
    names = [profile.name for profile in project.recipes.all_profiles]
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
