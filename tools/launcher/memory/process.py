# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A QEMU process seen from outside: /proc/PID, held open so that no other process takes its place.

Linux: Documentation/filesystems/proc.rst (maps, pagemap), admin-guide/mm/pagemap.rst.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tools.launcher.base.errors import LauncherError, UserError

PAGE = 4096
_MAPS_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) \S+ \d+ *(.*)")
_SIZE = re.compile(rb"(?:size=)?([0-9]+)([KMGTkmgt]?)B?")
_UNITS = {b"": 20, b"K": 10, b"M": 20, b"G": 30, b"T": 40}
_SEEN = re.compile(b"[\x01-\xff]+")
# Bits 63 and 62 of a pagemap entry, in its last byte: in memory, swapped out.
_PRESENT = bytes(1 if top & 0xC0 else 0 for top in range(256))
_TEXT_MIN = 16
_IN_MEMORY = ("/memfd:", "/dev/hugepages/", "/dev/shm/", "/anon_hugepage")  # noqa: S108  names to compare with


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """Addresses from `start` up to `end`; `offset` is where a file begins in it."""

    start: int
    end: int
    flags: str
    offset: int
    name: str

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start

    @property
    def is_data(self) -> bool:
        """Readable and writable, and never the translator's buffer, from which code is run."""
        return self.flags.startswith("rw-")

    @property
    def is_anonymous(self) -> bool:
        """Of no file: heap, what mmap() gave, not the kernel's own."""
        return self.flags == "rw-p" and (self.name in ("", "[heap]") or self.name.startswith("[anon:"))


class Process:
    """An open process; UserError and LauncherError say what is wrong with it."""

    def __init__(self, pid: int, folder: int, memory: int) -> None:
        self.pid = pid
        self.memory = memory
        self._folder = folder
        self.argv = tuple(self._read("cmdline").removesuffix(b"\0").split(b"\0"))

    def gone(self) -> LauncherError:
        """The error for a process that has ended."""
        return LauncherError("ended while its memory was read", where=f"process {self.pid}")

    def mappings(self) -> list[Mapping]:
        """All of them, in order."""
        found: list[Mapping] = []
        for line in self._read("maps").decode("utf-8", "surrogateescape").splitlines():
            match = _MAPS_LINE.fullmatch(line)
            if match is None:
                raise LauncherError(f"has a mapping {line[:80]!r}, which is none", where=f"process {self.pid}")
            start, end, offset = (int(match[number], 16) for number in (1, 2, 4))
            found.append(Mapping(start=start, end=end, flags=match[3], offset=offset, name=match[5]))
        if not found:
            raise self.gone()
        return found

    def value(self, option: bytes) -> bytes | None:
        """What follows an option on the command line, the last time."""
        places = [at for at, word in enumerate(self.argv[:-1]) if word == option]
        return self.argv[places[-1] + 1] if places else None

    def memory_size(self) -> int | None:
        """Bytes of the guest's memory, by -m; None where the command line does not say."""
        for part in (self.value(b"-m") or b"").split(b","):
            match = _SIZE.fullmatch(part)
            if match is not None:
                return int(match[1]) << _UNITS[match[2].upper()]
        return None

    def control(self) -> bytes | None:
        """A text of QEMU's command line, which must lie in its heap, too: the kernel's, or else the longest word."""
        append = self.value(b"-append")
        text = append if append and len(append) >= _TEXT_MIN else max(self.argv, key=len)
        return text if len(text) >= _TEXT_MIN else None

    def touched(self, mapping: Mapping) -> list[tuple[int, int]]:
        """The stretches, as addresses, that have memory behind them. The rest reads as zeros, and reading makes it."""
        if "s" in mapping.flags:
            return self._stretches_of_file(mapping)
        try:
            pages = self._pages(mapping)
        except OSError:
            return [(mapping.start, mapping.end)]
        start = mapping.start
        return [(start + m.start() * PAGE, start + m.end() * PAGE) for m in _SEEN.finditer(pages)]

    def _pages(self, mapping: Mapping) -> bytes:
        """For each page 1 or 0."""
        descriptor = self._open("pagemap")
        try:
            count = mapping.size // PAGE
            data = bytearray()
            while len(data) < count * 8:
                part = os.pread(descriptor, count * 8 - len(data), mapping.start // PAGE * 8 + len(data))
                if not part:
                    raise self.gone()
                data += part
        finally:
            os.close(descriptor)
        return bytes(data[7::8]).translate(_PRESENT)

    def _stretches_of_file(self, mapping: Mapping) -> list[tuple[int, int]]:
        """By the holes of the file in memory that is mapped there."""
        found: list[tuple[int, int]] = []
        try:
            descriptor = self._open(f"map_files/{mapping.start:x}-{mapping.end:x}")
        except OSError:
            return [(mapping.start, mapping.end)]
        at, end = mapping.offset, mapping.offset + mapping.size
        shift = mapping.start - mapping.offset
        try:
            while at < end:
                at = os.lseek(descriptor, at, os.SEEK_DATA)
                hole = min(os.lseek(descriptor, at, os.SEEK_HOLE), end)
                if at < end:
                    found.append((at + shift, hole + shift))
                at = hole
        except OSError:
            pass  # no more data
        finally:
            os.close(descriptor)
        return found

    def _open(self, name: str) -> int:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)

    def _read(self, name: str) -> bytes:
        try:
            with os.fdopen(self._open(name), "rb") as stream:
                return stream.read()
        except ProcessLookupError:
            raise self.gone() from None


