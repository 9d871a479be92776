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


def because(table: Table, bits: int, layout: Layout) -> str:
    """Why a policy leaves the guest open to its host, on one line; empty when it does not.

    `table` is the one that holds the policy's. Debugging is refused elsewhere, whatever is said for it. UserError for
    an opening without words, and for words without an opening.
    """
    key = "open-because"
    open_names = [name for name, _ in policy.openings(bits, layout) if name != "debug"]
    if open_names:
        if not table.has(key):
            names = " and ".join(open_names)
            raise table.error(
                f"policy.{open_names[0]}",
                f"a host can read a guest through {names}",
                f'say false, or say in [{table.path}] why it must be so: {key} = "…"',
            )
        return table.string(key, pattern=r"[^\x00-\x1f\x7f]{10,300}", says="a sentence of 10 to 300 characters")
    if table.has(key):
        raise table.error(key, "the policy leaves nothing open", "remove it")
    return ""
