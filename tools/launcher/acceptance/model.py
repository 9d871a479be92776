# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is seen, and what is said of it. Nothing here starts anything."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from tools.launcher.attest.certificates import Given
from tools.launcher.channel.attest import Report as Answer
from tools.launcher.memory.pool import Bounced
from tools.launcher.memory.verdict import Verdict as Seen
from tools.sev.modes import Mode


class Guest(StrEnum):
    """A kind of guest: without protection, or in a mode."""

    PLAIN = "unprotected"
    SEV = "sev"
    SEV_ES = "sev-es"
    SNP = "snp"

    @property
    def mode(self) -> Mode | None:
        """Its mode; None: no protection."""
        return None if self is Guest.PLAIN else Mode(self.value)


PROTECTED = (Guest.SEV, Guest.SEV_ES, Guest.SNP)


class Result(StrEnum):
    """How a check ended."""

    HELD = "held"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`seen`: what was seen, or why nothing could be. `control`: what went the other way in the same run."""

    result: Result
    seen: str
    control: str = ""


class Step(StrEnum):
    """A start of a guest, by what is special about it."""

    HONEST = "honest"
    OPEN = "open"
    KERNEL = "another kernel"
    INITRAMFS = "another initramfs"
    CMDLINE = "another command line"
    OTHER_DIGEST = "an ID block for another launch digest"
    OTHER_SIGNATURE = "an ID block with another signature"
    PLATFORM = "a device without ACCESS_PLATFORM"


class End(StrEnum):
    """How a guest whose agent does not speak is done with."""

    ENDED = "QEMU ended"
    LOOPS = "it spends time and says nothing"
    SILENT = "nothing within the time"


@dataclass(frozen=True, kw_only=True)
class Start:
    """A start. `hello`: seconds to the agent's first word, `processor`: of the processor until then or the end, by
    whoever executes the guest; `end` where the agent did not speak, and `how` a QEMU ended. `said`: QEMU's last lines.
    `trouble`: what went wrong otherwise, behind the first word too. `anew`: how an emulated start before this ended.
    """

    hello: float | None = None
    processor: float = 0.0
    end: End | None = None
    said: tuple[str, ...] = ()
    trouble: str = ""
    how: str = ""
    anew: str = ""

    @property
    def why(self) -> str:
        """Why its agent did not speak, with QEMU's last line."""
        last = f": {self.said[-1]}" if self.said else ""
        return f"{self.trouble or self.how or self.end}{last}"


@dataclass(frozen=True, kw_only=True)
class Talk:
    """What the honest guest said, and what was seen of it; None: it did not come that far.

    `refused`: what became of a command of the host's choice, an error's number in the protocol; -1: it ran.
    `touched`: bytes of its memory that are in QEMU's, and of all; `unread`: why none could be read. `identity`: of
    QEMU, by the names of /proc/PID/status. `seconds` by phase.
    """

    log: str | None = None
    memory: Seen | None = None
    touched: tuple[int, int] | None = None
    unread: str = ""
    bounced: Bounced | None = None
    refused: int | None = None
    identity: dict[str, str] = field(default_factory=dict)
    report: Answer | None = None
    measured: "Measured | None" = None
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An SEV or SEV-ES guest: whether the owner's key says that the launch was the expected one, by policy and digest.

    And whether it says the same of another digest, and of another policy.
    """

    expected: bool
    other_digest: bool
    other_policy: bool


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a report must say: launch digest and policy of the guest, over which nonce, by which ID key."""

    digest: bytes
    policy: int
    nonce: bytes
    id_key_digest: bytes


@dataclass(frozen=True, kw_only=True)
class Pages:
    """`seconds` to the agent's first word by how many pages of firmware are measured; the shortest of `tries`."""

    seconds: dict[int, float]
    tries: int

    @property
    def of_one(self) -> float:
        """Seconds for a page: the slope between the least and the most."""
        least, most = min(self.seconds), max(self.seconds)
        return (self.seconds[most] - self.seconds[least]) / (most - least)


@dataclass(kw_only=True)
class Evidence:
    """What was seen of one kind of guest. `why_not`: why this host has none, or nobody asked for it.

    `without`: why a step was not taken. `changed`: what was measured of a guest with another blob. `machinery`: what
    QEMU said of ID blocks, whole and cut short.
    """

    guest: Guest
    why_not: tuple[str, ...] = ()
    starts: dict[Step, Start] = field(default_factory=dict)
    without: dict[Step, str] = field(default_factory=dict)
    talk: Talk | None = None
    open_talk: Talk | None = None
    log_without_platform: str | None = None
    expected: Expected | None = None
    given: Given | None = None
    changed: dict[Step, "Measured | None"] = field(default_factory=dict)
    machinery: tuple[str, str] | None = None
    pages: Pages | None = None


Judge = Callable[[Evidence, Evidence], Verdict]
"""Of a guest's evidence, and that of the unprotected one of the same run, by which it is controlled."""


def _nothing(_own: Evidence, _plain: Evidence) -> Verdict:
    return Verdict(result=Result.NOT_RUN, seen="nobody looks at it")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A line of the table. `guests`: those for which it is made; `says`: what it means when it holds.

    `beyond`: why this command cannot show it, on any host.
    """

    name: str
    says: str
    guests: tuple[Guest, ...]
    judge: Judge = _nothing
    beyond: str = ""

    @property
    def needs_hardware(self) -> bool:
        """Whether docs/threat-model.md must name it."""
        return any(guest is not Guest.PLAIN for guest in self.guests)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A check of a guest, and its verdict."""

    check: Check
    guest: Guest
    verdict: Verdict
