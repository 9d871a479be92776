# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A kernel without the project's patches and its hardening: Debian's cloud kernel of the same version."""

from functools import partial

from tools.attack.base.lab import Lab
from tools.attack.base.target import Target
from tools.pipeline.base.errors import BuildError


def debian(lab: Lab, target: Target) -> Target:
    """The target with Debian's kernel in its kernel's place."""
    return lab.once(f"{target.name}, Debian's kernel", partial(_with, lab, target))


def _with(lab: Lab, target: Target) -> Target:
    found = sorted((lab.tree("bench") / "boot").glob("vmlinuz-*"))
    if len(found) != 1:
        raise BuildError(f"has {len(found)} kernels in boot/, not one", where=str(lab.tree("bench")))
    name = f"{target.name}, Debian's kernel"
    return target.derive(name, lab.folder(name) / "out", kernel=found[0].read_bytes())
