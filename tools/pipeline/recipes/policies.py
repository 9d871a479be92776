# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Guest policies by name, as recipes/guest.toml writes them."""

from tools.pipeline.base.toml_reader import Table
from tools.sev import policy
from tools.sev.policy import Layout, Value


def read(table: Table, layout: Layout) -> int:
    """The bits of the policy that a table of names describes; every name must be there, and no other.

    Raises UserError naming file and key.
    """
    values: dict[str, Value] = {flag.name: table.boolean(flag.name) for flag in layout.flags}
    version = table.string(layout.version, says="a version such as 1.51")
    table.close()
    try:
        return policy.encode({**values, layout.version: version}, layout)
    except ValueError as error:
        raise table.error(layout.version, str(error)) from None
