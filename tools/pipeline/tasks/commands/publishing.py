# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""publish: what is built, for others to pull; endorse, latest: what is said about it.

artifacts:PROFILE ── publish:PROFILE ── a registry, or a folder ─┬─ latest
rebuild ─────────────────────────────── endorse ─────────────────┘
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.pipeline.base.errors import UserError
from tools.pipeline.engine import graph
from tools.pipeline.engine.step import Blob
from tools.pipeline.guest import firmware, patches, qemu
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Profile
from tools.pipeline.remote import sampling
from tools.pipeline.sources.pins import Package, Source
from tools.pipeline.tasks.commands import report
from tools.pipeline.tasks.doit_glue import Task, action, option, switch
from tools.pipeline.tasks.project import Project
from tools.sev import id_block

if TYPE_CHECKING:
    from tools.pipeline.publish import publishing
    from tools.pipeline.sbom import document


# The fields of Wish.
_PARAMS = [
    option(
        "to", "HOST/NAME:TAG of a registry, a folder (./NAME, /NAME) for an image layout, or https://… for plain files"
    ),
    option("tag", "the tag, where --to has none; a folder's default is the project's version"),
    option("although", "why to publish what is not as expected, or from a checkout with changes"),
    option("key", "private key in PEM (Ed25519, P-256), or a PKCS#11 URI, that signs; none: not signed"),
    option("builder", "URI of who has built it, for the provenance"),
    option("ca", "PEM file of the certificate authorities to believe, instead of this machine's"),
    switch("plain_http", "speak HTTP without TLS: whoever is on the way can read and change everything"),
    report.KERNEL_LIST,
    switch("without_tools", "leave out the packages that the build ran on"),
]


def publish(project: Project) -> Iterator[Task]:
    """Publish for the default profile, publish:PROFILE for each other."""
    for name, profile in project.tasks_of("publish"):
        yield {
            "basename": name,
            "doc": f"publish {project.out(profile).name}/: ./doit {name} --to HOST/NAME:TAG (docs/publishing.md)",
            "actions": [action(partial(_publish, project, profile))],
            "params": _PARAMS,
            "task_dep": [f"artifacts:{profile.name}"],
            "io": {"capture": False},
        }


def _publish(project: Project, profile: Profile, *, kernel_list: str, **options: Any) -> None:
    from tools.pipeline.publish import places, publishing  # noqa: PLC0415 (start-up: it imports requests)

    sampling.refuse(project.engine, project.plan.deliverable(profile).steps, what="published")
    sources, packages = pins_of(project, profile)
    built = _built(project, profile, project.out(profile), sources, packages, kernel_list=kernel_list)
    wish = publishing.Wish(**options)
    # A wrong word is told before anything is fetched.
    places.parse(wish.to, tag=wish.tag, root=project.root)
    needed = [*(source.pin for source in sources), *report.pins_for(project, profile)]
    needed += [] if wish.without_tools else [package.pin for package in packages]
    # The result of a step may have been there without what it was made from.
    project.fetch(needed, title="fetching what is published")
    publishing.run(built, wish)


def _built(
    project: Project,
    profile: Profile,
    folder: Path,
    sources: Sequence[Source],
    packages: Sequence[Package],
    *,
    kernel_list: str = "",
) -> "publishing.Built":
    from tools.pipeline.publish import publishing  # noqa: PLC0415 (start-up: it imports requests)
    from tools.pipeline.sbom import document  # noqa: PLC0415 (start-up: only this command needs it)

    return publishing.Built(
        root=project.root,
        folder=folder,
        profile=profile.name,
        version=project.version,
        sources=sources,
        packages=packages,
        cas=project.cas,
        sbom=partial(document.render, material(project, profile, sources, packages)),
        documents=partial(report.documents, project, profile, kernel_list=kernel_list),
        taken=graph.taken(project.engine, project.plan.deliverable(profile).steps),
    )


_SIGNED = [
    option("key", "private key in PEM (Ed25519, P-256), or a PKCS#11 URI, that signs"),
    option("to", "HOST/NAME:TAG of a registry, or a folder: where it is published, the statement is attached there"),
    option("ca", "PEM file of the certificate authorities to believe, instead of this machine's"),
    switch("plain_http", "speak HTTP without TLS: whoever is on the way can read and change everything"),
    option("profile", "the profile", DEFAULT_PROFILE),
]


def endorse(project: Project) -> Task:
    """Say that a rebuild gave what is published."""
    return {
        "doc": "sign that ./doit rebuild gave these bytes: ./doit endorse --key FILE --to HOST/NAME:TAG",
        "actions": [action(partial(_endorse, project))],
        "params": [
            *_SIGNED,
            option("out", "a file to write the signed statement to"),
            option("days", "how long it holds", "365"),
        ],
        "io": {"capture": False},
    }


