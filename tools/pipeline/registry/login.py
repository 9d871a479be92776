# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Who we are to a registry: docker's config.json, and the credential helpers that it names.

config.json ── credHelpers.HOST, credsStore ── docker-credential-NAME get
            └─ auths.HOST
"""

import base64
import binascii
import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.pipeline.base import ambient, children
from tools.pipeline.base.errors import UserError

_CONFIG_MAX = 1 << 20
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TOKEN_USER = "<token>"  # docker-credential-helpers: the secret is an identity token  # noqa: S105 (no secret)


@dataclass(frozen=True, kw_only=True)
class Login:
    """User and password, or an identity token (OAuth2); all empty: nobody. Never shown."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def known(self) -> bool:
        """Whether there is anything to say."""
        return bool(self.user or self.token)


NOBODY = Login()


def find(host: str) -> Login:
    """What the user has logged in with at `host`; NOBODY when he has not. UserError for a config that is broken."""
    path = ambient.docker_config()
    if path is None or not path.is_file():
        return NOBODY
    config = _read(path)
    helpers, store = config.get("credHelpers", {}), config.get("credsStore", "")
    helper = helpers.get(host, store) if isinstance(helpers, dict) else store
    if helper:
        return _ask(str(helper), host, where=str(path))
    auths = config.get("auths", {})
    entry = next((auths[key] for key in _keys(host) if key in auths), None) if isinstance(auths, dict) else None
    return _entry(entry, where=f"{path}: auths.{host}") if isinstance(entry, dict) else NOBODY


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(_CONFIG_MAX))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise UserError("is no docker config.json", where=str(path), hint="log in anew, or remove it")
    return config


def _keys(host: str) -> tuple[str, ...]:
    # Older clients wrote URLs.
    return host, f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/", f"http://{host}"


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
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    try:
        with children.running([name, "get"], **pipes) as process:
            answer, _ = process.communicate(host.encode())
    except FileNotFoundError:
        hint = "install it, or remove it from the file"
        raise UserError(f"{name} is not installed", where=where, hint=hint) from None
    if process.returncode != 0:
        # Helpers end so for hosts that they have nothing for.
        if b"credentials not found" in answer:
            return NOBODY
        raise UserError(f"{name} ended with status {process.returncode}", where=where, hint=f"try: {name} list")
    try:
        found = json.loads(answer)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{name} gave no user and secret", where=where) from None
    return Login(token=secret) if user == _TOKEN_USER else Login(user=user, password=secret)
