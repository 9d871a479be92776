# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch bundle`: one disk from whatever an image comes as, with the real mkfs.erofs."""

import gzip
import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from jsonschema import Draft202012Validator

from tests.launcher.bundle.image_kit import LOWER, UPPER, Bundler, Layout, saved
from tests.launcher.conftest import Answer
from tests.launcher.layers.layer_kit import OWNER, Node, folder, lay_out, normal_of_tar, tar_of
from tools.launcher.layers import image
from tools.launcher.layers.below import Below


def test_every_form_of_an_image_gives_the_same_disk(bundler: Bundler, tmp_path: Path) -> None:
    """A layout as folder, as archive, compressed; what `docker save` wrote, also unpacked."""
    layout, archive = Layout(), saved(tmp_path / "saved.tar")
    whole = layout.archive(tmp_path / "layout.tar")
    (tmp_path / "layout.tar.gz").write_bytes(gzip.compress(whole.read_bytes()))
    with tarfile.open(archive) as members:
        members.extractall(tmp_path / "unpacked", filter="data")
    first, disk = bundler.make(layout.folder(tmp_path / "layout"))
    assert first["image"] == json.loads(layout.files["index.json"])["manifests"][0]["digest"]
    runs = bundler.workload
    for other in (whole, tmp_path / "layout.tar.gz"):
        assert bundler.make(other) == (first, disk)
        assert bundler.workload == runs
    for other in (archive, tmp_path / "unpacked"):
        # docker save gives no digest of the whole.
        assert bundler.make(other) == ({**first, "image": ""}, disk)
        assert bundler.workload == runs


