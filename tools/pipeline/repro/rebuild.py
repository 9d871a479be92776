# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit rebuild --manifest FILE`: what an independent rebuilder runs on somebody's published manifest.

manifest ── lists what this checkout declares (published.py) ── build from nothing, in a copy ─┐
    ├─ outputs ──── each reproduced or not ────────────────────────────────────────────────────┤
    └─ steps ────── the first whose outputs differ: where a difference begins ─────────────────┘
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.pipeline.base import files, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.executor import HERE, MADE
from tools.pipeline.publish import checkout, manifest
from tools.pipeline.repro import check, environments
from tools.pipeline.repro.compare import differing
from tools.pipeline.repro.published import Published
from tools.pipeline.repro.target import Place, Target

SCHEMA = 3
"""Of result.json."""


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """The first step whose outputs differ; `others` are the parts of its description that differ as well."""

    step: str
    outputs: tuple[str, ...]
    others: tuple[str, ...]

    def __str__(self) -> str:
        same = "it ran the same command on the same inputs"
        how = f"what it ran is not the same, either ({', '.join(self.others)})" if self.others else same
        return f"the difference begins in step {self.step} ({', '.join(self.outputs)}): {how}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of each output, where a difference begins, and what else of the manifest differs (a key's path)."""

    rebuilt: Mapping[str, str]
    reproduced: Mapping[str, bool]
    begins: Beginning | None
    elsewhere: str | None

    @property
    def good(self) -> bool:
        """Whether everything is as it was published."""
        return all(self.reproduced.values()) and self.elsewhere is None


def run(
    published: Published, target: Target, place: Place, *, order: Sequence[str], cached: bool, json_wanted: bool
) -> None:
    """Rebuild what a manifest describes; BuildError when anything came out differently.

    The manifest must have been compared with the checkout. `order` names the steps, needed ones first; the target's
    one file is the output folder. From nothing, unless `cached` lets it take steps that this user has run before.
    """
    commit = _commit(place)
    built = check.build(environments.plain(check.prepare(target, place), cached=cached))
    if _commit(place) != commit:
        commit = ""  # an edit during the rebuild: nobody can say which bytes were built
    (out,) = target.files
    rebuilt = {name.removeprefix(f"{out}/"): value for name, value in built.digests.items()}
    verdict = judge(published, rebuilt, json.loads((built.files / out / manifest.NAME).read_bytes()), order=order)
    document = {**_document(published, verdict, cached=cached), "commit": commit, "made_here": _made(place, order)}
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    files.write_atomically(place.folder / check.RESULT, text.encode())
    if json_wanted:
        ui.result(text, sys.stdout)
    _report(published, verdict)
    if not verdict.good:
        missed = [name for name, good in verdict.reproduced.items() if not good]
        what = f"not reproduced: {', '.join(missed)}" if missed else f"its {verdict.elsewhere} came out differently"
        begins = f"; {verdict.begins}" if verdict.begins else ""
        hint = f"compare with {built.files / out}; diffoscope explains"
        raise BuildError(f"{what}{begins}", where=str(published.path), hint=hint)


def _commit(place: Place) -> str:
    """The commit whose files are rebuilt; empty when git does not say, or the checkout differs from it."""
    try:
        found = checkout.look(place.root)
    except UserError:
        return ""
    return "" if found.changes else found.commit


def _made(place: Place, order: Sequence[str]) -> dict[str, str | None]:
    """For each step the key under which the rebuild itself ran it in the sandbox; None: its result came from elsewhere.

    The rebuild's folder was empty before it.
    """
    found: dict[str, str | None] = {}
    for name in order:
        try:
            note = json.loads(
                (environments.plain_checkout(place.folder) / "build" / MADE / f"{name}.json").read_bytes()
            )
        except (OSError, ValueError):
            note = {}
        found[name] = note.get("key") if note.get("by") == HERE else None
    return found


def judge(published: Published, rebuilt: Mapping[str, str], document: Any, *, order: Sequence[str]) -> Verdict:
    """Compare digests of files and the rebuilt manifest with what was published."""
    steps = {step["name"]: step for step in document["steps"]}
    return Verdict(
        rebuilt=rebuilt,
        reproduced={name: rebuilt.get(name) == wanted for name, wanted in published.outputs.items()},
        begins=next((found for name in order if (found := _compare(published.steps[name], steps[name]))), None),
        elsewhere=_first_difference(published.document, document),
    )


def _compare(published: Mapping[str, Any], rebuilt: Mapping[str, Any]) -> Beginning | None:
    outputs = differing(published["outputs"], rebuilt["outputs"])
    if not outputs:
        return None
    # The key is worked out from the others.
    others = (key for key in differing(published, rebuilt) if key not in {"outputs", "key"})
    return Beginning(step=rebuilt["name"], outputs=tuple(outputs), others=tuple(others))


def _first_difference(published: Any, rebuilt: Any) -> str | None:
    """The path to the first value that differs, keys in order; None when there is none."""
    here: list[str] = []
    if published == rebuilt:
        return None
    while published != rebuilt:
        if isinstance(published, dict) and isinstance(rebuilt, dict):
            key: Any = differing(published, rebuilt)[0]
            published, rebuilt = published.get(key), rebuilt.get(key)
        elif isinstance(published, list) and isinstance(rebuilt, list) and len(published) == len(rebuilt):
            key = next(i for i, (one, other) in enumerate(zip(published, rebuilt, strict=True)) if one != other)
            published, rebuilt = published[key], rebuilt[key]
        else:
            break
        here.append(str(key)[:80])
    return ".".join(here)


def _document(published: Published, verdict: Verdict, *, cached: bool) -> dict[str, Any]:
    begins = verdict.begins
    return {
        "schema": SCHEMA,
        "manifest": published.sha256,
        "profile": published.profile,
        "from_nothing": not cached,
        "reproduced": verdict.good,
        "artifacts": {
            name: {"published": wanted, "rebuilt": verdict.rebuilt.get(name), "reproduced": verdict.reproduced[name]}
            for name, wanted in published.outputs.items()
        },
        "begins": None if begins is None else {"step": begins.step, "outputs": begins.outputs, "others": begins.others},
        "manifest_differs_in": verdict.elsewhere,
    }


def _report(published: Published, verdict: Verdict) -> None:
    lines = [""]
    width = max(len(name) for name in (*published.outputs, manifest.NAME)) + 1
    for name, wanted in published.outputs.items():
        if verdict.reproduced[name]:
            text = ui.paint(f"reproduced, sha256 {wanted}", "32")
        else:
            text = ui.paint(f"NOT REPRODUCED: published {wanted}, rebuilt {verdict.rebuilt.get(name)}", "31")
        lines.append(f"   {name:<{width}} {text}")
    if verdict.elsewhere is not None:
        lines.append(f"   {manifest.NAME:<{width}} {ui.paint(f'DIFFERS in {verdict.elsewhere}', '31')}")
    ui.lines([*lines, *([f"   {verdict.begins}"] if verdict.begins else []), ""])
