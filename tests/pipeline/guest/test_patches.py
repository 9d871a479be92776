# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a series and a patch of our own may look like, and what recipes/apply-patches.sh does with them.

The script runs in the sandbox with GNU patch of the pinned tool tree, as in a build.
"""

import subprocess
from pathlib import Path

import pytest

from tests.pipeline.guest import boxed
from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.tree import Tree
from tools.pipeline.guest import patches
from tools.pipeline.guest.patches import Patch

ROOT = Path(__file__).parents[3]
FOLDER = "kernel-patches/1.0"
LICENCE = "GPL-2.0-only"
HEADER = """\
Subject: change two lines
SPDX-FileCopyrightText: The sev-artifacts authors
SPDX-License-Identifier: GPL-2.0-only
Upstream: not sent,
 and why
Tested: by a test

The reason.
---
"""
DIFF = """\
diff --git a/dir/file.c b/dir/file.c
index 0123abc..4567def 100644
--- a/dir/file.c
+++ b/dir/file.c
@@ -9,3 +9,3 @@ int f(void)
 line 9
-line 10
+changed 10
 line 11
@@ -30 +30,2 @@
-line 30
+changed 30
+added
"""
CREATED = """\
diff --git a/dir/new.c b/dir/new.c
new file mode 100644
--- /dev/null
+++ b/dir/new.c
@@ -0,0 +1 @@
+text
\\ No newline at end of file
"""
NAME = "0001-change-two-lines.patch"
PATH = f"{FOLDER}/{NAME}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A series of one patch."""
    path = tmp_path / FOLDER
    path.mkdir(parents=True)
    (path / "series").write_text(f"# one\n{NAME}\n")
    (path / NAME).write_text(HEADER + DIFF + CREATED)
    return path


def load(folder: Path) -> tuple[Patch, ...]:
    return patches.load_series(folder.parents[1], FOLDER, licence=LICENCE)


def refusal(folder: Path) -> str:
    """The one line that refuses the series."""
    with pytest.raises(UserError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_series_keeps_its_order(folder: Path) -> None:
    assert load(folder) == (Patch(path=PATH, subject="change two lines"),)
    (folder / "0002-b.patch").write_text(HEADER.replace("two", "2") + DIFF)
    (folder / "series").write_text(f"# comment\n\n0002-b.patch\n{NAME}\n")
    assert [patch.path for patch in load(folder)] == [f"{FOLDER}/0002-b.patch", PATH]
    (folder / "0002-b.patch").unlink()
    (folder / NAME).unlink()
    (folder / "series").write_text("# none is needed\n")
    assert load(folder) == ()


def test_a_patch_of_another_series_is_named_not_copied(folder: Path) -> None:
    newer = folder.parent / "1.1"
    newer.mkdir()
    (newer / "series").write_text(f"0002-b.patch\n../1.0/{NAME}\n")
    (newer / "0002-b.patch").write_text(HEADER.replace("two", "2") + DIFF)
    root, name = folder.parents[1], "kernel-patches/1.1"
    found = patches.load_series(root, name, licence=LICENCE)
    assert [patch.path for patch in found] == [f"{name}/0002-b.patch", PATH]
    assert patches.listed(root, name) == (f"{name}/0002-b.patch", PATH)
    (folder / NAME).unlink()
    with pytest.raises(UserError, match=rf"^{name}/series:2: \.\./1\.0/{NAME} is missing or not a regular file"):
        patches.load_series(root, name, licence=LICENCE)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../0002-b.patch", "bad patch name"),
        ("../../1.0/0002-b.patch", "bad patch name"),
        ("../../0002-b.patch", "bad patch name"),
        (f"../1.0/{NAME}", "named twice; first in line 2"),
        ("/0002-b.patch", "bad patch name"),
        ("sub/0002-b.patch", "bad patch name"),
        ("b.patch", "bad patch name"),
        ("0002-$(id).patch", "bad patch name"),
        (" 0002-b.patch", "bad patch name"),
        (" # not a comment", "unexpected"),
        ("0002-b.patch -p0", "unexpected '-p0'"),
        (NAME, "named twice; first in line 2"),
        ("0001-change-too-lines.patch", f"is missing or not a regular file; did you mean '{NAME}'?"),
    ],
)
def test_bad_series_line_is_refused_with_its_place(folder: Path, line: str, message: str) -> None:
    (folder / "series").write_text(f"# one\n{NAME}\n{line}\n")
    said = refusal(folder)
    assert said.startswith(f"{FOLDER}/series:3: ")
    assert message in said


