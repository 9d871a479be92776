# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Python requirements: each requirements*.in resolved by pip into a lock with the hashes of every file.

A lock says for which request it was made: while that is the same, nobody is asked, and newer versions are looked for
only when a person wants them. Then pip alone answers in half a minute whether there are any; pip-compile, which takes
a minute and more, runs only if so, in a virtual environment of its own that is thrown away: a resolver is no
requirement.
"""

import json
import re
from pathlib import Path

from tools.pipeline.base import files, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.sources import pypi

_HEADER = """\
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# Written by ./doit lock from {origin}.
# request: {request}
"""


def lock(*, root: Path, upgrade: bool = False) -> list[str]:
    """Resolve every requirements*.in of the checkout that changed, or with `upgrade` each; the changes, a line each."""
    changes = []
    # The shorter name first: the others are constrained by its lock.
    for asked in sorted(root.glob("requirements*.in"), key=lambda path: (len(path.name), path.name)):
        target = asked.with_suffix(".lock")
        before = target.read_text(encoding="utf-8") if target.is_file() else ""
        if upgrade or f"\n# request: {_request(asked)}\n" not in before:
            with ui.working(f"resolving {asked.name}"):
                changes += _lock(asked, target, before, upgrade=upgrade)
    return changes


def _request(asked: Path) -> str:
    """SHA-256 of what is asked for and of the versions that constrain it; comments do not count."""
    text = asked.read_text(encoding="utf-8")
    words = [line for line in (line.partition("#")[0].strip() for line in text.splitlines()) if line]
    constraints = {name: _versions((asked.parent / name).read_text(encoding="utf-8")) for name in _constraints(text)}
    return files.of_bytes(json.dumps([words, constraints], sort_keys=True).encode())


def _lock(asked: Path, target: Path, before: str, *, upgrade: bool) -> list[str]:
    had = _versions(before)
    try:
        after = before if _is_current(asked, before, had) else _compile(asked, before, upgrade=upgrade)
    except BuildError as error:
        raise BuildError(error.what, where=asked.name) from None
    body = "".join(line for line in after.splitlines(keepends=True) if not line.startswith("#"))
    text = _HEADER.format(origin=asked.name, request=_request(asked)) + body
    files.write_if_changed(target, text.encode())
    has = _versions(text)
    return [
        f"{'added  ' if n not in had else 'removed' if n not in has else 'updated'}  {n} "
        + " → ".join(v for v in (had.get(n), has.get(n)) if v)
        for n in sorted({*had, *has})
        if had.get(n) != has.get(n)
    ]


def _is_current(asked: Path, text: str, had: dict[str, str]) -> bool:
    """Whether pip, asked anew, would install just what is locked, from files whose hashes are locked."""
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
        found[_normal(item["metadata"]["name"])] = item["metadata"]["version"]
        if item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256", "-") not in text:
            return False
    return found == had


def _copy_without_hashes(asked: Path, folder: Path) -> None:
    """Copy what is asked for and the locks that constrain it: with a hash in one, pip wants one of everything."""
    text = asked.read_text(encoding="utf-8")
    (folder / asked.name).write_text(text, encoding="utf-8")
    for name in _constraints(text):
        known = _versions((asked.parent / name).read_text(encoding="utf-8"))
        (folder / name).write_text("".join(f"{n}=={v}\n" for n, v in known.items()), encoding="utf-8")


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
        return result.read_text(encoding="utf-8")


def _versions(text: str) -> dict[str, str]:
    return {_normal(n): v for n, v in re.findall(r"^([A-Za-z0-9._\-]+)==(\S+)", text, flags=re.MULTILINE)}


def _normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()
