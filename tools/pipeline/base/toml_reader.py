# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The strict reader of recipes and locks (tools/sev/toml.py) with this side's error."""

from tools.pipeline.base.errors import UserError
from tools.sev import toml


class Table(toml.Table):
    """A table of a file that people of this project write: what is wrong in it is their mistake."""

    fault = UserError
    no_file_hint = "is the checkout complete?"


load = Table.load
parse = Table.parse
