# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""cve and report: what is said of a build, for people and for scanners.

fetch:sources, artifacts:PROFILE ── cve, cve:PROFILE ── a table, JSON, VEX
                                └── report, report:PROFILE ── build/report/…/report.html
"""

import contextlib
import functools
import operator
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tools.pipeline.base import ambient, files, ui
from tools.pipeline.base.errors import SevArtifactsError
from tools.pipeline.engine import graph
from tools.pipeline.engine.step import Step
from tools.pipeline.guest import firmware, kconfig, kernel, source_tree
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Carry, Profile
from tools.pipeline.sources import mirrors, pins, wanted
from tools.pipeline.sources.pins import Pin, Source
from tools.pipeline.tasks.doit_glue import Task, action, option, remove, switch
from tools.pipeline.tasks.project import Project
from tools.sev.errors import mask, printable

if TYPE_CHECKING:
    from tools.pipeline.publish.documents import Document
    from tools.pipeline.report.compiled import Compiled
    from tools.pipeline.report.facts import Topic
    from tools.pipeline.report.gather import Subject
    from tools.pipeline.report.states import Report

KERNEL_LIST = option(
    "kernel_list", "a copy of the kernel's CVE list (git clone of security/vulns): which files each fix changes"
)


_CVE = [
    KERNEL_LIST,
    switch("want_newer", "first ask the mirrors for changelogs of newer versions", long="newer"),
    switch("want_all", "list every CVE", long="all"),
    switch("want_json", "as JSON on standard output", long="json"),
    option("vex", "write CycloneDX VEX to this file"),
]


def cve(project: Project) -> Iterator[Task]:
    """Cve for the default profile, cve:PROFILE for each other."""
    for name, profile in project.tasks_of("cve"):
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


def pins_for(project: Project, profile: Profile) -> list[Pin]:
    """What must be in the cache for the findings of a profile."""
    from tools.pipeline.report import gather  # noqa: PLC0415 (start-up: only this command needs it)

    return [source.pin for source in gather.packagings(subject(project, profile)).values()]


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
    """Of every kernel of the profile that is made from the first one's source."""
    from tools.pipeline.report import compiled  # noqa: PLC0415 (start-up, as above)

    recipes = [recipe for recipe in profile.kernels if recipe.source == profile.kernel.source]
    found = []
    with ui.working("looking at the objects"):
        for recipe in recipes:
            objects = project.plan.kernel(recipe, builtin=False), kernel.OBJECTS
            source = project.plan.kernel_source(recipe), source_tree.ARCHIVE
            with _copies(project, objects, source) as paths:
                found.append(compiled.read(*paths))
    return functools.reduce(operator.or_, found)


@contextlib.contextmanager
def _copies(project: Project, *outputs: tuple[Step, str]) -> Iterator[list[Path]]:
    """Private copies of outputs of steps, which are gone after it."""
    project.build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=project.build, prefix="report-") as folder:
        for step, name in outputs:
            project.engine.ensure(step)
            project.engine.copy(step, name, Path(folder, name))
        yield [Path(folder, name) for _, name in outputs]


_REPORT = [
    KERNEL_LIST,
    option("endorsements", "a folder of signed statements about the artifact"),
    option("to", "the file; default: build/report/PROFILE.html"),
]


def report(project: Project) -> Iterator[Task]:
    """Report for the default profile, report:PROFILE for each other."""
    for name, profile in project.tasks_of("report"):
        yield {
            "basename": name,
            "doc": f"one HTML page for people about {project.out(profile).name}/ (docs/publishing.md)",
            "actions": [action(partial(_report, project, profile))],
            "params": _REPORT,
            "task_dep": ["fetch:sources", f"artifacts:{profile.name}"],
            "clean": remove(project.build / "report" / f"{profile.name}.html"),
            "io": {"capture": False},
        }


def _report(project: Project, profile: Profile, *, kernel_list: str, endorsements: str, to: str) -> None:
    found = state(project, profile, kernel_list=kernel_list)
    path = project.root / to if to else project.build / "report" / f"{profile.name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, page(project, profile, found, endorsements=endorsements))
    shown = path.relative_to(project.root) if path.is_relative_to(project.root) else path
    ui.line(f"   {shown}")


