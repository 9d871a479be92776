# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""cve and report: what is said of a build, for people and for scanners.

fetch:sources, artifacts:PROFILE ── cve, cve:PROFILE ── a table, JSON, VEX
                                └── report, report:PROFILE ── build/report/…/report.html
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.pipeline.base import ambient, files, ui
from tools.pipeline.base.errors import SevArtifactsError
from tools.pipeline.guest import firmware
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Profile
from tools.pipeline.sources import mirrors, pins
from tools.pipeline.sources.pins import Source
from tools.pipeline.tasks.doit_glue import Task, action
from tools.pipeline.tasks.project import Project
from tools.sev.errors import mask, printable

if TYPE_CHECKING:
    from tools.pipeline.report.compiled import Compiled
    from tools.pipeline.report.gather import Subject
    from tools.pipeline.report.states import Report

KERNEL_LIST = {
    "name": "kernel_list", "long": "kernel-list", "type": str, "default": "",
    "help": "a copy of the kernel's CVE list (git clone of security/vulns): which files each fix changes",
}  # fmt: skip


def _switch(name: str, says: str) -> dict[str, Any]:
    return {"name": f"want_{name}", "long": name, "type": bool, "default": False, "help": says}


_CVE = [
    KERNEL_LIST,
    _switch("newer", "first ask the mirrors for changelogs of newer versions"),
    _switch("all", "list every CVE"),
    _switch("json", "as JSON on standard output"),
    {"name": "vex", "long": "vex", "type": str, "default": "", "help": "write CycloneDX VEX to this file"},
]


def cve(project: Project) -> Iterator[Task]:
    """Cve for the default profile, cve:PROFILE for each other."""
    for profile in project.recipes.profiles:
        name = "cve" if profile.name == DEFAULT_PROFILE else f"cve:{profile.name}"
        yield {
            "basename": name,
            "doc": f"which CVEs kernel and firmware of {project.out(profile).name}/ have fixed, or lack (docs/cve.md)",
            "actions": [action(partial(_cve, project, profile))],
            "params": _CVE,
            "task_dep": ["fetch:sources", f"artifacts:{profile.name}"],
            "meta": {"answers": True},
            "verbosity": 2,
            "io": {"capture": False},
        }


def _cve(
    project: Project, profile: Profile, *, kernel_list: str, want_newer: bool, want_all: bool, want_json: bool, vex: str
) -> None:
    from tools.pipeline.report import table  # noqa: PLC0415 (start-up: only this command needs it)
    from tools.pipeline.report import vex as documents  # noqa: PLC0415 (as above)

    if want_newer:
        ui.lines(f"   {printable(mask(line))}" for line in ask_newer(project))
    found = state(project, profile, kernel_list=kernel_list)
    if vex:
        files.write_atomically(project.root / vex, documents.render(found, version=project.version))
    ui.result(table.as_json(found) if want_json else table.as_text(found, every=want_all), sys.stdout)


def state(project: Project, profile: Profile, *, kernel_list: str) -> "Report":
    """The findings of a profile; its artifacts must have been made."""
    from tools.pipeline.report import gather  # noqa: PLC0415 (start-up: only this command needs it)

    return gather.report(subject(project, profile), listed=project.root / kernel_list if kernel_list else None)


def subject(project: Project, profile: Profile) -> "Subject":
    """What the findings of a profile are made of."""
    from tools.pipeline.report import gather  # noqa: PLC0415 (start-up: only this command needs it)

    return gather.Subject(
        profile=profile.name,
        kernel=profile.kernel.source,
        firmware=profile.firmware.source,
        sources=project.sources,
        patches=firmware.debian_patches(project.root, profile.firmware),
        patches_file=profile.firmware.debian_patches,
        compiled=partial(_compiled, project, profile),
        build=project.build,
        cas=project.cas,
    )


def _compiled(project: Project, profile: Profile) -> "Compiled":
    from tools.pipeline.guest import kernel, source_tree  # noqa: PLC0415 (start-up, as above)
    from tools.pipeline.report import compiled  # noqa: PLC0415 (as above)

    made, source = project.plan.kernel(profile.kernel, builtin=False), project.plan.kernel_source(profile.kernel)
    with ui.working("looking at the objects"), tempfile.TemporaryDirectory(dir=project.build, prefix="cve-") as folder:
        taken = []
        for step, name in ((made, kernel.OBJECTS), (source, source_tree.ARCHIVE)):
            project.engine.ensure(step)
            project.engine.copy(step, name, Path(folder, name))
            taken.append(Path(folder, name))
        return compiled.read(*taken)


def ask_newer(project: Project, *, before: Sequence[Source] = (), update: bool = True) -> list[str]:
    """Ask the mirrors for newer changelogs; what an update would fix, a line each. Nobody's mirror is an error.

    `before` are pins that have just been replaced. Without `update` the index is taken as apt has it already.
    """
    from tools.pipeline.report import updates  # noqa: PLC0415 (start-up, as above)
    from tools.pipeline.sources.apt import Apt  # noqa: PLC0415 (as above)

    profile, toolchain = project.recipes.profile(DEFAULT_PROFILE), project.toolchain
    try:
        known = mirrors.discover(ambient.mirror_override())
        apt = Apt(
            folder=project.build / "apt", suite=toolchain.suite, older=toolchain.older,
            architecture=toolchain.architecture, mirrors=known,
        )  # fmt: skip
        if update:
            with ui.working("asking apt for the archive's index"):
                apt.update()
        place = updates.Place(
            apt=apt, mirrors=known, root=project.root, build=project.build, cas=project.cas,
            fetch=partial(project.fetch, title="fetching changelogs"),
        )  # fmt: skip
        # Those of now: the locks may have been written since the project was read.
        now = pins.read_sources_lock(project.root / pins.SOURCES_LOCK)
        return updates.lines(place, (profile.kernel.source, profile.firmware.source), now=now, before=before)
    except SevArtifactsError as error:
        return [f"note: what an update would fix is not known: {error}"]
