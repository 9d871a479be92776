# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Reproducibility: build twice and compare, rebuild from somebody's manifest, accept new bytes.

fetch, toolchain:repro ── repro, repro:PART ── (build/repro/PART/result.json)
"""

from collections.abc import Callable, Iterator

from doit.exceptions import BaseFail

from tools.pipeline.base.errors import UserError
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Profile
from tools.pipeline.repro import check
from tools.pipeline.repro import rebuild as again
from tools.pipeline.repro.check import Target
from tools.pipeline.repro.variations import choose
from tools.pipeline.tasks.doit_glue import Task, action, remove
from tools.pipeline.tasks.project import Project

_VARY = {
    "name": "vary",
    "long": "vary",
    "type": str,
    "default": "",
    "help": "only these variations, separated by commas (default: all)",
}
_WITHOUT = {"name": "without", "long": "without", "type": str, "default": "", "help": "not these variations"}


def targets(project: Project) -> dict[str, Target]:
    """What can be checked by itself, cheapest first."""
    plan, profile = project.plan, project.recipes.profile(DEFAULT_PROFILE)
    steps = {
        "launcher": plan.launcher,
        "agent": plan.agent,
        "initramfs": plan.initramfs,
        "firmware": plan.firmware(profile.firmware),
        "kernel": plan.kernel(profile.kernel, builtin=False),
    }
    found = {
        name: Target(name=name, tasks=(step.name,), files=tuple(f"build/results/{step.name}/{o}" for o in step.outputs))
        for name, step in steps.items()
    }
    others = [_artifacts(project, other) for other in project.recipes.profiles if other is not profile]
    return {**found, **{target.name: target for target in others}}


def _artifacts(project: Project, profile: Profile) -> Target:
    return Target(name=profile.name, tasks=(f"artifacts:{profile.name}",), files=(project.out(profile).name,))


def repro(project: Project) -> Iterator[Task]:
    """Repro for the whole output folder, repro:PART for a part of it."""
    whole = _artifacts(project, project.recipes.profile(DEFAULT_PROFILE))
    yield {"basename": "repro", **_task(project, whole, "every artifact in out/")}
    for name, target in targets(project).items():
        yield {"basename": f"repro:{name}", **_task(project, target, " ".join(target.files))}


def _task(project: Project, target: Target, what: str) -> Task:
    needed = [] if target.tree is None else ["fetch:sources", f"fetch:{target.tree}"]
    return {
        "doc": f"build twice from nothing in different environments and compare: {what}",
        "actions": [_with_variations(project, target)],
        "params": [_VARY, _WITHOUT],
        "task_dep": [*needed, "toolchain:repro"],
        "clean": remove(check.folder_of(project, target)),
        "io": {"capture": False},
    }


# doit hands a task's parameters to arguments of the same name.
def _with_variations(project: Project, target: Target) -> Callable[[str, str], bool | BaseFail]:
    def run(vary: str, without: str) -> bool | BaseFail:
        def work() -> None:
            check.run(project, target, chosen=choose(vary=vary, without=without))

        return action(work)()

    return run


_MANIFEST = {"name": "manifest", "long": "manifest", "type": str, "default": "", "help": "the published file"}
_JSON = {
    "name": "as_json",
    "long": "json",
    "type": bool,
    "default": False,
    "help": "print the result as JSON on standard output, too",
}
_CACHED = {
    "name": "cached",
    "long": "cached",
    "type": bool,
    "default": False,
    "help": "take what this user built before from the same inputs; the default builds from nothing",
}


def rebuild(project: Project) -> Task:
    """Rebuild from a manifest."""

    def run(manifest: str, as_json: bool, cached: bool) -> bool | BaseFail:
        def work() -> None:
            if not manifest:
                raise UserError("no manifest", hint="./doit rebuild --manifest FILE")
            again.run(project, project.root / manifest, cached=cached, json_wanted=as_json)

        return action(work)()

    return {
        "doc": "rebuild from the pins of a published manifest, say of each artifact if it was reproduced",
        "actions": [run],
        "params": [_MANIFEST, _JSON, _CACHED],
        "clean": remove(project.build / "rebuild"),
        "io": {"capture": False},
    }
