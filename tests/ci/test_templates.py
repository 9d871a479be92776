# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The templates in docs/ci: what linters of others say of them, and that each step can be typed."""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

YAMLLINT = (
    "{extends: default, rules: {line-length: {max: 120}, document-start: disable, truthy: {check-keys: false}, "
    "comments: {min-spaces-from-content: 1}}}"
)
LINTERS = {
    "schema of workflows": ("check-jsonschema", "--builtin-schema", "vendor.github-workflows"),
    "schema of GitLab": ("check-jsonschema", "--builtin-schema", "vendor.gitlab-ci"),
    "zizmor": ("zizmor", "--offline", "--no-progress"),
    "yamllint": ("yamllint", "--strict", "-d", YAMLLINT),
}
PINNED = re.compile(r"[a-z0-9-]+/[a-z0-9-]+@[0-9a-f]{40}")
# Besides ./doit: what a service has in place of a person at a terminal.
AROUND = re.compile(
    r"sudo |apt-get |printf '%s|umask 077 && printf|rm -f |git |gh |if git diff --quiet|chmod 600 |mkdir -p ~/.docker$"
)


def lint(linter: str, *files: Path) -> "subprocess.CompletedProcess[str]":
    program, *words = LINTERS[linter]
    argv = [str(Path(sys.executable).parent / program), *words, *map(str, files)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})


@pytest.fixture(scope="module")
def workflows(repository: Path) -> list[Path]:
    found = sorted((repository / "docs/ci/github").glob("*.yml"))
    assert [path.stem for path in found] == ["build", "release", "weekly"]
    return found


@pytest.fixture(scope="module")
def gitlab(repository: Path) -> Path:
    return repository / "docs/ci/gitlab-ci.yml"


def test_linters_find_nothing(workflows: list[Path], gitlab: Path) -> None:
    for linter, files in (
        ("schema of workflows", workflows),
        ("schema of GitLab", [gitlab]),
        ("zizmor", workflows),
        ("yamllint", [*workflows, gitlab]),
    ):
        done = lint(linter, *files)
        assert done.returncode == 0, f"{linter}\n{done.stdout}{done.stderr}"


PLANTED = {
    "an unknown key": ("schema of workflows", "build", "runs-on:", "run-on:"),
    "an unknown key of GitLab's": ("schema of GitLab", "gitlab-ci", "  script:", "  scripts:"),
    "an action by its tag": ("zizmor", "build", "@8e8c483db84b4bee98b60c0593521ed34d9990e8 # v6.0.1", "@v6"),
    "a text of others in a shell": ("zizmor", "release", '--to "$PLACE"', "--to ${{ github.ref_name }}"),
    "kept credentials": ("zizmor", "build", "persist-credentials: false", "fetch-depth: 1"),
    "a key twice": ("yamllint", "weekly", "name: weekly\n", "name: weekly\nname: weekly\n"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_linters_find_what_is_planted(repository: Path, tmp_path: Path, name: str) -> None:
    """As they are, the test above has them."""
    linter, of, old, new = PLANTED[name]
    (path,) = (repository / "docs/ci").rglob(f"{of}.yml")
    text = path.read_text()
    assert old in text
    folder = tmp_path / ".github/workflows"
    folder.mkdir(parents=True)
    (folder / path.name).write_text(text.replace(old, new))
    assert lint(linter, folder / path.name).returncode != 0


# ── each step ──


def of_github(path: Path) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        assert job["permissions"] == {"contents": "read"}
        assert job["timeout-minutes"] >= 60
        yield from job["steps"]


def lines_of(workflows: Sequence[Path], gitlab: Path) -> list[str]:
    found = []
    for path in workflows:
        for step in of_github(path):
            found += str(step.get("run", "")).splitlines()
    document = yaml.safe_load(gitlab.read_text())
    for job in document.values():
        if isinstance(job, dict):
            found += [*job.get("before_script", []), *job.get("script", [])]
    return found


def test_each_step_is_a_command_of_doit(repository: Path, workflows: list[Path], gitlab: Path) -> None:
    lines = lines_of(workflows, gitlab)
    ours = [line for line in lines if line.startswith("./doit ")]
    assert [line for line in lines if line not in ours and not AROUND.match(line)] == []
    used = sorted({line.split()[1] for line in ours})
    assert {"check:production", "repro", "attack", "publish", "endorse", "lock", "rebuild", "cve"} <= set(used)
    # It ends with 2 for a task that is none.
    argv = [sys.executable, "-m", "tools.pipeline.front", "info", *used]
    said = subprocess.run(argv, cwd=repository, capture_output=True, text=True, check=True).stdout
    for name, about in zip(used, re.split(r"^(?=\S)", said, flags=re.MULTILINE)[1:], strict=True):
        options = {option for line in ours if line.split()[1] == name for option in re.findall(r" (--[a-z-]+)", line)}
        assert about.startswith(f"{name}\n")
        assert options <= set(about.split()), name


def test_actions_are_pinned_by_their_commits(workflows: list[Path]) -> None:
    used = [step["uses"] for path in workflows for step in of_github(path) if "uses" in step]
    assert used
    assert [name for name in used if PINNED.fullmatch(name) is None] == []


def test_two_base_images_build_twice(workflows: list[Path], gitlab: Path) -> None:
    repro = yaml.safe_load(workflows[0].read_text())["jobs"]["repro"]
    images = repro["strategy"]["matrix"]["image"]
    assert len(set(images)) == 2
    assert yaml.safe_load(gitlab.read_text())["repro"]["parallel"]["matrix"] == [{"BASE": images}]
    # What the build's sandbox needs (docs/ci/README.md).
    for option in ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"):
        assert f"--security-opt {option}" in repro["container"]["options"]


def test_secrets_reach_only_the_steps_that_need_them(workflows: list[Path]) -> None:
    for path in workflows:
        document = yaml.safe_load(path.read_text())
        assert "secrets." not in str(document.get("env", ""))
        for job in document["jobs"].values():
            assert "secrets." not in str({**job, "steps": None})
            for step in job["steps"]:
                assert "secrets." not in str(step.get("run", "")) + str(step.get("with", ""))
