# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Where an artifact is published to, as --to says it: a registry, a folder, or a server of plain files."""

from collections.abc import Sequence
from pathlib import Path

from tools.pipeline.base.errors import UserError
from tools.pipeline.publish import artifact
from tools.pipeline.registry import oci, reference
from tools.pipeline.registry.client import Registry
from tools.pipeline.registry.connection import Options
from tools.pipeline.registry.layout import Layout
from tools.pipeline.registry.oci import Content
from tools.pipeline.registry.plain import Plain
from tools.pipeline.registry.target import Tally, Target, Whole
from tools.sev.formats import SUMS_NAME
from tools.sev.registry.reference import TAG, Reference


class Url(str):
    """Where plain files go."""

    __slots__ = ()


Place = Reference | Path | Url


def parse(to: str, *, tag: str, root: Path, digest: bool = False) -> Place:
    """A repository, a folder or a URL; UserError for anything else, a second tag, or a digest unless there may be one.

    A folder begins with / or . so that none is taken for a repository.
    """
    if not to:
        raise UserError("no place to publish to", hint="./doit publish --to HOST/NAME:TAG, or --to ./FOLDER")
    if tag and TAG.fullmatch(tag) is None:
        raise UserError(f"{tag[:200]!r} is no tag", where="--tag", hint="letters, digits and . _ - only")
    if to.startswith(("/", "./", "../")) or to in {".", ".."}:
        return root / to
    if to.startswith(("https://", "http://")):
        return Url(to)
    place = reference.parse(to, where="--to")
    if place.digest and not digest:
        raise UserError("has a digest, which is for publishing to say", where="--to", hint="leave it out")
    if place.tag and tag:
        raise UserError("--to has a tag already", where="--tag", hint="give one of the two")
    return place


def name(place: Place) -> str:
    """HOST/NAME of a repository; empty for other places."""
    return f"{place.host}/{place.name}" if isinstance(place, Reference) else ""


def target(place: Reference | Path, options: Options) -> Target:
    """What artifacts can be pushed to."""
    return Registry(place, options) if isinstance(place, Reference) else Layout(place)


def push_plain(url: Url, options: Options, wholes: Sequence[Whole], statement: Content, statement_name: str) -> Tally:
    """Files of out/ by their names, what was pinned by digest, as a source bundle has it; SHA256SUMS last.

    The first of `wholes` is the artifact itself.
    """
    pinned: list[Content] = []
    named = [("artifact.json", wholes[0].manifest), (statement_name, statement)]
    for content in (content for whole in wholes for content in whole.blobs):
        if content.descriptor.media_type in {artifact.SOURCE, artifact.PACKAGE}:
            pinned.append(content)
        elif title := content.descriptor.annotations.get(oci.TITLE):
            named.append((title, content))
    (last,) = (one for one in named if one[0] == SUMS_NAME)
    named.remove(last)
    server = Plain(url, options)
    try:
        return server.push(pinned, named, last)
    finally:
        server.close()
