# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The files of an image, which lie in a folder or in an archive."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from tools.launcher.base.errors import UserError
from tools.launcher.layers import tar_reader

JSON_MAX = 4 << 20
_FILES_MAX = 100_000
# What builders call them; nothing that leads anywhere else.
_NAME = re.compile(r"(?!\.\.?(?:/|$))[A-Za-z0-9._+-]+(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._+-]+){0,7}")

Open = Callable[[], BinaryIO]


class Blobs:
    """Files by their names from the image's top. `where` names the image in errors."""

    def __init__(self, found: Callable[[str], tuple[BinaryIO, int] | None], *, where: str) -> None:
        self._found = found
        self.where = where

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """A file's stream at its beginning, and its size; UserError when it is not there."""
        found = self._found(name) if _NAME.fullmatch(name) else None
        if found is None:
            raise UserError(f"has no file {name[:100]!r}", where=self.where)
        return found

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        found = self._found(name)
        if found is not None:
            found[0].close()
        return found is not None

    def read_json(self, name: str) -> Any:
        """What a small file says; UserError for what is no JSON."""
        stream, size = self.open(name)
        with stream:
            if size > JSON_MAX:
                raise UserError(f"has {size} bytes, more than {JSON_MAX}", where=f"{self.where}: {name}")
            return parse(stream.read(), where=f"{self.where}: {name}")


def parse(data: bytes, *, where: str) -> Any:
    """A JSON text; UserError in one line for what is none."""
    try:
        return json.loads(data)
    except RecursionError:
        raise UserError("is nested too deeply", where=where) from None
    except ValueError as error:
        raise UserError(f"is no JSON: {error}", where=where) from None


def in_folder(folder: Path) -> Blobs:
    """The files of an unpacked image."""

    def found(name: str) -> tuple[BinaryIO, int] | None:
        path = folder / name
        if not path.is_file():
            return None
        stream = path.open("rb")
        return stream, path.stat().st_size

    return Blobs(found, where=str(folder))


def in_archive(path: Path, stream: BinaryIO, *, end: int, where: str) -> Blobs:
    """The files of a plain tar, which lies at `path` and is open as `stream`."""
    places: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    for member in tar_reader.members(stream, end=end, where=where):
        name = str(PurePosixPath(member.name.decode("utf-8", "replace")))
        # A root file system may have a million others.
        if _NAME.fullmatch(name) is None or len(places) + len(links) >= _FILES_MAX:
            continue
        if member.kind == b"0":
            places[name] = (member.place, member.size)
        elif member.kind == b"2":
            # docker up to 24 saves a layer once, and links to it where it comes again.
            links[name] = _resolved(name, member.linkname.decode("utf-8", "replace"))

    def found(name: str) -> tuple[BinaryIO, int] | None:
        place = places.get(links.get(name, name))
        if place is None:
            return None
        return io.BufferedReader(_Stretch(path, *place)), place[1]

    return Blobs(found, where=where)


def _resolved(name: str, target: str) -> str:
    parts = list(PurePosixPath(name).parent.parts)
    for part in PurePosixPath(target).parts:
        if part == "..":
            parts = parts[:-1]
        else:
            parts.append(part)
    return "/".join(parts)


class _Stretch(io.RawIOBase):
    """Part of a file, as a file of its own."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._start, self._size, self._at = start, size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place in the stretch."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer from where we are."""
        view = memoryview(buffer)[: max(0, self._size - self._at)]
        self._file.seek(self._start + self._at)
        count = self._file.readinto(view)
        self._at += count
        return count

    def close(self) -> None:
        """Close the file behind it, too."""
        if not self.closed:
            self._file.close()
        super().close()
