# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The output folder, filled from what the build has made, in a folder of the test's own."""

import json
import os
import shutil
import stat
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tools.pipeline.base import files
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.publish.out_folder import OutFolder
from tools.pipeline.tasks.project import Project
from tools.sev.formats import SUMS_NAME


@dataclass(frozen=True, kw_only=True)
class Case:
    """A folder out/ and what goes into it; the manifest is any bytes."""

    root: Path
    out: OutFolder
    project: Project

    @property
    def folder(self) -> Path:
        return self.out.folder

    def fill(self, listed: bytes = b"{}\n") -> None:
        self.out.fill(self.project.engine, listed, root=self.root, profile="production", default=True)

    def is_current(self, listed: bytes = b"{}\n") -> bool:
        return self.out.is_current(self.project.engine, listed)

    def names(self) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if not path.is_dir()}

    def written(self) -> dict[str, tuple[int, int]]:
        """What changes when a file is written anew."""
        found = {name: (self.folder / name).stat() for name in self.names()}
        return {name: (status.st_ino, status.st_mtime_ns) for name, status in found.items()}


@pytest.fixture
def case(project: Project, kata_artifacts: Path, tmp_path: Path) -> Case:
    assert kata_artifacts.is_dir()
    outputs = project.plan.deliverable(project.recipes.profile("kata")).outputs
    return Case(root=tmp_path, out=OutFolder(folder=tmp_path / "out", outputs=outputs), project=project)


def test_it_holds_the_outputs_the_manifest_and_their_sums(case: Case, kata_artifacts: Path) -> None:
    """Some below folders; each with the bytes that a build put into out-kata/."""
    assert not case.is_current()
    case.fill()
    assert case.is_current()
    assert case.names() == {*case.out.outputs, "manifest.json", SUMS_NAME}
    assert any("/" in name for name in case.out.outputs)
    for name in case.out.outputs:
        assert (case.folder / name).read_bytes() == (kata_artifacts / name).read_bytes()
    sums = {f"{files.of_file(case.folder / name)}  {name}" for name in case.names() - {SUMS_NAME}}
    assert set((case.folder / SUMS_NAME).read_text().splitlines()) == sums


@pytest.mark.parametrize(
    "name", ["vmlinuz", "runtime.toml", "kata/50-sev-artifacts-snp.toml", "manifest.json", SUMS_NAME, "sev-launch"]
)
@pytest.mark.parametrize("how", ["changed", "gone", "a link"])
def test_a_file_that_was_changed_is_put_right(case: Case, name: str, how: str) -> None:
    """And nothing else is written."""
    case.fill()
    path, before = case.folder / name, case.written()
    good = path.read_bytes()
    path.unlink()
    elsewhere = case.root / "elsewhere"
    elsewhere.write_bytes(good)
    match how:
        case "changed":
            path.write_bytes(good[:-1] + b"?")
        case "a link":
            path.symlink_to(elsewhere)
            elsewhere.write_bytes(b"not this")
    assert not case.is_current()
    case.fill()
    assert case.is_current()
    assert path.read_bytes() == good
    assert not path.is_symlink()
    assert how != "a link" or elsewhere.read_bytes() == b"not this"
    after = case.written()
    assert {other for other in after if after[other] != before[other]} <= {name}


def test_another_manifest_changes_itself_and_the_sums(case: Case) -> None:
    case.fill()
    before = {name: files.of_file(case.folder / name) for name in case.names()}
    assert not case.is_current(b"other\n")
    case.fill(b"other\n")
    after = {name: files.of_file(case.folder / name) for name in case.names()}
    assert {name for name in after if after[name] != before[name]} == {"manifest.json", SUMS_NAME}


def test_strays_are_named_and_stay(case: Case, capfd: pytest.CaptureFixture[str]) -> None:
    case.fill()
    assert "is not of this build" not in capfd.readouterr().err
    (case.folder / "kata/mine.toml").write_text("mine\n")
    (case.folder / "notes").mkdir()
    case.fill()
    said = capfd.readouterr().err
    assert "   note: kata/mine.toml in out/ is not of this build\n" in said
    assert "   note: notes in out/ is not of this build\n" in said
    assert (case.folder / "kata/mine.toml").exists()
    assert case.is_current(), "a stray is no reason to write anything"


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_are_our_own(case: Case, umask: int) -> None:
    """Whatever the caller's umask: nobody else writes, everybody reads; only programs are executable."""
    before = os.umask(umask)
    try:
        case.fill()
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [case.folder, *case.folder.rglob("*")]}
    programs = {case.folder / name for name in ("sev-launch", "sev-runtime", "mkfs.erofs", "qemu-lite")}
    assert modes == {path: 0o755 if path.is_dir() or path in programs else 0o644 for path in modes}


def test_what_the_launcher_refuses_is_no_output_folder(case: Case) -> None:
    """A kernel that runtime.toml does not name: no sums are written, and the folder is not current."""
    wrong = dict(case.out.outputs)
    wrong["vmlinuz"] = wrong["OVMF.fd"]
    broken = replace(case, out=replace(case.out, outputs=wrong))
    with pytest.raises(BuildError, match=r"sev-launch check .*runtime\.toml ended with status 1: .*vmlinuz"):
        broken.fill()
    assert not (case.folder / SUMS_NAME).exists()
    assert not broken.is_current()


def test_a_machine_that_forbids_sandboxes_is_told(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every result in the cache no step has found out."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/bwrap").symlink_to("/bin/false")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
        with pytest.raises(UserError, match=r"bubblewrap cannot make a sandbox.*; "):
            case.fill()
    case.fill()


def test_a_half_copied_file_of_a_killed_run_is_replaced(case: Case) -> None:
    case.folder.mkdir()
    (case.folder / ".vmlinuz.new").write_bytes(b"half")
    case.fill()
    assert case.names() == {*case.out.outputs, "manifest.json", SUMS_NAME}


def test_the_report_says_what_to_do_next(case: Case, capfd: pytest.CaptureFixture[str]) -> None:
    """Each file with its size and digest; the verdict; how a guest is started."""
    case.fill()
    said = capfd.readouterr().err
    for name in case.out.outputs:
        assert f"sha256 {files.of_file(case.folder / name)}" in said
    assert (
        "nothing is expected of out/ yet (recipes/expected.sha256); when it is right: ./doit accept:production" in said
    )
    assert "next: out/sev-launch doctor" in said
    assert "out/sev-runtime install" in said


def test_the_manifest_of_the_build_is_what_is_filled_in(project: Project, kata_artifacts: Path, case: Case) -> None:
    """What the real task wrote is current for the real manifest."""
    shutil.copytree(kata_artifacts, case.folder)
    listed = (kata_artifacts / "manifest.json").read_bytes()
    assert json.loads(listed)["profile"] == "kata"
    assert case.is_current(listed)
