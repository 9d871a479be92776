# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Strict reading of one JSON object: every key is read, none is left, each value is of its kind."""

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tools.sev.errors import FormatError, nearest

Made = TypeVar("Made")


class Fields:
    """The keys of an object; `where` is its path, for messages."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise FormatError("is no object", where=where)
        self._left = dict(value)
        self.where = where

    def fault(self, key: str, what: str) -> FormatError:
        """The error for one of its keys."""
        return FormatError(what, where=self._place(key))

    def close(self) -> None:
        """FormatError for a key that nothing has read."""
        for key in self._left:
            raise self.fault(key[:80], "is no key of a workload document")

    def text(self, key: str, *, pattern: str, says: str, longest: int = 4096) -> str:
        """A string that matches `pattern` as a whole and has at most so many bytes."""
        value = self._take(key)
        if not isinstance(value, str) or "\0" in value or len(value.encode("utf-8", "surrogatepass")) > longest:
            raise self.fault(key, f"is no {says}")
        if re.fullmatch(pattern, value, re.DOTALL) is None:
            raise self.fault(key, f"is no {says}")
        return value

    def integer(self, key: str, *, low: int = 0, high: int) -> int:
        """A whole number."""
        value = self._take(key)
        if type(value) is not int or not low <= value <= high:
            raise self.fault(key, f"is no whole number from {low} to {high}")
        return value

    def flag(self, key: str) -> bool:
        """true or false."""
        value = self._take(key)
        if not isinstance(value, bool):
            raise self.fault(key, "is neither true nor false")
        return value

    def choice(self, key: str, *known: Any) -> Any:
        """One of the known values."""
        value = self._take(key)
        if not any(type(value) is type(one) and value == one for one in known):
            raise self.fault(key, f"is none of: {', '.join(str(one).lower() for one in known)}")
        return value

    def one_of(self, key: str, known: Iterable[str]) -> str | None:
        """One of these strings where one stands, which is then taken; None where something else does."""
        value = self._left.get(key)
        if not isinstance(value, str) or value not in set(known):
            return None
        self._take(key)
        return value

    def is_table(self, key: str) -> bool:
        """Whether an object is there."""
        return isinstance(self._left.get(key), dict)

    def is_number(self, key: str) -> bool:
        """Whether a whole number is there."""
        return type(self._left.get(key)) is int

    def table(self, key: str) -> "Fields":
        """An object below."""
        return Fields(self._take(key), self._place(key))

    def limit(self, key: str, high: int) -> int | None:
        """A whole number, or "unlimited" (None)."""
        if self._left.get(key) == "unlimited":
            self._take(key)
            return None
        return self.integer(key, high=high)

    def items(self, key: str, most: int, make: Callable[["Fields"], Made]) -> tuple[Made, ...]:
        """An array of at most so many values, each read by `make` as the key `item` of an object."""
        value = self._take(key)
        if not isinstance(value, list) or len(value) > most:
            raise self.fault(key, f"is no array of at most {most}")
        result = []
        for number, inner in enumerate(value):
            one = Fields({"item": inner}, f"{self._place(key)}[{number}]")
            result.append(make(one))
            one.close()
        return tuple(result)

    def rising(self, key: str, most: int, make: Callable[["Fields"], Any]) -> tuple[Any, ...]:
        """The same, sorted and without duplicates: a set has one form only."""
        found = self.items(key, most, make)
        if list(found) != sorted(set(found)):
            raise self.fault(key, "is not sorted, or has duplicates")
        return found

    def _take(self, key: str) -> Any:
        if key not in self._left:
            near = nearest(key, self._left)
            more = "" if near is None else f"; unknown key {near[:80]}, did you mean {key}?"
            raise self.fault(key, f"is missing{more}")
        return self._left.pop(key)

    def _place(self, key: str) -> str:
        if key == "item":
            return self.where
        return f"{self.where}: {key}" if ": " not in self.where else f"{self.where}.{key}"
