# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What runs in a bundle's guest: the image's config, what is said instead, and the launch digests of that."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.bundle.image_kit import CONFIG, LOWER, UPPER, Bundler, config_of, saved
from tests.launcher.conftest import Answer
from tests.launcher.launcher_kit import Out
from tests.launcher.layers.layer_kit import OWNER, ROOT, Node, folder, lay_out, tar_of
from tools.launcher.options import progress
from tools.sev.workload import reader
from tools.sev.workload.document import Document, Doors, Process, Verity

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
AS_IS = Process(
    argv=("/bin/app", "--serve"),
    environment=(PATH, "A=b", "HOME=/home/app"),
    cwd="/srv",
    uid=1000,
    gid=1001,
    groups=(29, 44),
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return saved(tmp_path / "saved.tar")


def document(bundler: Bundler) -> Document:
    return reader.parse(bundler.workload, where="workload.json")


def test_an_image_runs_as_its_config_says(bundler: Bundler, image: Path) -> None:
    said, _ = bundler.make(image)
    root = Verity(root_hash=said["verity"]["root_hash"], salt="", layers=tuple(one["blocks"] for one in said["layers"]))
    assert document(bundler) == Document(root=root, process=AS_IS)


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["--", "--help", "-v"], {"argv": ("/bin/app", "--help", "-v")}),
        (["--entrypoint", "/bin/sh"], {"argv": ("/bin/sh",)}),
        (["--entrypoint", "/bin/sh", "--", "-c", "x"], {"argv": ("/bin/sh", "-c", "x")}),
        (["--entrypoint", "", "--", "/bin/other"], {"argv": ("/bin/other",)}),
        (["--env", "A=c", "--env", "Z=1"], {"environment": (PATH, "A=c", "HOME=/home/app", "Z=1")}),
        (["--env", "HOME=/x"], {"environment": (PATH, "A=b", "HOME=/x")}),
        (["--workdir", "/tmp/"], {"cwd": "/tmp"}),
        (["--user", "app:audio"], {"gid": 29, "groups": ()}),
        (
            ["--user", "5:6"],
            {"uid": 5, "gid": 6, "groups": (), "environment": (PATH, "A=b", "HOME=/")},
        ),
        (
            ["--user", "root"],
            {"uid": 0, "gid": 0, "groups": (), "environment": (PATH, "A=b", "HOME=/root")},
        ),
        (["--open", "stdin"], {"host": Doors(stdin=True)}),
    ],
)  # fmt: skip
def test_options_have_dockers_rules(
    bundler: Bundler, image: Path, words: list[str], changes: dict[str, object]
) -> None:
    bundler.make(image, *words)
    found = document(bundler).process
    wanted = dataclasses.replace(AS_IS, **changes)  # type: ignore[arg-type]  # fields of several types
    assert set(found.environment) == set(wanted.environment)
    assert dataclasses.replace(found, environment=wanted.environment) == wanted


def test_options_of_the_guest(bundler: Bundler, image: Path) -> None:
    bundler.make(image, "--open", "reports", "--hostname", "web")
    found = document(bundler)
    assert (found.reports, found.hostname) == ("socket", "web")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--entrypoint", ""], "names no command to run; put one behind --"),
        (["--user", "nobody"], "User 'nobody' is not in the image's /etc/passwd"),
        (["--workdir", "srv"], "is no absolute path"),
        (["--workdir", "/a/../b"], "has a component . or .."),
        (["--open", "everything"], "invalid choice"),
        (["--env", "=x"], "has no name"),
        (["--image-config", "x"], "is an image, which has a config; leave --image-config out"),
        (["--layer", "x"], "give SOURCE or --layer, not both"),
        (["--userxattr"], "--userxattr belongs to --layer"),
    ],
)
def test_what_makes_no_sense_is_refused(bundler: Bundler, image: Path, words: list[str], line: str) -> None:
    assert line in bundler.refused(image, *words)


def test_folders_in_a_config_have_one_name(bundler: Bundler, tmp_path: Path) -> None:
    """And a variable that it has twice has its later value, as docker gives it."""
    config = {**CONFIG, "WorkingDir": "//srv/./www/", "Env": ["A=1", "B=2", "A=3"]}
    bundler.make(saved(tmp_path / "odd.tar", config=config))
    found = document(bundler).process
    assert (found.cwd, found.environment[:3]) == ("/srv/www", (PATH, "A=3", "B=2"))


def test_a_secret_is_warned_about(bundler: Bundler, image: Path) -> None:
    answer = bundler.try_(image, "--env", "DB_PASSWORD=x", "--env", "LEVEL=1")
    assert answer.status == 0
    assert answer.err.count("if that is a secret, the host has it") == 1
    assert "--env DB_PASSWORD" in answer.err


