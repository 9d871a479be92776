# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""./doit matrix: kernels × profiles × firmware, the command that makes each, and what is there.

recipes/profiles × recipes/series ── a row an output folder ── a table, or JSON that CI takes as its matrix of jobs
"""

import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from tools.pipeline.base import files, ui
from tools.pipeline.base.errors import UserError
from tools.pipeline.guest import firmware, initramfs
from tools.pipeline.recipes.profiles import Profile
from tools.pipeline.tasks import outputs
from tools.pipeline.tasks.doit_glue import Task, action, option, switch
from tools.pipeline.tasks.project import Project
from tools.sev.formats import KERNEL_NAME, NETWORK

SCHEMA = 1
_SHOWN = 16  # hex digits of a digest that people are shown


def matrix(project: Project) -> Task:
    """The task."""
    return {
        "doc": "list kernels × profiles × firmware: what is built, sizes, digests (--json: a matrix of CI jobs)",
        "actions": [action(partial(_matrix, project))],
        "params": [
            switch("as_json", "as one JSON document, whose `include` is a matrix of jobs", long="json"),
            option("series", "only this kernel series"),
        ],
        "meta": {"answers": True},
        "verbosity": 2,
        "io": {"capture": False},
    }


def _matrix(project: Project, *, as_json: bool, series: str) -> None:
    found = rows(project, check_series(project, series) if series else project.recipes.all_profiles)
    text = json.dumps({"schema": SCHEMA, "include": found}, indent=2) + "\n" if as_json else _text(found)
    ui.result(text, sys.stdout)


def check_series(project: Project, series: str) -> tuple[Profile, ...]:
    """The profiles of a series; UserError for one that is not there."""
    found = project.recipes.of_series(series)
    if not found:
        known = ", ".join(dict.fromkeys(profile.series for profile in project.recipes.all_profiles))
        raise UserError(f"{series[:80]!r} is no kernel series here", where="--series", hint=f"there are: {known}")
    return found


def rows(project: Project, profiles: Sequence[Profile]) -> list[dict[str, Any]]:
    """A row for each output folder; nothing is made for it. Sizes are in bytes."""
    versions = {source.pin.name: source.pin.version for source in project.sources}
    found = []
    for profile in profiles:
        folder = project.out(profile)
        kernels = []
        for recipe, addition in zip(profile.kernels, ("", NETWORK), strict=False):
            path = folder / f"{KERNEL_NAME}{addition}"
            kernels.append(
                {"name": recipe.name, "source": recipe.source, "version": versions.get(recipe.source, ""),
                 **_file(project, path.relative_to(project.root).as_posix())}
            )  # fmt: skip
        beside = [_file(project, f"{folder.name}/{name}") for name in (initramfs.COMPRESSED, firmware.IMAGE)]
        measured = [one for one in (*kernels[:1], *beside) if one["sha256"]]
        found.append(
            {
                "name": profile.name,
                "series": profile.series,
                "default": profile in project.recipes.profiles,
                "profile": profile.recipe,
                "kind": str(profile.kind),
                "carry": str(profile.carry),
                "firmware": profile.firmware.name,
                "folder": folder.name,
                "command": f"./doit artifacts:{profile.name}",
                "check": f"./doit check:{profile.name}",
                "state": _state(project, profile),
                # What a guest without a network is started from.
                "size": sum(one["size"] for one in measured),
                "kernels": kernels,
                "files": [one for one in beside if one["sha256"]],
                "manifest": _file(project, f"{folder.name}/manifest.json")["sha256"],
            }
        )
    return found


def _state(project: Project, profile: Profile) -> str:
    """Whether the folder is what the recipes would make now; of what is not built, no step is run to find out.

    What "differs" is of other recipes, or somebody has changed or taken away a file of it.
    """
    if not (project.out(profile) / "manifest.json").is_file():
        return "not built"
    return "built" if outputs.is_current(project, profile) else "differs"


def _file(project: Project, name: str) -> dict[str, Any]:
    path = project.root / name
    there = path.is_file()
    return {"file": name, "size": path.stat().st_size if there else 0, "sha256": files.of_file(path) if there else ""}


def _text(found: Sequence[dict[str, Any]]) -> str:
    lines = [("kernel", "version", "profile", "firmware", "folder", "state", "bytes", "SHA-256")]
    for row in found:
        lines += [
            (
                kernel["name"], kernel["version"], row["profile"], row["firmware"], f"{row['folder']}/", row["state"],
                f"{kernel['size']:,}" if kernel["size"] else "–", kernel["sha256"][:_SHOWN] or "–",
            )
            for kernel in row["kernels"]
        ]  # fmt: skip
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = "".join(
        "  ".join(word.ljust(w) for word, w in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )
    built = sum(row["state"] == "built" for row in found)
    return f"{text}{built} of {len(found)} folders are built; ./doit artifacts:NAME makes one, ./doit build_all all\n"