def latest(project: Project) -> Task:
    """Say which security version it takes."""
    return {
        "doc": "sign which security version it takes from now on: ./doit latest --key FILE --to HOST/NAME:TAG",
        "actions": [action(partial(_latest, project))],
        "params": [
            *_SIGNED,
            option("svn", "the lowest security version that is good; default: that of recipes/guest.toml"),
            {**option("days", "how long it holds"), "default": "30"},
        ],
        "io": {"capture": False},
    }


def _endorse(
    project: Project, *, profile: str, out: str, days: str, key: str, to: str, ca: str, plain_http: bool
) -> None:
    from tools.pipeline.repro import check, environments  # noqa: PLC0415 (start-up: as below)
    from tools.pipeline.repro import endorse as endorsing  # noqa: PLC0415 (start-up: it imports requests)

    chosen = _profile(project, profile)
    folder = project.build / "rebuild"
    rebuilt = environments.plain_files(folder) / project.out(chosen).name
    sources, packages = pins_of(project, chosen)
    project.fetch([source.pin for source in sources], title="fetching what is published")
    built = _built(project, chosen, rebuilt, sources, packages)
    wish = endorsing.Wish(
        to=to, out=out, key=key, days=days, svn=project.recipes.guest.identity.svn, ca=ca, plain_http=plain_http
    )
    endorsing.endorse(built, folder / check.RESULT, wish)


def _latest(
    project: Project, *, profile: str, svn: str, days: str, key: str, to: str, ca: str, plain_http: bool
) -> None:
    from tools.pipeline.repro import endorse as endorsing  # noqa: PLC0415 (start-up: it imports requests)

    if svn and (not svn.isdecimal() or int(svn) > id_block.SVN_MAX):
        raise UserError(f"{svn[:20]!r} is no security version", where="--svn", hint="a whole number, from 0 on")
    number = int(svn) if svn else project.recipes.guest.identity.svn
    wish = endorsing.Wish(to=to, out="", key=key, days=days, svn=number, ca=ca, plain_http=plain_http)
    endorsing.latest(project.root, wish, profile=_profile(project, profile).name)


def _profile(project: Project, name: str) -> Profile:
    found = next((profile for profile in project.recipes.all_profiles if profile.name == name), None)
    if found is None:
        known = ", ".join(profile.name for profile in project.recipes.all_profiles)
        raise UserError(f"{name[:80]!r} is no profile", where="--profile", hint=f"there are: {known}")
    return found


def pins_of(project: Project, profile: Profile) -> tuple[list[Source], list[Package]]:
    """The sources that a profile's steps take, and the packages of the trees that they run on."""
    steps = project.plan.deliverable(profile).steps
    used = {taken.sha256 for step in steps for taken in step.inputs.values() if isinstance(taken, Blob)}
    trees = {step.tools for step in steps}
    sources = [source for source in project.sources if source.pin.sha256 in used]
    return sources, [package for package in project.toolchain_lock.packages if trees & set(package.trees)]


def material(
    project: Project, profile: Profile, sources: Sequence[Source], packages: Sequence[Package]
) -> "document.Material":
    """What the SBOM of a profile is made of."""
    from tools.pipeline.sbom import contents, document  # noqa: PLC0415 (start-up: only this command needs it)

    own = project.recipes.profile(DEFAULT_PROFILE).kernel.source
    found = contents.load(project.root, sources=[source.pin.name for source in project.sources])
    return document.Material(
        profile=profile.name,
        version=project.version,
        suite=project.toolchain_lock.suite,
        older=project.toolchain_lock.older,
        contents=found.with_source(profile.kernel.source, in_place_of=own),
        sources=sources,
        packages=packages,
        patches=_patches(project, profile),
    )


def _patches(project: Project, profile: Profile) -> "dict[str, list[document.Patch]]":
    from tools.pipeline.sbom.document import Patch  # noqa: PLC0415 (as above)

    debian = [
        Patch(where=f"debian/patches/{patch.file}", resolves=patch.cves, unofficial=False)
        for patch in firmware.debian_patches(project.root, profile.firmware)
        if patch.apply
    ]
    own = patches.listed(project.root, profile.firmware.patches)
    # Two kernels of one source and two series would need a name for each tree; no profile has them.
    kernels = {of.source: patches.listed(project.root, of.patches) for of in reversed(profile.kernels)}
    version = next(source.pin.version for source in project.sources if source.pin.name == qemu.SOURCE)
    return {
        qemu.SOURCE: [Patch(where=path) for path in patches.listed(project.root, qemu.patch_folder(version))],
        **{source: [Patch(where=path) for path in listed] for source, listed in kernels.items()},
        profile.firmware.source: [*debian, *(Patch(where=path) for path in own)],
    }
