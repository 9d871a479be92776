# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Linters and the rules of the house, as tests. Each rule of our own is shown to find a planted offence."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tools.pipeline.engine.tree import Tree
from tools.pipeline.sandbox import sandbox
from tools.pipeline.sandbox.sandbox import Command, Mount
from tools.pipeline.tasks.project import Project

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
    python(repository, "mypy")


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


AMBIENT = """\
import os, datetime, random
from datetime import date as d
from os import getenv as g
from pathlib import Path
from time import time


def f() -> object:
    import socket

    found = os.environ.get("A"), os.path.expanduser("~"), os.cpu_count(), g, random.random()
    return found, datetime.datetime.now(), d.today(), time, Path.home(), socket.gethostname()
"""
HARMLESS = "import os, time\nfrom datetime import timedelta\nx = os.sep, time.monotonic()\n"


def test_ambient_inputs_are_found(repository: Path, tmp_path: Path) -> None:
    """Whatever name they come by. Beside it what is harmless."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/bad.py").write_text(AMBIENT)
    (tmp_path / "tools/good.py").write_text(HARMLESS)
    # fmt: off
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--config", repository / "pyproject.toml",
         "--select", "TID251", "--output-format", "concise", "."],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )
    # fmt: on
    found = re.findall(r"^tools/(\w+)\.py:\d+:\d+: TID251 `([\w.]+)` is banned: \w", done.stdout, flags=re.MULTILINE)
    assert {name for name, _ in found} == {"bad"}
    assert {what for _, what in found} == {
        "random", "os.getenv", "time.time", "os.environ", "os.path.expanduser", "os.cpu_count", "datetime.datetime.now",
        "datetime.date.today", "pathlib.Path.home", "socket.gethostname",
    }  # fmt: skip


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
