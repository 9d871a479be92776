# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A root of several layers on one disk: what the document says lies over what, and what a host makes of the disk."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.agent.conftest import Boot
from tools.attack.guests import agent as guest_kit
from tools.launcher.bundle import hash_tree
from tools.sev.workload.document import Document, Process, Verity

BLOCK = 4096
Start = Callable[[Path, bytes], guest_kit.Guest]


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk's layers, and the root that a document says of it."""

    images: tuple[bytes, ...]
    root: Verity
    path: Path

    @staticmethod
    def of(images: Sequence[bytes], path: Path) -> "Disk":
        """Images one behind the other, and their tree: what a host can make of any images."""
        with path.open("w+b") as stream:
            stream.write(b"".join(images))
            blocks = [len(image) // BLOCK for image in images]
            tree = hash_tree.append(stream, blocks=sum(blocks))
        return Disk(
            images=tuple(images), root=Verity(root_hash=tree.root_hash, salt="", layers=tuple(blocks)), path=path
        )


def layer(files: Mapping[str, bytes], target: Path) -> Path:
    with tarfile.open(target, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target


@pytest.fixture
def bundled(artifacts: Path, tmp_path: Path) -> Callable[..., Disk]:
    """The disk that `sev-launch bundle` makes of layers."""

    def make(*layers: Path) -> Disk:
        folder = tmp_path / f"bundle-{len(list(tmp_path.glob('bundle-*')))}"
        words = [word for one in layers for word in ("--layer", str(one))]
        argv = [str(artifacts / "sev-launch"), "bundle", *words, "-o", str(folder), "--quiet", "--", "x"]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        said = json.loads((folder / "bundle.json").read_text())
        data = (folder / "disk.img").read_bytes()
        images = [data[one["offset"] * BLOCK :][: one["blocks"] * BLOCK] for one in said["layers"]]
        root = Verity(
            root_hash=said["verity"]["root_hash"], salt="", layers=tuple(one["blocks"] for one in said["layers"])
        )
        assert json.loads((folder / "workload.json").read_text())["root"] == root.value()
        return Disk(images=tuple(images), root=root, path=folder / "disk.img")

    return make


@pytest.fixture
def base(busybox: Path, tmp_path: Path) -> Path:
    return guest_kit.root_tar(busybox, tmp_path / "base.tar")


@pytest.fixture
def start(boot: Boot) -> Start:
    def bound(disk: Path, document: bytes) -> guest_kit.Guest:
        return boot(image=disk, binding=f"sev_agent.workload={hashlib.sha256(document).hexdigest()}")

    return bound


def running(script: str, root: Verity) -> bytes:
    return Document(root=root, process=Process(argv=("sh", "-c", script), environment=("PATH=/bin",))).data


def outcome(start: Start, disk: Path, document: bytes) -> tuple[bytes, tuple[int, ...] | None, int | None]:
    """What the workload wrote, how it ended, and the code of the agent's error; the guest is off afterwards."""
    result, code = guest_kit.Result(), None
    with start(disk, document) as guest:
        guest.bound(document)
        while result.exited is None and (frame := guest.receive()) is not None:
            if frame[0] == guest_kit.READY:
                guest.send(guest_kit.RUN, 1, guest_kit.run_entry())
            elif frame[0] == guest_kit.STDOUT:
                result.out += frame[2]
            elif frame[0] == guest_kit.ERROR:
                code = guest_kit.failure(frame[2])[0]
            elif frame[0] == guest_kit.EXITED:
                result.exited = (frame[2][0], frame[2][4])
    return result.out, result.exited, code


def test_127_layers(start: Start, bundled: Callable[..., Disk], base: Path, tmp_path: Path) -> None:
    """Each over the one before it: files, whiteouts and an opaque folder; and all of it can be written to."""
    layers = [base, layer({"hidden/old": b"", "turn": b"1\n", "n/1": b"", "once-1": b""}, tmp_path / "1.tar")]
    for number in range(2, 126):
        files = {"turn": b"%d\n" % number, f"n/{number}": b"", f"once-{number}": b"", f".wh.once-{number - 1}": b""}
        layers.append(layer(files, tmp_path / f"{number}.tar"))
    layers.append(layer({"hidden/.wh..wh..opq": b"", "hidden/new": b""}, tmp_path / "last.tar"))
    disk = bundled(*layers)
    assert len(disk.root.layers) == 127
    script = (
        "busybox stat -c %d / turn n/1 n/120 bin/busybox hidden/new; "
        "cat turn; set -- /n/*; echo $#; echo /once-* /hidden/*; echo x > /n/7; cat /n/7; "
        "mkdir /hidden/more && touch /hidden/more/file && echo /hidden/*/*; grep -c erofs /proc/mounts"
    )
    out, exited, _ = outcome(start, disk.path, running(script, disk.root))
    lines = out.decode().splitlines()
    assert len(set(lines[:6])) == 1
    assert lines[6:] == ["125", "125", "/once-125 /hidden/new", "x", "/hidden/more/file", "0"]
    assert exited == (0, 1)  # grep found none: the layers themselves cannot be reached


@pytest.fixture
def honest(bundled: Callable[..., Disk], base: Path, tmp_path: Path) -> Disk:
    """Three layers; who lies uppermost decides. Whole blocks: nothing of a file lies elsewhere."""
    lower = layer({"policy": b"denied" * 2048}, tmp_path / "lower.tar")
    return bundled(base, lower, layer({"policy": b"allow " * 2048}, tmp_path / "upper.tar"))


DECIDE = "if grep -q allow /policy; then echo allowed; else echo denied; fi"


def swapped(disk: Disk, path: Path, _: Callable[..., Disk]) -> Disk:
    base, lower, upper = disk.images
    return Disk.of((base, upper, lower), path)


def flipped(disk: Disk, path: Path, _: Callable[..., Disk]) -> Disk:
    """One bit of a letter in each place where the word stands, so that it cannot be found: allow, ellow."""
    base, lower, upper = disk.images
    changed = bytearray(upper)
    at = upper.index(b"allow allow")
    while (at := upper.find(b"allow ", at)) != -1:
        changed[at] ^= 0x04
        at += 1
    return Disk.of((base, lower, bytes(changed)), path)


def of_another_image(disk: Disk, path: Path, bundled: Callable[..., Disk]) -> Disk:
    other = bundled(layer({"policy": b"refuse" * 2048}, path.with_suffix(".tar"))).images[0]
    base, lower, upper = disk.images
    assert len(other) == len(upper)
    return Disk.of((base, lower, other), path)


@pytest.mark.parametrize("change", [swapped, flipped, of_another_image])
def test_a_disk_that_is_not_the_documents_runs_nothing(
    start: Start,
    honest: Disk,
    bundled: Callable[..., Disk],
    change: Callable[[Disk, Path, Callable[..., Disk]], Disk],
    tmp_path: Path,
) -> None:
    """Whatever tree the host puts behind it, the honest disk's or its own.

    The control: a guest that is bound to the host's own root, and has another digest by that, decides otherwise.
    """
    document = running(DECIDE, honest.root)
    assert outcome(start, honest.path, document) == (b"allowed\n", (0, 0), None)
    other = change(honest, tmp_path / "other", bundled)
    assert other.root.blocks == honest.root.blocks
    control = running(DECIDE, other.root)
    assert control != document
    assert outcome(start, other.path, control) == (b"denied\n", (0, 0), None)
    assert outcome(start, other.path, document) == (b"", None, None)
    size = honest.root.blocks * BLOCK
    (tmp_path / "mixed").write_bytes(other.path.read_bytes()[:size] + honest.path.read_bytes()[size:])
    assert outcome(start, tmp_path / "mixed", document) == (b"", None, None)


def test_the_documents_order_counts(start: Start, honest: Disk) -> None:
    """The same disk under a document that cuts it elsewhere: no layer begins there, and the digest is another."""
    document = running(DECIDE, honest.root)
    first, second, third = honest.root.layers
    other = running(DECIDE, Verity(root_hash=honest.root.root_hash, salt="", layers=(second, first, third)))
    assert other != document
    assert outcome(start, honest.path, other) == (b"", None, 4)


@pytest.mark.parametrize("kept", ["data", "part of the tree", "all but the last block"])
def test_a_disk_that_is_too_short(start: Start, honest: Disk, tmp_path: Path, kept: str) -> None:
    whole = honest.path.read_bytes()
    size = {
        "data": honest.root.blocks * BLOCK,
        "part of the tree": (honest.root.blocks + 2) * BLOCK,
        "all but the last block": len(whole) - BLOCK,
    }[kept]
    (tmp_path / "short").write_bytes(whole[:size])
    document = running(DECIDE, honest.root)
    out, exited, code = outcome(start, tmp_path / "short", document)
    assert (out, exited) == (b"", None)
    assert code == 4 or kept != "data"


def test_a_form_that_is_not_known(start: Start, honest: Disk) -> None:
    """Refused before the disk is looked at; beside it the same document in the form that is known."""
    document = running(DECIDE, honest.root)
    other = document.replace(b'"erofs-verity"', b'"erofs-merged"')
    assert other != document
    assert outcome(start, honest.path, other) == (b"", None, 3)
    assert outcome(start, honest.path, document)[0] == b"allowed\n"
