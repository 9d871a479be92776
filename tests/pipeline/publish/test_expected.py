# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The artifacts of this commit have the digests that the commit says they have."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tools.pipeline.base.errors import UserError
from tools.pipeline.publish import expected
from tools.pipeline.tasks.project import Project


@pytest.mark.parametrize("profile", ["production", "debug", "builtin"])
def test_what_was_built_is_what_is_expected(project: Project, profile: str) -> None:
    """An intended change of bytes is written down with ./doit accept, so that people review it."""
    folder = project.out(project.recipes.profile(profile))
    found = expected.measure(project.root, folder)
    assert f"{folder.name}/vmlinuz" in found
    wrong = expected.differing(expected.load(project.root), found, folder=folder.name)
    assert not wrong, f"not as in {expected.EXPECTED}: {', '.join(wrong)}; if intended: ./doit accept"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with an accepted output folder."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "out/kata").mkdir(parents=True)
    (tmp_path / "out/vmlinuz").write_bytes(b"kernel")
    (tmp_path / "out/kata/x.toml").write_bytes(b"x")
    expected.accept(tmp_path, [tmp_path / "out"])
    return tmp_path


def test_matching(root: Path) -> None:
    """The control: what was accepted matches; sha256sum agrees."""
    assert expected.verdict(root, root / "out") == "matches the expected digests (recipes/expected.sha256)"
    argv = ["sha256sum", "--check", "--strict", "recipes/expected.sha256"]
    done = subprocess.run(argv, cwd=root, check=False, capture_output=True)
    assert done.returncode == 0


@pytest.mark.parametrize("change", ["changed", "missing", "added"])
def test_a_difference_is_named(root: Path, change: str) -> None:
    """Also a file too few or too many."""
    if change == "changed":
        (root / "out/vmlinuz").write_bytes(b"kerneL")
    elif change == "missing":
        (root / "out/vmlinuz").unlink()
    else:
        (root / "out/vmlinuz2").write_bytes(b"more")
    name = "out/vmlinuz2" if change == "added" else "out/vmlinuz"
    assert expected.verdict(root, root / "out") == (
        f"differs from recipes/expected.sha256: {name}; if that is intended: ./doit accept"
    )


def test_accept_says_what_changed(root: Path) -> None:
    """And nothing the second time."""
    (root / "out/vmlinuz").write_bytes(b"kerneL")
    shutil.rmtree(root / "out/kata")
    changes = expected.accept(root, [root / "out"])
    assert [line.split()[0] for line in changes] == ["out/kata/x.toml", "out/vmlinuz"]
    assert changes[0].endswith("→ nothing")
    assert expected.accept(root, [root / "out"]) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("nonsense\n", 1),
        (f"{'0' * 64}  /etc/passwd\n", 1),
        (f"{'0' * 64}  out/a\n{'0' * 63}  out/b\n", 2),
        (f"{'0' * 64}  out/a\n{'1' * 64}  out/a\n", 2),
    ],
)
def test_a_broken_file_names_its_line(root: Path, text: str, line: int) -> None:
    """One line, and what to do."""
    (root / "recipes/expected.sha256").write_text(text)
    with pytest.raises(UserError, match=rf"^recipes/expected\.sha256:{line}: .*\./doit accept$"):
        expected.load(root)
