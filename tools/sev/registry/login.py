# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Who the user is to a registry: docker's config.json, and what the credential helpers that it names answer.

config.json ── credHelpers.HOST, credsStore ── docker-credential-NAME get
            └─ auths.HOST

Files are read and programs started by each side in its own way.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from typing import Any

from tools.sev.errors import FormatError

CONFIG_MAX = 1 << 20
"""Bytes of config.json that are read."""
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TOKEN_USER = "<token>"  # docker-credential-helpers: the secret is an identity token  # noqa: S105 (no secret)


@dataclass(frozen=True, kw_only=True)
class Login:
    """User and password, or an identity token (OAuth2); all empty: nobody. Never shown."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """As HTTP's Basic has it; empty without a user."""
        pair = f"{self.user}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode() if self.user else ""


NOBODY = Login()


@dataclass(frozen=True, kw_only=True)
class Helper:
    """A program that is asked for the login: `program` get, with the host on its standard input."""

    program: str
    where: str

    def answered(self, status: int, answer: bytes) -> Login:
        """What its end and its standard output say; FormatError when that is nothing."""
        if status != 0:
            # Helpers end so for hosts that they have nothing for.
            if b"credentials not found" in answer:
                return NOBODY
            hint = f"try: {self.program} list"
            raise FormatError(f"{self.program} ended with status {status}", where=self.where, hint=hint)
        try:
            found = json.loads(answer)
            user, secret = str(found["Username"]), str(found["Secret"])
        except (ValueError, LookupError, TypeError, RecursionError):
            raise FormatError(f"{self.program} gave no user and secret", where=self.where) from None
        return Login(token=secret) if user == _TOKEN_USER else Login(user=user, password=secret)

    def missing(self) -> FormatError:
        """What is wrong when there is no such program."""
        hint = "install it, or remove it from the file"
        return FormatError(f"{self.program} is not installed", where=self.where, hint=hint)


def in_config(data: bytes, host: str, *, where: str) -> Login | Helper:
    """What config.json says of `host`: a login (NOBODY for none), or whom to ask. FormatError when it is broken."""
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise FormatError("is no docker config.json", where=where, hint="log in anew, or remove it")
    helpers, store = config.get("credHelpers", {}), config.get("credsStore", "")
    helper = helpers.get(host, store) if isinstance(helpers, dict) else store
    if helper:
        if _HELPER.fullmatch(str(helper)) is None:
            raise FormatError(f"{str(helper)[:80]!r} is no name of a credential helper", where=where)
        return Helper(program=f"docker-credential-{helper}", where=where)
    auths = config.get("auths", {})
    # Older clients wrote URLs.
    names = (host, f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/", f"http://{host}")
    entry = next((auths[key] for key in names if key in auths), None) if isinstance(auths, dict) else None
    return _entry(entry, where=f"{where}: auths.{host}") if isinstance(entry, dict) else NOBODY


def _entry(entry: dict[str, Any], *, where: str) -> Login:
    if entry.get("identitytoken"):
        return Login(token=str(entry["identitytoken"]))
    if not entry.get("auth"):
        return Login(user=str(entry.get("username", "")), password=str(entry.get("password", "")))
    try:
        user, colon, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise FormatError("auth is not the base64 of USER:PASSWORD", where=where, hint="log in anew")
    return Login(user=user, password=password.rstrip("\0"))
