# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A published manifest.json: untrusted input, read strictly, and compared with what a checkout declares.

Nothing in it names a place to read from or to write to, and none of its pins is ever used: it must list exactly
what this checkout would take, so that what was reviewed here is what is built.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.pipeline.base import files, ui
from tools.pipeline.base.errors import UserError
from tools.pipeline.base.toml_reader import Table
from tools.pipeline.publish import manifest
from tools.sev.errors import printable

_MAX = 16 << 20  # bytes; ours has 400 KB
_SIZE_MAX = 1 << 40  # bytes of a file that a manifest may list
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/-]{0,199}")
_NAME = r"[A-Za-z0-9][A-Za-z0-9+._-]{0,99}"
_SHOWN = 80  # characters of a value that a line shows
_HINT = "check out the commit that it was published with"

Entries = Mapping[str, Mapping[str, Any]]
"""What a manifest lists, by what a person calls it ("package gcc of the build tree") → the entry's values."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A manifest of the right form, and its SHA-256. `steps` are by name; `outputs` maps file names to SHA-256."""

    path: Path
    sha256: str
    document: Mapping[str, Any]
    profile: str
    steps: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, str]


def load(path: Path) -> Published:
    """Read a manifest; UserError names file and key of whatever is wrong with it."""
    raw = _read(path)
    document = _json(raw, path)
    top = Table(document, file=str(path))
    top.integer("schema", low=manifest.SCHEMA, high=manifest.SCHEMA)
    top.integer("engine", low=0, high=1 << 31)
    project = top.table("project")
    project.string("name")
    project.string("version")
    project.close()
    inputs = top.table("inputs")
    _names(inputs.tables("sources"))
    tools = inputs.table("tools")
    for name in tools.keys():  # noqa: SIM118 (a Table is no mapping)
        tree = tools.table(name)
        tree.string("suite")
        tree.sha256("digest")
        _names(tree.tables("packages"))
        tree.close()
    _digests(inputs, "files")
    inputs.close()
    steps = top.tables("steps")
    names = _names(steps)
    for step in steps:
        step.sha256("key")
        _digests(step, "outputs")
    published = Published(
        path=path,
        # Of what was read: it may be another by the time that everything is built, or a pipe.
        sha256=files.of_bytes(raw),
        document=document,
        profile=top.string("profile", pattern=_NAME, says="a profile's name"),
        steps=dict(zip(names, document["steps"], strict=True)),
        outputs=_digests(top, "outputs"),
    )
    top.close()
    return published


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX + 1)
    except OSError as error:
        hint = "give --manifest FILE"
        raise UserError(error.strerror or "cannot be read", where=str(path), hint=hint) from None
    if len(raw) > _MAX:
        raise UserError(f"is no manifest: larger than {_MAX} bytes", where=str(path))
    return raw


def _json(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(raw, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise UserError(f"is no JSON: {error}", where=str(path)) from None
    if not isinstance(data, dict):
        raise UserError("is no manifest", where=str(path), hint="manifest.json lies in the output folder")
    return data


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """One reader would take the first of two values of a key, and another the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:_SHOWN]!r} stands twice in one object")
    return found


def _names(tables: Iterable[Table]) -> list[str]:
    """The name of each table; none may stand twice."""
    found: dict[str, Table] = {}
    for table in tables:
        name = table.string("name", pattern=_NAME, says="a name")
        if name in found:
            raise table.error("name", f"{name!r} stands twice")
        found[name] = table
    return list(found)


def _digests(parent: Table, key: str) -> dict[str, str]:
    table = parent.table(key)
    found = {}
    for name in table.keys():  # noqa: SIM118 (a Table is no mapping)
        if _FILE.fullmatch(name) is None or ".." in name:
            raise table.error(name[:_SHOWN], "is no plain relative path")
        entry = table.table(name)
        found[name] = entry.sha256("sha256")
        entry.integer("size", low=0, high=_SIZE_MAX)
        entry.close()
    if not found:
        raise parent.error(key, "is empty")
    return found


# ── comparison with a checkout ──


def entries(document: Mapping[str, Any], *, steps: Iterable[str], outputs: Iterable[str]) -> Entries:
    """All that can be compared before anything is built; `document` as manifest.declared gives it, or a whole one."""
    inputs = document["inputs"]
    found: dict[str, Mapping[str, Any]] = {
        "the project": document["project"],
        "the engine": {"version": document["engine"]},
    }
    found |= {f"source {pin['name']}": pin for pin in inputs["sources"]}
    for tree, tools in inputs["tools"].items():
        found[f"the {tree} tree"] = {"suite": tools["suite"]}
        found |= {f"package {pin['name']} of the {tree} tree": pin for pin in tools["packages"]}
    found |= {f"file {path}": value for path, value in inputs["files"].items()}
    found |= {f"step {name}": {} for name in steps}
    return found | {f"output {name}": {} for name in outputs}


def check(published: Published, own: Entries) -> None:
    """Demand that a manifest lists exactly what this checkout declares.

    Each entry that is missing, or there as well, or another, is named on a line of its own; UserError if there is any.
    """
    listed = entries(published.document, steps=published.steps, outputs=published.outputs)
    wrong = {name: text for name in sorted({*listed, *own}) if (text := _difference(listed.get(name), own.get(name)))}
    if not wrong:
        return
    ui.lines(printable(f"   {name}: {text}") for name, text in wrong.items())
    first, count = next(iter(wrong)), len(wrong)
    rest = f" and {count - 1} more, as listed above" if count > 1 else ""
    raise UserError(f"does not list what this checkout is built from: {first}{rest}", where=str(published.path),
                    hint=_HINT)  # fmt: skip


def _difference(listed: Mapping[str, Any] | None, own: Mapping[str, Any] | None) -> str:
    """How two entries differ, in a few words; empty when they do not."""
    if listed == own:
        return ""
    if listed is None:
        return "the manifest does not list it"
    if own is None:
        return "the manifest lists it, this checkout has no use for it"
    keys = sorted(key for key in {*listed, *own} if listed.get(key) != own.get(key))
    return "; ".join(f"{key[:_SHOWN]} is {_shown(listed.get(key))}, here {_shown(own.get(key))}" for key in keys)


def _shown(value: object) -> str:
    # Lists of lists of a stranger are not worth a line, and may be thousands deep.
    if value is None or isinstance(value, (str, int)):
        return str("missing" if value is None else value)[:_SHOWN]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return " ".join(value)[:_SHOWN]
    return f"a {type(value).__name__}"
