# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Which patches of Debian's edk2 package go into the firmware: read the list, hold it against the archive.

The list (`recipes/firmware/edk2-patches.toml`) names every patch of the pinned archive, applied or not. A fix
that arrives with a new pin is therefore an error until somebody has decided about it.
"""

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline import toml_reader
from tools.pipeline.errors import UserError

_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]*\.(patch|diff)"
_CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,}")
_SERIES = "debian/patches/series"


@dataclass(frozen=True, kw_only=True)
class DebianPatch:
    """The decision about one patch below debian/patches; `cves` are the identifiers that it fixes."""

    file: str
    cves: tuple[str, ...]
    apply: bool
    reason: str


def load(path: Path, *, shown_as: str) -> tuple[DebianPatch, ...]:
    """Read the list, in the order of the file. Raises `UserError` that names file and key."""
    top = toml_reader.load(path, shown_as=shown_as)
    top.integer("schema", low=1, high=1)
    patches: list[DebianPatch] = []
    for table in top.tables("debian"):
        patch = DebianPatch(
            file=table.string("file", pattern=_NAME, says="a file name in debian/patches"),
            cves=table.strings("cves", allow_empty=True),
            apply=table.boolean("apply"),
            reason=table.string("reason"),
        )
        table.close()
        for cve in patch.cves:
            if not _CVE.fullmatch(cve):
                raise table.error("cves", f"{cve!r} is not a CVE identifier", "write CVE-2024-13176")
        if any(patch.file == other.file for other in patches):
            raise table.error("file", f"{patch.file} is listed twice")
        patches.append(patch)
    top.close()
    return tuple(patches)


def check_archive(patches: tuple[DebianPatch, ...], archive: Path, *, shown_as: str) -> None:
    """Compare the list with `debian/patches/series` of the pinned debian.tar.xz; `shown_as` names the list.

    Raises `UserError` for a patch without a decision, and for a decision about a patch that is not there.
    """
    there = _series(archive)
    listed = {patch.file for patch in patches}
    for name in there:
        if name not in listed:
            hint = "add it, with a reason to apply it or not"
            raise UserError(f"Debian's patch {name} is not listed", where=shown_as, hint=hint)
    for patch in patches:
        if patch.file not in there:
            hint = "remove it from the list"
            raise UserError(f"{archive.name} has no patch {patch.file}", where=shown_as, hint=hint)


def applied(patches: tuple[DebianPatch, ...]) -> tuple[str, ...]:
    """The names for prepare.sh, in order."""
    return tuple(patch.file for patch in patches if patch.apply)


def _series(archive: Path) -> tuple[str, ...]:
    try:
        with tarfile.open(archive, "r:xz") as tar:
            member = tar.extractfile(_SERIES)
            if member is None:
                raise UserError(f"{_SERIES} is not a file", where=archive.name)
            text = member.read().decode()
    except (KeyError, tarfile.TarError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"holds no readable {_SERIES} ({error})", where=archive.name) from None
    lines = (line.split("#")[0].split() for line in text.splitlines())
    return tuple(words[0] for words in lines if words)
