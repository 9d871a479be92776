# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A place in a registry as it is typed; tools/sev/registry/reference.py has its form."""

from tools.launcher.base.errors import UserError
from tools.sev.errors import FormatError
from tools.sev.registry import reference
from tools.sev.registry.reference import Reference

_FORM = "expected HOST[:PORT]/NAME:TAG or HOST[:PORT]/NAME@sha256:DIGEST"


def parse(text: str) -> Reference:
    """UserError for what is no reference. A digest counts alone where it is given; no tag is guessed."""
    try:
        found = reference.parse(text, form=_FORM, where="REF")
    except FormatError as error:
        raise UserError.of(error) from None
    if not found.tag and not found.digest:
        raise UserError("neither tag nor digest", where=text[:200], hint=_FORM)
    return found
