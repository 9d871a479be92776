# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Linters and the rules of the house, as tests. Each rule of our own is shown to find a planted offence."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tools.pipeline.engine import sandbox
from tools.pipeline.engine.sandbox import Command, Mount
from tools.pipeline.engine.tree import Tree
from tools.pipeline.tasks.project import Project

MAX_LINES = 500
# The launcher runs with nothing but Python; the pipeline has what requirements.lock brings.
STANDARD = frozenset(sys.stdlib_module_names)
# module → the one package that it may import beyond that, and that `verify` does without when it is missing.
LAUNCHER_EXTRA = {"attest/signature.py": "cryptography"}


Linter = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def linter(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Linter:
    """linter(checkout, program, arguments…): shellcheck, reuse and git of the pinned tree."""
    tree = project.trees.ensure("lint")
    # reuse is a large Python program: without a place for its byte code each start takes seconds.
    byte_code = Mount(host=tmp_path_factory.mktemp("byte-code"), inside="/build", writable=True)
    return lambda checkout, *argv: in_checkout(tree, byte_code, checkout, argv)


def in_checkout(tree: Tree, byte_code: Mount, checkout: Path, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a linter on a read-only checkout."""
    command = Command(
        argv=tuple(argv),
        tree=tree.path,
        mounts=(Mount(host=checkout, inside="/src"), byte_code),
        # git refuses a folder whose owner is another uid outside; it only lists files here.
        environment={
            "HOME": "/tmp",
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": "/build",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        },
        chdir="/src",
    )
    return subprocess.run(
        sandbox.bwrap_argv(command),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={},
        check=False,
    )


@pytest.fixture(scope="session")
def tracked(linter: Linter, repository: Path) -> list[Path]:
    """Files that git knows and that are there."""
    done = linter(repository, "git", "ls-files", "-z")
    assert done.returncode == 0, done.stderr
    names = [name for name in done.stdout.split("\0") if name and (repository / name).is_file()]
    assert "pyproject.toml" in names
    return [repository / name for name in names]


def shell_scripts(files: Sequence[Path]) -> list[Path]:
    found = []
    for path in files:
        with path.open("rb") as file:
            first = file.readline(100)
        if path.suffix == ".sh" or re.match(rb"#!.*\b(sh|bash|dash)\b", first):
            found.append(path)
    return found


def python(repository: Path, *args: str) -> None:
    done = subprocess.run([sys.executable, "-m", *args], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(args)}\n{done.stdout}{done.stderr}"


def test_ruff_check(repository: Path) -> None:
    python(repository, "ruff", "check", "--no-cache", ".")


def test_ruff_format(repository: Path) -> None:
    python(repository, "ruff", "format", "--no-cache", "--check", ".")


def test_mypy(repository: Path) -> None:
    """Strict, by pyproject.toml."""
    python(repository, "mypy", "-p", "tools")


def test_mypy_is_strict(repository: Path, tmp_path: Path) -> None:
    """The control: the configuration that the test above uses refuses an untyped function."""
    (tmp_path / "x.py").write_text("def f(a):\n    return a\n")
    # fmt: off
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(repository / "pyproject.toml"),
         str(tmp_path / "x.py")],
        cwd=repository, capture_output=True, text=True, check=False,
    )
    # fmt: on
    assert "no-untyped-def" in done.stdout


def test_shellcheck(linter: Linter, repository: Path, tracked: list[Path]) -> None:
    scripts = [p.relative_to(repository).as_posix() for p in shell_scripts(tracked)]
    assert {"doit", "tools/setup.sh", "initramfs/agent/build.sh"} <= set(scripts)
    done = linter(repository, "shellcheck", "--severity=style", "--", *scripts)
    assert done.returncode == 0, done.stdout


def test_shellcheck_finds_something(linter: Linter, tmp_path: Path) -> None:
    (tmp_path / "bad.sh").write_text("#!/bin/sh\nrm -rf $1/*\n")
    assert "SC2086" in linter(tmp_path, "shellcheck", "bad.sh").stdout


def test_licences(linter: Linter, repository: Path) -> None:
    done = linter(repository, "reuse", "lint")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_reuse_finds_something(linter: Linter, tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text("x = 1\n")
    done = linter(tmp_path, "reuse", "lint")
    assert done.returncode == 1
    assert "bare.py" in done.stdout


def test_licence_texts_are_whole(repository: Path) -> None:
    texts = {path.name: path.read_text() for path in (repository / "LICENSES").iterdir()}
    assert sorted(texts) == ["Apache-2.0.txt", "BSD-2-Clause-Patent.txt", "GPL-2.0-only.txt"]
    assert (repository / "LICENSE").read_text() == texts["Apache-2.0.txt"]
    assert texts["Apache-2.0.txt"].rstrip().endswith("limitations under the License.")
    assert "END OF TERMS AND CONDITIONS" in texts["GPL-2.0-only.txt"]
    assert texts["BSD-2-Clause-Patent.txt"].rstrip().endswith("POSSIBILITY OF SUCH DAMAGE.")


def long_files(files: Sequence[Path]) -> list[str]:
    code = [path for path in files if path.suffix in {".py", ".rs", ".sh"}]
    return [path.name for path in code if len(path.read_text().splitlines()) > MAX_LINES]


def test_no_file_is_too_long(tracked: list[Path], tmp_path: Path) -> None:
    assert not long_files(tracked)
    (tmp_path / "long.rs").write_text("\n" * (MAX_LINES + 1))
    (tmp_path / "short.rs").write_text("\n" * MAX_LINES)
    assert long_files([tmp_path / "long.rs", tmp_path / "short.rs"]) == ["long.rs"]


def imports(text: str) -> Iterator[str]:
    """Dotted names that a module imports, relative ones with their dots."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            # `from tools import pipeline` names the module last.
            yield base
            yield from (f"{base}{'' if base.endswith('.') else '.'}{alias.name}" for alias in node.names)


def launcher_offences(text: str, *, depth: int, extra: str | None = None) -> list[str]:
    """Imports of the launcher that are neither the standard library's nor its own, nor of package `extra`."""
    found = []
    for name in imports(text):
        dots = len(name) - len(name.lstrip("."))
        # One dot more than the folder is deep would leave the package.
        if dots > depth if dots else name.partition(".")[0] not in STANDARD | {extra}:
            found.append(name)
    return found


def pipeline_offences(text: str) -> list[str]:
    return [name for name in imports(text) if name == "tools.launcher" or name.startswith("tools.launcher.")]


def test_the_launcher_needs_python_only(repository: Path) -> None:
    folder = repository / "tools/launcher"
    paths = sorted(folder.rglob("*.py"))
    assert len(paths) > 10
    for path in paths:
        relative = path.relative_to(folder)
        extra = LAUNCHER_EXTRA.get(relative.as_posix())
        assert not launcher_offences(path.read_text(), depth=len(relative.parts), extra=extra), relative


def test_the_launchers_exceptions_are_in_use(repository: Path) -> None:
    for name, package in LAUNCHER_EXTRA.items():
        text = (repository / "tools/launcher" / name).read_text()
        found = launcher_offences(text, depth=len(Path(name).parts))
        assert {offence.partition(".")[0] for offence in found} == {package}


def early_exceptions(text: str, *, file: Path) -> set[str]:
    """Which exceptions the launcher's module `file`, relative to the launcher's folder, imports."""
    found = set()
    for name in imports(text):
        words = name.lstrip(".")
        dots = len(name) - len(words)
        if dots:
            found.add(Path(*file.parts[: len(file.parts) - dots], *words.split(".")).as_posix() + ".py")
    return found & LAUNCHER_EXTRA.keys()


def test_no_module_of_the_launcher_imports_an_exception_early(repository: Path) -> None:
    """It would make the whole launcher need the package."""
    folder = repository / "tools/launcher"
    for path in sorted(folder.rglob("*.py")):
        file = path.relative_to(folder)
        assert not early_exceptions(path.read_text(), file=file), file


@pytest.mark.parametrize(
    ("file", "planted"),
    [
        ("cli.py", "from .attest import signature"),
        ("cli.py", "def f():\n    from .attest.signature import check"),
        ("attest/certificates.py", "from . import signature"),
        ("attest/certificates.py", "from .signature import check"),
        ("measure/vmsa.py", "from ..attest import signature"),
        ("measure/vmsa.py", "from ..attest.signature import check"),
    ],
)
def test_early_imports_of_an_exception_are_found(file: str, planted: str) -> None:
    assert early_exceptions(planted, file=Path(file)) == {"attest/signature.py"}
    assert not early_exceptions("from . import report\nfrom .. import signature", file=Path("attest/x.py"))


def test_the_pipeline_does_not_know_the_launchers_code(repository: Path) -> None:
    paths = [repository / "dodo.py", *sorted((repository / "tools/pipeline").rglob("*.py"))]
    for path in paths:
        assert not pipeline_offences(path.read_text()), path.name


@pytest.mark.parametrize(
    "planted",
    [
        "import requests",
        "import tools.pipeline.base.errors",
        "from tools.pipeline import errors",
        "from tools.launcher import config",
        "from ..pipeline import errors",
        "def f():\n    from jinja2 import Template",
        "from cryptography import x509",
    ],
)
def test_foreign_imports_of_the_launcher_are_found(planted: str) -> None:
    assert launcher_offences(planted, depth=1)
    assert launcher_offences(f"{planted}\nimport other", depth=1, extra="cryptography")
    assert not launcher_offences("import os.path\nfrom .config import X\nfrom . import y", depth=1)


def test_how_far_up_the_launcher_may_import_depends_on_the_folder() -> None:
    assert not launcher_offences("from ..config import X\nfrom .. import y", depth=2)
    assert launcher_offences("from ...pipeline import errors", depth=2)
    assert launcher_offences("from ... import pipeline", depth=2)


@pytest.mark.parametrize(
    "planted", ["import tools.launcher", "from tools import launcher", "from tools.launcher.base.ui import x"]
)
def test_foreign_imports_of_the_pipeline_are_found(planted: str) -> None:
    assert pipeline_offences(planted)
    assert not pipeline_offences("from tools.pipeline import pack_launcher")


_URL_HOST = re.compile(r"(?:https?|ftp|mirror\+https?)://(?:[^/@\s]*@)?([A-Za-z0-9.-]+)")


def mirror_hosts(configuration: str) -> set[str]:
    """Hosts in apt's configuration; a name with one label (localhost, proxy) would match anywhere."""
    return {host.lower() for host in _URL_HOST.findall(configuration) if "." in host}


def mentions(hosts: set[str], text: str) -> list[str]:
    return sorted(host for host in hosts if host in text.lower())


def test_no_mirror_of_this_machine_is_written_down(repository: Path, tracked: list[Path]) -> None:
    """Where packages come from is the machine's business; a lock that names a host breaks elsewhere."""
    apt = [path for path in sorted(Path("/etc/apt").rglob("*")) if path.suffix in {".list", ".sources"}]
    hosts = mirror_hosts("\n".join(path.read_text(errors="replace") for path in apt))
    found = {
        str(path.relative_to(repository)): names
        for path in tracked
        if (names := mentions(hosts, path.read_text(errors="replace")))
    }
    assert not found


def test_mirrors_would_be_found() -> None:
    listed = "deb http://ftp.example.org/debian trixie main\nURIs: https://me:pw@Sec.example.net/x\n# http://proxy/"
    hosts = mirror_hosts(listed)
    assert hosts == {"ftp.example.org", "sec.example.net"}
    assert mentions(hosts, "see https://FTP.example.org/") == ["ftp.example.org"]
    assert not mentions(hosts, "see https://example.org/")
