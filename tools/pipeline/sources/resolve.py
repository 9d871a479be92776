# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit lock`: resolve what is wanted into pins, see that the mirrors have it, and say what changed.

sources.toml ──┐        ┌── sources.lock
               ├─ apt ──┤
toolchain.toml ┘        └── toolchain.lock
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import ambient, ui
from tools.pipeline.base import files as digest
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.sources import fetch, pins_text, wanted
from tools.pipeline.sources import pins as lockfile
from tools.pipeline.sources.apt import Apt, Found
from tools.pipeline.sources.mirrors import Mirrors
from tools.pipeline.sources.pins import (
    Architecture,
    Kind,
    LocalFile,
    Origin,
    Package,
    Pin,
    Source,
    ToolchainLock,
    Urls,
)
from tools.pipeline.sources.wanted import Toolchain, WantedSource


@dataclass(frozen=True, kw_only=True)
class Locks:
    """Both locks, resolved or read."""

    sources: tuple[Source, ...]
    toolchain: ToolchainLock

    @property
    def pins(self) -> tuple[Pin, ...]:
        """Every pinned file."""
        return (*(s.pin for s in self.sources), *(p.pin for p in self.toolchain.packages))


def lock(*, root: Path, folder: Path, mirrors: Mirrors, check: bool = False) -> list[str]:
    """Resolve all pins anew and return the changes, one line each; write the locks unless `check`.

    `folder` keeps apt's lists. Nothing is written if a pinned file is on none of the mirrors: an index may
    announce what its mirror does not have.
    """
    sources_wanted = wanted.read_wanted_sources(root / wanted.SOURCES_TOML)
    toolchain = wanted.read_toolchain(root / wanted.TOOLCHAIN_TOML)
    apt = Apt(folder=folder, suite=toolchain.suite, architecture=toolchain.architecture, mirrors=mirrors)
    with ui.working("asking apt"):
        apt.update()
        sources = tuple(_resolve_source(want, apt, root) for want in sources_wanted)
        packages = _resolve_trees(toolchain, apt)
    new = Locks(
        sources=sources,
        toolchain=ToolchainLock(
            suite=toolchain.suite,
            wanted=tuple((tree.name, tree.packages) for tree in toolchain.trees),
            packages=packages,
        ),
    )
    old = _old_pins(root)
    fresh = [pin for pin in new.pins if old.get((pin.lock, pin.name)) != pin]
    with ui.working(f"asking the mirrors for {len(fresh)} new files"):
        fetch.check_available(fresh, mirrors=mirrors, root=root)
    changes = _changes(old, new.pins)
    if not check:
        for name, text in (
            (lockfile.SOURCES_LOCK, pins_text.render_sources(new.sources)),
            (lockfile.TOOLCHAIN_LOCK, pins_text.render_toolchain(new.toolchain)),
        ):
            digest.write_if_changed(root / name, text.encode())
    return changes


def _resolve_source(want: WantedSource, apt: Apt, root: Path) -> Source:
    origin: Origin
    where = f"{wanted.SOURCES_TOML}: source.{want.name}"
    if want.kind is Kind.DEBIAN_SOURCE:
        files = {found.file: found for found in apt.source(want.package, want.version)}
        if want.file not in files:
            raise UserError(f"{want.package} has no file {want.file}", where=where, hint=f"it has: {', '.join(files)}")
        found = files[want.file]
        origin, sha256, size = found.origin, found.sha256, found.size
    elif want.kind is Kind.HTTPS:
        origin, sha256, size = Urls(urls=want.urls), want.sha256, want.size
    else:
        path = root / want.path
        if not path.is_file():
            raise UserError(f"no file {want.path}", where=where)
        origin, sha256, size = LocalFile(path=want.path), digest.of_file(path), path.stat().st_size
    pin = Pin(
        name=want.name,
        version=want.version,
        sha256=sha256,
        size=size,
        origin=origin,
        lock=lockfile.SOURCES_LOCK,
    )
    return Source(pin=pin, kind=want.kind, licence=want.licence, package=want.package, file=want.file)


