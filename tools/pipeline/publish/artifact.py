# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An output folder as one OCI artifact, and the packages that built it as another (docs/publishing.md).

out/, SBOM, pinned sources, checkout ── layers, by name ── manifest: the same bytes, the same digest
packages of the tool trees ──────────── layers, by name ── manifest of the tools, attached to it
"""

import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import files
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.registry import oci, target
from tools.pipeline.registry.oci import Content, Descriptor
from tools.pipeline.registry.target import Whole
from tools.pipeline.sources.pins import LocalFile, Pin, PoolFile, Wheel

GUEST = "application/vnd.sev-artifacts.guest.v1"
TOOLS = "application/vnd.sev-artifacts.tools.v1"
FILE = "application/vnd.sev-artifacts.file.v1"
SOURCE = "application/vnd.sev-artifacts.source.v1"
PACKAGE = "application/vnd.sev-artifacts.package.v1"
SBOM = "application/vnd.cyclonedx+json"
CHECKOUT = "application/vnd.sev-artifacts.checkout.v1.tar"

SBOM_NAME = "sbom.cdx.json"
CHECKOUT_NAME = "sources/checkout.tar"
MODE = "sev-artifacts.mode"
PROFILE = "sev-artifacts.profile"

EPOCH = "1970-01-01T00:00:00Z"
"""When everything was created: the date would make another digest of the same bytes."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What the manifest says of the artifact. `licences` are SPDX expressions."""

    profile: str
    version: str
    licences: Sequence[str]

    def annotations(self, title: str) -> dict[str, str]:
        """Of the manifest."""
        # Parts of a plain AND are named once; whatever else there is stays as it is.
        parts = [part for one in self.licences for part in ([f"({one})"] if "OR" in one else one.split(" AND "))]
        return {
            oci.TITLE: title,
            oci.CREATED: EPOCH,
            "org.opencontainers.image.version": self.version,
            "org.opencontainers.image.licenses": " AND ".join(sorted(set(parts))),
            PROFILE: self.profile,
        }


def guest(
    folder: Path, names: Iterable[str], *, labels: Labels, sbom: bytes, sources: Sequence[Content], checkout: bytes
) -> Whole:
    """The artifact: the files of an output folder (`names` below `folder`), and what they were made of."""
    contents = [
        *(_file(folder, name) for name in sorted(names)),
        oci.of_bytes(sbom, SBOM, annotations={oci.TITLE: SBOM_NAME}),
        *sources,
        oci.of_bytes(checkout, CHECKOUT, annotations={oci.TITLE: CHECKOUT_NAME}),
    ]
    return target.whole(GUEST, contents, annotations=labels.annotations("sev-artifacts"))


def tools(packages: Sequence[Content], *, labels: Labels, subject: Descriptor) -> Whole:
    """What is needed to build `subject` again without any mirror, besides the artifact."""
    annotations = labels.annotations("sev-artifacts tools")
    # Each package has its own copyright file in it.
    del annotations["org.opencontainers.image.licenses"]
    return target.whole(TOOLS, packages, annotations=annotations, subject=subject)


def pinned(pins: Iterable[Pin], *, cas: Cas, root: Path, media_type: str, folder: str) -> tuple[Content, ...]:
    """Layers of what is pinned, which must be in the cache, sorted by their names below `folder`."""
    unique = {pin.sha256: pin for pin in pins}
    made = [_pin(pin, cas, root, media_type, f"{folder}/{file_name(pin)}") for pin in unique.values()]
    return tuple(sorted(made, key=lambda made: (made.descriptor.annotations[oci.TITLE], made.descriptor.sha256)))


def file_name(pin: Pin) -> str:
    """What a pinned file is called where it comes from."""
    match pin.origin:
        case PoolFile(path=path) | LocalFile(path=path):
            return path.rpartition("/")[2]
        case Wheel(file=name):
            return name
        case origin:
            return origin.urls[0].rpartition("/")[2] if origin.urls else pin.name


def _pin(pin: Pin, cas: Cas, root: Path, media_type: str, title: str) -> Content:
    descriptor = Descriptor(media_type=media_type, sha256=pin.sha256, size=pin.size, annotations={oci.TITLE: title})
    path = root / pin.origin.path if isinstance(pin.origin, LocalFile) else cas.path(pin.sha256)
    return Content(descriptor=descriptor, path=path)


def _file(folder: Path, name: str) -> Content:
    path = folder / name
    status = path.stat()
    annotations = {oci.TITLE: name}
    if status.st_mode & stat.S_IXUSR:
        annotations[MODE] = "0755"
    descriptor = Descriptor(media_type=FILE, sha256=files.of_file(path), size=status.st_size, annotations=annotations)
    return Content(descriptor=descriptor, path=path)
