# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Firmware that lacks a defence: one build step, whose outputs never get near out/.

source-edk2, patched ── patches 0001 to 0004 taken back ─┬─ upstream.fd: verifies what the table names
                                                         └─ unverified.fd: verifies nothing
"""

from functools import partial
from pathlib import PurePath

from tools.attack.base.lab import Lab
from tools.attack.base.target import Target
from tools.pipeline.engine.step import CheckoutFile, Step
from tools.pipeline.guest import source_tree
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE

UPSTREAM, UNVERIFIED = "upstream.fd", "unverified.fd"
# What the others change is no defence that a row judges.
_BACK = ("0004-*.patch", "0003-*.patch", "0002-*.patch", "0001-*.patch")
_GIVEN = ("/inputs/build.sh", "/inputs/platform/")
_SCRIPT = f"{PurePath(__file__).parent.name}/build-firmware.sh"


def upstream(lab: Lab, target: Target) -> Target:
    """edk2's own verifier: what the hashes table does not name, and blobs of other names, start unverified."""
    return lab.once(f"{target.name}, upstream firmware", partial(_with, lab, target, UPSTREAM))


def unverified(lab: Lab, target: Target) -> Target:
    """No verifier at all, as in OVMF for guests that are not measured."""
    return lab.once(f"{target.name}, unverified firmware", partial(_with, lab, target, UNVERIFIED))


def _with(lab: Lab, target: Target, output: str) -> Target:
    image = lab.output(_step(lab), output).read_bytes()
    name = f"{target.name}, {output}"
    return target.derive(name, lab.folder(name) / "out", firmware=image)


def _step(lab: Lab) -> Step:
    project = lab.project
    recipe = project.recipes.profile(DEFAULT_PROFILE).firmware
    shipped = project.plan.firmware(recipe)
    (source,) = shipped.needs
    found = [path for pattern in _BACK for path in sorted((project.root / recipe.patches).glob(pattern))]
    back = {
        f"/inputs/back/{number}.patch": CheckoutFile(path=path.relative_to(project.root).as_posix())
        for number, path in enumerate(found)
    }
    command = f"{source_tree.UNPACK} && exec bash /inputs/undefended.sh {recipe.target} {recipe.size.kibibytes}"
    return Step(
        name=f"firmware-{recipe.name}-undefended",
        title=f"firmware without defences, for attacks ({recipe.name})",
        argv=("/bin/sh", "-euc", command),
        tools="build",
        inputs={
            **source_tree.inputs(source),
            **{path: given for path, given in shipped.inputs.items() if path.startswith(_GIVEN)},
            "/inputs/undefended.sh": CheckoutFile(path=f"tools/attack/{_SCRIPT}"),
            **back,
        },
        outputs=(UPSTREAM, UNVERIFIED),
        parallel=True,
    )