def _resolve_trees(toolchain: Toolchain, apt: Apt) -> tuple[Package, ...]:
    """Each tree's closure on its own; together the result is one version a package."""
    found: dict[str, Found] = {}
    trees: dict[str, list[str]] = {}
    for tree in toolchain.trees:
        for item in apt.closure(tree.packages):
            found[item.file] = item
            trees.setdefault(item.file, []).append(tree.name)
    packages = []
    for file, item in found.items():
        match = re.fullmatch(r"([^_]+)_([^_]+)_([^_]+)\.deb", file)
        if match is None:
            raise BuildError(f"apt named a package file {file!r}")
        pin = Pin(
            name=match[1],
            version=match[2],
            sha256=item.sha256,
            size=item.size,
            origin=item.origin,
            lock=lockfile.TOOLCHAIN_LOCK,
        )
        packages.append(Package(pin=pin, architecture=Architecture(match[3]), trees=tuple(sorted(trees[file]))))
    return tuple(sorted(packages, key=lambda p: p.pin.name))


def _old_pins(root: Path) -> dict[tuple[str, str], Pin]:
    """What is pinned now. A lock that is absent or broken pins nothing: it is about to be replaced."""
    pins: list[Pin] = []
    with suppress(UserError):
        pins += [s.pin for s in lockfile.read_sources_lock(root / lockfile.SOURCES_LOCK)]
    with suppress(UserError):
        pins += [p.pin for p in lockfile.read_toolchain_lock(root / lockfile.TOOLCHAIN_LOCK).packages]
    return {(pin.lock, pin.name): pin for pin in pins}


def _changes(old: Mapping[tuple[str, str], Pin], new: Iterable[Pin]) -> list[str]:
    lines = []
    now = {(pin.lock, pin.name): pin for pin in new}
    for where in sorted({*old, *now}):
        before, after = old.get(where), now.get(where)
        if before is None and after is not None:
            lines.append(f"added    {where[1]} {after.version}")
        elif after is None and before is not None:
            lines.append(f"removed  {where[1]} {before.version}")
        elif before is not None and after is not None and before != after:
            same = before.version == after.version
            # The same version with other bytes never happens in an honest archive: it must be seen.
            what = f"{before.version}: OTHER BYTES OR PLACE" if same else f"{before.version} → {after.version}"
            lines.append(f"updated  {where[1]} {what}")
    return lines


def lock_python(*, root: Path) -> list[str]:
    """Resolve requirements.in into requirements.lock with hashes; return the changes, one line each.

    pip-compile runs in a virtual environment of its own that is thrown away: a resolver is no requirement.
    """
    target = root / "requirements.lock"
    before = _requirements(target)
    with ui.working("resolving Python requirements"), tempfile.TemporaryDirectory() as name:
        python = Path(name) / "venv/bin/python"
        result = Path(name) / "requirements.lock"
        environment = {
            **ambient.host_environment("PATH", "HOME", "http_proxy", "https_proxy", "no_proxy"),
            "LC_ALL": "C.UTF-8",
        }
        # fmt: off
        compile_options = (
            "--quiet", "--generate-hashes", "--allow-unsafe", "--upgrade", "--strip-extras",
            "--no-header", "--no-annotate",
            "--no-emit-index-url", "--no-emit-trusted-host", "--no-emit-find-links",
            "--output-file", str(result),
        )
        # fmt: on
        steps = (
            [sys.executable, "-m", "venv", str(python.parents[1])],
            [str(python), "-m", "pip", "install", "--quiet", "pip-tools"],
            [str(python), "-m", "piptools", "compile", *compile_options, "requirements.in"],
        )
        for argv in steps:
            done = subprocess.run(
                argv,
                cwd=root,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise BuildError(f"{' '.join(argv[1:4])} failed: {last}", where="requirements.in")
        head = "".join(f"{line}\n" for line in pins_text.HEADER.splitlines()[:2])
        head += "# Written by ./doit lock from requirements.in.\n"
        digest.write_if_changed(target, (head + result.read_text(encoding="utf-8")).encode())
    after = _requirements(target)
    return [
        f"{'added  ' if n not in before else 'removed' if n not in after else 'updated'}  {n} "
        + " → ".join(v for v in (before.get(n), after.get(n)) if v)
        for n in sorted({*before, *after})
        if before.get(n) != after.get(n)
    ]


def _requirements(path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return dict(re.findall(r"^([A-Za-z0-9._\-]+)==(\S+)", text, flags=re.MULTILINE))
