# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime source`: the program's source, as it was packed."""

from tools.launcher.base.errors import UserError
from tools.launcher.options.source import unpack
from tools.runtime.cli.main import Context


def run(given: list[str], _context: Context) -> int:
    """Unpack it."""
    if len(given) != 1:
        raise UserError("source takes one folder, which must not exist")
    unpack(given[0])
    return 0