@pytest.mark.parametrize("field", ["Subject", "Upstream", "Tested", "SPDX-License-Identifier"])
def test_missing_header_field_is_refused(folder: Path, field: str) -> None:
    (folder / NAME).write_text(HEADER.replace(f"{field}:", "Other:") + DIFF)
    assert refusal(folder).startswith(f"{PATH}: header field '{field}' is missing; ")


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        (LICENCE, "MIT", "", "licence is 'MIT'; patches here are GPL-2.0-only"),
        ("Tested: by", "Subject: by", 6, "given twice"),
        ("Tested: by a test", "Tested:", 6, "not a header field"),
        ("\n\nThe reason.", "\nThe reason.", 7, "not a header field"),
        ("The reason.\n", "", 7, "no text before"),
        ("---\ndiff", "diff", "", "no line '---'"),
        # GNU patch would apply it.
        ("The reason.", "--- a/x", 8, "looks like a diff"),
        ("The reason.", "Index: x", 8, "looks like a diff"),
        ("The reason.", "The\0reason.", "", "contains CR or NUL"),
        ("The reason.", "The reason.\r", "", "contains CR or NUL"),
        ("index 0123abc..4567def 100644", "new file mode 120000", 11, "belongs to no hunk"),
        ("index 0123abc..4567def 100644", "GIT binary patch", 11, "belongs to no hunk"),
        ("@@ -9,3", "@@ -9,x", 14, "belongs to no hunk"),
        ("@@ -9,3", "@@ -9,4", 19, "not as long"),
        ("@@ -9,3", "@@ -9,2", 18, "not as long"),
        (" line 11", "line 11", 18, "not as long"),
        # GNU patch would drop the second hunk and end well, whether the line is empty or not.
        (" line 11\n", " line 11\ntrailing\n", 19, "belongs to no hunk"),
        (" line 11\n", " line 11\n\n", 19, "belongs to no hunk"),
        # GNU patch would drop the line and end well.
        ("+added\n", "+added\n+more\n", 23, "belongs to no hunk"),
        ("+added\n", "", "", "ends within a hunk"),
        ("+added\n", "+added", "", "does not end with a newline"),
        (DIFF, "", "", "ends within a hunk, or has none"),
        (HEADER + DIFF, "Subject: only\n", "", "the header never ends"),
    ],
)
def test_what_would_be_lost_or_misread_is_refused(
    folder: Path, old: str, new: str, line: int | str, message: str
) -> None:
    text = HEADER + DIFF
    assert old in text
    (folder / NAME).write_text(text.replace(old, new))
    said = refusal(folder)
    assert said.startswith(f"{PATH}:{line}: " if line else f"{PATH}: ")
    assert message in said


def test_missing_linked_unlisted_and_binary_patches_are_refused(folder: Path) -> None:
    (folder / "0002-forgotten.patch").write_text(HEADER + DIFF)
    assert refusal(folder).startswith(f"{FOLDER}/0002-forgotten.patch: not named in series")
    (folder / "0002-forgotten.patch").unlink()
    (folder / NAME).write_bytes(HEADER.encode() + b"\xff")
    assert refusal(folder).startswith(f"{PATH}: is not UTF-8")
    (folder / NAME).rename(folder / "elsewhere")
    assert refusal(folder).startswith(f"{FOLDER}/series:2: {NAME} is missing")
    (folder / NAME).symlink_to("elsewhere")
    assert "not a regular file" in refusal(folder)
    (folder / "series").unlink()
    (folder / NAME).unlink()
    assert refusal(folder).startswith(f"{FOLDER}/series: cannot be read: No such file")


def test_every_kernel_series_of_the_checkout_is_well_formed() -> None:
    folders = [path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("kernel-patches/*/series")]
    assert folders
    for folder in folders:
        patches.load_series(ROOT, folder, licence=LICENCE)


LINES = [f"line {number}\n" for number in range(1, 41)]


