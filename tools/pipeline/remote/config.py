# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Whose results are taken, and with which key ours are signed: remote.toml in the user's configuration folder.

    [builders.ci]
    key = "ci.pub"                 # PEM; relative to this file. What this key has signed is taken

    [push]
    key = "me.pem"                 # a private key as `publish --key` takes it; without it nothing is sent

    [registry]
    ca = "ca.pem"                  # authorities that are believed instead of this machine's

    [service]                      # of Remote Execution
    ca = "ca.pem"                  # the same
    compare = 25                   # percent of the steps executed there that are run here, too; one at least
    platform = ["pool=large"]      # properties that steps ask for besides those that all need
    action-cache = "believed"      # results that it has already are taken, too; "ignored" if nothing is said

Where the shared cache is, SEV_ARTIFACTS_REMOTE says; this file alone changes nothing.
"""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.pipeline.base import ambient, toml_reader
from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.store.origin import Origin
from tools.pipeline.sign import keys
from tools.pipeline.sign.keys import Public

_PROPERTY = r"[A-Za-z0-9_.-]{1,64}=[^\x00-\x1f]{0,200}"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
COMPARE = 10
"""Percent of the steps executed elsewhere that are run here, too, unless the file says another share."""
_HINT = "docs/scale.md shows one"


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Somebody whose results are taken: what the user calls him, and his key."""

    name: str
    public: Public
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Config:
    """The file. `builders` are by their keys' fingerprints; `push` and `ca` are empty where nothing is said."""

    path: Path
    builders: Mapping[str, Builder]
    push: str = ""
    ca: Path | None = None
    service_ca: Path | None = None
    share: float = COMPARE / 100
    platform: Mapping[str, str] = field(default_factory=dict)
    cached: bool = False

    def believes(self, origin: Origin) -> bool:
        """Whether whoever vouches for a result is listed."""
        return origin.builder in self.builders

    def said(self, origin: Origin) -> str:
        """Where a signed record was, and whose it is."""
        return f"{origin}, signed by {self.name(origin.builder)}"

    def name(self, fingerprint: str) -> str:
        """What the user calls a builder."""
        known = self.builders.get(fingerprint)
        return known.name if known else fingerprint


def load(path: Path | None = None, *, service: bool = False, shares: bool = True) -> Config:
    """Read the file; UserError for one that is missing, wrong, or that somebody else can write to.

    A `service` can be named for its own sake: unless results are to be shared, there need be no file, nor builders.
    """
    path = path or ambient.remote_config()
    if service and not shares and not path.exists():
        return Config(path=path, builders={})
    _check_ours(path)
    table = toml_reader.load(path, shown_as=str(path))
    builders: dict[str, Builder] = {}
    if table.has("builders"):
        listed = table.table("builders")
        for name in listed.keys():  # noqa: SIM118 (a table of ours, no dict)
            entry = listed.table(name)
            if re.fullmatch(_NAME, name) is None:
                raise entry.error("", "is no name of a builder", "letters, digits and . _ - only")
            where = path.parent / entry.string("key")
            _check_ours(where)
            public = keys.load_public(where)
            entry.close()
            fingerprint = keys.fingerprint(public)
            if fingerprint in builders:
                raise listed.error(name, f"has the key of {builders[fingerprint].name}", "each builder has his own")
            builders[fingerprint] = Builder(name=name, public=public, fingerprint=fingerprint)
        listed.close()
    push, ca = "", None
    if table.has("push"):
        entry = table.table("push")
        push = entry.string("key")
        entry.close()
    if table.has("registry"):
        entry = table.table("registry")
        ca = _authorities(path.parent / entry.string("ca"))
        entry.close()
    more = _service(table.table("service"), path) if table.has("service") else {}
    table.close()
    if shares and not builders and not push:
        raise UserError("lists no builder and no key to push with, so it shares nothing", where=str(path), hint=_HINT)
    return Config(path=path, builders=builders, push=push, ca=ca, **more)


def _service(table: toml_reader.Table, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if table.has("ca"):
        found["service_ca"] = _authorities(path.parent / table.string("ca"))
    if table.has("compare"):
        found["share"] = table.integer("compare", low=0, high=100) / 100
    if table.has("action-cache"):
        said = table.string("action-cache", pattern="believed|ignored", says="believed or ignored")
        found["cached"] = said == "believed"
    if table.has("platform"):
        words = table.strings("platform")
        for word in words:
            if re.fullmatch(_PROPERTY, word) is None:
                raise table.error("platform", f"{word!r} is no property", "NAME=VALUE")
        found["platform"] = {name: value for name, _, value in (word.partition("=") for word in words)}
        if len(found["platform"]) != len(words):
            raise table.error("platform", "names a property twice", "each has one value")
    table.close()
    return found


def _authorities(path: Path) -> Path:
    """A file of them, which need not be there before it is used."""
    if path.exists():
        _check_ours(path)
    return path


def _check_ours(path: Path) -> None:
    """Whoever can write the list, or a file that it names, decides whose results are built in."""
    try:
        status = path.stat()
    except OSError as error:
        hint = f"{ambient.REMOTE} needs it: {_HINT}"
        raise UserError(f"cannot be read: {error.strerror}", where=str(path), hint=hint) from None
    if status.st_uid not in {0, ambient.effective_uid()} or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        what = f"others can write to it (uid {status.st_uid}, mode {mode:o})"
        raise UserError(what, where=str(path), hint=f"chmod go-w {os.fspath(path)}, as its owner")
