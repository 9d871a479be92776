# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Statements in files, and what lies beside artifacts that were pulled."""

from collections.abc import Iterable
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.trust.artifact import MANIFEST_MAX, Artifact, parse
from tools.launcher.trust.decision import Bundle
from tools.launcher.trust.envelope import BUNDLE_MAX
from tools.sev.formats import MANIFEST_NAME, STATEMENTS


def read_bundles(paths: Iterable[Path]) -> list[Bundle]:
    """The files; UserError for one that cannot be read."""
    return [Bundle(where=str(path), data=_read(path, BUNDLE_MAX)) for path in paths]


def beside(folder: Path) -> tuple[Artifact, list[Bundle]]:
    """The manifest and the statements in a folder that was pulled; UserError when there is no manifest."""
    path = folder / MANIFEST_NAME
    artifact = parse(_read(path, MANIFEST_MAX), where=str(path))
    return artifact, read_bundles(sorted((folder / STATEMENTS).glob("*.json")))


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else "cannot be read"
        raise UserError(what, where=str(path)) from None
    if len(data) > limit:
        raise UserError(f"has more than {limit} bytes", where=str(path))
    return data
