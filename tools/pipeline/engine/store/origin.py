# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Whose word a result is: this user's sandbox, or somebody else's machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class How(StrEnum):
    """How a result came to be known here."""

    RUN = "run"
    """A step of this user ran, in the sandbox of this machine."""
    CACHE = "cache"
    """Somebody's signed record in a shared cache."""
    EXECUTED = "executed"
    """An execution service ran the step for us; nobody has compared that yet."""
    COMPARED = "compared"
    """The same, of a build of which steps chosen at random were run here too, with the same bytes."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """`place` names the cache or the service, `builder` whoever vouches for it: a key's fingerprint; "" for nobody."""

    how: How = How.RUN
    place: str = ""
    builder: str = ""

    @property
    def ours(self) -> bool:
        """Whether this user's own sandbox ran the step."""
        return self.how is How.RUN

    @property
    def executor(self) -> str:
        """The service that ran the step, and its name for the machine."""
        return f"{self.place}{f' (worker {self.builder})' if self.builder else ''}"

    def document(self) -> dict[str, str]:
        """As JSON."""
        return {"how": str(self.how), "place": self.place, "builder": self.builder}

    def __str__(self) -> str:
        match self.how:
            case How.RUN:
                return "run here"
            case How.CACHE:
                return f"cache {self.place}"
            case How.EXECUTED | How.COMPARED:
                return f"executed at {self.place}"


OURS = Origin()


def parse(document: Mapping[str, Any]) -> Origin:
    """From its JSON; ValueError, KeyError or TypeError for what is none."""
    place, builder = document["place"], document["builder"]
    if not isinstance(place, str) or not isinstance(builder, str):
        raise TypeError("place and builder are texts")
    return Origin(how=How(document["how"]), place=place, builder=builder)
