# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit repro`: build twice from nothing, see that the environments really differed, compare every byte."""

import json
import os
import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.pipeline.base import ambient, checkout_copy, children, files, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.front.reporter import started
from tools.pipeline.repro import compare, environments
from tools.pipeline.repro.environments import Environment, Job
from tools.pipeline.repro.target import Place, Target
from tools.pipeline.repro.variations import VARIATIONS, Facts, Name, without_effect

RESULT = "result.json"


@dataclass(frozen=True, kw_only=True)
class Built:
    """A finished environment: what its probe saw, seconds, and SHA-256 of each file."""

    facts: Facts
    times: dict[str, float]
    digests: dict[str, str]
    files: Path


def run(target: Target, place: Place, *, tree: Path, chosen: Collection[Name]) -> None:
    """Check a target; BuildError names what differs, or which variation had no effect.

    `tree` is the root of the repro tree. Everything lies in the place's folder until the next check.
    """
    folder = place.folder
    job = prepare(target, place)
    plain = build(environments.plain(job))
    shift = environments.clock_shift(ambient.now())
    other = environments.varied(job, chosen, tree=tree, shift=shift)
    varied = build(other)
    _report_effects(chosen, plain.facts, varied.facts)
    _check_effects(chosen, plain.facts, varied.facts)
    _check_decoys(other)
    names = compare.differing(plain.digests, varied.digests)
    differences = [
        compare.explain(
            plain.files / name,
            varied.files / name,
            name=name,
            folder=folder / "report" / name.replace("/", "-"),
            tree=tree,
        )
        for name in names
    ]
    _write_result(folder, target, chosen=chosen, plain=plain, varied=varied, differences=differences)
    _report(plain, differences)
    if differences:
        first = differences[0]
        raise BuildError(
            f"{len(differences)} of {len(plain.digests)} files came out differently; first: {first.name}, "
            f"in {first.member}",
            where=f"repro {target.name}",
            hint=f"read {first.report}/report.txt or report.html",
        )
    if not plain.digests:
        raise BuildError("nothing was built, so nothing was compared", where=f"repro {target.name}")


def prepare(target: Target, place: Place) -> Job:
    """Empty the place's folder and copy the checkout into it, from which environments build the target."""
    _forget(place.folder)
    source = checkout_copy.make(place.root, place.folder / "source")
    make_readable(source)
    return Job(
        folder=place.folder,
        source=source,
        bundle=place.cache,
        tasks=target.tasks,
        files=target.files,
        trees=target.trees,
    )


def build(environment: Environment) -> Built:
    """Run the driver to its end."""
    log = environment.results / "log"
    title = f"building from nothing, {environment.name}"
    with log.open("wb") as output, ui.working(title, detail=lambda: _last_task(log)):
        status = children.run(
            environment.argv,
            grace=5.0,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=ambient.host_environment("PATH"),
        )
    if status != 0:
        for line in log.read_text(errors="replace").splitlines()[-12:]:
            ui.line(ui.paint(f"   | {line}", "2"))
        raise BuildError(f"ended with status {status}", where=title, hint=f"whole log: {log}")
    made = environment.results / "files"
    return Built(
        facts=json.loads((environment.results / "facts.json").read_bytes()),
        times=json.loads((environment.results / "times.json").read_bytes()),
        digests=compare.digests(made),
        files=made,
    )


def _last_task(log: Path) -> str:
    try:
        return (started(log.read_text(errors="replace")) or [""])[-1]
    except OSError:
        return ""


def _report_effects(chosen: Collection[Name], plain: Facts, varied: Facts) -> None:
    ui.line("")
    ui.line(ui.paint("   what was varied     plain  |  varied", "1"))
    for name in Name:
        if name in chosen:
            show = VARIATIONS[name].show
            mark = "" if VARIATIONS[name].effective(plain, varied) else ui.paint("  NO EFFECT", "31")
            ui.line(f"   {name:<18}  {show(plain)}  |  {show(varied)}{mark}")
    ui.line(f"   {'(by the way)':<18}  Python {plain['python']}  |  Python {varied['python']}")


def _check_effects(chosen: Collection[Name], plain: Facts, varied: Facts) -> None:
    idle = without_effect(chosen, plain, varied)
    if idle:
        raise BuildError(
            f"no effect, so nothing is proved by it: {', '.join(idle)}",
            where="repro",
            hint=f"{VARIATIONS[idle[0]].remedy}; or leave out with --without {','.join(idle)}",
        )


def _check_decoys(environment: Environment) -> None:
    called = environment.decoys_called
    if called is not None and called.exists():
        names = sorted(set(called.read_text(errors="replace").split()))
        raise BuildError(f"the build started programs of the host: {', '.join(names)}", where="repro")


def _write_result(
    folder: Path,
    target: Target,
    *,
    chosen: Collection[Name],
    plain: Built,
    varied: Built,
    differences: Sequence[compare.Difference],
) -> None:
    document: dict[str, Any] = {
        "schema": 1,
        "target": target.name,
        "reproducible": not differences,
        "variations": [str(name) for name in Name if name in chosen],
        "environments": {"plain": plain.facts, "varied": varied.facts},
        "seconds": {"plain": plain.times, "varied": varied.times},
        "files": {name: {"plain": plain.digests.get(name), "varied": varied.digests.get(name)}
                  for name in sorted({*plain.digests, *varied.digests})},
        "differences": [{"file": d.name, "member": d.member, "report": str(d.report)} for d in differences],
    }  # fmt: skip
    files.write_atomically(folder / RESULT, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


def _report(plain: Built, differences: Sequence[compare.Difference]) -> None:
    found = {difference.name: difference for difference in differences}
    ui.line("")
    for name, sha256 in plain.digests.items():
        if name in found:
            verdict = ui.paint(f"DIFFERS in {found[name].member}", "31")
        else:
            verdict = ui.paint(f"same bytes, sha256 {sha256}", "32")
        ui.line(f"   {name:<32} {verdict}")
    ui.line("")


def _forget(folder: Path) -> None:
    """Delete what the last check left, whatever rights it gave it."""
    if folder.exists():
        # Two kernel trees and two tool trees: 200,000 files.
        with ui.working("deleting what the last check left"):
            shutil.rmtree(folder)
    folder.mkdir(parents=True)


def make_readable(folder: Path) -> None:
    """The other environment's user is somebody else, and the caller's umask may be strict."""
    for path in [folder, *sorted(folder.rglob("*"))]:
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
