# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The output folders, and what is asked about them.

steps of a profile ── artifacts:PROFILE ── check:PROFILE, accept:PROFILE
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from doit.tools import config_changed

from tools.pipeline.base import files, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.publish import expected, manifest
from tools.pipeline.publish.out_folder import OutFolder
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Profile
from tools.pipeline.remote import sampling
from tools.pipeline.tasks.doit_glue import Task, action, remove
from tools.pipeline.tasks.project import Project


def _folder(project: Project, profile: Profile) -> OutFolder:
    return OutFolder(folder=project.out(profile), outputs=project.plan.deliverable(profile).outputs)


def declared(project: Project, profile: Profile) -> dict[str, Any]:
    """What the manifest says before anything is made."""
    return manifest.declared(
        profile=profile.name,
        version=project.version,
        steps=project.plan.deliverable(profile).steps,
        sources=project.sources,
        toolchain=project.toolchain_lock,
        recipes=project.plan.recipe_files(profile),
        measure=project.engine.checkout_file,
    )


def _manifest(project: Project, profile: Profile) -> bytes:
    """The manifest's bytes; every step must have been made."""
    made = project.plan.deliverable(profile)
    return manifest.render(project.engine, declared(project, profile), steps=made.steps, outputs=made.outputs)


def is_current(project: Project, profile: Profile) -> bool:
    """Whether the output folder is as the recipes would fill it now; runs nothing."""
    steps = project.plan.deliverable(profile).steps
    if not all(project.engine.is_current(step) for step in steps) or sampling.uncompared(project.engine, steps):
        return False
    return _folder(project, profile).is_current(project.engine, _manifest(project, profile))


def _fill(project: Project, profile: Profile) -> None:
    sampling.settle(project.engine, project.plan.deliverable(profile).steps)
    _folder(project, profile).fill(
        project.engine,
        _manifest(project, profile),
        root=project.root,
        profile=profile.name,
        default=profile.name == DEFAULT_PROFILE,
    )


def artifacts(project: Project) -> Iterator[Task]:
    """artifacts:PROFILE, the complete output folder."""
    path = project.root / expected.EXPECTED
    for profile in project.recipes.all_profiles:
        folder = project.out(profile)
        yield {
            "name": profile.name,
            "doc": f"fill {folder.name}/ with the artifacts of the {profile.name} profile",
            "actions": [action(partial(_fill, project, profile))],
            "task_dep": [step.name for step in project.plan.deliverable(profile).steps],
            "uptodate": [
                partial(is_current, project, profile),
                # The verdict is told again when something else is expected.
                config_changed(files.of_file(path) if path.exists() else "nothing"),
            ],
            "clean": remove(folder),
        }


def check(project: Project) -> Iterator[Task]:
    """check:PROFILE, the verdict on an output folder as an exit status, for CI."""
    for profile in project.recipes.all_profiles:
        yield {
            "name": profile.name,
            "doc": f"build {project.out(profile).name}/ and fail unless it has the expected digests",
            "actions": [action(partial(_compare, project, profile))],
            "task_dep": [f"artifacts:{profile.name}"],
            "io": {"capture": False},
        }


def _compare(project: Project, profile: Profile) -> None:
    verdict = expected.verdict(project.root, project.out(profile))
    if not verdict.good:
        raise BuildError(verdict.line)
    ui.line(f"   {project.out(profile).name}/ {verdict.line}")


def accept(project: Project) -> Iterator[Task]:
    """accept for every profile, accept:PROFILE for one."""
    # A change is made in the default series first; the others are accepted one by one.
    yield {"basename": "accept", **_accept(project, project.recipes.profiles, "all profiles'")}
    for profile in project.recipes.all_profiles:
        yield {"basename": f"accept:{profile.name}", **_accept(project, (profile,), f"the {profile.name} profile's")}


def _accept(project: Project, profiles: tuple[Profile, ...], whose: str) -> Task:
    return {
        "doc": f"write the digests of {whose} artifacts into {expected.EXPECTED}, print what changed",
        "actions": [action(partial(_take, project, profiles))],
        "task_dep": [f"artifacts:{profile.name}" for profile in profiles],
        "io": {"capture": False},
    }


def _take(project: Project, profiles: tuple[Profile, ...]) -> None:
    changes = expected.accept(
        project.root,
        [project.out(profile) for profile in profiles],
        all_folders=[project.out(profile) for profile in project.recipes.all_profiles],
    )
    for line in changes or ["nothing changed"]:
        ui.line(f"   {line}")
