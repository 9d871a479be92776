# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Strict, typed reading of TOML: every error names file and key, and what is not asked for is an error.

Each side makes a class of Table whose `fault` is an error of its own:

    class Table(toml.Table):
        fault = UserError

and may say what to do about a missing file.
"""

import re
import tomllib
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from tools.sev.errors import FormatError, nearest

SIZE_MAX = 8 << 20
"""Bytes; a recipe or lock is far smaller, a mistaken path to an image is not."""

_SHOWN = 80  # characters of a wrong value that an error line shows

E = TypeVar("E", bound=StrEnum)


class Table:
    """One TOML table being read; `close()` refuses keys that nobody asked for."""

    fault: ClassVar[Callable[..., Exception]] = FormatError
    no_file_hint: ClassVar[str] = "is it the right path?"

    def __init__(self, data: dict[str, Any], *, file: str, path: str = "") -> None:
        self._data = data
        self._asked: set[str] = set()
        self._known: set[str] = set()  # asked for, or looked for
        self.file = file
        self.path = path

    @classmethod
    def load(cls, file: Path, *, shown_as: str | None = None) -> Self:
        """Parse a file. `shown_as` is its name in messages."""
        name = shown_as or file.name
        try:
            with file.open("rb") as stream:
                raw = stream.read(SIZE_MAX + 1)
        except FileNotFoundError:
            raise cls.fault("no such file", where=name, hint=cls.no_file_hint) from None
        except OSError as error:
            raise cls.fault(f"cannot be read: {error.strerror}", where=name) from None
        if len(raw) > SIZE_MAX:
            raise cls.fault(f"larger than {SIZE_MAX} bytes", where=name, hint="is this the right file?")
        return cls.parse(raw, file=name)

    @classmethod
    def parse(cls, raw: bytes, *, file: str) -> Self:
        """Parse TOML text; errors name `file`."""
        try:
            data = tomllib.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise cls.fault(f"is not UTF-8 at byte {error.start}", where=file) from None
        except tomllib.TOMLDecodeError as error:
            raise cls.fault(f"is not TOML: {error}", where=file) from None
        except RecursionError:
            raise cls.fault("is nested too deeply", where=file) from None
        except ValueError as error:
            # Python refuses to convert integers of thousands of digits, and tomllib lets that through.
            raise cls.fault(f"is not TOML: {str(error).partition(';')[0]}", where=file) from None
        return cls(data, file=file)

    def where(self, key: str = "") -> str:
        """File and key for an error message."""
        name = ".".join(part for part in (self.path, key) if part)
        return f"{self.file}: {name}" if name else self.file

    def error(self, key: str, what: str, hint: str | None = None) -> Exception:
        """The error to raise about a key of this table."""
        return self.fault(what, where=self.where(key), hint=hint)

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        self._known.add(key)
        return key in self._data

    def keys(self) -> tuple[str, ...]:
        """The keys, in file order (for tables that are keyed by name)."""
        return tuple(self._data)

    def _take(self, key: str, kind: type, name: str) -> Any:
        self._asked.add(key)
        if key not in self._data:
            raise self.error(key, "missing", self._misspelt(key) or f"add it ({name})")
        value = self._data[key]
        # bool is a subclass of int: true must not pass for 1.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(key, f"must be {name}, not {_kind(value)}")
        return value

    def _misspelt(self, key: str) -> str | None:
        """What to say where a key that nobody asked for so far looks like this one."""
        near = nearest(key, [other for other in self._data if other not in self._known | self._asked])
        return near and f"unknown key {near[:_SHOWN]}, did you mean {key}?"

    def string(
        self, key: str, *, pattern: str | None = None, says: str | None = None, allow_empty: bool = False
    ) -> str:
        """A string without NUL; `pattern` must match all of it, `says` describes it in the error."""
        value = self._take(key, str, says or "a string")
        assert isinstance(value, str)
        if (not value and not allow_empty) or "\x00" in value:
            raise self.error(key, "must not hold a NUL" if allow_empty else "must not be empty or hold a NUL")
        if pattern is not None and re.fullmatch(pattern, value) is None:
            raise self.error(key, f"{_quote(value)} is not {says or f'of the form {pattern}'}")
        return value

    def integer(self, key: str, *, low: int, high: int) -> int:
        """An integer in [low, high]."""
        value = self._take(key, int, "an integer")
        assert isinstance(value, int)
        if not low <= value <= high:
            # In hexadecimal, because Python refuses to write thousands of decimal digits.
            shown = str(value) if abs(value) < 1 << 64 else f"{value:#x}"[:_SHOWN]
            raise self.error(key, f"{shown} is not in {low}…{high}")
        return value

    def boolean(self, key: str) -> bool:
        """True or false."""
        value = self._take(key, bool, "true or false")
        assert isinstance(value, bool)
        return value

    def choice(self, key: str, kind: type[E]) -> E:
        """One of the values of a StrEnum."""
        value = self._take(key, str, "a string")
        try:
            return kind(value)
        except ValueError:
            names = ", ".join(kind)
            raise self.error(key, f"{_quote(value)} is not one of: {names}") from None

    def hexadecimal(self, key: str, *, digits: int, says: str) -> str:
        """Exactly so many lower-case hex digits."""
        return self.string(key, pattern=f"[0-9a-f]{{{digits}}}", says=f"{says} in {digits} lower-case hex digits")

    def sha256(self, key: str) -> str:
        """64 lower-case hex digits."""
        return self.hexadecimal(key, digits=64, says="a SHA-256")

    def strings(self, key: str, *, allow_empty: bool = False) -> tuple[str, ...]:
        """A list of non-empty strings."""
        value = self._take(key, list, "a list of strings")
        if not allow_empty and not value:
            raise self.error(key, "must not be empty")
        for i, item in enumerate(value):
            if not isinstance(item, str) or not item or "\x00" in item:
                raise self.error(f"{key}[{i}]", f"must be a non-empty string, not {_kind(item)}")
        return tuple(value)

    def table(self, key: str) -> Self:
        """A sub-table."""
        value = self._take(key, dict, "a table")
        return type(self)(value, file=self.file, path=".".join(p for p in (self.path, key) if p))

    def tables(self, key: str, *, allow_empty: bool = False) -> Sequence[Self]:
        """An array of tables."""
        value = self._take(key, list, "an array of tables")
        if not allow_empty and not value:
            raise self.error(key, "must not be empty")
        prefix = ".".join(p for p in (self.path, key) if p)
        for i, item in enumerate(value):
            if not isinstance(item, dict):
                raise self.error(f"{key}[{i}]", f"must be a table, not {_kind(item)}")
        return [type(self)(item, file=self.file, path=f"{prefix}[{i}]") for i, item in enumerate(value)]

    def close(self) -> None:
        """Refuse keys that were not asked for: a typing mistake must not be silently ignored."""
        unknown = sorted(set(self._data) - self._asked)
        if unknown:
            known = ", ".join(sorted((self._known | self._asked) - set(unknown)))
            near = nearest(unknown[0], (self._known | self._asked) - set(self._data))
            mean = "" if near is None else f"; did you mean {near}?"
            raise self.error(unknown[0], "unknown key", f"known here: {known}{mean}")


def _quote(text: str) -> str:
    """The text in quotes, shortened to what fits into a line for people."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _kind(value: object) -> str:
    names = {bool: "a boolean", str: "a string", int: "an integer", list: "a list", dict: "a table"}
    return names.get(type(value), f"a {type(value).__name__}")
