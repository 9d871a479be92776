# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Python requirements: each requirements*.in resolved by pip into a lock with the hashes of every file.

pip alone answers in seconds whether anything changed; pip-compile, which takes a minute and more, runs only
then, in a virtual environment of its own that is thrown away: a resolver is no requirement.
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
"""


def lock(*, root: Path) -> list[str]:
    """Resolve every requirements*.in of the checkout; return the changes, one line each."""
    changes = []
    for asked in sorted(root.glob("requirements*.in")):
        with ui.working(f"resolving {asked.name}"):
            changes += _lock(asked, asked.with_suffix(".lock"))
    return changes


def _lock(asked: Path, target: Path) -> list[str]:
    before = target.read_text(encoding="utf-8") if target.is_file() else ""
    had = _versions(before)
    try:
        if _is_current(asked, before, had):
            return []
        after = _compile(asked)
    except BuildError as error:
        raise BuildError(error.what, where=asked.name) from None
    text = _HEADER.format(origin=asked.name) + after
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
    # fmt: off
    answer = pypi.run("install", "--quiet", "--dry-run", "--ignore-installed",
                      "--report", "-",
                      "--requirement", asked.name, cwd=asked.parent)
    # fmt: on
    found: dict[str, str] = {}
    for item in json.loads(answer)["install"]:
        found[_normal(item["metadata"]["name"])] = item["metadata"]["version"]
        if item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256", "-") not in text:
            return False
    return found == had


def _compile(asked: Path) -> str:
    with pypi.scratch() as folder:
        python = folder / "venv/bin/python"
        result = folder / "requirements.lock"
        pypi.run(str(python.parents[1]), module=("venv",))
        pypi.run("install", "--quiet", "pip-tools", python=python)
        # fmt: off
        pypi.run("compile", "--quiet", "--generate-hashes", "--allow-unsafe", "--upgrade", "--strip-extras",
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
