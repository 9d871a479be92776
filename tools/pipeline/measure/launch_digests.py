# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The step that writes launch-digests.json: program.py in the sandbox, with sev-snp-measure's wheel beside it.

artifacts ── values of the recipes ── tools/sev, measure/, the wheel ── program.py ── launch-digests.json
"""

from collections.abc import Mapping
from pathlib import Path

from tools.pipeline.engine.step import CheckoutFile, Literal, Reference, Step
from tools.pipeline.measure.program import guest_json
from tools.pipeline.measure.table import Guest
from tools.pipeline.recipes import guest as recipe
from tools.pipeline.recipes.profiles import Profile
from tools.sev.formats import DIGESTS_NAME

# What the program imports of ours: a module that is not here does not exist in the sandbox.
_CODE = ("tools/__init__.py", "tools/pipeline/__init__.py",
         *(f"tools/pipeline/measure/{name}.py" for name in ("__init__", "digest", "program", "table")))  # fmt: skip
_WHEEL = "/inputs/sev_snp_measure.whl"
_ARTIFACTS = "/inputs/artifacts"


def step(
    profile: Profile,
    guest: recipe.Guest,
    *,
    name: str,
    root: Path,
    files: Mapping[str, str],
    artifacts: Mapping[str, Reference],
    wheel: Reference,
    version: str,
) -> Step:
    """The step for a profile. `files` and `artifacts` by role: file name in the output folder, and bytes.

    `name` stands after "digests-".
    """
    values = Guest(
        profile=profile.kind,
        version=version,
        cpu=guest.cpu,
        vcpus=guest.vcpus,
        legacy_vm_type=guest.sev_es_legacy_vm_type,
        cmdline=profile.cmdline,
        firmware_size=profile.firmware.size.bytes,
        artifacts=files,
    )
    code = [*_CODE, *(path.relative_to(root).as_posix() for path in sorted((root / "tools/sev").rglob("*.py")))]
    program = ("python3", "-m", "tools.pipeline.measure.program")
    return Step(
        name=f"digests-{name}",
        title=f"launch digests, {name}",
        argv=(*program, "/inputs/guest.json", _ARTIFACTS, f"/out/{DIGESTS_NAME}"),
        tools="python",
        inputs={
            "/inputs/guest.json": Literal(data=guest_json(values)),
            _WHEEL: wheel,
            **{f"/src/{path}": CheckoutFile(path=path) for path in code},
            **{f"{_ARTIFACTS}/{files[role]}": reference for role, reference in artifacts.items()},
        },
        outputs=(DIGESTS_NAME,),
        environment={"PYTHONPATH": f"/src:{_WHEEL}"},
        mistakes=True,
    )
