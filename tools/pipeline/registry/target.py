# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What an artifact can be published to, and the order in which that happens.

    blobs ── manifest, by digest ── what is attached to it: tools, statements, signatures ── tag

Until the tag is there nobody finds anything; when it is there, everything is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tools.pipeline.base import ui
from tools.pipeline.registry import oci
from tools.pipeline.registry.oci import Content, Descriptor


class Target(Protocol):
    """A repository of a registry, or a layout in a folder."""

    def blob(self, content: Content) -> bool:
        """Bring a blob there unless it is there; whether it had to be sent."""

    def manifest(self, content: Content, tag: str = "") -> None:
        """Bring a manifest there, by its digest or as a tag."""

    def attach(self, content: Content, subject: Descriptor) -> None:
        """Bring a manifest there that names `subject`, and list it among the subject's referrers."""

    def referrers(self, subject: Descriptor) -> list[dict[str, Any]]:
        """Descriptors, as JSON, of what names `subject`."""

    def resolve(self, what: str) -> Content | None:
        """The manifest behind a tag; None when there is none."""

    def close(self) -> None:
        """The end."""


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A manifest and the blobs that it names."""

    manifest: Content
    blobs: Sequence[Content]


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """What is attached to an artifact. `tag`: attached by this tag, as cosign wants it, not as a referrer."""

    whole: Whole
    tag: str = ""


@dataclass(kw_only=True)
class Tally:
    """What was sent and what was there, for people; sizes in bytes."""

    sent: int = 0
    there: int = 0
    bytes_sent: int = 0
    now: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.now}  {ui.size(self.bytes_sent)} sent"


def push(target: Target, artifact: Whole, attachments: Sequence[Attachment], *, tag: str) -> Tally:
    """Everything, the tag last (none when it is empty). May be repeated, or go on after it was killed."""
    tally = Tally()
    with ui.working("publishing", detail=lambda: str(tally)):
        _blobs(target, artifact, tally)
        target.manifest(artifact.manifest)
        for attachment in attachments:
            attach(target, attachment, artifact.manifest.descriptor, tally)
        if tag:
            target.manifest(artifact.manifest, tag)
    return tally


def attach(target: Target, attachment: Attachment, subject: Descriptor, tally: Tally) -> None:
    """One more to what is there already."""
    _blobs(target, attachment.whole, tally)
    if attachment.tag:
        target.manifest(attachment.whole.manifest, attachment.tag)
    else:
        target.attach(attachment.whole.manifest, subject)


def _blobs(target: Target, whole: Whole, tally: Tally) -> None:
    for content in whole.blobs:
        tally.now = content.descriptor.annotations.get(oci.TITLE, content.descriptor.media_type)
        if target.blob(content):
            tally.sent += 1
            tally.bytes_sent += content.descriptor.size
        else:
            tally.there += 1


def whole(
    artifact_type: str, contents: Sequence[Content], *, annotations: dict[str, str], subject: Descriptor | None = None
) -> Whole:
    """An artifact of these layers; the same layers give the same digest."""
    layers = [content.descriptor for content in contents]
    manifest = oci.manifest(artifact_type, layers, annotations=annotations, subject=subject)
    return Whole(manifest=manifest, blobs=(oci.EMPTY, *contents))
