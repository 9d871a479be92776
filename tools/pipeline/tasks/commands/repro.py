# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Reproducibility: build twice and compare, rebuild from somebody's manifest.

fetch, toolchain:repro ── repro, repro:PART ── (build/repro/PART/result.json)
_locks ── rebuild ── (build/rebuild/result.json)
rebuild --watch ── a clone and ./doit rebuild, ./doit endorse for each published artifact
"""

import json
import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.step import Step, closure
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Profile
from tools.pipeline.repro.target import Place, Target
from tools.pipeline.tasks import outputs
from tools.pipeline.tasks.doit_glue import Task, action, option, remove, switch
from tools.pipeline.tasks.inputs import LOCKS
from tools.pipeline.tasks.project import Project

_TOOLS = "repro"
_VARY = option("vary", "only these variations, separated by commas (default: all)")
_WITHOUT = option("without", "not these variations")


def targets(project: Project) -> dict[str, Target]:
    """What can be checked by itself, cheapest first."""
    plan, profile = project.plan, project.recipes.profile(DEFAULT_PROFILE)
    steps = {
        "launcher": plan.launcher,
        "mkfs-erofs": plan.mkfs_erofs,
        "qemu-lite": plan.qemu,
        "agent": plan.agent,
        "initramfs": plan.initramfs,
        "firmware": plan.firmware(profile.firmware),
        "kernel": plan.kernel(profile.kernel, builtin=False),
    }
    if profile.network is not None:
        steps["kernel-network"] = plan.kernel(profile.network, builtin=False)
    found = {
        name: Target(
            name=name,
            tasks=(step.name,),
            files=tuple(f"build/results/{step.name}/{output}" for output in step.outputs),
            trees=_trees(closure(step)),
        )
        for name, step in steps.items()
    }
    others = [_artifacts(project, other) for other in project.recipes.all_profiles if other is not profile]
    return {**found, **{target.name: target for target in others}}


def _artifacts(project: Project, profile: Profile) -> Target:
    return Target(
        name=profile.name,
        tasks=(f"artifacts:{profile.name}",),
        files=(project.out(profile).name,),
        trees=_trees(project.plan.deliverable(profile).steps),
    )


def _trees(steps: Iterable[Step]) -> tuple[str, ...]:
    return tuple(sorted({step.tools for step in steps}))


def place(project: Project, target: Target) -> Place:
    """Where everything of a target's check lies until the next one."""
    return Place(root=project.root, cache=project.cas.root, folder=project.build / "repro" / target.name)


def repro(project: Project) -> Iterator[Task]:
    """Repro for the whole output folder, repro:PART for a part of it."""
    whole = _artifacts(project, project.recipes.profile(DEFAULT_PROFILE))
    yield {"basename": "repro", **_task(project, whole, "every artifact in out/")}
    for name, target in targets(project).items():
        yield {"basename": f"repro:{name}", **_task(project, target, " ".join(target.files))}


def _task(project: Project, target: Target, what: str) -> Task:
    return {
        "doc": f"build twice from nothing in different environments and compare: {what}",
        "actions": [action(partial(_check, project, target))],
        "params": [_VARY, _WITHOUT],
        "task_dep": ["fetch:sources", *(f"fetch:{tree}" for tree in target.trees), f"toolchain:{_TOOLS}"],
        "clean": remove(project.build / "repro" / target.name),
        "io": {"capture": False},
    }


def _check(project: Project, target: Target, *, vary: str, without: str) -> None:
    # Here and below: what compares and rebuilds takes longer to import than a build with nothing to do may.
    from tools.pipeline.repro import check, variations  # noqa: PLC0415 (start-up: only this command needs it)

    chosen = variations.choose(vary=vary, without=without)
    tree = project.trees.checked(_TOOLS).path
    check.run(target, place(project, target), tree=tree, chosen=chosen)


_MANIFEST = option("manifest", "the published file")
_JSON = switch("as_json", "print the result as JSON on standard output, too", long="json")
_CACHED = switch("cached", "take what this user built before from the same inputs; the default builds from nothing")


