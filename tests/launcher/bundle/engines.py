# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit test_containers`: an image's archives, and what docker and podman unpack of them, give one bundle.

No test_ in this file's name: `./doit test` leaves it out, as nobody needs an engine for it. Root's engines, whichever
are installed, with overlayfs; root may read what they have unpacked.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.launcher.bundle.image_kit import CONFIG, config_of, saved
from tests.launcher.layers.layer_kit import Node, folder, tar_of

ENGINES = [name for name in ("docker", "podman") if shutil.which(name)]
IMAGE = "localhost/sev-artifacts-test:1"
TIME = 17 * 10**17


def layers() -> list[bytes]:
    """What builds do to the layers below: add, take away, make anew, link, change owners and modes."""
    deep = folder({b"d": folder({b"e": Node(mode=0o4755, data=b"set-id", nanoseconds=TIME)}, mode=0o2750, uid=7)})
    base = folder(
        {
            b"bin": folder({b"app": Node(mode=0o755, data=b"#!", nanoseconds=TIME, links=(b"again",))}),
            b"etc": folder({b"gone": Node(), b"kept": Node(uid=7, gid=8), b"link": Node(kind="symlink", target=b"x")}),
            b"opt": folder({b"thing": folder({b"old": Node()}), b"deep": deep}),
        }
    )
    second = folder(
        {
            b"etc": folder({b"gone": Node(kind="whiteout"), b"link": folder({b"now": Node(kind="fifo")})}),
            b"opt": folder({b"thing": folder({b"new": Node(data=b"n")}, mode=0o1777, opaque=True)}, described=False),
        }
    )
    # These engines unpack each layer by itself, so a folder that the archive does not list is 0755 and root's to them,
    # whatever it is below (docs/bundle.md): here it is that below, too.
    added = folder({b"f": Node(xattrs={"user.note": b"\0x"})}, mode=0o2750, uid=7)
    third = folder({b"opt": folder({b"deep": folder({b"d": added}, described=False)}, described=False)})
    return [tar_of(tree) for tree in (base, second, third)]


def test_an_engine_is_installed() -> None:
    assert ENGINES, "there is none to test with: apt-get install podman, or docker.io"


@pytest.mark.parametrize("engine", ENGINES)
def test_saved_and_unpacked_are_one_bundle(engine: str, artifacts: Path, tmp_path: Path) -> None:
    """The control: without the uppermost layer it is another."""

    def run(*words: str) -> str:
        return subprocess.run([engine, *words], check=True, capture_output=True, text=True).stdout

    def bundle(name: str, *words: str) -> dict[str, bytes]:
        argv = [str(artifacts / "sev-launch"), "bundle", "-o", str(tmp_path / name), *words, "--", "true"]
        subprocess.run(argv, check=True, capture_output=True)
        return {path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())}

    archive = saved(tmp_path / "saved.tar", layers(), config=CONFIG | {"User": "7:8"}, tag=IMAGE)
    (tmp_path / "config.json").write_text(json.dumps(config_of(layers(), config=CONFIG | {"User": "7:8"})))
    run("load", "-i", str(archive))
    try:
        places = json.loads(run("image", "inspect", "-f", "{{json .GraphDriver.Data}}", IMAGE))
        folders = [places["UpperDir"], *places["LowerDir"].split(":")][::-1]
        assert len(folders) == 3
        words = [word for place in folders for word in ("--layer", place)]
        found = bundle("unpacked", *words, "--image-config", str(tmp_path / "config.json"))
        lower = bundle("lower", *words[:-2])
    finally:
        run("rmi", IMAGE)
    assert found == bundle("saved", str(archive))
    assert found["disk.img"] != lower["disk.img"]
