# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime document`: what a container's guest is bound to."""

import hashlib
import sys
from pathlib import Path

from tools.runtime.cli import words
from tools.runtime.cli.main import Context
from tools.runtime.life.folder import DOCUMENT, ContainerError, Folder
from tools.sev.workload import openings, reader

_ROOTS = (words.ROOT[1:], "run/docker/runtime-*/*", "run/containerd/runc/*")
"""Where engines have their runtimes keep containers: podman, docker, containerd."""


def run(given: list[str], context: Context) -> int:
    """Print the document's bytes; --openings: what it leaves to the host, in words."""
    found = words.parse(given, {"--openings": False, "--sha256": False})
    data = _folder(words.only_id(found, "document"), context).read(DOCUMENT)
    if found.has("--sha256"):
        data = hashlib.sha256(data).hexdigest().encode() + b"\n"
    elif found.has("--openings"):
        data = "".join(f"{line}\n" for line in openings.openings(reader.parse(data, where=DOCUMENT))).encode()
    sys.stdout.buffer.write(data)
    return 0


def _folder(name: str, context: Context) -> Folder:
    """The container's: below --root, else wherever an engine keeps one of this id, or of an id that begins so."""
    if context.root != words.ROOT or Folder(context.root, name).has(DOCUMENT):
        return Folder(context.root, name)
    found = {path.parent for place in _ROOTS for path in Path("/").glob(f"{place}/{name}*/{DOCUMENT}")}
    if len(found) > 1:
        raise ContainerError(f"{len(found)} containers have ids that begin so", where=name)
    return next((Folder(str(path.parent), path.name) for path in found), Folder(context.root, name))
