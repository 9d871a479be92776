# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""initramfs/manifest.toml → a newc cpio archive whose bytes depend on the listed content only."""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

import libarchive
from libarchive import ffi
from libarchive.entry import ArchiveEntry, FileType
from libarchive.write import ArchiveWrite

from tools.pipeline.base import toml_reader, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.base.toml_reader import Table
from tools.pipeline.engine.sandbox import EPOCH

_MAX_FILE = 64 << 20  # bytes; far above the budget, bounds what a mistaken path can pull into memory
_SHOWN = 5  # members in the message about a broken budget


class Kind(StrEnum):
    """What a member is."""

    DIR = "dir"
    FILE = "file"
    LINK = "link"
    CHAR = "char"


_set_symlink = ffi.ffi("entry_set_symlink", [ffi.c_archive_entry_p, ctypes.c_char_p], None)

_FILE_TYPES = {
    Kind.DIR: FileType.DIRECTORY,
    Kind.FILE: FileType.REGULAR_FILE,
    Kind.LINK: FileType.SYMBOLINK_LINK,
    Kind.CHAR: FileType.CHAR_DEVICE,
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One member: where its bytes come from is said by `artifact` (built here) or `file` (in initramfs/)."""

    path: str
    kind: Kind
    mode: int
    artifact: str | None = None
    file: str | None = None
    target: str = ""
    major: int = 0
    minor: int = 0


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The whole archive, sorted by path."""

    budget: int
    entries: tuple[Entry, ...]

    def files(self) -> tuple[str, ...]:
        """Source files below initramfs/ that the archive holds."""
        return tuple(sorted({e.file for e in self.entries if e.file is not None}))


def load(path: Path, *, shown_as: str = "initramfs/manifest.toml", artifacts: Sequence[str]) -> Manifest:
    """Parse the manifest; `artifacts` are the names that entries may refer to."""
    table = toml_reader.load(path, shown_as=shown_as)
    table.integer("schema", low=1, high=1)
    budget = table.integer("budget", low=1, high=1 << 30)
    entries: dict[str, Entry] = {}
    for item in table.tables("entry"):
        entry = _entry(item, folder=path.parent, artifacts=artifacts)
        if entry.path in entries:
            raise item.error("path", f"{entry.path!r} stands twice")
        entries[entry.path] = entry
    table.close()
    for entry in entries.values():
        parent = str(PurePosixPath(entry.path).parent)
        if parent != "." and (parent not in entries or entries[parent].kind is not Kind.DIR):
            raise table.error("entry", f"{entry.path!r} has no parent {parent!r}", "list the folder: its mode matters")
    # The kernel unpacks in archive order: bytewise order puts every folder before what is in it.
    return Manifest(budget=budget, entries=tuple(sorted(entries.values(), key=lambda e: e.path.encode())))


def _entry(item: Table, *, folder: Path, artifacts: Sequence[str]) -> Entry:
    path = item.string("path", pattern=r"[A-Za-z0-9._+-]+(/[A-Za-z0-9._+-]+)*", says="a relative path")
    if any(part in {".", ".."} for part in path.split("/")):
        raise item.error("path", f"{path!r} must not hold . or ..")
    # PATH_MAX of the guest, NAME_MAX of its file systems; the kernel's unpacker skips what is longer.
    if len(path) > 1024 or any(len(part) > 255 for part in path.split("/")):
        raise item.error("path", "is longer than 1024 characters, or a part of it than 255")
    kind = item.choice("type", Kind)
    mode = int(item.string("mode", pattern=r"0[0-7]{3,4}", says="an octal mode such as 0755"), 8)
    artifact = file = None
    target, major, minor = "", 0, 0
    if kind is Kind.FILE:
        if item.has("artifact") == item.has("file"):
            raise item.error("artifact", "exactly one of artifact and file says where the content is")
        if item.has("artifact"):
            artifact = item.string("artifact")
            if artifact not in artifacts:
                raise item.error("artifact", f"{artifact!r} is not one of: {', '.join(artifacts)}")
        else:
            file = _source(item, folder=folder)
    elif kind is Kind.LINK:
        # ASCII only: libarchive would convert anything else by the locale of the build machine.
        target = item.string("target", pattern=r"[!-~]{1,4095}", says="a link target in printable ASCII")
    elif kind is Kind.CHAR:
        major = item.integer("major", low=0, high=4095)
        minor = item.integer("minor", low=0, high=1048575)
    item.close()
    return Entry(path=path, kind=kind, mode=mode, artifact=artifact, file=file, target=target, major=major, minor=minor)


def _source(item: Table, *, folder: Path) -> str:
    name = item.string("file", pattern=r"[A-Za-z0-9._+/-]{1,255}", says=f"a path below {folder.name}/")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise item.error("file", f"{name!r} leaves {folder.name}/")
    if not path.is_file() or path.is_symlink():
        raise item.error("file", f"no file {folder.name}/{name}")
    return name


def archive(manifest: Manifest, *, folder: Path, artifacts: Mapping[str, Path]) -> bytes:
    """The cpio archive. Contents come from memory only: libarchive's disk reader would let inode, device and
    link numbers of the build machine through.
    """
    chunks: list[bytes] = []

    def collect(data: bytes) -> int:
        chunks.append(bytes(data))
        return len(data)

    with libarchive.custom_writer(collect, "cpio_newc") as writer:
        for entry in manifest.entries:
            attributes: dict[str, object] = {"uid": 0, "gid": 0, "mtime": EPOCH}
            if entry.kind is Kind.LINK:
                _add_link(writer, entry, attributes)
                continue
            if entry.kind is Kind.CHAR:
                attributes |= {"rdevmajor": entry.major, "rdevminor": entry.minor}
            data = _content(entry, folder=folder, artifacts=artifacts)
            writer.add_file_from_memory(
                entry.path,
                len(data),
                data,
                filetype=_FILE_TYPES[entry.kind],
                permission=entry.mode,
                **attributes,
            )
    return b"".join(chunks)


def _add_link(writer: ArchiveWrite, entry: Entry, attributes: Mapping[str, object]) -> None:
    # libarchive-c's `linkpath` makes a hard link of an entry that has no target yet, and the newc writer
    # then leaves the target of the symbolic link out.
    made = ArchiveEntry(pathname=entry.path, size=0, filetype=_FILE_TYPES[Kind.LINK], perm=entry.mode, **attributes)
    _set_symlink(made._entry_p, entry.target.encode("ascii"))  # noqa: SLF001 (no public way, see above)
    ffi.write_header(writer._pointer, made._entry_p)  # noqa: SLF001
    ffi.write_finish_entry(writer._pointer)  # noqa: SLF001


def _content(entry: Entry, *, folder: Path, artifacts: Mapping[str, Path]) -> bytes:
    if entry.artifact is not None:
        path = artifacts[entry.artifact]
    elif entry.file is not None:
        path = folder / entry.file
    else:
        return b""
    if path.stat().st_size > _MAX_FILE:
        raise BuildError(f"{path.name} is larger than {_MAX_FILE} bytes", where=f"initramfs: {entry.path}")
    return path.read_bytes()


def check_budget(manifest: Manifest, *, compressed: int, folder: Path, artifacts: Mapping[str, Path]) -> None:
    """Raise BuildError naming the largest members when the compressed archive is over its budget."""
    if compressed <= manifest.budget:
        return
    sizes = sorted(
        ((len(_content(e, folder=folder, artifacts=artifacts)), e.path) for e in manifest.entries),
        reverse=True,
    )
    largest = ", ".join(f"{path} {ui.size(count)}" for count, path in sizes[:_SHOWN] if count)
    raise BuildError(
        f"{compressed} bytes compressed, {compressed - manifest.budget} over the budget of {manifest.budget}",
        where="initramfs",
        hint=f"largest members, uncompressed: {largest}",
    )
