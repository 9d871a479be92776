# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Statements in files, and what lies beside artifacts that were pulled."""

from collections.abc import Iterable
from pathlib import Path

from tools.launcher.base import files
from tools.launcher.trust.artifact import MANIFEST_MAX, Artifact, parse
from tools.launcher.trust.decision import Bundle
from tools.launcher.trust.envelope import BUNDLE_MAX
from tools.sev.formats import MANIFEST_NAME, STATEMENTS


def read_bundles(paths: Iterable[Path]) -> list[Bundle]:
    """The files; UserError for one that cannot be read."""
    return [Bundle(where=str(path), data=files.read(path, BUNDLE_MAX)) for path in paths]


def beside(folder: Path) -> tuple[Artifact, list[Bundle]]:
    """The manifest and the statements in a folder that was pulled; UserError when there is no manifest."""
    path = folder / MANIFEST_NAME
    artifact = parse(files.read(path, MANIFEST_MAX), where=str(path))
    return artifact, read_bundles(sorted((folder / STATEMENTS).glob("*.json")))
