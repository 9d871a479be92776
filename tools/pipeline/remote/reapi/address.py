# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Where a Remote Execution API service is: grpc://HOST:PORT[/INSTANCE], or grpcs://… for TLS."""

import re
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import ambient
from tools.pipeline.base.errors import UserError

SCHEMES = ("grpc://", "grpcs://")
_FORM = re.compile(r"(grpcs?)://((?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5}))(?:/([A-Za-z0-9._/-]*))?")


@dataclass(frozen=True, kw_only=True)
class Address:
    """A service. `instance` is "" where it has one only; `ca` are the authorities to believe, in PEM."""

    target: str
    instance: str
    secure: bool
    ca: Path | None = None

    def __str__(self) -> str:
        """As people write it."""
        return f"grpc{'s' if self.secure else ''}://{self.target}{'/' if self.instance else ''}{self.instance}"


def is_service(text: str) -> bool:
    """Whether the text means such a service, right or wrong, and no registry."""
    return text.startswith(SCHEMES)


def parse(text: str, *, ca: Path | None = None) -> Address:
    """The service that the user names; UserError when it is no such address."""
    found = _FORM.fullmatch(text)
    if found is None or not 0 < int(found[3]) < 1 << 16:
        raise UserError(
            f"{text[:80]!r} is no address of a service", where=ambient.REMOTE, hint="grpc://HOST:PORT/INSTANCE"
        )
    return Address(target=found[2], instance=(found[4] or "").strip("/"), secure=found[1] == "grpcs", ca=ca)
