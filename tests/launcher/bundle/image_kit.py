# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Container images for tests, as builders and `docker save` write them."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.launcher.conftest import Answer
from tests.launcher.layers.layer_kit import Node, folder, tar_of

LOWER = tar_of(
    folder(
        {
            b"bin": folder({b"app": Node(mode=0o755, data=b"#!/bin/sh\n", nanoseconds=17 * 10**17)}),
            b"etc": folder(
                {
                    b"passwd": Node(data=b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"),
                    b"group": Node(data=b"root:x:0:\napp:x:1001:\naudio:x:29:app,other\nvideo:x:44:app\n"),
                }
            ),
            b"old": Node(data=b"old"),
        }
    )
)
UPPER = tar_of(folder({b"old": Node(kind="whiteout"), b"new": Node(data=b"new")}))
CONFIG = {
    "Entrypoint": ["/bin/app"],
    "Cmd": ["--serve"],
    "Env": ["A=b"],
    "User": "app",
    "WorkingDir": "/srv",
}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def config_of(layers: Sequence[bytes], **changes: Any) -> dict[str, Any]:
    """An image's config; `changes` replace its keys."""
    diff_ids = [f"sha256:{digest(layer)}" for layer in layers]
    document = {"architecture": "amd64", "os": "linux", "config": CONFIG}
    return {**document, "rootfs": {"type": "layers", "diff_ids": diff_ids}, **changes}


class Layout:
    """An OCI layout that can be changed before it is written; the layers are compressed with gzip."""

    def __init__(self, layers: Sequence[bytes] = (LOWER, UPPER), **changes: Any) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        packed = [gzip.compress(layer, mtime=0) for layer in layers]
        config = json.dumps(config_of(layers, **changes)).encode()
        self.manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "config": self.add(config),
            "layers": [self.add(data) for data in packed],
        }
        self.index([self.add(json.dumps(self.manifest).encode())])

    def add(self, data: bytes, **more: Any) -> dict[str, Any]:
        """A file, and its descriptor."""
        self.files[f"blobs/sha256/{digest(data)}"] = data
        return {"mediaType": "x", "digest": f"sha256:{digest(data)}", "size": len(data), **more}

    def index(self, manifests: Sequence[Mapping[str, Any]]) -> None:
        self.files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()

    def folder(self, place: Path) -> Path:
        for name, data in self.files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
        return place

    def archive(self, path: Path) -> Path:
        return write_tar(path, self.files)


def saved(
    path: Path,
    layers: Sequence[bytes] = (LOWER, UPPER),
    *,
    links: bool = False,
    tag: str = "app:latest",
    **changes: Any,
) -> Path:
    """What `docker save` up to 24 writes; `links`: a layer that comes again is a link to its first place."""
    files: dict[str, bytes] = {}
    symlinks: dict[str, str] = {}
    names = []
    for number, layer in enumerate(layers):
        name = f"{number:064}/layer.tar"
        first = layers.index(layer)
        if links and first != number:
            symlinks[name] = f"../{first:064}/layer.tar"
        else:
            files[name] = layer
        names.append(name)
    files["config.json"] = json.dumps(config_of(layers, **changes)).encode()
    entry = {"Config": "config.json", "RepoTags": [tag], "Layers": names}
    files["manifest.json"] = json.dumps([entry]).encode()
    return write_tar(path, files, symlinks)


def write_tar(path: Path, files: Mapping[str, bytes], symlinks: Mapping[str, str] | None = None) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (symlinks or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


class Bundler:
    """Runs the command; each bundle goes into a folder of its own. Without a runtime.toml, unless one is given."""

    def __init__(self, call: Callable[..., Answer], mkfs: Path, place: Path) -> None:
        self._call, self.mkfs, self.place = call, mkfs, place
        self._count = 0

    def try_(self, *words: Path | str) -> Answer:
        self._count += 1
        return self._call("bundle", "-o", self.folder, "--mkfs", self.mkfs, "--quiet", *words)

    @property
    def folder(self) -> Path:
        return self.place / f"bundle-{self._count}"

    @property
    def workload(self) -> bytes:
        """What the last one's workload.json says."""
        return (self.folder / "workload.json").read_bytes()

    def make(self, *words: Path | str) -> tuple[dict[str, Any], bytes]:
        answer = self.try_(*words)
        assert answer.status == 0, answer.err
        document = json.loads((self.folder / "bundle.json").read_text())
        assert document["verity"]["root_hash"] in answer.out
        return document, (self.folder / "disk.img").read_bytes()

    def refused(self, *words: Path | str) -> str:
        """The one line; nothing is left behind, neither the folder nor what it was made in."""
        before = sorted(self.place.iterdir())
        answer = self.try_(*words)
        assert (answer.status, answer.out) == (2, ""), answer
        assert sorted(self.place.iterdir()) == before
        return answer.one_line()
