# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An OCI image layout in a folder (image specification 1.1): blobs by digest, and index.json, which is written last.

Blobs have their names when they are complete, so a layout that was cut short names nothing incomplete.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tools.pipeline.base import files
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.store.cas import disk_error
from tools.pipeline.registry import oci
from tools.pipeline.registry.oci import MANIFEST_MAX, Content, Descriptor

MARK = "oci-layout"
_INDEX = "index.json"
_REF = "org.opencontainers.image.ref.name"
_VERSION = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK = 1 << 20
_INDEX_MAX = 4 << 20


class Layout:
    """A layout, made unless it is there; UserError for a folder that holds something else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if folder.exists() and not (folder / MARK).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError("is no OCI image layout, and not empty", where=str(folder), hint="name a new folder")
        self._listed = _read_index(folder / _INDEX)

    def close(self) -> None:
        """Nothing is held."""

    def blob(self, content: Content) -> bool:
        """Write a blob unless it is there; whether it had to be written."""
        path = self._folder / "blobs/sha256" / content.descriptor.sha256
        if path.is_file() and files.of_file(path) == content.descriptor.sha256:
            return False
        try:
            files.write_if_changed(self._folder / MARK, _VERSION)
            path.parent.mkdir(parents=True, exist_ok=True)
            _copy(content, path)
        except OSError as error:
            raise disk_error(error, path, elsewhere=True) from None
        return True

    def manifest(self, content: Content, tag: str = "") -> None:
        """Write a manifest; with a tag, index.json names it, and no other by that tag."""
        self.blob(content)
        if not tag:
            return
        kept = [entry for entry in self._listed if entry.get("annotations", {}).get(_REF) != tag]
        document = {**content.descriptor.document(), "annotations": {_REF: tag}}
        self._write([*kept, document])

    def attach(self, content: Content, subject: Descriptor) -> None:
        """Write a manifest that names `subject`, and list it; the subject must be of this layout."""
        path = self._folder / "blobs/sha256" / subject.sha256
        if not path.is_file():
            raise BuildError(f"has no {subject.digest}", where=str(self._folder))
        self.blob(content)
        entry = content.descriptor.document()
        if all(other.get("digest") != entry["digest"] for other in self._listed):
            self._write([*self._listed, entry])

    def resolve(self, what: str) -> Content | None:
        """The manifest behind a tag, or a listed one by its digest; None when there is none, or its bytes are wrong."""
        for entry in self._listed:
            if what in {entry.get("annotations", {}).get(_REF), entry["digest"]}:
                digest = str(entry["digest"]).removeprefix("sha256:")
                data = files.read_member(self._folder, "blobs", "sha256", digest, limit=MANIFEST_MAX)
                if data is not None and files.of_bytes(data) == digest:
                    return oci.of_bytes(data, str(entry.get("mediaType", "")))
        return None

    def referrers(self, subject: Descriptor) -> list[dict[str, Any]]:
        """Descriptors, as JSON, of the manifests that name `subject`."""
        found = []
        for entry in self._listed:
            data = files.read_member(self._folder, "blobs", "sha256", str(entry["digest"])[7:], limit=MANIFEST_MAX)
            if data is not None and oci.subject_of(data) == subject.digest:
                found.append(entry)
        return found

    def _write(self, listed: list[dict[str, Any]]) -> None:
        self._listed = sorted(listed, key=lambda entry: (str(entry["digest"]), oci.encode(entry)))
        try:
            files.write_if_changed(self._folder / _INDEX, oci.index(self._listed))
        except OSError as error:
            raise disk_error(error, self._folder / _INDEX, elsewhere=True) from None


def _read_index(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        with path.open("rb") as file:
            listed = json.loads(file.read(_INDEX_MAX))["manifests"]
        if all(isinstance(entry["digest"], str) for entry in listed):
            return list(listed)
    except (ValueError, LookupError, TypeError):
        pass
    raise UserError("is no image index", where=str(path), hint="name a new folder")


def _copy(content: Content, path: Path) -> None:
    """Under a temporary name, hashed, on disk, then renamed."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    temporary = Path(name)
    try:
        digest = hashlib.sha256()
        with os.fdopen(descriptor, "wb") as target, content.open() as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
        if digest.hexdigest() == content.descriptor.sha256:
            temporary.chmod(0o644)
            temporary.replace(path)
            return
    finally:
        temporary.unlink(missing_ok=True)
    raise BuildError("changed while it was published", where=str(content.path or path))