_WATCHING = {"branch": "origin/HEAD", "every": "15m", "days": "365"}
_WATCH = [
    option("watch", "HOST/NAME of a registry, or HOST/NAME:TAG: rebuild and endorse what is published there, for ever"),
    option("key", "with --watch: private key in PEM (Ed25519, P-256), or a PKCS#11 URI, that signs endorsements"),
    option("branch", "with --watch: commits that are not on it are not run", _WATCHING["branch"]),
    option("every", "with --watch: time between two looks, as 90s, 15m or 12h", _WATCHING["every"]),
    option("days", "with --watch: how long an endorsement holds", _WATCHING["days"]),
    switch("once", "with --watch: look once, and end with status 1 when something there could not be endorsed"),
    option("ca", "with --watch: PEM file of the certificate authorities to believe, instead of this machine's"),
    switch("plain_http", "with --watch: speak HTTP without TLS: whoever is on the way can read and change everything"),
]


def rebuild(project: Project) -> Task:
    """Rebuild from a manifest, or from every one that is published."""
    return {
        "doc": "rebuild what a published manifest lists, say of each artifact if it was reproduced",
        "actions": [action(partial(_rebuild, project))],
        "params": [_MANIFEST, _JSON, _CACHED, *_WATCH],
        "meta": {"answers": True},
        "task_dep": [LOCKS],
        "clean": remove(project.build / "rebuild"),
        "io": {"capture": False},
    }


def _rebuild(project: Project, *, manifest: str, as_json: bool, cached: bool, watch: str, **watching: Any) -> None:
    if watch:
        if manifest or as_json or cached:
            hint = "leave --manifest, --json and --cached out"
            raise UserError("rebuilds what is published, and from nothing", where="--watch", hint=hint)
        _watch(project, watch, **watching)
        return
    if given := [name for name, value in watching.items() if value != _WATCHING.get(name, type(value)())]:
        hint = "--watch HOST/NAME; with --manifest leave it out"
        raise UserError("means nothing without --watch", where=f"--{given[0].replace('_', '-')}", hint=hint)
    if manifest:
        _rebuild_one(project, manifest, as_json=as_json, cached=cached)
    else:
        raise UserError("no manifest", hint="./doit rebuild --manifest FILE, or --watch HOST/NAME")


def _watch(project: Project, to: str, *, every: str, **options: Any) -> None:
    from tools.pipeline.repro.watch import watcher  # noqa: PLC0415 (start-up: it imports requests)

    found = re.fullmatch(r"([1-9][0-9]{0,5})([smh])", every)
    if found is None:
        raise UserError(f"{every[:20]!r} is no time", where="--every", hint="--every 90s, 15m or 12h")
    seconds = float(int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]])
    watcher.run(project.root, watcher.Wish(to=to, every=seconds, **options))


def _rebuild_one(project: Project, manifest: str, *, as_json: bool, cached: bool) -> None:
    from tools.pipeline.repro import published  # noqa: PLC0415 (start-up: only this command needs it)
    from tools.pipeline.repro import rebuild as again  # noqa: PLC0415 (start-up: only this command needs it)

    found = published.load(project.root / manifest)
    profile = next((profile for profile in project.recipes.all_profiles if profile.name == found.profile), None)
    if profile is None:
        raise UserError(f"this checkout has no profile {found.profile!r}", where=f"{found.path}: profile")
    deliverable = project.plan.deliverable(profile)
    order = [step.name for step in deliverable.steps]
    # As JSON has it: lists in place of tuples.
    own = json.loads(json.dumps(outputs.declared(project, profile)))
    published.check(found, published.entries(own, steps=order, outputs=deliverable.outputs))
    target = _artifacts(project, profile)
    packages = [package.pin for tree in target.trees for package in project.toolchain_lock.of_tree(tree)]
    project.fetch([*(source.pin for source in project.sources), *packages], title="fetching what the manifest pins")
    where = Place(root=project.root, cache=project.cas.root, folder=project.build / "rebuild")
    again.run(found, target, where, order=order, cached=cached, json_wanted=as_json)
