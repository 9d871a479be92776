# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Who we are to a registry: docker's config.json, and the credential helpers that it names.

config.json ── credHelpers.HOST, credsStore ── docker-credential-NAME get
            └─ auths.HOST
"""

import base64
import binascii
import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.launcher.base.errors import UserError

_CONFIG_MAX = 1 << 20
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HELPER_SECONDS = 60
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


def find(host: str) -> Login:
    """What the user has logged in with at `host`; NOBODY when he has not. UserError for a config that is broken."""
    path = _path()
    if path is None or not path.is_file():
        return NOBODY
    config = _read(path)
    helpers, store = config.get("credHelpers", {}), config.get("credsStore", "")
    helper = helpers.get(host, store) if isinstance(helpers, dict) else store
    if helper:
        return _ask(str(helper), host, where=str(path))
    auths = config.get("auths", {})
    # Older clients wrote URLs.
    names = (host, f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/", f"http://{host}")
    entry = next((auths[key] for key in names if key in auths), None) if isinstance(auths, dict) else None
    return _entry(entry, where=f"{path}: auths.{host}") if isinstance(entry, dict) else NOBODY


def _path() -> Path | None:
    chosen, home = os.environ.get("DOCKER_CONFIG", ""), os.environ.get("HOME", "")
    if chosen:
        return Path(chosen) / "config.json"
    return Path(home) / ".docker/config.json" if Path(home).is_absolute() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(_CONFIG_MAX))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise UserError("is no docker config.json", where=str(path), hint="log in anew, or remove it")
    return config


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
        raise UserError("auth is not the base64 of USER:PASSWORD", where=where, hint="log in anew")
    return Login(user=user, password=password.rstrip("\0"))


def _ask(helper: str, host: str, *, where: str) -> Login:
    name = f"docker-credential-{helper}"
    if _HELPER.fullmatch(helper) is None:
        raise UserError(f"{helper[:80]!r} is no name of a credential helper", where=where)
    try:
        done = subprocess.run(
            [name, "get"], input=host.encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False,
            timeout=_HELPER_SECONDS,
        )  # fmt: skip
    except FileNotFoundError:
        hint = "install it, or remove it from the file"
        raise UserError(f"{name} is not installed", where=where, hint=hint) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{name} does not answer", where=where) from None
    if done.returncode != 0:
        # Helpers end so for hosts that they have nothing for.
        if b"credentials not found" in done.stdout:
            return NOBODY
        raise UserError(f"{name} ended with status {done.returncode}", where=where, hint=f"try: {name} list")
    try:
        found = json.loads(done.stdout)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{name} gave no user and secret", where=where) from None
    return Login(token=secret) if user == _TOKEN_USER else Login(user=user, password=secret)
