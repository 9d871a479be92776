# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Options that were given, by name. Imports nothing that is slow."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Values(dict[str, object]):
    """By the options' names with underscores: `values.cpus` is `values["cpus"]`."""

    def __getattr__(self, name: str) -> "Any":
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None