def apply(
    tree: Tree, folder: Path, source: list[str] | None, *, crlf: bool = False
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Apply the series to a tree whose dir/file.c is `source`, as a build does."""
    root = folder.parents[1]
    target = root / "source/dir/file.c"
    target.parent.mkdir(parents=True, exist_ok=True)
    if source is not None:
        target.write_text("".join(source), newline="")
    series = load(folder)
    inputs = {f"/inputs/{patch.path}": root / patch.path for patch in series}
    build = root / "build"
    build.mkdir()
    run = boxed.run(
        tree,
        # Who patches owns the tree, as after unpacking.
        f"cp -R /inputs/source/. . && {patches.apply(patches.inside(series), crlf=crlf)}",
        inputs={f"/inputs/{patches.SCRIPT}": ROOT / patches.SCRIPT, "/inputs/source": root / "source", **inputs},
        writable={"/build": build},
    )
    assert run.stderr == ""
    target = build / "dir/file.c"
    left = {path.name for path in target.parent.iterdir()}
    assert left <= {"file.c", "new.c"}
    return run, target


def test_it_applies_and_leaves_nothing_else(build_tree: Tree, folder: Path) -> None:
    run, target = apply(build_tree, folder, LINES)
    assert (run.returncode, run.stdout.splitlines()[0]) == (0, f"=== {PATH}")
    changed = target.read_text().splitlines()
    assert (changed[9], changed[29], changed[30], len(changed)) == ("changed 10", "changed 30", "added", 41)
    assert target.with_name("new.c").read_text() == "text"


def test_offsets_are_noted(build_tree: Tree, folder: Path) -> None:
    run, target = apply(build_tree, folder, ["new 1\n", "new 2\n", *LINES])
    assert run.returncode == 0
    assert "Hunk #2 succeeded at 32 (offset 2 lines).\n" in run.stdout
    assert target.read_text().splitlines()[11] == "changed 10"


def test_trees_with_cr_lf(build_tree: Tree, folder: Path) -> None:
    (folder / NAME).write_text(HEADER + DIFF)
    run, target = apply(build_tree, folder, [f"{line[:-1]}\r\n" for line in LINES], crlf=True)
    assert run.returncode == 0
    lines = target.read_bytes().split(b"\n")
    assert (lines[9], lines[30]) == (b"changed 10\r", b"added\r")
    assert all(line.endswith(b"\r") for line in lines[:-1])


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        # Would apply with fuzz 1: only a line of context differs.
        ({11: "other\n"}, "dir/file.c: hunk 1 does not fit at line 9"),
        ({30: "other\n"}, "dir/file.c: hunk 2 does not fit at line 30"),
        ({10: "changed 10\n", 30: "changed 30\nadded\n"}, "dir/file.c: is applied already"),
        (None, "dir/file.c: no such file in the source"),
    ],
)
def test_what_does_not_fit_ends_with_one_line(
    build_tree: Tree, folder: Path, replace: dict[int, str] | None, message: str
) -> None:
    source = None
    if replace is not None:
        source = [replace.get(number, line) for number, line in enumerate(LINES, 1)]
    run, _ = apply(build_tree, folder, source)
    assert run.returncode == 2
    assert run.stdout.splitlines()[-1] == f"{PATH}: {message}; refresh the patch against the pinned source"


@pytest.mark.parametrize("target", ["../file.c", "/etc/passwd"])
def test_it_does_not_leave_the_tree(build_tree: Tree, folder: Path, target: str) -> None:
    (folder / NAME).write_text(HEADER + DIFF.replace("a/dir/file.c", target).replace("b/dir/file.c", target))
    run, _ = apply(build_tree, folder, LINES)
    assert run.returncode == 2
    assert run.stdout.splitlines()[-1].startswith(f"{PATH}: ")


def test_a_file_that_is_there_already(build_tree: Tree, folder: Path) -> None:
    there = folder.parents[1] / "source/dir/new.c"
    there.parent.mkdir(parents=True)
    there.write_text("other")
    run, _ = apply(build_tree, folder, LINES)
    assert run.returncode == 2
    assert run.stdout.splitlines()[-1].startswith(f"{PATH}: The next patch would create the file dir/new.c, which is")
