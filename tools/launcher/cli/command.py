# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a command that starts no guest is; standalone.py lists them."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from tools.launcher.base.ui import Ui


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
