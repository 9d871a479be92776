# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""publish: what is built, for others to pull.

artifacts:PROFILE ── publish:PROFILE ── a registry, or a folder
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tools.pipeline.engine.step import Blob
from tools.pipeline.guest import firmware, patches
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Profile
from tools.pipeline.sources.pins import Package, Source
from tools.pipeline.tasks import report
from tools.pipeline.tasks.doit_glue import Task, action
from tools.pipeline.tasks.project import Project

if TYPE_CHECKING:
    from tools.pipeline.sbom import document


def _option(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "long": name.replace("_", "-"), "type": str, "default": "", "help": text}


def _switch(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "long": name.replace("_", "-"), "type": bool, "default": False, "help": text}


# The fields of Wish.
_PARAMS = [
    _option(
        "to", "HOST/NAME:TAG of a registry, a folder (./NAME, /NAME) for an image layout, or https://… for plain files"
    ),
    _option("tag", "the tag, where --to has none; a folder's default is the project's version"),
    _option("although", "why to publish what is not as expected, or from a checkout with changes"),
    _option("key", "private key in PEM (Ed25519, P-256), or a PKCS#11 URI, that signs; none: not signed"),
    _option("builder", "URI of who has built it, for the provenance"),
    _option("ca", "PEM file of the certificate authorities to believe, instead of this machine's"),
    _switch("plain_http", "speak HTTP without TLS: whoever is on the way can read and change everything"),
    report.KERNEL_LIST,
    _switch("without_tools", "leave out the packages that the build ran on"),
]


def publish(project: Project) -> Iterator[Task]:
    """Publish for the default profile, publish:PROFILE for each other."""
    for profile in project.recipes.profiles:
        name = "publish" if profile.name == DEFAULT_PROFILE else f"publish:{profile.name}"
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
    from tools.pipeline.sbom import document  # noqa: PLC0415 (start-up: only this command needs it)

    sources, packages = pins_of(project, profile)
    built = publishing.Built(
        root=project.root,
        folder=project.out(profile),
        profile=profile.name,
        version=project.version,
        sources=sources,
        packages=packages,
        cas=project.cas,
        sbom=partial(document.render, material(project, profile, sources, packages)),
        documents=partial(report.documents, project, profile, kernel_list=kernel_list),
    )
    wish = publishing.Wish(**options)
    # A wrong word is told before anything is fetched.
    places.parse(wish.to, tag=wish.tag, root=project.root)
    needed = [*(source.pin for source in sources), *report.pins_for(project, profile)]
    needed += [] if wish.without_tools else [package.pin for package in packages]
    # The result of a step may have been there without what it was made from.
    project.fetch(needed, title="fetching what is published")
    publishing.run(built, wish)


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

    return document.Material(
        profile=profile.name,
        version=project.version,
        suite=project.toolchain_lock.suite,
        older=project.toolchain_lock.older,
        contents=contents.load(project.root, sources=[source.pin.name for source in project.sources]),
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
    return {
        **{source: [Patch(where=path) for path in listed] for source, listed in kernels.items()},
        profile.firmware.source: [*debian, *(Patch(where=path) for path in own)],
    }