def test_who_waits_is_told_what_for(
    bundler: Bundler, image: Path, call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After some silence, which is shorter here than anybody's patience; not where nobody has to wait, nor --quiet."""
    words = ("bundle", image, "--mkfs", bundler.mkfs)
    monkeypatch.setattr(progress, "_SILENCE", 1e6)
    assert "layer" not in call(*words, "-o", tmp_path / "at-once").err
    monkeypatch.setattr(progress, "_SILENCE", 1e-4)
    assert re.search(r"(?m)^sev-launch: layer 2 of 2 … \d+ s$", call(*words, "-o", tmp_path / "slow").err)
    assert "layer" not in call(*words, "-o", tmp_path / "quiet", "--quiet").err


def test_layers_by_themselves(bundler: Bundler, image: Path, tmp_path: Path) -> None:
    """Unpacked by an engine, as archives, mixed: the disk and the document of the image that they are of."""
    said, disk = bundler.make(image)
    workload = bundler.workload
    config = tmp_path / "config.json"
    config.write_text(json.dumps(config_of([LOWER, UPPER])))
    trees = (
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
        ),
        folder({b"old": Node(kind="whiteout"), b"new": Node(data=b"new")}),
    )
    folders, archives = [tmp_path / "1", tmp_path / "2"], [tmp_path / "1.tar", tmp_path / "2.tar"]
    overlay, words = ("trusted.overlay.", ()) if ROOT else ("user.overlay.", ("--userxattr",))
    for tree, data, place, archive in zip(trees, (LOWER, UPPER), folders, archives, strict=True):
        assert tar_of(tree) == data
        lay_out(tree, place, overlay=overlay)
        archive.write_bytes(data)
    owner = () if OWNER is None else ("--owner", "0:0")
    for parts in (folders, archives, [folders[0], archives[1]]):
        layers = [word for part in parts for word in ("--layer", part)]
        found = bundler.make(*layers, "--image-config", config, *words, *owner)
        assert found == ({**said, "image": ""}, disk)
        assert bundler.workload == workload
    # In another order they are another root.
    layers = [word for part in reversed(folders) for word in ("--layer", part)]
    assert bundler.make(*layers, "--image-config", config, *words, *owner)[1] != disk
    # Of archives the config says which they are.
    layers = [word for part in reversed(archives) for word in ("--layer", part)]
    assert "is not the layer 'sha256:" in bundler.refused(*layers, "--image-config", config)
    assert "is of an image with 2 layers, given are 1" in bundler.refused(*layers[:2], "--image-config", config)
    assert "is no JSON" in bundler.refused(*layers, "--image-config", archives[0])
    assert "no SOURCE" in bundler.refused("--image-config", config)


def test_launch_digests(
    bundler: Bundler, image: Path, artifacts: Path, call: Callable[..., Answer], tmp_path: Path
) -> None:
    """Those in the bundle are what `digest` says of it, of its document, and what `show` would start."""
    config = artifacts / "runtime.toml"
    answer = bundler.try_(image, "--config", config)
    assert answer.status == 0, answer.err
    made = (bundler.folder / "digests.json").read_text()
    words = ("--config", config, "--mode", "all", "--json")
    for which in (("--bundle", bundler.folder), ("--workload", bundler.folder / "workload.json")):
        assert call("digest", *which, *words).out == made
    said = call("digest", "--bundle", bundler.folder, "--config", config).out
    assert f"digest     {said}" in answer.out
    shown = json.loads(call("show", "--bundle", bundler.folder, "--config", config, "--unprotected", "--json").out)
    assert shown["kernel_cmdline"] == json.loads(made)["kernel_cmdline"]
    assert f"sev_agent.workload={document(bundler).sha256}" in shown["kernel_cmdline"].split()
    assert any(str(bundler.folder / "disk.img") in word for word in shown["argv"])
    # Another argument, another digest.
    bundler.try_(image, "--config", config, "--", "--other")
    assert (bundler.folder / "digests.json").read_text() != made


def test_artifacts_that_are_not_the_configs_give_no_digests(bundler: Bundler, image: Path, out: Out) -> None:
    kernel = out.folder / "vmlinuz"
    kernel.write_bytes(kernel.read_bytes() + b" ")
    assert "vmlinuz" in bundler.refused(image, "--config", out.config)


def test_a_bundle_that_is_not_whole_is_refused(
    bundler: Bundler, image: Path, artifacts: Path, call: Callable[..., Answer], tmp_path: Path
) -> None:
    """Before anything starts; a host that does not use this program meets the agent instead."""
    config = artifacts / "runtime.toml"
    bundler.make(image)
    place = bundler.folder
    disk = place / "disk.img"
    whole = disk.read_bytes()

    def said(*words: str) -> str:
        answer = call("digest", "--config", config, "--bundle", place, *words)
        return "" if answer.status == 0 else answer.one_line()

    assert said() == ""
    disk.write_bytes(whole[:-1])
    assert f"{disk}: has {len(whole) - 1} bytes; the workload document's root has {len(whole)}" in said()
    # The uppermost block of the tree is of another disk, as long as this one.
    disk.write_bytes(whole[:-4096] + whole[-4096:].replace(whole[-4096:-4064], bytes(32)))
    assert "has the root hash" in said()
    disk.unlink()
    assert "disk.img: No such file or directory" in said()
    disk.write_bytes(whole)
    assert said() == ""
    assert "leave the command out" in said("--", "x")
    assert "not allowed with argument --bundle" in said("--user", "1")
    assert "not allowed with argument --bundle" in said("--rootfs", "x")
    (place / "workload.json").write_bytes(bundler.workload + b"\n")
    assert "workload.json: is not in canonical form" in said()
    (place / "workload.json").unlink()
    assert "is no bundle: it has no workload.json; `sev-launch bundle` makes one" in said()
