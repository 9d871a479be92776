# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Kernel patches: what a series and a patch may look like, how they are applied, what GNU patch's log means.

The logs are those of GNU patch 2.8 (Debian trixie); the last tests run it, from the pinned tool tree.
"""

import subprocess
from pathlib import Path

import pytest

from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.sandbox import Command, Mount, bwrap_argv
from tools.pipeline.guest.patches import (
    FileDiff,
    Offset,
    Patch,
    apply_argv,
    check_log,
    load_series,
    parse_patch,
    parse_series,
)
from tools.pipeline.toolchain.tool_tree import Tree

FOLDER = Path(__file__).parents[3] / "kernel-patches"
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
PATCH = Patch(
    name=NAME,
    where=f"patches/{NAME}",
    subject="change two lines",
    upstream="not sent, and why",
    tested="by a test",
    files=(FileDiff(target="dir/file.c", hunks=(14, 19)), FileDiff(target="dir/new.c", hunks=(27,))),
)


def parse(text: str) -> Patch:
    return parse_patch(text, name=NAME, where=f"patches/{NAME}")


def test_series_keeps_order_and_line_numbers() -> None:
    text = "# comment\n\n0002-b.patch\n0001-a.patch\n"
    assert parse_series(text, where="series") == {"0002-b.patch": 3, "0001-a.patch": 4}
    assert parse_series("", where="series") == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../0002-b.patch", "bad patch name"),
        ("/0002-b.patch", "bad patch name"),
        ("sub/0002-b.patch", "bad patch name"),
        ("0002-..patch", "bad patch name"),
        ("0002-.patch", "bad patch name"),
        ("b.patch", "bad patch name"),
        ("0002-b.diff", "bad patch name"),
        ("0002-$(id).patch", "bad patch name"),
        ("-p0", "bad patch name"),
        (" 0002-b.patch", "bad patch name"),
        (" # not a comment", "unexpected"),
        ("0002-b.patch -p0", "unexpected '-p0'"),
        ("0002-b.patch # why", "unexpected '#'"),
        ("0001-a.patch", "named twice; first in line 1"),
    ],
)
def test_bad_series_line_is_refused_with_its_place(line: str, message: str) -> None:
    with pytest.raises(UserError, match=r"^series:2: ") as caught:
        parse_series(f"0001-a.patch\n{line}\n", where="series")
    assert message in str(caught.value)


def test_patch_gives_header_targets_and_the_places_of_its_hunks() -> None:
    assert parse(HEADER + DIFF + CREATED) == PATCH


@pytest.mark.parametrize("field", ["Subject", "Upstream", "Tested", "SPDX-License-Identifier"])
def test_missing_header_field_is_refused(field: str) -> None:
    text = HEADER.replace(f"{field}:", "Other:") + DIFF
    with pytest.raises(UserError, match=rf"patches/{NAME}: header field '{field}' is missing"):
        parse(text)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("GPL-2.0-only", "MIT", "", "licence is 'MIT'"),
        ("Tested: by", "Subject: by", 6, "given twice"),
        ("Tested: by a test", "Tested:", 6, "not a header field"),
        ("\n\nThe reason.", "\nThe reason.", 7, "not a header field"),
        ("The reason.\n", "", 7, "no text before"),
        ("---\ndiff", "diff", "", "no line '---'"),
        ("The reason.", "*** a/x", 8, "looks like a diff"),
        ("The reason.", "--- a/x", 8, "looks like a diff"),
        ("The reason.", "1,3d", 8, "looks like a diff"),
        ("The reason.", "Index: x", 8, "looks like a diff"),
        ("The reason.", "The\0reason.", "", "contains CR or NUL"),
        ("The reason.", "The reason.\r", "", "contains CR or NUL"),
        ("diff --git a/dir/file.c b/dir/file.c\n", "", 10, "expected 'diff --git"),
        ("a/dir/file.c b/", "a/dir/old.c b/", 10, "becomes dir/file.c"),
        ("dir/file.c", "../file.c", 10, "not a plain path"),
        ("dir/file.c", "dir/../file.c", 10, "not a plain path"),
        ("dir/file.c", "/etc/passwd", 10, "not a plain path"),
        ("dir/file.c", ".git/config", 10, "not a plain path"),
        ("dir/file.c", "dir//file.c", 10, "not a plain path"),
        ("dir/file.c", "$(id)", 10, "not a plain path"),
        ("+++ b/dir/file.c", "+++ b/../../etc/passwd", 13, "expected '+++ b/dir/file.c'"),
        ("--- a/dir/file.c", "--- /dev/null", 12, "expected '--- a/dir/file.c'"),
        ("index 0123abc..4567def 100644", "new file mode 120000", 11, "expected '--- a/dir/file.c'"),
        ("index 0123abc..4567def 100644", "old mode 100644", 11, "expected '--- a/dir/file.c'"),
        ("index 0123abc..4567def 100644", "rename from x", 11, "expected '--- a/dir/file.c'"),
        ("index 0123abc..4567def 100644", "GIT binary patch", 11, "expected '--- a/dir/file.c'"),
        ("@@ -9,3", "@@ -9,x", 14, "malformed"),
        ("@@ -9,3", "@@ -9,4", 14, "shorter or longer"),
        ("@@ -9,3", "@@ -9,2", 14, "shorter or longer"),
        (" line 11", "line 11", 14, "shorter or longer"),
        (" line 11\n", " line 11\ntrailing\n", 19, "expected 'diff --git"),
        ("+added\n", "", 19, "shorter or longer"),
        ("+added\n", "+added\n-- \n2.47\n", 23, "expected 'diff --git"),
        ("+added\n", "+added", "", "does not end with a newline"),
    ],
)
def test_anything_but_a_plain_git_diff_is_refused(old: str, new: str, line: int | str, message: str) -> None:
    text = HEADER + DIFF
    assert old in text
    with pytest.raises(UserError) as caught:
        parse(text.replace(old, new))
    place = f"patches/{NAME}:{line}" if line else f"patches/{NAME}"
    assert str(caught.value).startswith(f"{place}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_twice_and_empty_diff_are_refused() -> None:
    with pytest.raises(UserError, match="appears twice"):
        parse(HEADER + DIFF + DIFF)
    with pytest.raises(UserError, match="no diff after"):
        parse(HEADER)
    with pytest.raises(UserError, match="the header never ends"):
        parse("Subject: only\n")


def test_load_series_refuses_missing_linked_unlisted_and_binary_patches(tmp_path: Path) -> None:
    (tmp_path / "series").write_text(f"# one\n{NAME}\n")
    with pytest.raises(UserError, match=rf"^kp/series:2: {NAME} is missing"):
        load_series(tmp_path, label="kp")
    (tmp_path / "elsewhere").write_text(HEADER + DIFF)
    (tmp_path / NAME).symlink_to("elsewhere")
    with pytest.raises(UserError, match=r"^kp/series:2: .* not a regular file"):
        load_series(tmp_path, label="kp")
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).write_bytes(HEADER.encode() + b"\xff")
    with pytest.raises(UserError, match=rf"^kp/{NAME}: is not UTF-8"):
        load_series(tmp_path, label="kp")
    (tmp_path / NAME).write_text(HEADER + DIFF)
    assert [patch.name for patch in load_series(tmp_path, label="kp")] == [NAME]
    (tmp_path / "0002-forgotten.patch").write_text(HEADER + DIFF)
    with pytest.raises(UserError, match=r"^kp/0002-forgotten.patch: not named in series"):
        load_series(tmp_path, label="kp")
    with pytest.raises(UserError, match=r"^kp/series: cannot be read: No such file"):
        load_series(tmp_path / "absent", label="kp")


SCRIPT = (
    'for p in "$@"; do printf "=== applying %s\\n" "$p"; patch -p1 --unified --fuzz=0 --batch --forward '
    '--binary --no-backup-if-mismatch --reject-file=- --input="$0/$p" 2>&1 || exit $?; done'
)


def test_argv_is_exact() -> None:
    assert apply_argv([PATCH], folder="/inputs/patches") == [
        "/bin/sh",
        "-euc",
        SCRIPT,
        "/inputs/patches",
        NAME,
    ]


SECOND = Patch(
    name="0002-b.patch",
    where="patches/0002-b.patch",
    subject="b",
    upstream="u",
    tested="t",
    files=(FileDiff(target="dir/b.c", hunks=(12,)),),
)
START = f"=== applying {NAME}\npatching file dir/file.c\n"
NEXT = "=== applying 0002-b.patch\npatching file dir/b.c\n"


# Text of the patch comes back with a bar before it, so it cannot pass for a line of the log.
MISSING = """\
can't find file to patch at input line 13
Perhaps you used the wrong -p or --strip option?
The text leading up to this was:
--------------------------
|Subject: s
|=== applying 0002-b.patch
--------------------------
No file to patch.  Skipping patch.
2 out of 2 hunks ignored
"""
EXISTS = """\
The next patch would create the file dir/new.c,
which already exists!  Skipping patch.
1 out of 1 hunk ignored
"""


def test_clean_log_passes() -> None:
    assert check_log(START + NEXT, exit_status=0, patches=[PATCH, SECOND]) == ()
    assert check_log("", exit_status=0, patches=[]) == ()


def test_offsets_are_reported() -> None:
    log = (
        f"{START}Hunk #1 succeeded at 9 (offset 2 lines).\nHunk #2 succeeded at 29 (offset 2 lines).\n"
        f"{NEXT}Hunk #1 succeeded at 4 (offset -1 line).\n"
    )
    offsets = check_log(log, exit_status=0, patches=[PATCH, SECOND])
    assert offsets == (
        Offset(patch=NAME, target="dir/file.c", hunk=1, lines=2),
        Offset(patch=NAME, target="dir/file.c", hunk=2, lines=2),
        Offset(patch="0002-b.patch", target="dir/b.c", hunk=1, lines=-1),
    )
    assert str(offsets[2]) == "0002-b.patch: dir/b.c: hunk 1 applied -1 lines away"


@pytest.mark.parametrize(
    ("log", "status", "messages"),
    [
        (
            f"{START}Hunk #1 FAILED at 7.\n1 out of 2 hunks FAILED\n",
            1,
            [f"patches/{NAME}: dir/file.c: hunk 1 of 2 (line 14 of the patch) does not apply at line 7"],
        ),
        (
            f"{START}Hunk #1 FAILED at 7.\nHunk #2 FAILED at 27.\n2 out of 2 hunks FAILED\n",
            1,
            ["hunk 1 of 2 (line 14", "hunk 2 of 2 (line 19 of the patch) does not apply at line 27"],
        ),
        (
            f"{START}Hunk #2 succeeded at 30 with fuzz 1 (offset 3 lines).\n{NEXT}",
            0,
            [f"patches/{NAME}: dir/file.c: hunk 2 of 2 (line 19 of the patch) applies only with fuzz 1"],
        ),
        (
            f"{START}Reversed (or previously applied) patch detected!  Skipping patch.\n",
            1,
            [f"patches/{NAME}: Reversed (or previously applied) patch detected!"],
        ),
        (
            f"=== applying {NAME}\n{MISSING}",
            1,
            [f"patches/{NAME}: dir/file.c is not in the source"],
        ),
        (
            f"=== applying {NAME}\n{EXISTS}",
            1,
            [f"patches/{NAME}: The next patch would create the file dir/new.c"],
        ),
        (
            f"{START}{NEXT}patch: **** unexpected end of file in patch\n",
            2,
            ["patches/0002-b.patch: patch: **** unexpected end of file in patch"],
        ),
        (f"{START}", 137, [f"patches/{NAME}: patch ended with exit status 137"]),
        (f"{START}", 0, ["kernel patches: ", "does not show every patch"]),
        ("", 0, ["kernel patches: ", "does not show every patch"]),
        ("/bin/sh: patch: not found\n", 127, ["exit status 127: /bin/sh: patch: not found"]),
        (
            f"=== applying 0003-c.patch\n{START}{NEXT}",
            3,
            ["patches/0002-b.patch: patch ended with exit status 3"],
        ),
    ],
)
def test_failed_log_names_patch_file_and_hunk(log: str, status: int, messages: list[str]) -> None:
    with pytest.raises(BuildError) as caught:
        check_log(log, exit_status=status, patches=[PATCH, SECOND])
    for message in messages:
        assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_real_series_are_well_formed() -> None:
    folders = sorted(path.parent for path in FOLDER.glob("*/series"))
    assert [folder.name for folder in folders] == ["6.12"]
    (patch,) = load_series(folders[0], label="kernel-patches/6.12")
    assert {diff.target: len(diff.hunks) for diff in patch.files} == {
        "Documentation/admin-guide/kernel-parameters.txt": 1,
        "drivers/virtio/virtio_ring.c": 3,
    }


LINES = [f"line {number}\n" for number in range(1, 41)]


def apply(tree: Tree, folder: Path, source: list[str] | None) -> tuple[Patch, str, int, Path]:
    """Apply HEADER + DIFF to a source tree whose dir/file.c is `source`, with the real GNU patch."""
    (folder / "patches").mkdir()
    (folder / "patches" / NAME).write_text(HEADER + DIFF)
    (folder / "patches" / "series").write_text(f"{NAME}\n")
    (folder / "source" / "dir").mkdir(parents=True)
    target = folder / "source/dir/file.c"
    if source is not None:
        target.write_text("".join(source))
    (patch,) = load_series(folder / "patches", label="patches")
    command = Command(
        argv=tuple(apply_argv([patch], folder="/inputs/patches")),
        tree=tree.path,
        mounts=(
            Mount(host=folder / "source", inside="/build", writable=True),
            Mount(host=folder / "patches", inside="/inputs/patches"),
        ),
    )
    run = subprocess.run(bwrap_argv(command), capture_output=True, text=True, check=False)
    assert run.stderr == ""
    assert sorted(path.name for path in (folder / "source/dir").iterdir()) == ["file.c"][: source is not None]
    return patch, run.stdout, run.returncode, target


def test_real_patch_applies_and_leaves_nothing_else(build_tree: Tree, tmp_path: Path) -> None:
    patch, log, status, target = apply(build_tree, tmp_path, LINES)
    assert check_log(log, exit_status=status, patches=[patch]) == ()
    changed = target.read_text().splitlines()
    assert (changed[9], changed[29], changed[30], len(changed)) == ("changed 10", "changed 30", "added", 41)


def test_real_patch_reports_offsets(build_tree: Tree, tmp_path: Path) -> None:
    patch, log, status, target = apply(build_tree, tmp_path, ["new 1\n", "new 2\n", *LINES])
    offsets = check_log(log, exit_status=status, patches=[patch])
    assert [(offset.hunk, offset.lines) for offset in offsets] == [(1, 2), (2, 2)]
    assert target.read_text().splitlines()[11] == "changed 10"


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        ({11: "other\n"}, "dir/file.c: hunk 1 of 2 (line 14 of the patch) does not apply at line 9"),
        ({30: "other\n"}, "dir/file.c: hunk 2 of 2 (line 19 of the patch) does not apply at line 30"),
        ({10: "changed 10\n", 30: "changed 30\nadded\n"}, "previously applied"),
        (None, "dir/file.c is not in the source"),
    ],
)
def test_real_patch_that_does_not_fit_stops(
    build_tree: Tree, tmp_path: Path, replace: dict[int, str] | None, message: str
) -> None:
    # The first case would apply with fuzz 1: only a context line differs.
    source = None
    if replace is not None:
        source = [replace.get(number, line) for number, line in enumerate(LINES, 1)]
    patch, log, status, _ = apply(build_tree, tmp_path, source)
    with pytest.raises(BuildError, match=rf"^patches/{NAME}: ") as caught:
        check_log(log, exit_status=status, patches=[patch])
    assert message in str(caught.value)
