# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that start no guest: each brings its own options and needs none of the others'."""

from . import policy_command
from .attest import verify
from .measure import digest_command
from .subcommand import Command

COMMANDS: tuple[Command, ...] = (digest_command.COMMAND, policy_command.COMMAND, verify.COMMAND)
"""In the order in which --help lists them."""


def find(words: list[str]) -> Command | None:
    """The command that the words call, if it is one of these."""
    return next((command for command in COMMANDS if words[:1] == [command.name]), None)
