# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What belongs together: version and changelog, locks and what is asked for, hooks and tests, pages and files."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

PAGES = ("CONTRIBUTING.md", "SECURITY.md", "docs/glossary.md", "docs/ci/README.md")


def known(changelog: str, version: str) -> bool:
    """Whether a changelog has a section for the version, or one for what is not released yet."""
    return bool(re.search(rf"^## (Unreleased|\[?{re.escape(version)}\]?( |$))", changelog, flags=re.MULTILINE))


def test_the_changelog_knows_the_version(repository: Path) -> None:
    version = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"]
    assert known((repository / "CHANGELOG.md").read_text(), version)
    assert known("# Changelog\n\n## 1.2.0 - 2025-01-01\n", "1.2.0")
    assert not known("# Changelog\n\n## 1.2.0 - 2025-01-01\n", "1.2")


def names(text: str) -> set[str]:
    """Packages that a requirements file or lock begins a line with."""
    return {name.lower().replace("_", "-") for name in re.findall(r"^([A-Za-z0-9._-]+)", text, flags=re.MULTILINE)} - {
        "-c"
    }


def test_a_build_installs_nothing_that_only_tests_need(repository: Path) -> None:
    build, dev = (names((repository / f"requirements{more}.lock").read_text()) for more in ("", "-dev"))
    assert names((repository / "requirements.in").read_text()) <= build
    assert names((repository / "requirements-dev.in").read_text()) <= dev
    assert not build & {"pytest", "mypy", "ruff", "hypothesis", "import-linter"}


def test_tests_of_services_run_what_is_installed_for_them(repository: Path) -> None:
    """Of what a build with a service adds, tests have the same versions; a build alone has none of it."""
    build, dev, remote = (
        (repository / f"requirements{more}.lock").read_text().splitlines() for more in ("", "-dev", "-remote")
    )
    pins = {line for line in remote if "==" in line}
    assert names((repository / "requirements-remote.in").read_text()) <= names("\n".join(remote))
    assert pins <= {*dev, *build}
    assert not {"grpcio", "protobuf", "buildgrid-common"} & names("\n".join(build))


def test_hooks_run_what_the_environment_has_and_fetch_nothing(repository: Path) -> None:
    text = (repository / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"repo: (\S+)", text)) == {"local"}
    programs = re.findall(r"entry: \.venv/bin/(\S+)", text)
    assert len(programs) == text.count("entry:")
    for program in programs:
        assert (Path(sys.executable).parent / program).is_file(), program


def test_the_import_hook_is_the_command_that_it_names(repository: Path) -> None:
    entry = re.search(r"entry: \.venv/bin/(lint-imports.*)", (repository / ".pre-commit-config.yaml").read_text())
    assert entry is not None
    program, *words = entry[1].split()
    done = subprocess.run(
        [Path(sys.executable).parent / program, *words], cwd=repository, capture_output=True, text=True, check=False
    )
    assert "tools.sev is below everything KEPT" in done.stdout


def test_the_pages_name_what_is_there(repository: Path) -> None:
    """Links and paths of the checkout; what a build makes is not there yet."""
    for page in PAGES:
        path = repository / page
        text = path.read_text()
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (path.parent / link).exists(), f"{page}: {link}"
        for name in re.findall(r"`((?:tools|tests|recipes|docs)/[\w./-]+)`", text):
            assert (repository / name).exists(), f"{page}: {name}"
        assert all(len(line) <= 200 or line.startswith("|") for line in text.splitlines()), page
