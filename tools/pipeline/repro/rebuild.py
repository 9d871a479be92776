# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit rebuild --manifest FILE`: what an independent rebuilder runs on somebody's published manifest.

manifest ─┬─ files of the checkout: must be these ──┐
          ├─ pins → locks of a copy ────────────────┼── build from nothing ── reproduced or not, each artifact
          └─ outputs ───────────────────────────────┘

The manifest is untrusted input: its pins are read by the locks' own strict readers, and nothing in it names
a place to write to.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tools.pipeline.base import files as digest
from tools.pipeline.base import ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.base.toml_reader import Table
from tools.pipeline.publish import manifest
from tools.pipeline.recipes.profiles import Profile
from tools.pipeline.repro import check, environments
from tools.pipeline.repro.check import Target
from tools.pipeline.sources import pins as lockfile
from tools.pipeline.sources.pins import Pin, ToolchainLock
from tools.pipeline.sources.wanted import MAX_SIZE
from tools.pipeline.tasks.project import Project

_MAX = 16 << 20  # bytes; ours has 150 KB
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/-]{0,199}")
_NAMED = 4  # files that an error line names


@dataclass(frozen=True, kw_only=True)
class Published:
    """A manifest, checked: the profile, what the checkout must hold, the locks' texts, what should come out.

    `files` and `outputs` map names to SHA-256.
    """

    profile: str
    files: Mapping[str, str]
    pins: tuple[Pin, ...]
    sources_lock: str
    toolchain_lock: str
    outputs: Mapping[str, str]


def load(path: Path, project: Project) -> Published:
    """Read a manifest; UserError names file and key of whatever is wrong with it."""
    top = Table(_json(path), file=str(path))
    top.integer("schema", low=manifest.SCHEMA, high=manifest.SCHEMA)
    inputs = top.table("inputs")
    tools = inputs.table("tools")
    sources = [lockfile.read_source(table) for table in inputs.tables("sources")]
    packages = [lockfile.read_package(table, [manifest.TREE]) for table in tools.tables("packages")]
    trees = project.toolchain.trees
    published = Published(
        profile=top.string("profile", pattern=r"[a-z0-9][a-z0-9._-]{0,63}", says="a profile's name"),
        files=_digests(inputs.table("files")),
        pins=(*(s.pin for s in sources), *(p.pin for p in packages)),
        sources_lock=lockfile.render_sources(sources),
        # The manifest has the one tree that steps run on. A lock wants all: they get the same packages.
        toolchain_lock=lockfile.render_toolchain(
            ToolchainLock(
                suite=tools.string("suite", pattern=r"[a-z]{1,30}", says="a Debian suite"),
                wanted=tuple((tree.name, tree.packages) for tree in trees),
                packages=tuple(replace(p, trees=tuple(tree.name for tree in trees)) for p in packages),
            )
        ),
        outputs=_digests(top.table("outputs")),
    )
    if not published.outputs:
        raise top.error("outputs", "is empty, so nothing could be compared")
    return published


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX + 1)
        data = json.loads(raw) if len(raw) <= _MAX else None
    except OSError as error:
        hint = "give --manifest FILE"
        raise UserError(error.strerror or "cannot be read", where=str(path), hint=hint) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"is no JSON: {error}", where=str(path)) from None
    if not isinstance(data, dict):
        raise UserError("is no manifest", where=str(path), hint="manifest.json lies in the output folder")
    return data


def _digests(table: Table) -> dict[str, str]:
    found = {}
    for name in table.keys():  # noqa: SIM118 (a Table is no mapping)
        if _FILE.fullmatch(name) is None or ".." in name:
            raise table.error(name[:100], "is no plain relative path")
        entry = table.table(name)
        found[name] = entry.sha256("sha256")
        entry.integer("size", low=0, high=MAX_SIZE)
        entry.close()
    return found


def run(project: Project, path: Path, *, cached: bool = False, json_wanted: bool = False) -> None:
    """Rebuild what a manifest describes; BuildError when an artifact was not reproduced.

    From nothing, unless `cached` lets it take steps that this user has run before with the same inputs.
    Raises UserError when the manifest is broken, or this checkout is not the one that it was made from.
    """
    published = load(path, project)
    profile = _profile(project, published, path)
    _check_files(project, published, path)
    project.fetch(list(published.pins), title="fetching what the manifest pins")
    folder = project.build / "rebuild"
    out = project.out(profile).name
    target = Target(name="rebuild", tasks=(f"artifacts:{profile.name}",), files=(out,))
    job = check.prepare(project, target, folder)
    digest.write_atomically(job.source / lockfile.SOURCES_LOCK, published.sources_lock.encode())
    digest.write_atomically(job.source / lockfile.TOOLCHAIN_LOCK, published.toolchain_lock.encode())
    built = check.build(environments.plain(job, cached=cached))
    found = {name.removeprefix(f"{out}/"): value for name, value in built.digests.items()}
    verdicts = {name: found.get(name) == wanted for name, wanted in published.outputs.items()}
    document = {
        "schema": 1,
        "manifest": digest.of_file(path),
        "profile": profile.name,
        "from_nothing": not cached,
        "reproduced": all(verdicts.values()),
        "artifacts": {
            name: {"published": wanted, "rebuilt": found.get(name), "reproduced": verdicts[name]}
            for name, wanted in published.outputs.items()
        },
    }
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    digest.write_atomically(folder / check.RESULT, text.encode())
    if json_wanted:
        print(text, end="")
    _report(published, found, verdicts)
    missed = [name for name, good in verdicts.items() if not good]
    if missed:
        raise BuildError(
            f"not reproduced: {', '.join(missed)}",
            where=str(path),
            hint=f"compare with {built.files / out}; diffoscope explains",
        )


def _profile(project: Project, published: Published, path: Path) -> Profile:
    for profile in project.recipes.profiles:
        if profile.name == published.profile:
            return profile
    raise UserError(f"this checkout has no profile {published.profile!r}", where=f"{path}: profile")


def _check_files(project: Project, published: Published, path: Path) -> None:
    """The checkout must hold the very files that the manifest lists."""
    wrong = []
    for name, wanted in sorted(published.files.items()):
        file = project.root / name
        if not file.is_file():
            wrong.append(f"{name} (missing)")
        elif digest.of_file(file) != wanted:
            wrong.append(name)
    if wrong:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise UserError(
            f"made from other files than this checkout's: {', '.join(wrong[:_NAMED])}{more}",
            where=str(path),
            hint="check out the commit that it was published with",
        )


def _report(published: Published, found: Mapping[str, str], verdicts: Mapping[str, bool]) -> None:
    ui.line("")
    for name, wanted in published.outputs.items():
        if verdicts[name]:
            verdict = ui.paint(f"reproduced, sha256 {wanted}", "32")
        else:
            verdict = ui.paint(f"NOT REPRODUCED: published {wanted}, rebuilt {found.get(name)}", "31")
        ui.line(f"   {name:<20} {verdict}")
    ui.line("")
