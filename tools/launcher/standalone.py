# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that start no guest: each brings its own options and needs none of the others'."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from . import policy_command
from .ui import Ui


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command: its name, a line for people, what it adds to its parser, and what it does.

    `run` returns the exit status and raises LauncherError like everything here.
    """

    name: str
    text: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Ui], int]
    examples: str = ""


COMMANDS: tuple[Command, ...] = (
    Command(
        name="policy",
        text="say what a guest policy's bits mean, or make the bits from names",
        add=policy_command.add,
        run=policy_command.run,
        examples=policy_command.EXAMPLES,
    ),
)
"""In the order in which --help lists them."""


def find(words: list[str]) -> Command | None:
    """The command that the words call, if it is one of these."""
    return next((command for command in COMMANDS if words[:1] == [command.name]), None)
