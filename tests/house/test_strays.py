# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Ambient inputs and unsorted walks: searched in the syntax trees of both sides of tools/.

What an artifact's bytes depend on is in recipes and locks. Clock, user, host name, environment and the order
in which a file system lists a folder are read in the modules named here, each with its reason, or nowhere.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# Dotted names that must not be read, called or imported.
AMBIENT = (
    "os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv",
    "os.getlogin", "os.getuid", "os.geteuid", "os.getgid", "os.getegid", "os.uname", "os.cpu_count",
    "os.process_cpu_count", "os.sched_getaffinity", "os.getcwd", "os.getcwdb", "os.chdir",
    "os.path.expanduser", "os.path.expandvars", "os.urandom", "os.getrandom",
    "pathlib.Path.home", "pathlib.Path.cwd",
    "time", "datetime.datetime.now", "datetime.datetime.today", "datetime.datetime.utcnow",
    "datetime.date.today", "getpass", "pwd", "grp", "locale", "platform", "random", "secrets",
    "uuid.uuid1", "uuid.uuid4",
    "socket.gethostname", "socket.getfqdn",
)  # fmt: skip
WALKS = frozenset({"listdir", "iterdir", "glob", "iglob", "rglob", "walk", "scandir"})
# Their result does not depend on the order of what they are given.
ORDERLESS = frozenset({"sorted", "set", "frozenset", "len", "any", "all", "sum"})

# (file, what) → why it may stand there. The launcher runs on the user's machine and makes no artifact; what
# it starts is decided by runtime.toml and its options.
ALLOWED = {
    ("pipeline/base/files.py", "scandir"): "hashes the lines sorted, after the walk",
    ("pipeline/engine/merkle.py", "scandir"): "sorted when the folder is encoded",
    (
        "pipeline/engine/store.py",
        "iterdir",
    ): "sorted by time of use afterwards; decides what is deleted, nothing else",
    ("pipeline/engine/confine.py", "os.geteuid"): "root's steps run as somebody else",
    ("pipeline/engine/confine.py", "os.environ.get"): "the process that it must not outlive",
    ("pipeline/engine/confine.py", "pwd.getpwuid"): "a step's uid outside must be no account's",
    ("pipeline/engine/scratch.py", "scandir"): "deletes all that is found",
    ("pipeline/toolchain/tool_tree.py", "walk"): "looks at all that is found",
    ("pipeline/toolchain/tool_tree.py", "glob"): "deletes all that is found",
    ("launcher/host/cpuid.py", "platform.machine"): "CPUID exists on x86 only",
    ("launcher/host/kvm_trial.py", "os.environ.get"): "place of the cache (XDG_CACHE_HOME)",
    ("launcher/host/kvm_trial.py", "os.geteuid"): "trusts nobody else's cache",
    ("launcher/host/kvm_trial.py", "pathlib.Path.home"): "place of the cache",
    ("launcher/cli/run.py", "os.environ"): "--env NAME hands a variable on because the user asks for it",
    ("launcher/guest/run_folder.py", "os.geteuid"): "deletes nobody else's folders",
    ("launcher/guest/run_folder.py", "scandir"): "deletes all that is stale",
    ("launcher/base/ui.py", "os.environ.get"): "colour (NO_COLOR, TERM)",
    (
        "launcher/attest/verify_report.py",
        "datetime.datetime.now",
    ): "validity of certificates on the relying party's machine, unless --at says a date",
}
# Modules that are about the machine.
WHOLE_FILES = {
    "pipeline/base/ambient.py": "the one place where the pipeline asks for such things",
    "pipeline/front/start.py": "runs before any import of ours; makes no artifact",
    "pipeline/repro/probe.py": "reports what an environment looks like; makes no artifact",
    "pipeline/repro/driver.py": "sets an environment up and times it; makes no artifact",
}
# A clock for time limits, which tells nothing of the date.
LAUNCHER_ANYWHERE = frozenset({"time.monotonic"})


@dataclass(frozen=True, order=True, kw_only=True)
class Stray:
    """A finding: where, in which function, what."""

    file: str
    function: str
    what: str
    line: int

    @property
    def key(self) -> tuple[str, str]:
        """How the allow-list names it."""
        return (self.file, self.what)

    @property
    def allowed(self) -> bool:
        """Whether there is a reason for it."""
        launcher = self.file.startswith("launcher/") and self.what in LAUNCHER_ANYWHERE
        return self.file in WHOLE_FILES or launcher or self.key in ALLOWED


