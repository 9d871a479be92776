# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime pause`: the guest's processors stand still."""

from tools.runtime.cli import words
from tools.runtime.cli.main import Context
from tools.runtime.life import talk
from tools.runtime.life.folder import Folder


def run(given: list[str], context: Context) -> int:
    """Returns once they do."""
    talk.ask(Folder(context.root, words.only_id(words.parse(given, {}), "pause")), "pause")
    return 0
