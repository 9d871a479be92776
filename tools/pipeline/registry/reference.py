# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A place in a registry as it is typed; tools/sev/registry/reference.py has its form."""

import re

from tools.pipeline.base.errors import UserError
from tools.sev.errors import FormatError
from tools.sev.registry import reference
from tools.sev.registry.reference import Reference

_FORM = "expected HOST[:PORT]/NAME[:TAG], for example registry.example/team/sev-artifacts:v1"


def parse(text: str, *, where: str, form: str = _FORM) -> Reference:
    """UserError, naming `where` and saying the `form`, for what is no reference."""
    try:
        found = reference.parse(text, form=form, where=where)
    except FormatError as error:
        raise UserError.of(error) from None
    port = re.search(r":([0-9]+)\Z", found.host)
    if port and not 0 < int(port[1]) < 1 << 16:
        raise UserError(f"{port[1]} is no port", where=where, hint="a port is in 1…65535")
    return found