def _continues(one: Mapping, other: Mapping) -> bool:
    if one.end != other.start or one.flags != other.flags or one.name != other.name:
        return False
    return one.is_anonymous or one.offset + one.size == other.offset


def _of_size(mappings: list[Mapping], size: int) -> list[Mapping]:
    """Every mapping of that size, or what is one after the other and has it: a kernel may keep one in parts."""
    found: list[Mapping] = []
    for at, first in enumerate(mappings):
        last = first
        for following in mappings[at + 1 :]:
            if last.end - first.start >= size or not _continues(last, following):
                break
            last = following
        if last.end - first.start == size:
            found.append(replace(first, end=last.end))
    return found


@contextmanager
def opened(pid: int) -> Iterator[Process]:
    """The process of that number; UserError when there is none, and when this user may not read it."""
    where = f"process {pid}"
    with contextlib.ExitStack() as stack:
        try:
            folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, folder)
            memory = os.open("mem", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
            stack.callback(os.close, memory)
            process = Process(pid, folder, memory)
        except (FileNotFoundError, ProcessLookupError):
            raise UserError("there is none", where=where, hint="give the number of a QEMU process") from None
        except PermissionError:
            raise UserError("may not be read by this user", where=where, hint="root may") from None
        yield process


def qemu_of(pid: int) -> int:
    """The process itself if it has a QEMU's command line, else the first below it that has: a launcher's, a monitor's.

    The number that was given where there is none; UserError as opened().
    """
    waiting = [pid]
    while waiting:
        number = waiting.pop(0)
        with contextlib.suppress(LauncherError), opened(number) as process:
            if process.value(b"-append") is not None and process.memory_size() is not None and _has_memory(process):
                return number
        with contextlib.suppress(OSError):
            tasks = sorted(Path(f"/proc/{number}/task").iterdir())
            waiting += [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return pid


def _has_memory(process: Process) -> bool:
    try:
        guest_memory(process, size=None)
    except UserError:
        return False
    return True


def guest_memory(process: Process, *, size: int | None) -> Mapping:
    """The mapping that is the guest's memory, of `size` bytes: by its size, its flags and what is mapped.

    UserError when there is none, or more than one.
    """
    where = f"process {process.pid}"
    bytes_ = size or process.memory_size()
    if bytes_ is None:
        hint = "give the number of a QEMU process, or --memory SIZE"
        raise UserError("does not say on its command line how much memory its guest has", where=where, hint=hint)
    possible = [m for m in process.mappings() if m.is_data and _may_be_memory(m)]
    fitting = [m for m in possible if m.size == bytes_] or _of_size(possible, bytes_)
    if len(fitting) != 1:
        what = f"has {len(fitting) or 'no'} mappings of {bytes_ >> 20} MiB that may be a guest's memory"
        raise UserError(what, where=where, hint="--memory SIZE says how large it is")
    return fitting[0]


def _may_be_memory(mapping: Mapping) -> bool:
    """Anonymous memory, or a file of the kinds of file system that lie in memory."""
    return mapping.is_anonymous or mapping.name.startswith(_IN_MEMORY)