def page(project: Project, profile: Profile, cves: "Report", *, endorsements: str = "", digest: str = "") -> bytes:
    """report.html of a profile whose artifacts have been made; `digest` is that of the published artifact."""
    from tools.pipeline.publish import checkout, expected, publishing  # noqa: PLC0415 (start-up: requests)
    from tools.pipeline.report import facts  # noqa: PLC0415 (start-up, as above)
    from tools.pipeline.report import page as pages  # noqa: PLC0415 (as above)

    folder = project.out(profile)
    ours = checkout.look(project.root)
    verdict = expected.verdict(project.root, folder)
    boot, boot_commit = facts.bench(project.build)
    return pages.render(
        facts.Facts(
            **facts.folder(folder, _made_from(project, profile), publishing.listed(folder)),
            commit=ours.commit + (" with changes" if ours.changes else ""),
            steps=graph.rows(project.engine, project.plan.deliverable(profile).steps),
            topics=_topics(project, profile),
            cves=cves,
            good=verdict.good,
            verdict=f"{folder.name}/ {verdict.line}",
            boot=boot,
            boot_commit=boot_commit,
            rebuilt=facts.rebuilt(project.build),
            endorsements=facts.endorsements(project.root / endorsements if endorsements else None),
            digest=digest,
        )
    )


def documents(project: Project, profile: Profile, subject: str, *, kernel_list: str) -> "list[Document]":
    """What is attached to a published artifact, whose digest is `subject`: VEX and page."""
    from tools.pipeline.publish.documents import Document  # noqa: PLC0415 (start-up: requests)
    from tools.pipeline.report import page as pages  # noqa: PLC0415 (start-up, as above)
    from tools.pipeline.report import vex  # noqa: PLC0415 (as above)

    cves = state(project, profile, kernel_list=kernel_list)
    created = f"{cves.date}T00:00:00Z"
    said = vex.render(cves, version=project.version)
    shown = page(project, profile, cves, digest=subject)
    return [
        Document(name=vex.NAME, media_type=vex.MEDIA_TYPE, data=said, created=created, predicate=vex.PREDICATE),
        Document(name=pages.NAME, media_type=pages.MEDIA_TYPE, data=shown, created=created),
    ]


def _made_from(project: Project, profile: Profile) -> dict[str, list[str]]:
    """File → sources with their versions, and parts, as recipes/contents.toml has them."""
    from tools.pipeline.sbom import contents  # noqa: PLC0415 (start-up, as above)

    versions = {source.pin.name: source.pin.version for source in project.sources}
    own = project.recipes.profile(DEFAULT_PROFILE).kernel.source
    listed = contents.load(project.root, sources=list(versions)).with_source(profile.kernel.source, in_place_of=own)
    return {
        name: [f"{key} {versions[key]}" if key in versions else listed.parts[key].name for key in keys]
        for name, keys in listed.files.items()
    }


def _topics(project: Project, profile: Profile) -> "list[Topic]":
    """The fragments of a profile's kernels, each once, and what became of their options."""
    from tools.pipeline.report import facts  # noqa: PLC0415 (start-up, as above)

    found: list[Topic] = []
    shown: set[str] = set()
    builtin = profile.carry is Carry.BUILTIN
    for recipe in profile.kernels:
        with _copies(project, (project.plan.config(recipe, builtin=builtin), "config")) as (path,):
            values = kconfig.parse_config(path.read_text(encoding="utf-8"), where=".config")
        names = [*recipe.fragments, *([kernel.BUILTIN_FRAGMENT] if builtin else [])]
        texts = [(Path(name).stem, (project.root / name).read_text(encoding="utf-8"))
                 for name in names if name not in shown]  # fmt: skip
        shown.update(names)
        found += facts.topics(texts, values)
    return found


def ask_newer(
    project: Project,
    *,
    before: Sequence[Source] = (),
    update: bool = True,
    kernel_list: str = "",
    every: bool = False,
) -> list[str]:
    """Ask the mirrors for newer changelogs; what an update would fix, a line each. Nobody's mirror is an error.

    `before` are pins that have just been replaced. Without `update` the index is taken as apt has it already.
    `every`: each CVE has a line of its own.
    """
    from tools.pipeline.report import kernel_list as lists  # noqa: PLC0415 (start-up, as above)
    from tools.pipeline.report import updates  # noqa: PLC0415 (as above)
    from tools.pipeline.sources.apt import Apt  # noqa: PLC0415 (as above)

    profile, toolchain = project.recipes.profile(DEFAULT_PROFILE), project.toolchain
    names = dict.fromkeys([*(one.kernel.source for one in project.recipes.all_profiles), profile.firmware.source])
    # A list that cannot be read is the user's mistake.
    listed = lists.load(project.root / kernel_list) if kernel_list else None
    try:
        known = mirrors.discover(ambient.mirror_override())
        apt = Apt(
            folder=project.build / "apt", suite=toolchain.suite, older=toolchain.older,
            sources=wanted.source_suites(wanted.read_sources(project.root / wanted.SOURCES_TOML)),
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
        return updates.lines(place, list(names), now=now, before=before, listed=listed, every=every)
    except SevArtifactsError as error:
        return [f"note: what an update would fix is not known: {error}"]
