# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime state`."""

import os

from tools.runtime.cli import words
from tools.runtime.life.folder import Folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tools.runtime.cli.main import Context


def run(given: list[str], context: "Context") -> int:
    """Print it as the OCI runtime specification has it."""
    text = Folder(context.root, words.only_id(words.parse(given, {}), "state")).state() + b"\n"
    while text:
        text = text[os.write(1, text) :]
    return 0
