# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A place in a registry as it is typed; tools/sev/registry/reference.py has its form."""

from tools.pipeline.base.errors import UserError
from tools.sev.errors import FormatError
from tools.sev.registry import reference
from tools.sev.registry.reference import Reference

_FORM = "expected HOST[:PORT]/NAME[:TAG], for example registry.example/team/sev-artifacts:v1"


def parse(text: str, *, where: str, form: str = _FORM) -> Reference:
    """UserError, naming `where` and saying the `form`, for what is no reference."""
    try:
        return reference.parse(text, form=form, where=where)
    except FormatError as error:
        raise UserError.of(error) from None
