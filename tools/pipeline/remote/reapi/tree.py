# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A step's whole root as one Merkle tree: the tool tree, and over it the folders of its inputs.

A tool tree has thousands of files, and hashing them takes seconds. Its folders, encoded, are kept below `build/`; what
is kept is compared with the tree's own digest, folder by folder, so that nothing there need be believed.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from google.protobuf.message import DecodeError

from tools.pipeline.base import files
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store import merkle
from tools.pipeline.engine.store.merkle import Digest, File, Folder, Link
from tools.pipeline.remote.reapi.blobs import Source

_DEEPEST = 64  # folders of a tool tree; Debian's have a dozen


@dataclass(kw_only=True)
class _Known(Folder):
    """A folder whose digest has been worked out."""

    known: Digest

    def digest(self) -> Digest:
        """The digest."""
        return self.known


@dataclass(frozen=True, kw_only=True)
class Root:
    """The root of a file system: its digest, what is in it, and where each blob of it can be read."""

    digest: Digest
    members: Mapping[bytes, File | Link | Folder]
    blobs: Mapping[Digest, Source]


def load(digest: str, place: Callable[[], Path], kept: Path) -> Root:
    """The tool tree of that digest, from the file `kept` if that is right, else hashed and kept.

    `place` gives the tree's folder; a tree that is known, and that the service has, need not be set up here.
    """
    try:
        whole = reapi.Tree.FromString(kept.read_bytes())
        children = {_digest(one): one for one in whole.children}
        folder = _folder(whole.root, children, _DEEPEST)
        found = _root(folder, place)
        if found.digest.sha256 == digest:
            return found
    except (OSError, DecodeError, KeyError, RecursionError):
        pass
    found = _root(merkle.read(place()), place)
    if found.digest.sha256 != digest:
        raise BuildError("was changed while the build ran", where=str(place()), hint="build again")
    encoded = {digest: data for digest, data in found.blobs.items() if isinstance(data, bytes)}
    top = reapi.Directory.FromString(encoded.pop(found.digest))
    inner = [reapi.Directory.FromString(data) for data in encoded.values()]
    files.write_atomically(kept, reapi.Tree(root=top, children=inner).SerializeToString())
    return found


def _digest(folder: reapi.Directory) -> str:
    return Digest.of(folder.SerializeToString(deterministic=True)).sha256


def _folder(read: reapi.Directory, children: Mapping[str, reapi.Directory], deepest: int) -> Folder:
    """KeyError for a folder that is not there: each is found by what it hashes to."""
    if not deepest:
        raise RecursionError
    made = Folder()
    for file in read.files:
        digest = Digest(sha256=file.digest.hash, size=file.digest.size_bytes)
        made.members[os.fsencode(file.name)] = File(digest=digest, executable=file.is_executable)
    for inner in read.directories:
        made.members[os.fsencode(inner.name)] = _folder(children[inner.digest.hash], children, deepest - 1)
    for link in read.symlinks:
        made.members[os.fsencode(link.name)] = Link(target=os.fsencode(link.target))
    return made


def _root(folder: Folder, place: Callable[[], Path] | None) -> Root:
    """The folder with its digest and all blobs; those of files are left out without a place."""
    blobs: dict[Digest, Source] = {}

    def visit(folder: Folder, path: PurePosixPath) -> _Known:
        members: dict[bytes, File | Link | Folder] = {}
        for name, node in folder.members.items():
            inside = path / os.fsdecode(name)
            members[name] = visit(node, inside) if isinstance(node, Folder) else node
            if place is not None and isinstance(node, File):
                blobs[node.digest] = partial(_below, place, inside)
        data = Folder(members=members).encoded()
        known = _Known(members=members, known=Digest.of(data))
        blobs[known.known] = data
        return known

    known = visit(folder, PurePosixPath())
    return Root(digest=known.known, members=known.members, blobs=blobs)


def _below(place: Callable[[], Path], path: PurePosixPath) -> Path:
    return place() / path


def with_inputs(tree: Root, inputs: Mapping[str, File]) -> Root:
    """The root with what lies at each inside path; only the caller knows where the inputs' own blobs are."""
    given = _root(merkle.of_files({path.removeprefix("/"): node for path, node in inputs.items()}), None)
    # As the sandbox does it: an input's top folder is mounted over the tree's.
    whole = Folder(members={**tree.members, **given.members})
    data = whole.encoded()
    digest = Digest.of(data)
    return Root(digest=digest, members=whole.members, blobs={**tree.blobs, **given.blobs, digest: data})
