# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A workshop for steps."""

from pathlib import Path

import pytest

from tests.pipeline.engine.workshop import TREE, Workshop
from tools.pipeline.engine.tree import Tree
from tools.pipeline.tasks.project import Project


@pytest.fixture(scope="session")
def python_tree(project: Project) -> Tree:
    """Python, a shell, coreutils."""
    return project.trees.ensure(TREE)


@pytest.fixture
def workshop(tmp_path: Path, python_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """An empty cache and an empty checkout."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user-state"))
    made = Workshop(folder=tmp_path, tools=python_tree)
    made.root.mkdir()
    return made
