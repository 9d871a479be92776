# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Who we are to a registry: docker's config.json read, its credential helpers asked (tools/sev/registry/login.py)."""

import subprocess

from tools.pipeline.base import ambient, children
from tools.pipeline.base.errors import UserError
from tools.sev.errors import FormatError
from tools.sev.registry.login import CONFIG_MAX, NOBODY, Helper, Login, in_config


def find(host: str) -> Login:
    """What the user has logged in with at `host`; NOBODY when he has not. UserError for a config that is broken."""
    path = ambient.docker_config()
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


def _ask(helper: Helper, host: str) -> Login:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    try:
        with children.running([helper.program, "get"], **pipes) as process:
            answer, _ = process.communicate(host.encode())
    except FileNotFoundError:
        raise helper.missing() from None
    return helper.answered(process.returncode, answer)
