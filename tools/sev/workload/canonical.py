# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""JSON in one form: RFC 8785 (JCS), with whole numbers only.

Keys sorted, no blanks, UTF-8; in strings `"` and `\\` are escaped, and below U+0020 `\\b \\t \\n \\f \\r` or `\\u00xx`.
"""

import json
from typing import Any

from tools.sev.errors import FormatError

DOCUMENT_MAX = 1 << 20
"""Bytes of a document."""
INTEGER_MAX = (1 << 53) - 1
"""Above it, programs that keep numbers as floats would read another number (RFC 7493)."""
DEPTH_MAX = 16
_HINT = "`sev-launch workload --canonical FILE` prints it in that form"


def encode(value: Any) -> bytes:
    """The one form of a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode(data: bytes, *, where: str, canonical: bool = True) -> Any:
    """The value that `data` writes; FormatError when it is not in the one form, or (`canonical` False) no JSON."""
    if len(data) > DOCUMENT_MAX:
        raise FormatError(f"larger than {DOCUMENT_MAX} bytes", where=where, hint="is this the right file?")
    if not data.strip():
        raise FormatError("is empty", where=where)
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_no_float,
            parse_constant=_no_float,
        )
        _check(value, 0)
        again = encode(value)
    except UnicodeError:
        raise FormatError("is not text in UTF-8", where=where) from None
    except RecursionError:
        raise FormatError(f"is nested deeper than {DEPTH_MAX} levels", where=where) from None
    except ValueError as error:
        raise FormatError(f"is not the JSON of a document: {error}", where=where) from None
    if canonical and again != data:
        at = next((i for i, (a, b) in enumerate(zip(again, data, strict=False)) if a != b), min(len(again), len(data)))
        raise FormatError(f"is not in canonical form, from byte {at} on", where=where, hint=_HINT)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice[:80]!r} stands twice in one object")
    return result


def _integer(text: str) -> int:
    if text.startswith("-") or len(text) > 16 or int(text) > INTEGER_MAX:
        raise ValueError(f"{text[:40]} is no whole number from 0 to 2^53-1")
    return int(text)


def _no_float(text: str) -> None:
    raise ValueError(f"{text[:40]} is no whole number")


def _check(value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise ValueError(f"nested deeper than {DEPTH_MAX} levels")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check(inner, depth + 1)
