# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Typed access to JSON values that somebody else wrote; UserError names the file and the key."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from tools.launcher.base.errors import UserError

Made = TypeVar("Made")
LIST_MAX = 4096
_KINDS = {dict: "object", list: "array", str: "text", bool: "true or false", int: "whole number"}
_DEPTH_MAX = 32


def decode(data: bytes, *, where: str) -> Any:
    """The JSON that the bytes are; nested at most so deep that whoever walks it does not run out of stack."""
    try:
        value = json.loads(data)
        _bound(value, 0)
    except RecursionError:
        raise UserError("is nested too deeply", where=where) from None
    except ValueError as error:
        raise UserError(f"is no JSON: {error}", where=where) from None
    return value


def _bound(value: Any, depth: int) -> None:
    if depth > _DEPTH_MAX:
        raise RecursionError
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _bound(inner, depth + 1)


class Table:
    """A JSON object; a key that is missing, or null, is as if its value were empty."""

    def __init__(self, value: Any, *, where: str) -> None:
        if not isinstance(value, dict):
            raise UserError("is no JSON object", where=where)
        self._value = value
        self.where = where

    def fault(self, key: str, what: str) -> UserError:
        """What is wrong with the key's value."""
        return UserError(what, where=self._place(key))

    def has(self, key: str) -> bool:
        """Whether a value is there."""
        return self._value.get(key) is not None

    def table(self, key: str) -> "Table":
        """An object; an empty one where there is none."""
        return Table(self._get(key, dict) or {}, where=self._place(key))

    def tables(self, key: str) -> "list[Table]":
        """An array of objects."""
        return [Table(inner, where=f"{self._place(key)}[{n}]") for n, inner in enumerate(self._list(key))]

    def text(self, key: str, default: str = "") -> str:
        """Text without NUL that UTF-8 can write."""
        value = self._get(key, str)
        return default if value is None else self._checked(key, value)

    def flag(self, key: str) -> bool:
        """True or false."""
        return self._get(key, bool) or False

    def number(self, key: str, *, low: int = 0, high: int) -> int | None:
        """A whole number in these bounds; None where there is none."""
        value = self._get(key, int)
        if value is not None and not low <= value <= high:
            raise self.fault(key, f"is not between {low} and {high}")
        found: int | None = value
        return found

    def words(self, key: str) -> tuple[str, ...]:
        """An array of texts."""
        return self._each(key, str, self._checked)

    def numbers(self, key: str, *, high: int) -> tuple[int, ...]:
        """An array of whole numbers from 0 on."""

        def bounded(key: str, value: int) -> int:
            if not 0 <= value <= high:
                raise self.fault(key, f"has a number that is not between 0 and {high}")
            return value

        return self._each(key, int, bounded)

    def strings(self, key: str) -> dict[str, str]:
        """An object whose values are texts."""
        value: dict[str, Any] = self._get(key, dict) or {}
        if len(value) > LIST_MAX:
            raise self.fault(key, f"has more than {LIST_MAX} entries")
        table = Table(value, where=self._place(key))
        return {self._checked(key, name): table.text(name) for name in value}

    def _each(self, key: str, kind: type, make: Callable[[str, Any], Made]) -> tuple[Made, ...]:
        result = []
        for inner in self._list(key):
            if not isinstance(inner, kind) or (kind is int and isinstance(inner, bool)):
                raise self.fault(key, f"has an entry that is no {_KINDS[kind]}")
            result.append(make(key, inner))
        return tuple(result)

    def _list(self, key: str) -> list[Any]:
        value: list[Any] = self._get(key, list) or []
        if len(value) > LIST_MAX:
            raise self.fault(key, f"has more than {LIST_MAX} entries")
        return value

    def _get(self, key: str, kind: type) -> Any:
        value = self._value.get(key)
        # JSON's true is an int to Python.
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise self.fault(key, f"is no {_KINDS[kind]}")
        return value

    def _checked(self, key: str, text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self.fault(key, "has half of a character, which no text in UTF-8 has") from None
        if "\0" in text:
            raise self.fault(key, "has a NUL byte")
        return text

    def _place(self, key: str) -> str:
        return f"{self.where}.{key}" if ": " in self.where else f"{self.where}: {key}"
