# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Rooms and arrows: the contracts in pyproject.toml hold, planted offences are found, and nothing grows too large."""

import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from grimp import ImportGraph

MAX_ROOMS = 17  # the last one: results of others, which only the plan of a build knows
MAX_ARROWS = 60
MAX_MODULES = 14  # of a folder, about a dozen
MAX_LINES = 400

# The launcher and tools.sev run with nothing but Python.
STANDARD = frozenset(sys.stdlib_module_names) | {"compression"}  # that one from 3.14 on
# The exceptions: `verify` does without when it is missing, `pull` says so.
SIGNATURES = {"tools.launcher.attest.signature", "tools.launcher.trust.signatures"}


def lint_imports(checkout: Path) -> str:
    """What import-linter says; its status is 0 when all contracts hold."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        cwd=checkout,
        env={"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "500", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == (" 0 broken" in done.stdout), done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def graph() -> ImportGraph:
    """Who imports whom, inside functions too."""
    return grimp.build_graph("tools", include_external_packages=True, cache_dir=None)


def test_the_contracts_hold(repository: Path) -> None:
    text = lint_imports(repository)
    assert "Contracts: 9 kept, 0 broken." in text, text


PLANTED = {
    "tools/sev/policy.py": "import tools.launcher.config",
    "tools/sev/modes.py": "def f():\n    from tools.pipeline.base import errors",
    "tools/launcher/base/ui.py": "from tools.pipeline.base import errors",
    "tools/pipeline/base/ui.py": "from tools.launcher.base.ui import Ui",
    "tools/pipeline/base/files.py": "from tools.pipeline.tasks.commands import checks",
    "tools/pipeline/engine/store/merkle.py": "def f():\n    import tools.pipeline.sources.pins",
    "tools/launcher/config/runtime.py": "from tools.launcher.cli.main import main",
    "tools/launcher/guest/qemu.py": "import tools.attack.base.model",
    "tools/launcher/guest/start.py": "import tools.runtime.image.disk",
    "tools/runtime/image/disk.py": "from tools.pipeline.base import files",
    "tools/runtime/config/settings.py": "def f():\n    from tools.runtime.life import folder",
    "tools/attack/guests/firmware.py": "from tools.attack.front import runner",
}


def test_planted_offences_are_found(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "pyproject.toml", tmp_path)
    for name, text in PLANTED.items():
        with (tmp_path / name).open("a") as file:
            file.write(f"\n{text}\n")
    for side in ("pipeline", "runtime"):
        (tmp_path / "tools" / side / "cellar").mkdir()
        (tmp_path / "tools" / side / "cellar/__init__.py").touch()
    text = lint_imports(tmp_path)
    assert "Contracts: 0 kept, 9 broken." in text, text
    for name in PLANTED:
        assert name.removesuffix(".py").replace("/", ".") + " ->" in text, f"{name}\n{text}"
    # A room that nobody has put into the list.
    assert "cellar" in text


def room(module: str, side: str) -> str | None:
    parts = module.split(".")
    return parts[2] if parts[:2] == ["tools", side] and len(parts) > 2 else None


def test_the_pipeline_has_few_rooms_and_few_arrows(graph: ImportGraph) -> None:
    rooms = {child for child in graph.find_children("tools.pipeline") if graph.find_children(child)}
    arrows = {
        (room(module, "pipeline"), room(other, "pipeline"))
        for module in graph.find_descendants("tools.pipeline")
        for other in graph.find_modules_directly_imported_by(module)
        if room(other, "pipeline") not in {None, room(module, "pipeline")}
    }
    assert 5 < len(rooms) <= MAX_ROOMS
    assert 10 < len(arrows) <= MAX_ARROWS, sorted(arrows, key=str)


def test_launcher_and_sev_need_python_only(graph: ImportGraph) -> None:
    needed = {
        (module, other.partition(".")[0])
        for root in ("tools.launcher", "tools.runtime", "tools.sev")
        for module in {root, *graph.find_descendants(root)}
        for other in graph.find_modules_directly_imported_by(module)
        if other.partition(".")[0] not in STANDARD | {"tools"}
    }
    assert needed == {(module, "cryptography") for module in SIGNATURES}


def test_nothing_imports_the_exception_early(graph: ImportGraph) -> None:
    """It would make the whole launcher need the package; it is looked up by name when it is needed."""
    for module in SIGNATURES:
        assert graph.find_modules_that_directly_import(module) == set()


def test_the_task_graph_does_not_know_the_launchers_code(repository: Path) -> None:
    assert "tools.launcher" not in (repository / "dodo.py").read_text()


def code(root: Path) -> list[Path]:
    folders = ("tools", "tests", "initramfs", "recipes")
    return [
        path
        for folder in folders
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in {".py", ".rs", ".sh"} and "target" not in path.parts
    ]


def too_long(files: list[Path]) -> list[str]:
    return [path.name for path in files if len(path.read_text().splitlines()) > MAX_LINES]


def too_full(files: list[Path]) -> list[str]:
    counted: dict[Path, int] = {}
    for path in files:
        if path.suffix in {".py", ".rs"} and path.name not in {"__init__.py", "mod.rs"}:
            counted[path.parent] = counted.get(path.parent, 0) + 1
    return [folder.name for folder, count in counted.items() if count > MAX_MODULES]


def test_no_file_is_too_long(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "long.rs").write_text("\n" * (MAX_LINES + 1))
    (tmp_path / "short.rs").write_text("\n" * MAX_LINES)
    assert too_long([tmp_path / "long.rs", tmp_path / "short.rs"]) == ["long.rs"]
    assert not too_long(code(repository))


def test_no_folder_is_too_full(repository: Path) -> None:
    files = code(repository)
    assert len(files) > 100
    assert too_full([Path(f"full/{n}.py") for n in range(MAX_MODULES + 1)]) == ["full"]
    assert not too_full([Path(f"full/{n}.py") for n in range(MAX_MODULES)])
    assert not too_full(files)
