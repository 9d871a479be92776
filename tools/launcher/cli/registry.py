# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that start no guest: each brings its own options and needs none of the others'."""

from tools.launcher.attest import verify
from tools.launcher.cli import digest, policy
from tools.launcher.cli.command import Command

COMMANDS: tuple[Command, ...] = (digest.COMMAND, policy.COMMAND, verify.COMMAND)
"""In the order in which --help lists them."""


def find(words: list[str]) -> Command | None:
    """The command that the words call, if it is one of these."""
    return next((command for command in COMMANDS if words[:1] == [command.name]), None)
