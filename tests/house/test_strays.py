# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Unsorted walks: the order in which a file system lists a folder is no input.

Searched in the syntax trees of tools/, for no linter knows the rule. Clock, user, host name, environment and chance
are ruff's (TID251 in pyproject.toml), and test_lint.py shows that it finds them.
"""

import ast
from pathlib import Path

import pytest

WALKS = frozenset({"listdir", "iterdir", "glob", "iglob", "rglob", "walk", "scandir"})
# Their result does not depend on the order of what they are given.
ORDERLESS = frozenset({"sorted", "set", "frozenset", "len", "any", "all", "sum"})

# (file, what) → why the order does not matter there.
ALLOWED = {
    ("pipeline/engine/store/merkle.py", "scandir"): "sorted when the folder is encoded",
    ("pipeline/guest/agent.py", "rglob"): "sorted two lines below",
    ("pipeline/publish/launcher.py", "rglob"): "sorted in the next line",
    ("pipeline/recipes/kernels.py", "glob"): "names for a hint, which looks for the closest",
    ("pipeline/repro/probe.py", "iterdir"): "the order itself is what it reports",
    ("pipeline/engine/store/inventory.py", "walk"): "adds sizes up",
    ("pipeline/engine/jobs.py", "glob"): "deletes all that nobody holds",
    ("pipeline/engine/scratch.py", "scandir"): "deletes all that is found",
    ("pipeline/toolchain/tool_tree.py", "glob"): "deletes all that is found",
    ("pipeline/toolchain/tool_tree.py", "walk"): "asks the same of each",
    ("launcher/guest/run_folder.py", "scandir"): "deletes all that is stale",
}


class _Search(ast.NodeVisitor):
    def __init__(self, tree: ast.Module) -> None:
        self.found: list[tuple[str, int]] = []
        self._parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        self.visit(tree)

    def visit_Call(self, node: ast.Call) -> None:
        """`folder.iterdir()`, unless what takes it does not care for the order."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        # ast.walk visits a syntax tree, whose order is the text's.
        syntax = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "ast"
        if name in WALKS and not syntax and not self._order_does_not_matter(node):
            self.found.append((name, node.lineno))
        self.generic_visit(node)

    def _order_does_not_matter(self, node: ast.AST) -> bool:
        parent = self._parents[node]
        while isinstance(parent, ast.comprehension | ast.GeneratorExp | ast.ListComp | ast.Starred | ast.List):
            node, parent = parent, self._parents[parent]
        if isinstance(parent, ast.SetComp):
            return True
        if isinstance(parent, ast.withitem) and isinstance(parent.optional_vars, ast.Name):
            # `with os.scandir(x) as entries`: every use of the name must be harmless.
            name = parent.optional_vars.id
            uses = [n for n in ast.walk(self._parents[parent]) if isinstance(n, ast.Name) and n.id == name]
            return all(self._order_does_not_matter(n) for n in uses if isinstance(n.ctx, ast.Load))
        return isinstance(parent, ast.Call) and getattr(parent.func, "id", "") in ORDERLESS


def walks(text: str) -> list[tuple[str, int]]:
    return _Search(ast.parse(text)).found


def test_no_unsorted_walk_and_no_dead_exception(repository: Path) -> None:
    tools = repository / "tools"
    found = {
        (path.relative_to(tools).as_posix(), what): line
        for path in sorted(tools.rglob("*.py"))
        for what, line in walks(path.read_text())
    }
    assert found.keys() == ALLOWED.keys(), found


@pytest.mark.parametrize(
    ("planted", "what"),
    [
        ("import os\nfor x in os.listdir('.'): pass", "listdir"),
        ("import os\nfor x in os.walk('.'): pass", "walk"),
        ("import os\nwith os.scandir('.') as e:\n    for x in e: pass", "scandir"),
        ("for x in p.iterdir(): pass", "iterdir"),
        ("x = list(p.glob('*'))", "glob"),
        ("x = [y.name for y in p.rglob('*')]", "rglob"),
        ("x = {y.name: 1 for y in p.rglob('*')}", "rglob"),
        ("x = next(p.iterdir())", "iterdir"),
        ("from glob import iglob\nx = list(iglob('*'))", "iglob"),
        # Sorting something else, or the folder's name, does not sort the walk.
        ("x = sorted(f(p.iterdir()))", "iterdir"),
    ],
)
def test_planted_examples_are_found(planted: str, what: str) -> None:
    assert [found for found, _ in walks(planted)] == [what]


@pytest.mark.parametrize(
    "harmless",
    [
        "x = sorted(p.iterdir())",
        "x = sorted([a, *(y for y in p.rglob('*'))])",
        "x = sorted(y.name for y in p.rglob('*') if y.is_file())",
        "x = sorted([y for y in p.glob('*')], key=len)",
        "x = len(set(p.iterdir()))",
        "x = {y.name for y in p.iterdir()}",
        "import os\nwith os.scandir('.') as e:\n    x = sorted(e, key=f)",
        "x = any(y.is_dir() for y in p.iterdir())",
        "import ast\nfor x in ast.walk(t): pass",
    ],
)
def test_harmless_code_is_not_found(harmless: str) -> None:
    assert walks(harmless) == []
