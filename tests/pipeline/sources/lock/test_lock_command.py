# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit lock` as people type it, in a copy of this checkout, with a folder as the only mirror."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tools.pipeline.base import checkout_copy
from tools.pipeline.base.errors import UserError
from tools.pipeline.sources import resolve
from tools.pipeline.tasks.commands import checks

ROOT = Path(__file__).resolve().parents[4]
LOCKS = ("recipes/sources.lock", "recipes/toolchain.lock", "requirements.lock", "requirements-dev.lock")
EXTRA = '\n[source.extra]\nkind = "file"\npath = "extra.txt"\nversion = "1"\nlicence = "Apache-2.0"\n'


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of this checkout that asks for one more source."""
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("SEV_ARTIFACTS_MIRROR", f"bundle={(tmp_path / 'mirror').as_uri()}")
    copy = checkout_copy.make(ROOT, tmp_path / "checkout")
    (copy / "extra.txt").write_text("extra")
    edit(copy, "recipes/sources.toml", "\n[source.edk2]\n", f"{EXTRA}\n[source.edk2]\n")
    return copy


def edit(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new, 1))


def doit(root: Path, *arguments: str) -> tuple[int, str]:
    """Status and everything that was said."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.pipeline.front", *arguments],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_only_one_source(checkout: Path) -> None:
    before = {name: (checkout / name).read_text() for name in LOCKS}
    status, said = doit(checkout, "lock", "--only", "extra")
    assert status == 0, said
    assert "added    extra 1" in said
    after = {name: (checkout / name).read_text() for name in LOCKS}
    assert hashlib.sha256(b"extra").hexdigest() in after["recipes/sources.lock"]
    assert [name for name in LOCKS if after[name] != before[name]] == ["recipes/sources.lock"]
    status, said = doit(checkout, "lock", "--only", "extra")
    assert status == 0, said
    assert "nothing changed" in said


def test_a_recipe_may_name_what_is_not_locked_yet(checkout: Path) -> None:
    """The command that is to pin it starts, and everything else says that it must be run."""
    edit(checkout, "recipes/kernel/linux-6.12-debug.toml", 'source = "linux"', 'source = "extra"')
    status, said = doit(checkout, "build_debug")
    assert status == 2, said
    assert "recipes/sources.toml: source.extra: is not locked; run ./doit lock" in said
    status, said = doit(checkout, "lock", "--only", "extra")
    assert status == 0, said
    assert "added    extra 1" in said


def test_consent_to_new_bytes_is_none_to_older_versions() -> None:
    """Without a terminal, which no test has."""
    lines = ["qemu 10.0 → 9.0 (boot tree)"]
    for matter, yes, older in ((resolve.OLDER, True, False), (resolve.UNVOUCHED, False, True)):
        with pytest.raises(UserError, match=r"^\./doit lock: this needs a person's consent; .*add --"):
            checks.consent(matter, lines, yes=yes, older=older)
    checks.consent(resolve.OLDER, lines, yes=False, older=True)
    checks.consent(resolve.UNVOUCHED, lines, yes=True, older=False)


def test_unknown_name(checkout: Path) -> None:
    status, said = doit(checkout, "lock", "--only", "extra,bogus")
    assert status == 2, said
    assert "--only: there is no source and no tree 'bogus'; sources: edk2, edk2-debian, erofs-utils, extra" in said
    assert "Traceback" not in said


def test_bytes_that_nothing_vouches_for_need_consent(checkout: Path, tmp_path: Path) -> None:
    """The index is not asked for an https source, so this needs no apt."""
    upstream = (checkout / "extra.txt").read_bytes()
    before = (checkout / "recipes/sources.lock").read_text()
    asked = 'kind = "https"\nurls = ["https://127.0.0.1:1/extra.txt"]'
    edit(checkout, "recipes/sources.toml", 'kind = "file"\npath = "extra.txt"', asked)
    status, said = doit(checkout, "lock", "--only", "extra")
    assert status == 1, said
    assert "https://127.0.0.1:1/extra.txt: Connection refused" in said
    assert "./doit lock" not in said.replace("where", "")
    digest = hashlib.sha256(upstream).hexdigest()
    promise = f'{asked}\nsha256 = "{digest}"\nsize = {len(upstream)}'
    edit(checkout, "recipes/sources.toml", asked, promise)
    status, said = doit(checkout, "lock", "--only", "extra")
    assert status == 1, said  # the promise is believed, but the file must be somewhere
    assert (checkout / "recipes/sources.lock").read_text() == before
    bundle = tmp_path / "mirror/sha256" / digest[:2] / digest
    bundle.parent.mkdir(parents=True)
    bundle.write_bytes(upstream)
    status, said = doit(checkout, "lock", "--only", "extra")
    assert status == 0, said
    assert "added    extra 1" in said


@pytest.mark.parametrize("command", ["fetch", "build"])
def test_stale_lock_stops_a_build_that_was_complete_before(checkout: Path, command: str) -> None:
    """Issue 8, row 20: the right entry is named, no tree is blamed, and nothing old is built in silence."""
    doit(checkout, "lock", "--only", "extra")
    edit(checkout, "recipes/sources.toml", 'series = "6.12"', 'series = "6.13"')
    status, said = doit(checkout, command)
    assert status == 2, said
    assert (
        "recipes/sources.lock: linux: its series is 6.12, sources.toml asks for 6.13; "
        "run ./doit lock --only linux" in said
    )
    assert not any(f"fetch:{tree}" in said for tree in ("bench", "boot", "build", "lint", "python", "repro"))
