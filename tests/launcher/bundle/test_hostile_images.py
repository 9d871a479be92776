# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Images that are not what their digests say, or make no sense: one line each. The plain one is taken."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.bundle.image_kit import LOWER, UPPER, Layout, config_of, saved
from tools.launcher.base.errors import UserError
from tools.launcher.bundle import sources
from tools.launcher.bundle.sources import Wanted


def read(source: Path, tmp_path: Path) -> int:
    """Read the whole image; the number of its layers."""
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    wanted = Wanted(source=source, limit=1 << 30)
    with sources.opened(wanted, work=work, note=print) as found:
        return len(list(found.layers()))


def _layer(layout: Layout, number: int) -> str:
    """The name of a layer's file."""
    return f"blobs/sha256/{layout.manifest['layers'][number]['digest'].removeprefix('sha256:')}"


def _change_layer(layout: Layout) -> None:
    layout.files[_layer(layout, 1)] += b" "


def _change_config(layout: Layout) -> None:
    layout.files[f"blobs/sha256/{layout.manifest['config']['digest'].removeprefix('sha256:')}"] += b" "


def _lose_layer(layout: Layout) -> None:
    del layout.files[_layer(layout, 0)]


def _config_with(**changes: Any) -> Callable[[Layout], None]:
    def change(layout: Layout) -> None:
        layout.files = Layout(**changes).files

    return change


def _manifest_with(**changes: object) -> Callable[[Layout], None]:
    def change(layout: Layout) -> None:
        layout.index([layout.add(json.dumps({**layout.manifest, **changes}).encode())])

    return change


def _file(name: str, data: bytes) -> Callable[[Layout], None]:
    return lambda layout: layout.files.update({name: data})


WRONG: dict[str, tuple[Callable[[Layout], None], str]] = {
    "layer": (_change_layer, "SHA-256 is .*, its name says"),
    "config": (_change_config, "SHA-256 is .*, its name says"),
    "diff_id": (_config_with(rootfs=config_of([UPPER, LOWER])["rootfs"]), "is not the layer 'sha256:[0-9a-f]{64}'"),
    "fewer diff_ids": (_config_with(rootfs=config_of([LOWER])["rootfs"]), "has 2 layers and a config of 1"),
    "no layers": (_manifest_with(layers=[]), "has 0 layers, not 1 to 127"),
    "missing layer": (_lose_layer, "has no file 'blobs/sha256/"),
    "another architecture": (_config_with(architecture="arm64"), "for architecture 'arm64', not amd64"),
    "another system": (_config_with(os="windows"), "for os 'windows', not linux"),
    "digest that leads away": (_manifest_with(config={"digest": "sha256:../../etc/passwd"}), "which is no sha256"),
    "digest of another kind": (_manifest_with(config={"digest": "md5:" + "0" * 32}), "which is no sha256"),
    "no descriptor": (_manifest_with(config=7), "which is no sha256"),
    "layers are no list": (_manifest_with(layers={}), "has no list of layers"),
    "index is no JSON": (_file("index.json", b"{"), "index.json: is no JSON"),
    "index is deep": (_file("index.json", b"[" * 200_000), "index.json: is (nested too deeply|no JSON)"),
    "index of nothing": (_file("index.json", b'{"manifests": []}'), "has no images to choose from"),
    "index is a list": (_file("index.json", b"[]"), "has no list of manifests"),
    "index is large": (_file("index.json", bytes(5 << 20)), "more than 4194304"),
    "another version": (_file("oci-layout", b'{"imageLayoutVersion": "2"}'), "is no OCI layout of version 1.0.0"),
    "environment": (_config_with(config={"Env": ["A"]}), "'A', which is no NAME=VALUE"),
    "command": (_config_with(config={"Cmd": "sh"}), "Cmd is no list of texts"),
    "NUL": (_config_with(config={"Cmd": ["a\0b"]}), "Cmd is no list of texts"),
    "half a character": (_config_with(config={"Cmd": ["\ud800"]}), "Cmd is no list of texts"),
    "directory": (_config_with(config={"WorkingDir": "srv/../.."}), "is no plain absolute path"),
    "config is a list": (_config_with(config=["x"]), "config is no table"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_refused_in_one_line(change: Callable[[Layout], None], words: str, tmp_path: Path) -> None:
    assert read(Layout().folder(tmp_path / "good"), tmp_path) == 2
    layout = Layout()
    change(layout)
    with pytest.raises(UserError, match=words) as caught:
        read(layout.folder(tmp_path / "bad"), tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"[]", "has no images"),
        (b'[{"Config": 1, "Layers": []}]', "names no config and layers"),
        (b'[{"Config": "../config.json", "Layers": ["a"]}]', "has no file '../config.json'"),
        (b'[{"Config": "/etc/passwd", "Layers": ["a"]}]', "has no file '/etc/passwd'"),
    ],
)
def test_a_folder_of_docker_save_leads_nowhere_else(document: bytes, words: str, tmp_path: Path) -> None:
    assert read(saved(tmp_path / "good.tar"), tmp_path) == 2
    place = tmp_path / "bad"
    place.mkdir()
    (tmp_path / "config.json").write_text("{}")
    (place / "manifest.json").write_bytes(document)
    with pytest.raises(UserError, match=words):
        read(place, tmp_path)


@pytest.mark.parametrize("document", [b"{}", b"[1]", b"{", b'[{"name": "app"}]', b"7"])
def test_a_root_file_system_may_have_a_manifest_of_its_own(document: bytes, tmp_path: Path) -> None:
    """It is one layer, and the file is in it."""
    place = tmp_path / "root"
    place.mkdir()
    (place / "manifest.json").write_bytes(document)
    assert read(place, tmp_path) == 1
