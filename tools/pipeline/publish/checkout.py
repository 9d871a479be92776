# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What git says of the checkout: its commit, what differs from it, and its files as one archive.

git ls-files ── sorted, times and owners constant ── checkout.tar, the same bytes for the same files
"""

import io
import subprocess
import tarfile
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import ambient, children
from tools.pipeline.base.errors import UserError

_HINT = "publish from a clone of the repository, with git installed"


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A checkout as it is now. `changes` are lines of git's: what is not as the commit has it, or not in it.

    `origin` is where it was cloned from, empty when that is no public URL. `files`: path → executable.
    """

    root: Path
    commit: str
    origin: str
    changes: tuple[str, ...]
    files: dict[str, bool]

    def archive(self) -> bytes:
        """Every file that git knows, as it lies there, in a tar (ustar; times 0, owners 0)."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for path, executable in sorted(self.files.items()):
                member = tarfile.TarInfo(path)
                place = self.root / path
                if place.is_symlink():
                    member.type, member.linkname, member.mode = tarfile.SYMTYPE, str(place.readlink()), 0o777
                    tar.addfile(member)
                elif place.is_file():
                    data = place.read_bytes()
                    member.size, member.mode = len(data), 0o755 if executable else 0o644
                    tar.addfile(member, io.BytesIO(data))
        return buffer.getvalue()


def look(root: Path) -> Checkout:
    """Ask git. UserError when there is none, or `root` is no checkout of its own."""
    top = _git(root, "rev-parse", "--show-toplevel").strip()
    if Path(top).resolve() != root.resolve():
        raise UserError("is no checkout of git's, only a part of one", where=str(root), hint=_HINT)
    listed = [entry for entry in _git(root, "ls-files", "--stage", "-z").split("\0") if entry]
    status = _git(root, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames")
    return Checkout(
        root=root,
        commit=_git(root, "rev-parse", "--verify", "HEAD").strip(),
        origin=_public(_git(root, "config", "--get", "remote.origin.url", missing="").strip()),
        changes=tuple(entry for entry in status.split("\0") if entry),
        files={entry.partition("\t")[2]: entry.startswith("100755") for entry in listed},
    )


def _public(url: str) -> str:
    """A URL that says nothing of this machine and its user; empty for others."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        return ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _git(root: Path, *words: str, missing: str | None = None) -> str:
    """What git answers; `missing` in place of status 1."""
    environment = {**ambient.host_environment("PATH", "HOME", "XDG_CONFIG_HOME"), "LC_ALL": "C.UTF-8"}
    # No locks: a reader must not come into the way of somebody's commit.
    argv = ["git", "--no-optional-locks", "-C", str(root), *words]
    try:
        with children.running(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            out, err = process.communicate()
    except FileNotFoundError:
        raise UserError("git is not installed", where=str(root), hint=_HINT) from None
    if process.returncode == 1 and missing is not None:
        return missing
    if process.returncode != 0:
        lines = err.decode(errors="replace").strip().splitlines() or [f"git ended with status {process.returncode}"]
        raise UserError(lines[0].removeprefix("fatal: "), where=str(root), hint=_HINT)
    return out.decode(errors="surrogateescape")
