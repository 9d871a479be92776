# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Nothing undeclared: what the graph and its in-process actions open in the checkout stands in the manifest."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import copy_all
from tools.pipeline.tasks import outputs
from tools.pipeline.tasks.project import Project

# Runs a command of ours under an audit hook (Python, sys.addaudithook) that notes every file that is opened.
_AUDITED = """
import os, sys
root, log, opened = os.path.realpath(os.getcwd()), sys.argv[1], set()
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        # A name that is opened relative to a folder's descriptor, as in the cache, is told without the folder.
        if path.startswith(root + "/") and os.path.isfile(path):
            opened.add(os.path.relpath(path, root))
sys.addaudithook(hook)
sys.path.insert(0, root)
from tools.pipeline.front.main import main
status = main(sys.argv[2:])
open(log, "w").write("\\n".join(sorted(opened)))
sys.exit(status)
"""
# What the build makes, what Python itself loads, and what is only compared with.
_MADE = ("build/", "out/", "out-")
_COMPARED = {"recipes/expected.sha256"}


def opened(root: Path, *words: str) -> set[str]:
    """The files of the checkout that a command opens, without its own code and what builds make."""
    log = root.parent / "opened"
    argv = [sys.executable, "-B", "-c", _AUDITED, str(log), *words]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = set(log.read_text().split("\n")) - {""}
    loaded = {name for name in names if name.endswith((".py", ".pyc")) and name.startswith(("tools/", "dodo.py"))}
    return {name for name in names - loaded if not name.startswith(_MADE)}


@pytest.fixture
def checkout(repository: Path, tmp_path: Path, artifacts: Path) -> Path:
    """A copy whose steps are all in the cache."""
    assert artifacts.is_dir()
    return copy_all(repository, tmp_path / "checkout")


def listed(root: Path, folder: str = "out") -> set[str]:
    return set(json.loads((root / folder / "manifest.json").read_bytes())["inputs"]["files"])


def test_everything_that_is_opened_is_listed(checkout: Path, project: Project) -> None:
    """For all profiles at once: the graph is made of all recipes, whichever profile is built."""
    profiles = project.recipes.profiles
    found = opened(checkout, *(f"artifacts:{profile.name}" for profile in profiles))
    declared = set().union(*(listed(checkout, project.out(profile).name) for profile in profiles))
    # Those of other series are not built here; what their manifests would list is known without that.
    for profile in project.recipes.others:
        declared |= set(outputs.declared(project, profile)["inputs"]["files"])
    assert found - declared - _COMPARED == set()
    assert {"recipes/guest.toml", "initramfs/manifest.toml", "initramfs/agent/src/main.rs"} <= found


def test_everything_that_is_listed_is_there(checkout: Path) -> None:
    opened(checkout, "artifacts:production")
    assert all((checkout / name).is_file() for name in listed(checkout))


def test_an_undeclared_file_would_be_found(checkout: Path) -> None:
    """A planted read in the middle of an action."""
    module = checkout / "tools/pipeline/publish/out_folder.py"
    text = module.read_text()
    planted = 'sums = _sums(wanted)\n        (self.folder.parent / "README.md").read_bytes()'
    assert "sums = _sums(wanted)" in text
    module.write_text(text.replace("sums = _sums(wanted)", planted, 1))
    (checkout / "README.md").write_text("not declared\n")
    assert "README.md" in opened(checkout, "artifacts:production")
    assert "README.md" not in listed(checkout)
