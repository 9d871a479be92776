# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The highest security versions that this machine has seen, by policy and profile. What is lower is refused.

    STATE/NAME.json    NAME is the policy's `name`; STATE is $XDG_STATE_HOME/sev-launch, or --state

Whoever can write there can take it away: it is this user's own, as the policy is.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.launcher.base.errors import UserError

_SCHEMA = 1
_MAX = 4 << 20  # bytes
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_HINT = "restore it; without it an older version would pass once"


@dataclass(frozen=True, kw_only=True)
class ByKey:
    """What one key has said: its highest SVN, and the date of its newest "latest"; None: none yet."""

    svn: int
    latest: datetime | None = None


@dataclass(kw_only=True)
class Seen:
    """Of one policy and profile: the highest SVN that was accepted, and what each key (by fingerprint) has said."""

    svn: int = 0
    keys: dict[str, ByKey] = field(default_factory=dict)

    def heard(self, fingerprint: str, svn: int, latest: datetime | None = None) -> None:
        """Somebody has said so; nothing goes down."""
        old = self.keys.get(fingerprint, ByKey(svn=0))
        dates = [date for date in (old.latest, latest) if date is not None]
        self.keys[fingerprint] = ByKey(svn=max(old.svn, svn), latest=max(dates, default=None))


def default_folder() -> Path:
    """Where this user's state is (XDG Base Directory Specification); UserError without a home."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not Path(base).is_absolute():
        home = os.environ.get("HOME", "")
        if not Path(home).is_absolute():
            raise UserError("no HOME and no XDG_STATE_HOME, so there is no place to remember", hint="give --state DIR")
        base = str(Path(home) / ".local/state")
    return Path(base) / "sev-launch"


def update(folder: Path, name: str, profile: str, change: Callable[[Seen], None]) -> None:
    """Let `change` look at what was seen, and keep what it makes of that, even when it raises.

    UserError when the state cannot be read or written: nothing is accepted then.
    """
    path = folder / f"{name}.json"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(folder / f".{name}.lock"):
            document = _read(path)
            seen = _seen(document, profile, path)
            try:
                change(seen)
            finally:
                document["profiles"][profile] = _document(seen)
                _write(path, json.dumps(document, indent=1, sort_keys=True).encode())
    except OSError as error:
        what = error.strerror or "cannot be written"
        raise UserError(what, where=str(path), hint="give another folder with --state DIR") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX + 1)
    except FileNotFoundError:
        return {"schema": _SCHEMA, "profiles": {}}
    try:
        document = json.loads(raw)
        good = document["schema"] == _SCHEMA and isinstance(document["profiles"], dict)
    except (ValueError, LookupError, TypeError, RecursionError):
        good = False
    if not good:
        raise UserError("is not what this program has written", where=str(path), hint=_HINT)
    found: dict[str, Any] = document
    return found


def _seen(document: dict[str, Any], profile: str, path: Path) -> Seen:
    part = document["profiles"].get(profile, {"svn": 0, "keys": {}})
    try:
        keys = {
            str(name): ByKey(svn=int(entry["svn"]), latest=_time(entry.get("latest")))
            for name, entry in part["keys"].items()
        }
        return Seen(svn=int(part["svn"]), keys=keys)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError("is not what this program has written", where=str(path), hint=_HINT) from None


def _document(seen: Seen) -> dict[str, Any]:
    keys: dict[str, dict[str, Any]] = {}
    for name, by_key in seen.keys.items():
        keys[name] = {"svn": by_key.svn}
        if by_key.latest is not None:
            keys[name]["latest"] = by_key.latest.strftime(_TIME)
    return {"svn": seen.svn, "keys": keys}


def _time(text: Any) -> datetime | None:
    return None if text is None else datetime.strptime(text, _TIME).replace(tzinfo=UTC)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
