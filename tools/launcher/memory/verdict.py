# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What was seen → one word, and why. Nothing counts as encrypted that was merely not found."""

from dataclasses import dataclass
from enum import StrEnum

from tools.launcher.memory.scan import Seen

_MOST = 0.9
"""Of the pages that are not zero: so many must look random. Compressed data in an open guest does not come close."""
_SAMPLED_MIN = 64
"""Pages that are not zero, without which nothing is said of them."""
_SHOWN = 0.02
"""Of the memory: more than that is not shared by a guest whose private pages are elsewhere."""
BANNER = b"Linux version "
"""Every Linux has it in memory, and no device is given it: where it can be read, so can the rest."""


class Word(StrEnum):
    """What this host sees of the guest's memory."""

    PLAINTEXT = "plaintext"
    CIPHERTEXT = "ciphertext"
    NOT_ACCESSIBLE = "not accessible"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`why` is one sentence."""

    word: Word
    why: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """`own` was seen in QEMU's heap, `guest` in the guest's memory.

    `own_control` must be in the heap, one of `guest_controls` in the guest's memory; `marker` only in the guest.
    """

    marker: bytes
    own_control: bytes
    guest_controls: tuple[bytes, ...]
    own: Seen
    guest: Seen


def judge(evidence: Evidence) -> Verdict:
    """The verdict: what was found counts first, then whether anything could have been found."""
    guest = evidence.guest
    why = _nothing_shown(evidence)
    if why is not None:
        return Verdict(word=Word.INCONCLUSIVE, why=why)
    if guest.hits[evidence.marker]:
        return Verdict(word=Word.PLAINTEXT, why="the marker, which only the guest made, can be read from this host")
    if guest.read == 0:
        return Verdict(word=Word.NOT_ACCESSIBLE, why="no page of the guest's memory can be read from this host")
    looked, filled = guest.zero + guest.random + guest.other, guest.random + guest.other
    if guest.read * filled / max(1, looked) / guest.size <= _SHOWN:
        why = "the guest shares a few pages; the others are not in QEMU's memory and cannot be read from this host"
        return Verdict(word=Word.NOT_ACCESSIBLE, why=why)
    if filled >= _SAMPLED_MIN and guest.random / filled >= _MOST:
        why = f"what the host gave is there, the marker is not, and {guest.random} of {filled} pages look random"
        return Verdict(word=Word.CIPHERTEXT, why=why)
    why = f"the marker was not found, and only {guest.random} of {filled} pages look random: is it there, still?"
    return Verdict(word=Word.INCONCLUSIVE, why=why)


def _nothing_shown(evidence: Evidence) -> str | None:
    """Why nothing follows from what was seen, if that is so."""
    own, guest = evidence.own, evidence.guest
    if guest.hits[evidence.marker]:
        crossed = "the marker lies in QEMU's own memory: it crossed a channel, and so lies in buffers that are shared"
        return crossed if own.hits[evidence.marker] else None
    if not own.hits[evidence.own_control]:
        return "not even QEMU's own command line was found in its heap: this way of reading shows nothing"
    if guest.touched == 0:
        return "the guest has not touched its memory yet"
    if guest.read and not any(guest.hits[control] for control in evidence.guest_controls):
        return (
            "neither the marker nor what the host itself gave to the guest was found there; --control TEXT names more"
        )
    if guest.hits[BANNER]:
        return "the kernel's own banner can be read from this host, and the marker was not found: is it there, still?"
    return None
