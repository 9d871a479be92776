# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch bundle`: one image has one launch digest wherever and by whomever it is made, and that guest boots."""

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.launcher.bundle.image_kit import Layout, config_of
from tests.launcher.layers.layer_kit import Node, folder, lay_out, tar_of
from tools.attack.base.target import Target
from tools.attack.guests import firmware
from tools.attack.guests.firmware import Became, Host
from tools.attack.guests.run import Guest
from tools.pipeline.engine.tree import Tree

SAME = ("disk.img", "workload.json", "digests.json")
CONFIG = {
    "Entrypoint": ["/bin/sh", "-c"],
    "Cmd": ["id -u; id -G; pwd; cat news; ls /srv; ls /etc; stat -c '%a %u %Y' /bin/busybox; echo $LEVEL"],
    "Env": ["PATH=/bin", "LEVEL=low"],
    "User": "app",
    "WorkingDir": "/srv",
}


def layers(busybox: Path) -> tuple[Node, Node, Node]:
    """A base, what an application puts on it, and a change: whiteout, opaque folder, a file in place of another."""
    shell = Node(mode=0o755, data=busybox.read_bytes(), nanoseconds=17 * 10**17 + 5)
    applets = {name: Node(kind="symlink", target=b"busybox") for name in (b"sh", b"id", b"cat", b"ls", b"stat")}
    accounts = {
        b"passwd": Node(data=b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"),
        b"group": Node(data=b"root:x:0:\napp:x:1001:\naudio:x:29:app\n"),
        b"shadow": Node(mode=0o600, data=b""),
    }
    base = folder({b"bin": folder({b"busybox": shell, **applets}), b"etc": folder(accounts), b"srv": folder({})})
    app = folder({b"srv": folder({b"news": Node(data=b"old\n"), b"draft": Node()}, mode=0o775)})
    news = folder({b"news": Node(data=b"new\n")}, mode=0o775, opaque=True)
    return base, app, folder({b"srv": news, b"etc": folder({b"shadow": Node(kind="whiteout")})})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """Where somebody makes bundles: words before the program, and how his folders are called there."""

    wrapper: tuple[str, ...]
    launcher: str
    sources: str
    made: str
    umask: int
    environment: Mapping[str, str]

    def bundle(self, *words: str) -> str:
        """Run the command; what it says."""
        argv = [*self.wrapper, self.launcher, "bundle", "-o", self.made, *words]
        done = subprocess.run(
            argv,
            env={"PATH": os.environ["PATH"], **self.environment},
            umask=self.umask,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def image(busybox: Path, tmp_path: Path) -> Path:
    """A registry's layout, what an engine has unpacked of it, and the config."""
    place = tmp_path / "image"
    trees = layers(busybox)
    layout = Layout([tar_of(tree) for tree in trees], config=CONFIG)
    layout.folder(place / "layout")
    for number, tree in enumerate(trees):
        lay_out(tree, place / f"layer-{number}", overlay="user.overlay.")
    (place / "config.json").write_text(json.dumps(config_of([tar_of(tree) for tree in trees], config=CONFIG)))
    return place


@pytest.fixture
def debian_13(boot_tree: Tree, artifacts: Path, image: Path, tmp_path: Path) -> Site:
    """The root file system of another system: its Python, its programs, nothing of this machine's."""
    assert (boot_tree.path / "usr/bin/python3.13").exists(), "the tree is not Debian 13's any more: name it anew"
    (tmp_path / "a").mkdir()
    # fmt: off
    wrapper = (
        "bwrap", "--unshare-all", "--uid", "1234", "--gid", "99", "--hostname", "trixie", "--die-with-parent",
        "--ro-bind", str(boot_tree.path), "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp",
        "--ro-bind", str(artifacts), "/out", "--ro-bind", str(image), "/inputs",
        "--bind", str(tmp_path / "a"), "/build", "--chdir", "/tmp",
    )
    # fmt: on
    return Site(
        wrapper=wrapper,
        launcher="/out/sev-launch",
        sources="/inputs",
        made="/build/bundle",
        umask=0o077,
        environment={"TZ": "Pacific/Auckland", "LC_ALL": "C"},
    )


@pytest.fixture
def here(artifacts: Path, image: Path, tmp_path: Path) -> Site:
    """This machine as it is, by another user, in another locale and time zone."""
    (tmp_path / "b").mkdir()
    wrapper = ("bwrap", "--unshare-user", "--uid", "4321", "--gid", "5", "--dev-bind", "/", "/")
    return Site(
        wrapper=wrapper,
        launcher=str(artifacts / "sev-launch"),
        sources=str(image),
        made=str(tmp_path / "b/bundle"),
        umask=0o002,
        environment={
            "PATH": os.environ["PATH"],
            "TZ": "America/Caracas",
            "LC_ALL": "tr_TR.UTF-8",
            "PYTHONHASHSEED": "7",
        },
    )


@pytest.fixture
def bundle(debian_13: Site, here: Site, tmp_path: Path) -> Path:
    """Made twice: of the registry's layout there, of the engine's folders here. The same, or the test fails."""
    said = debian_13.bundle(f"{debian_13.sources}/layout")
    layers = [word for number in range(3) for word in ("--layer", f"{here.sources}/layer-{number}")]
    options = ("--image-config", f"{here.sources}/config.json", "--userxattr", "--owner", "0:0")
    again = here.bundle(*layers, *options)
    assert said.partition("root hash")[2] == again.partition("root hash")[2]
    for name in SAME:
        assert (tmp_path / "a/bundle" / name).read_bytes() == (tmp_path / "b/bundle" / name).read_bytes(), name
    return tmp_path / "a/bundle"


def test_one_image_one_digest_wherever_it_is_made(bundle: Path, here: Site, tmp_path: Path) -> None:
    """The control: one bit of one file's mode in one layer, and it is another digest."""
    digests = (bundle / "digests.json").read_bytes()
    shutil.rmtree(tmp_path / "b/bundle")
    (tmp_path / "image/layer-1/srv/draft").chmod(0o645)
    layers = [word for number in range(3) for word in ("--layer", f"{here.sources}/layer-{number}")]
    here.bundle(
        *layers, "--image-config", f"{here.sources}/config.json", "--userxattr", "--owner", "0:0"
    )  # fmt: skip
    assert (tmp_path / "b/bundle/digests.json").read_bytes() != digests


def test_the_image_runs_as_its_config_says(bundle: Path, guest: Guest) -> None:
    """Through the firmware, which gets the hashes table that a processor would measure."""
    argv = [str(guest.launcher), "run", "--unprotected", "--accel", "tcg"]
    done = subprocess.run([*argv, "--bundle", str(bundle)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines() == [
        "1000", "1001 29", "/srv", "new", "news", "group", "passwd", "755 0 1700000000", "low",
    ]  # fmt: skip


def test_the_firmware_starts_it_under_its_digest_alone(bundle: Path, guest: Guest, qemu: Path, tmp_path: Path) -> None:
    """The table of this bundle's command line admits no other document's, nor the other way round."""
    target = Target(name="built", folder=guest.launcher.parent)
    ours = Host.of(target, qemu, ("--bundle", str(bundle)))
    document = (bundle / "workload.json").read_bytes()
    (tmp_path / "other.json").write_bytes(document.replace(b"LEVEL=low", b"LEVEL=top"))
    other = Host.of(target, qemu, ("--workload", str(tmp_path / "other.json")))
    assert ours.cmdline != other.cmdline
    hosts = {
        "ours": ours,
        "another document": dataclasses.replace(ours, cmdline=other.cmdline),
        "another table": dataclasses.replace(ours, table=other.table),
        "another of both": dataclasses.replace(ours, cmdline=other.cmdline, table=other.table),
    }
    found = {}
    for name, host in hosts.items():
        (tmp_path / name).mkdir()
        found[name] = firmware.start(host, tmp_path / name)
    assert found == {
        "ours": Became.BOOTED,
        "another document": Became.REFUSED,
        "another table": Became.REFUSED,
        # Consistent in itself, under another launch digest: the agent waits for that other document.
        "another of both": Became.BOOTED,
    }


def test_a_tar_and_its_folder_are_one_disk(guest: Guest, root_tar: Path, root_folder: Path, tmp_path: Path) -> None:
    """One layer; `run --rootfs --verity` takes the disk, too."""
    disks = []
    for source in (root_tar, root_folder):
        place = tmp_path / source.name
        argv: list[str | Path] = [guest.launcher, "bundle", source, "-o", place, "--owner", "0:0", "--", "/bin/sh"]
        subprocess.run(argv, check=True, capture_output=True)
        disks.append((place / "disk.img").read_bytes())
    assert disks[0] == disks[1]
    root_hash = json.loads((place / "bundle.json").read_text())["verity"]["root_hash"]
    bundled = dataclasses.replace(guest, rootfs=place / "disk.img")
    done = bundled.sh("cat /etc/motd; stat -c '%u:%g %a %Y' /bin /etc/motd", "--verity", root_hash)
    time = int((root_folder / "etc/motd").stat().st_mtime)
    lines = done.stdout.decode().splitlines()
    assert lines == ["from the container's root", "0:0 755 0", f"0:0 644 {time}"], done.stderr
