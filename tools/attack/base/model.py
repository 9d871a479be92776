# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What an attack is, and what comes out of it: plain values.

Attack ── attempt(lab, target, folder) ── Outcome ─┐
   └───── control ─────────────────────── Outcome ─┴─ Verdict
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.target import Target


class Topic(StrEnum):
    """What is attacked; the folders of the catalogue."""

    BOOT = "boot"
    ACPI = "acpi"
    DEVICES = "devices"
    STORAGE = "storage"
    CHANNEL = "channel"
    LIFE = "life"


class Part(StrEnum):
    """What a row says something of."""

    FIRMWARE = "firmware"
    KERNEL = "kernel"
    AGENT = "agent"
    LAUNCHER = "launcher"


class Reach(IntEnum):
    """How far an honest start comes."""

    NOTHING = 0
    KERNEL = 1
    AGENT = 2


class Verdict(StrEnum):
    """What a row comes to."""

    HELD = "held"
    BROKEN = "broken"
    INCONCLUSIVE = "inconclusive"
    UNJUDGED = "unjudged"


class UnjudgedError(Exception):
    """These artifacts are not such that the attack says anything about them; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one start.

    `succeeded`: the attack got what it wanted; for an honest case: it did what it should. `guest`: what the guest
    did, in a few words.
    """

    succeeded: bool
    guest: str


Attempt = Callable[[Lab, Target, Path], Outcome]
"""Plays the host once against the target; the folder is empty, its own, and removed afterwards.

What keeps it from an answer is an exception: its row is then inconclusive, never held.
"""


@dataclass(frozen=True, kw_only=True)
class Undefended:
    """The attack's own attempt, against a build that lacks the defence: it must succeed.

    `what` is shown; `target` makes the build from the one that is judged: all else is the same.
    """

    what: str
    target: Callable[[Lab, Target], Target]


@dataclass(frozen=True, kw_only=True)
class Weaker:
    """Where the defence is switched on by the host's owner (an option, a word on the command line): the same payload
    without it, against the same artifacts. It must succeed."""

    what: str
    attempt: Attempt


@dataclass(frozen=True, kw_only=True)
class Honest:
    """For what no undefended build exists: the honest case, against the same artifacts. It must succeed."""

    what: str
    attempt: Attempt


Control = Undefended | Weaker | Honest


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One row of the table.

    `name` is unique in its module. `host` says what the host does. `parts`: whose defence it judges; when one of
    them is not in a folder that --out names, the row is unjudged. `reach`: how far an honest start of the target must
    come before the row says anything. `short`: it is in the short form.
    """

    name: str
    host: str
    attempt: Attempt
    control: Control
    parts: frozenset[Part] = frozenset({Part.FIRMWARE, Part.KERNEL, Part.AGENT})
    reach: Reach = Reach.AGENT
    short: bool = False


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An attack with its place in the catalogue; `name` is TOPIC/MODULE/NAME."""

    topic: Topic
    name: str
    attack: Attack


@dataclass(frozen=True, kw_only=True)
class Row:
    """An attack that was made. `control` and `guest` in words; `seconds` that it took."""

    entry: Entry
    verdict: Verdict
    guest: str
    control: str
    seconds: float
