# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Who we are to a registry: docker's config.json read, its credential helpers asked (tools/sev/registry/login.py)."""

import os
import subprocess
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.sev.errors import FormatError
from tools.sev.registry.login import CONFIG_MAX, NOBODY, Helper, Login, in_config

_HELPER_SECONDS = 60


def find(host: str) -> Login:
    """What the user has logged in with at `host`; NOBODY when he has not. UserError for a config that is broken."""
    path = _path()
    if path is None or not path.is_file():
        return NOBODY
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_MAX)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    try:
        found = in_config(data, host, where=str(path))
        return _ask(found, host) if isinstance(found, Helper) else found
    except FormatError as error:
        raise UserError.of(error) from None


def _path() -> Path | None:
    chosen, home = os.environ.get("DOCKER_CONFIG", ""), os.environ.get("HOME", "")
    if chosen:
        return Path(chosen) / "config.json"
    return Path(home) / ".docker/config.json" if Path(home).is_absolute() else None


def _ask(helper: Helper, host: str) -> Login:
    try:
        done = subprocess.run(
            [helper.program, "get"], input=host.encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            check=False, timeout=_HELPER_SECONDS,
        )  # fmt: skip
    except FileNotFoundError:
        raise helper.missing() from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{helper.program} does not answer", where=helper.where) from None
    return helper.answered(done.returncode, done.stdout)