def test_the_disk_is_the_layers_images_and_their_tree(bundler: Bundler, artifacts: Path, tmp_path: Path) -> None:
    """One behind the other, the lowest first, each the image that its layer gives by itself."""
    document, disk = bundler.make(saved(tmp_path / "saved.tar"))
    below, at = Below(), 0
    for layer, stretch in zip((LOWER, UPPER), document["layers"], strict=True):
        (tmp_path / "normal").write_bytes(normal_of_tar(layer, below))
        image.make(artifacts / "mkfs.erofs", tmp_path / "normal", tmp_path / "image")
        data = (tmp_path / "image").read_bytes()
        (tmp_path / "image").unlink()
        assert stretch == {"offset": at, "blocks": len(data) // 4096, "sha256": hashlib.sha256(data).hexdigest()}
        assert disk[at * 4096 :].startswith(data)
        at += stretch["blocks"]
    assert document["verity"]["blocks"] == at
    assert disk[at * 4096 :].startswith(b"verity\0\0")


def test_a_directory_and_a_tar_are_one_layer(bundler: Bundler, tmp_path: Path) -> None:
    """As an unpacked root file system, whoever unpacked it."""
    root = folder({b"bin": folder({b"app": Node(mode=0o755, data=b"x")}), b"tmp": folder({}, mode=0o1777)})
    (tmp_path / "root.tar").write_bytes(tar_of(root))
    lay_out(root, tmp_path / "root")
    owner = [] if OWNER is None else ["--owner", "0:0"]
    found = bundler.make(tmp_path / "root.tar", "--", "/bin/app")
    assert found == bundler.make(tmp_path / "root", *owner, "--", "/bin/app")
    other = bundler.make(tmp_path / "root", "--owner", "7:8", "--", "/bin/app")
    assert other[1] != found[1]
    assert bundler.make(tmp_path / "root.tar", "--owner", "7:8", "--", "/bin/app") == other
    assert "leave --owner out" in bundler.refused(saved(tmp_path / "saved.tar"), "--owner", "7:8")


def test_what_it_says_of_itself_is_of_its_schema(bundler: Bundler, repository: Path, tmp_path: Path) -> None:
    schema = json.loads((repository / "docs/schemas/bundle.schema.json").read_bytes())
    document, _ = bundler.make(saved(tmp_path / "saved.tar"))
    Draft202012Validator(schema).validate(document)
    for broken in ({**document, "schema": 1}, {**document, "layers": []}, {**document, "more": 1}):
        assert not Draft202012Validator(schema).is_valid(broken)


def test_127_layers_work(bundler: Bundler, tmp_path: Path) -> None:
    layers = [tar_of(folder({b"f%d" % number: Node()})) for number in range(127)]
    document, _ = bundler.make(saved(tmp_path / "many.tar", layers, config={"Cmd": ["/f0"]}))
    assert len(document["layers"]) == 127
    line = bundler.refused(saved(tmp_path / "more.tar", [*layers, LOWER]))
    assert line.endswith("more.tar: has 128 layers, not 1 to 127")


def test_a_layer_may_come_twice(bundler: Bundler, tmp_path: Path) -> None:
    """docker saves it once, and a link."""
    twice = [LOWER, UPPER, UPPER]
    linked = bundler.make(saved(tmp_path / "linked.tar", twice, links=True))
    assert linked == bundler.make(saved(tmp_path / "plain.tar", twice))


def test_of_several_images_one_is_chosen(bundler: Bundler, tmp_path: Path) -> None:
    layout, other = Layout(), Layout([LOWER])
    layout.files |= {name: data for name, data in other.files.items() if name.startswith("blobs/")}
    entries = [
        layout.add(json.dumps(one.manifest).encode(), annotations={"org.opencontainers.image.ref.name": name})
        for one, name in ((layout, "two"), (other, "one"))
    ]
    layout.index(entries)
    place = layout.folder(tmp_path / "layout")
    line = bundler.refused(place)
    choose = "choose one, with --image-name of digest, --image of bundle: one, two"
    assert line.endswith(f"index.json: has 2 images to choose from; {choose}")
    assert len(bundler.make(place, "--image", "one")[0]["layers"]) == 1
    assert len(bundler.make(place, "--image", "two")[0]["layers"]) == 2
    assert bundler.make(place, "--image", entries[0]["digest"]) == bundler.make(place, "--image", "two")
    line = bundler.refused(place, "--image", "three")
    assert line.endswith(f"index.json: has no image of the name 'three'; {choose}")
    # Two names of one image are nothing to choose between.
    layout.index([entries[0], entries[0] | {"annotations": {"org.opencontainers.image.ref.name": "again"}}])
    assert len(bundler.make(layout.folder(tmp_path / "twice"))[0]["layers"]) == 2


def test_of_several_platforms_it_is_ours(bundler: Bundler, tmp_path: Path) -> None:
    """An index below the index, with somebody else's platform and a builder's attestation beside ours."""
    layout = Layout()
    ours = layout.add(json.dumps(layout.manifest).encode(), platform={"os": "linux", "architecture": "amd64"})
    others = [{**ours, "platform": {"os": "linux", "architecture": name}} for name in ("arm64", "unknown")]
    layout.index([layout.add(json.dumps({"manifests": [*others, ours]}).encode())])
    document, _ = bundler.make(layout.folder(tmp_path / "layout"))
    assert document["image"] == ours["digest"]
    layout.index([layout.add(json.dumps({"manifests": others}).encode())])
    assert "linux/amd64: has no images" in bundler.refused(layout.folder(tmp_path / "layout"))


def test_the_command_line(bundler: Bundler, call: Callable[..., Answer], tmp_path: Path) -> None:
    source = saved(tmp_path / "saved.tar")
    answer = bundler.try_(source, "--json")
    said = json.loads(answer.out)
    assert {key: said.pop(key) for key in ("workload", "digests")} == {
        "workload": hashlib.sha256(bundler.workload).hexdigest(),
        "digests": [],
    }
    assert said == json.loads((bundler.folder / "bundle.json").read_text())
    assert "exists already" in call("bundle", source, "-o", bundler.folder, "--mkfs", bundler.mkfs).one_line()
    assert "no SOURCE" in call("bundle", "-o", tmp_path / "x").one_line()
    assert "no folder to make" in call("bundle", source).one_line()
    assert "No such file" in bundler.refused(tmp_path / "missing")
    assert "is no image, directory or tar" in bundler.refused(Path("/dev/null"))
    assert "holds no images" in bundler.refused(_tar(tmp_path), "--image", "x")
    assert "plain.tar: names no command to run; put one behind --" in bundler.refused(_tar(tmp_path))
    assert "is no owner" in bundler.refused(source, "--owner", "root")
    assert "is no size" in bundler.refused(source, "--max-size", "0G")
    missing = call("bundle", source, "-o", tmp_path / "x", "--mkfs", tmp_path / "none")
    assert "none: is no program that can be run" in missing.one_line()


def test_the_program_beside_the_launcher_is_the_one_that_was_built(
    bundler: Bundler, artifacts: Path, call: Callable[..., Answer], tmp_path: Path
) -> None:
    """Another one would make other bytes: its digest is compared before it runs."""
    source, out = Layout().folder(tmp_path / "layout"), tmp_path / "out"
    shutil.copytree(artifacts, out)
    words = ("bundle", source, "--config", out / "runtime.toml", "--quiet", "-o")
    assert call(*words, tmp_path / "whole").status == 0
    program = out / "mkfs.erofs"
    # It still runs, and so does not fail by itself.
    program.write_bytes(program.read_bytes() + b"\0")
    changed = call(*words, tmp_path / "changed")
    assert changed.status == 2
    assert "mkfs.erofs: SHA-256 is " in changed.one_line()
    assert "SHA256SUMS says " in changed.one_line()
    assert not (tmp_path / "changed").exists()
    assert call(*words, tmp_path / "own", "--mkfs", program).status == 0
    sums = out / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("  mkfs.erofs", "  mkfs.other"))
    assert "SHA256SUMS: does not name mkfs.erofs; ./doit build makes both" in call(*words, tmp_path / "x").one_line()
    sums.unlink()
    assert "SHA256SUMS: No such file" in call(*words, tmp_path / "x").one_line()


def _tar(tmp_path: Path) -> Path:
    (tmp_path / "plain.tar").write_bytes(LOWER)
    return tmp_path / "plain.tar"


def test_sizes_are_bounded(bundler: Bundler, tmp_path: Path) -> None:
    big = tar_of(folder({b"zeros": Node(data=bytes(2 << 20))}))
    layout = Layout([big], config={"Cmd": ["/zeros"]}).folder(tmp_path / "layout")
    assert "unpacks to more than 1048576 bytes" in bundler.refused(layout, "--max-size", "1M")
    bundler.make(layout, "--max-size", "3M")