class _Search(ast.NodeVisitor):
    """Resolves imported names, so that `from os import environ as e` is found as well."""

    def __init__(self, file: str, tree: ast.Module) -> None:
        self.file = file
        self.found: list[Stray] = []
        self._names: dict[str, str] = {}
        self._functions: list[str] = []
        self._parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        self.visit(tree)

    def _note(self, what: str, node: ast.AST) -> None:
        function = self._functions[-1] if self._functions else ""
        self.found.append(Stray(file=self.file, function=function, what=what, line=getattr(node, "lineno", 0)))

    def _ambient(self, name: str, node: ast.AST) -> None:
        for bad in AMBIENT:
            if name == bad or name.startswith(f"{bad}."):
                self._note(name, node)
                return

    def _dotted(self, node: ast.AST) -> str | None:
        if isinstance(node, ast.Name):
            return self._names.get(node.id)
        if isinstance(node, ast.Attribute):
            base = self._dotted(node.value)
            return f"{base}.{node.attr}" if base else None
        return None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Remember where we are."""
        self._functions.append(node.name)
        self.generic_visit(node)
        self._functions.pop()

    def visit_Import(self, node: ast.Import) -> None:
        """`import os.path as p`."""
        for alias in node.names:
            self._names[alias.asname or alias.name.partition(".")[0]] = (
                alias.name if alias.asname else alias.name.partition(".")[0]
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """`from os import environ`: the import itself is the finding."""
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            self._names[alias.asname or alias.name] = name
            if node.level == 0:
                self._ambient(name, node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """`os.environ`."""
        name = self._dotted(node)
        if name:
            self._ambient(name, node)
        else:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """`folder.iterdir()`, unless what takes it does not care for the order."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        # ast.walk visits a syntax tree, whose order is the text's.
        if name in WALKS and self._dotted(node.func) != "ast.walk" and not self._order_does_not_matter(node):
            self._note(name, node)
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


def strays(text: str, *, file: str = "x.py") -> list[Stray]:
    return _Search(file, ast.parse(text)).found


def _modules(repository: Path) -> Iterator[tuple[str, str]]:
    tools = repository / "tools"
    for path in sorted(tools.rglob("*.py")):
        yield path.relative_to(tools).as_posix(), path.read_text()


def test_no_strays(repository: Path) -> None:
    found = [s for file, text in _modules(repository) for s in strays(text, file=file)]
    readers = [s for s in found if s.file == "pipeline/base/ambient.py"]
    assert {"os.environ.get", "time.monotonic"} <= {s.what for s in readers}, "the search finds what is there"
    rest = [s for s in found if not s.allowed]
    assert not rest, "\n".join(f"tools/{s.file}:{s.line}: {s.function}: {s.what}" for s in rest)


def test_the_allow_list_has_no_dead_entry(repository: Path) -> None:
    found = {s.key for file, text in _modules(repository) for s in strays(text, file=file)}
    assert not ALLOWED.keys() - found


@pytest.mark.parametrize(
    ("planted", "what"),
    [
        ("import os\nx = os.environ['HOME']", "os.environ"),
        ("import os\nx = os.environ.get('HOME')", "os.environ.get"),
        ("import os as o\nx = o.getenv('HOME')", "os.getenv"),
        ("from os import environ", "os.environ"),
        ("from os import getenv as g", "os.getenv"),
        ("import os.path\nx = os.path.expanduser('~')", "os.path.expanduser"),
        ("from os import path\nx = path.expanduser('~')", "os.path.expanduser"),
        ("import time\nx = time.time()", "time.time"),
        ("from time import time", "time.time"),
        ("import datetime\nx = datetime.datetime.now()", "datetime.datetime.now"),
        ("from datetime import datetime as d, UTC\nx = d.now(UTC)", "datetime.datetime.now"),
        ("from datetime import date\nx = date.today()", "datetime.date.today"),
        ("import getpass\nx = getpass.getuser()", "getpass.getuser"),
        ("import pwd\nx = pwd.getpwuid(0)", "pwd.getpwuid"),
        ("import socket\nx = socket.gethostname()", "socket.gethostname"),
        ("import platform\nx = platform.node()", "platform.node"),
        ("import random\nx = random.random()", "random.random"),
        ("from pathlib import Path\nx = Path.home()", "pathlib.Path.home"),
        ("def f():\n    import os\n    return os.cpu_count()", "os.cpu_count"),
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
    assert [s.what for s in strays(planted)] == [what]


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
        "import os\nos.replace('a', 'b')",
        "environ = 1\nx = environ",
        "import ast\nfor x in ast.walk(t): pass",
        "from datetime import timedelta\nx = timedelta(1)",
        "def now(): pass\nnow()",
    ],
)
def test_harmless_code_is_not_found(harmless: str) -> None:
    assert strays(harmless) == []
