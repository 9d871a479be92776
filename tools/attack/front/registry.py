# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Which attacks there are: each module below tools/attack/catalogue/TOPIC/ says so in a function attacks()."""

import importlib.util
import pkgutil
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from types import ModuleType

from tools.attack import catalogue
from tools.attack.base.model import Attack, Entry, Topic
from tools.pipeline.base import names
from tools.pipeline.base.errors import UserError


def entries(package: ModuleType = catalogue) -> list[Entry]:
    """All of them, topic by topic, in the order of modules' names and within these as written."""
    found = [entry for topic in Topic for entry in _topic(f"{package.__name__}.{topic}", topic)]
    seen: set[str] = set()
    for entry in found:
        if entry.name in seen:
            raise ValueError(f"two attacks are called {entry.name}")
        seen.add(entry.name)
    return found


def _topic(package: str, topic: Topic) -> Iterator[Entry]:
    if importlib.util.find_spec(package) is None:
        return
    room = importlib.import_module(package)
    for module in sorted(pkgutil.iter_modules(room.__path__), key=lambda m: m.name):
        attacks: Iterable[Attack] = importlib.import_module(f"{package}.{module.name}").attacks()
        for attack in attacks:
            yield Entry(topic=topic, name=f"{topic}/{module.name}/{attack.name}", attack=attack)


def choose(found: Iterable[Entry], *, topics: str = "", only: str = "", short: bool = False) -> list[Entry]:
    """Those of these topics, names and form; lists have commas, a name may have * or end early. UserError if none."""
    chosen = list(found)
    wanted = [word for word in topics.split(",") if word]
    for word in wanted:
        if word not in set(Topic):
            raise UserError(
                f"there is no topic {word[:80]!r}",
                where="--topic",
                hint=names.hint(word, [topic.value for topic in Topic]),
            )
    if wanted:
        chosen = [entry for entry in chosen if entry.topic in wanted]
    patterns = [word for word in only.split(",") if word]
    for word in patterns:
        if not any(_matches(entry, word) for entry in chosen):
            raise UserError(
                f"no attack is called {word[:80]!r}", where="--only", hint="./doit attack --list names them"
            )
    if patterns:
        chosen = [entry for entry in chosen if any(_matches(entry, word) for word in patterns)]
    if short:
        chosen = [entry for entry in chosen if entry.attack.short]
    if not chosen:
        raise UserError("no attack is left", where="./doit attack", hint="./doit attack --list names them")
    return chosen


def _matches(entry: Entry, pattern: str) -> bool:
    return fnmatchcase(entry.name, pattern) or entry.name.startswith(f"{pattern.rstrip('/')}/")
