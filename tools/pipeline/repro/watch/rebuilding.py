# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One artifact: a clone at the commit that it claims, ./doit rebuild there, and ./doit endorse when that is good.

The commit must be on the branch that the user has named: the code of a commit runs outside of any sandbox, so it
must be one that people of the project have merged. Each rebuild has a clone of its own, and nothing of another's.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import ambient, children, files, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.repro.check import RESULT

_GRACE = 20.0  # seconds that a rebuild has to clean up after an interrupt
_SHARED = (ambient.REMOTE, ambient.REMOTE_CONFIG, ambient.REMOTE_EXECUTE)
"""A rebuild takes nobody's word, so that these are not even told to it."""


class Different(BuildError):  # noqa: N818 (what came of it, not a fault of ours)
    """The rebuild gave other bytes than those that are published."""


@dataclass(frozen=True, kw_only=True)
class Rebuilder:
    """Of the checkout `root`; `branch` as git names it, `endorse` are the words behind ./doit endorse."""

    root: Path
    folder: Path
    branch: str
    endorse: Sequence[str]

    def check(self) -> None:
        """UserError for a branch that is not there: no commit would ever be on it."""
        if not self._has_branch():
            self.update()
            if not self._has_branch():
                hint = "git branch --all lists them; git remote set-head origin --auto makes origin/HEAD"
                raise UserError(f"{self.branch[:80]!r} is no branch of this checkout", where="--branch", hint=hint)

    def update(self) -> None:
        """Ask where the checkout came from for new commits; a checkout that came from nowhere has what it has."""
        if self._git("remote").strip():
            with ui.working("fetching new commits"):
                self._git("fetch", "--quiet", "--all")

    def trusted(self, commits: Sequence[str]) -> list[str]:
        """Those of these commits that are on the branch; BuildError when none is."""
        found = [commit for commit in commits if self._on_branch(commit)]
        if found:
            return found
        if not commits:
            raise BuildError("no provenance names its commit", hint="it was published without one: publish it again")
        raise BuildError(f"commit {commits[0]} is not on {self.branch}", hint="merge it, or name a branch: --branch")

    def rebuild(self, commit: str, document: bytes, *, profile: str, place: str) -> None:
        """From nothing, and endorsed at `place`; Different, or a BuildError for whatever else went wrong."""
        clone = self.folder / "clone"
        self._remove(clone)
        self._git("clone", "--quiet", "--no-checkout", "--local", str(self.root), str(clone), at=self.folder)
        self._git("checkout", "--quiet", "--detach", commit, at=clone)
        published = self.folder / manifest_name(profile)
        files.write_atomically(published, document)
        try:
            status = self._doit(clone, "rebuild", "--manifest", str(published))
        finally:
            # Its name and size are a stranger's choice: they must not gather here.
            published.unlink(missing_ok=True)
        if status != 0:
            self._failed(clone, status)
        status = self._doit(clone, "endorse", "--profile", profile, "--to", place, *self.endorse)
        if status != 0:
            raise BuildError(f"./doit endorse ended with status {status}", where=str(clone))
        self._remove(clone)

    def _failed(self, clone: Path, status: int) -> None:
        try:
            different = json.loads((clone / "build/rebuild" / RESULT).read_bytes())["reproduced"] is False
        except (OSError, ValueError, LookupError, TypeError):
            different = False
        if not different:
            raise BuildError(f"./doit rebuild ended with status {status}", where=str(clone))
        kept = self.folder / "different"
        self._remove(kept)
        clone.rename(kept)
        raise Different("was not reproduced", where=str(kept), hint="what was rebuilt is kept there until the next")

    def _doit(self, clone: Path, *words: str) -> int:
        environment = {key: value for key, value in ambient.whole_environment().items() if key not in _SHARED}
        return children.run([str(clone / "doit"), *words], cwd=clone, env=environment, grace=_GRACE,
                            stdin=subprocess.DEVNULL)  # fmt: skip

    def _has_branch(self) -> bool:
        try:
            self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{self.branch}^{{commit}}")
        except BuildError:
            return False
        return True

    def _on_branch(self, commit: str) -> bool:
        try:
            self._git("merge-base", "--is-ancestor", commit, self.branch)
        except BuildError:
            return False
        return True

    def _git(self, *words: str, at: Path | None = None) -> str:
        argv = ["git", "-C", str(at or self.root), *words]
        try:
            with children.running(argv, env=ambient.whole_environment(), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # fmt: skip
                out, err = process.communicate()
        except FileNotFoundError:
            raise BuildError("git is not installed", hint="install git") from None
        if process.returncode != 0:
            said = err.decode(errors="replace").strip().splitlines() or [f"status {process.returncode}"]
            raise BuildError(f"git {words[0]}: {said[-1].removeprefix('fatal: ')[:300]}", where=str(at or self.root))
        return out.decode(errors="replace")

    @staticmethod
    def _remove(folder: Path) -> None:
        if folder.is_dir():
            with ui.working(f"removing {folder}"):
                shutil.rmtree(folder)


def manifest_name(profile: str) -> str:
    """Beside the clone."""
    return f"{profile}.manifest.json"
