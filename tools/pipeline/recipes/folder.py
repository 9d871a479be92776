# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A folder of recipes: NAME.toml each, read by one function, named by others."""

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

from tools.pipeline.base import names, toml_reader
from tools.pipeline.base.errors import UserError
from tools.pipeline.base.toml_reader import Table

NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
"""A name of a recipe, source, fragment or list: it becomes a file name and part of a task's name."""

T = TypeVar("T")


def load(root: Path, folder: str, read: Callable[[Table, str], T]) -> dict[str, T]:
    """What `read(table, name)` makes of each NAME.toml in a folder of the checkout, sorted by name."""
    found = {}
    for path in sorted((root / folder).glob("*.toml"), key=lambda path: path.stem):
        shown = f"{folder}/{path.name}"
        if re.fullmatch(NAME, path.stem) is None:
            raise UserError(f"{path.stem!r} is no name for a recipe", where=shown, hint="lower case, digits, . _ -")
        table = toml_reader.load(path, shown_as=shown)
        found[path.stem] = read(table, path.stem)
        table.close()
    return found


def named(table: Table, key: str, known: Mapping[str, T], folder: str) -> T:
    """The recipe of `known` that the key names; UserError says which there are."""
    name = table.string(key, pattern=NAME, says=f"the name of a file in {folder}/")
    if name not in known:
        raise table.error(key, f"no {folder}/{name}.toml", names.hint(name, known))
    return known[name]


def source(table: Table, key: str, sources: Collection[str]) -> str:
    """The source that the key names; UserError when there is none of that name."""
    name = table.string(key)
    if name not in sources:
        raise table.error(key, f"no source {name[:80]!r} in recipes/sources.toml", names.hint(name, sources))
    return name
