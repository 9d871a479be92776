# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Root file systems as engines mount them, by the real overlayfs. Only root can: so can only root run engines here."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.launcher.layers.layer_kit import Node, folder, lay_out
from tools.launcher.bundle.image_config import Changes
from tools.launcher.bundle.make import Steps, make
from tools.launcher.bundle.sources import Wanted
from tools.runtime.image.disk import disk_of
from tools.runtime.image.store import Disk


def image(*more: bytes) -> list[Node]:
    """Two layers, the lowest first; `more` names files of the second."""
    base = folder({b"bin": folder({b"app": Node(mode=0o755, data=b"#!" * 4000)}), b"etc": folder({b"gone": Node()})})
    added = {name: Node(data=name * 3000) for name in (b"own", *more)}
    top = folder({b"etc": folder({b"gone": Node(kind="whiteout")}, mode=0o750), b"opt": folder(added)})
    return [base, top]


class Engine:
    """Folders as docker's driver overlay2 has them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "l").mkdir(parents=True)
        home.chmod(0o710)

    def unpack(self, name: str, layer: Node) -> Path:
        """A layer; its folder with the short name for mounts."""
        (self.home / name).mkdir(mode=0o710)
        lay_out(layer, self.home / name / "diff", overlay="trusted.overlay.")
        (self.home / name / "diff").chmod(0o755)
        short = self.home / "l" / name.upper()
        short.symlink_to(f"../{name}/diff")
        return self.home / name / "diff"

    def own(self, name: str) -> Path:
        """A container's own layer, empty."""
        for inner in ("diff", "work", "merged"):
            (self.home / name / inner).mkdir(parents=True, mode=0o755)
        return self.home / name / "diff"

    @contextmanager
    def mounted(self, name: str, lower: Sequence[str], *, relative: bool = False) -> Iterator[Path]:
        """The container's root; `lower`: the uppermost first."""
        home = "" if relative else f"{self.home}/"
        folders = ":".join(f"{home}l/{one.upper()}" for one in lower)
        options = f"lowerdir={folders},upperdir={home}{name}/diff,workdir={home}{name}/work"
        merged = self.home / name / "merged"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], cwd=self.home, check=True)
        try:
            yield merged
        finally:
            subprocess.run(["umount", str(merged)], check=True)

    @contextmanager
    def several(self, count: int, lower: Sequence[str]) -> Iterator[list[Path]]:
        """Roots of that many containers of one image."""
        with ExitStack() as stack:
            for number in range(count):
                self.own(f"several{number}")
            yield [stack.enter_context(self.mounted(f"several{number}", lower)) for number in range(count)]


class Here:
    """An engine with an image of two layers, and disk_of() with a cache."""

    def __init__(self, place: Path, mkfs: Path) -> None:
        self.place = place
        self.engine = Engine(place / "engine")
        self.cache = place / "cache"
        self.notes: list[str] = []
        self.count = 0
        self.mkfs = mkfs
        for name, layer in zip(("base", "top"), image(), strict=True):
            self.engine.unpack(name, layer)

    def disk(self, root: Path, *, limit: int = 1 << 30, made: tuple[str, ...] = ()) -> Disk:
        return disk_of(root, cache=self.cache, mkfs=self.mkfs, note=self.notes.append, limit=limit, made=made)

    def of(self, name: str, lower: tuple[str, ...] = ("top", "base"), *, relative: bool = False) -> Disk:
        """The disk of a new container; it stays open."""
        self.engine.own(name)
        with self.engine.mounted(name, lower, relative=relative) as root:
            return self.disk(root)

    @contextmanager
    def roots(self, lower: tuple[str, ...]) -> Iterator[Path]:
        """The root of a new container."""
        self.count += 1
        name = f"root{self.count}"
        self.engine.own(name)
        with self.engine.mounted(name, lower) as root:
            yield root

    def bundle(self, *names: str) -> bytes:
        """What the launcher makes of the same layers, the lowest first."""
        parts = tuple(self.engine.home / name / "diff" for name in names)
        steps = Steps(note=print, begin=lambda *_: None, describe=lambda _: {})
        changes = Changes(entrypoint=None, argv=("/bin/app",), env={}, directory=None, user=None)
        target = self.place / "-".join(("bundle", *names))
        make(Wanted(parts=parts), target, mkfs=self.mkfs, changes=changes, steps=steps)
        return (target / "disk.img").read_bytes()

    def kept(self) -> list[str]:
        """Files in the cache, by folder and how many."""
        return sorted(str(path.relative_to(self.cache)) for path in self.cache.rglob("*") if path.is_file())
