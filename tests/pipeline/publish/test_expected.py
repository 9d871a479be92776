# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The artifacts of this commit have the digests that the commit says they have."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tools.pipeline.base.errors import UserError
from tools.pipeline.publish import expected
from tools.pipeline.publish.expected import Verdict
from tools.pipeline.tasks.project import Project


@pytest.mark.parametrize("profile", ["production", "debug", "builtin"])
def test_what_was_built_is_what_is_expected(project: Project, profile: str) -> None:
    """An intended change of bytes is written down with ./doit accept, so that people review it."""
    folder = project.out(project.recipes.profile(profile))
    assert (folder / "vmlinuz").is_file(), f"{folder.name}/ is not built; run: ./doit artifacts:{profile}"
    verdict = expected.verdict(project.root, folder)
    assert verdict.good, verdict.line


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with two output folders, both accepted."""
    (tmp_path / "recipes").mkdir()
    for name, content in (("out/vmlinuz", "kernel"), ("out/kata/x.toml", "x"), ("out-debug/vmlinuz", "debug")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    accept(tmp_path, "out", "out-debug")
    return tmp_path


def accept(root: Path, *names: str, profiles: tuple[str, ...] = ("out", "out-debug")) -> list[str]:
    return expected.accept(root, [root / name for name in names], all_folders=[root / name for name in profiles])


def test_matching(root: Path) -> None:
    """The control: what was accepted matches; sha256sum agrees."""
    for name in ("out", "out-debug"):
        assert expected.verdict(root, root / name) == Verdict(
            good=True, line="matches the expected digests (recipes/expected.sha256)"
        )
    argv = ["sha256sum", "--check", "--strict", "recipes/expected.sha256"]
    done = subprocess.run(argv, cwd=root, check=False, capture_output=True)
    assert done.returncode == 0


@pytest.mark.parametrize("change", ["changed", "missing", "added"])
def test_a_difference_is_named(root: Path, change: str) -> None:
    """Also a file too few or too many."""
    name = "out/vmlinuz"
    match change:
        case "changed":
            (root / name).write_bytes(b"kerneL")
        case "missing":
            (root / name).unlink()
        case "added":
            name = "out/vmlinuz2"
            (root / name).write_bytes(b"more")
    line = f"differs from recipes/expected.sha256: {name}; if that is intended: ./doit accept:production"
    assert expected.verdict(root, root / "out") == Verdict(good=False, line=line)
    assert expected.verdict(root, root / "out-debug").good


def test_a_new_profile_does_not_differ_from_anything(root: Path) -> None:
    """Nothing is expected of it yet, and the line says how that is put right."""
    (root / "out-new").mkdir()
    (root / "out-new/vmlinuz").write_bytes(b"new")
    profiles = ("out", "out-debug", "out-new")
    line = "nothing is expected of out-new/ yet (recipes/expected.sha256); when it is right: ./doit accept:new"
    assert expected.verdict(root, root / "out-new") == Verdict(good=False, line=line)
    assert [line.split()[:2] for line in accept(root, "out-new", profiles=profiles)] == [["out-new/vmlinuz", "nothing"]]
    assert all(expected.verdict(root, root / name).good for name in profiles)


def test_a_checkout_of_which_nothing_is_expected(root: Path) -> None:
    (root / expected.EXPECTED).unlink()
    assert expected.verdict(root, root / "out") == Verdict(
        good=False,
        line="nothing is expected of out/ yet (recipes/expected.sha256); when it is right: ./doit accept:production",
    )


def test_accept_says_what_changed(root: Path) -> None:
    """And nothing the second time."""
    (root / "out/vmlinuz").write_bytes(b"kerneL")
    shutil.rmtree(root / "out/kata")
    changes = accept(root, "out", "out-debug")
    assert [line.split()[0] for line in changes] == ["out/kata/x.toml", "out/vmlinuz"]
    assert changes[0].endswith("→ nothing")
    assert accept(root, "out", "out-debug") == []


def test_accepting_one_leaves_the_others(root: Path) -> None:
    """What is expected of another profile stays, built or not; what no profile fills any more goes."""
    (root / "out/vmlinuz").write_bytes(b"kerneL")
    shutil.rmtree(root / "out-debug")
    before = expected.load(root)
    assert [line.split()[0] for line in accept(root, "out")] == ["out/vmlinuz"]
    after = expected.load(root)
    assert after["out-debug/vmlinuz"] == before["out-debug/vmlinuz"]
    assert [line.split()[0] for line in accept(root, "out", profiles=("out",))] == ["out-debug/vmlinuz"]


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
    """One line, and what to do; accept writes it anew."""
    (root / expected.EXPECTED).write_text(text)
    with pytest.raises(UserError, match=rf"^recipes/expected\.sha256:{line}: .*\./doit accept$"):
        expected.load(root)
    accept(root, "out", "out-debug")
    assert expected.verdict(root, root / "out").good
