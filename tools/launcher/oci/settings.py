# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What whoever runs the containers decides, beside what an engine asks for."""

from dataclasses import dataclass
from enum import StrEnum

MEMORY_MIB = 512
VCPUS = 1
FOLDER_BYTES = 64 << 20


class Openness(StrEnum):
    """What the host may do in a running container."""

    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that the host may start in a closed container, exactly as it stands here; `count`: how often."""

    argv: tuple[str, ...]
    count: int = 1_000_000
    stdin: bool = False
    terminal: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`exec` counts where `openness` is closed. `reports`: as the document has it.

    `writable`: paths of the host, and names of volumes, that a container may share. `memory_mib` and `vcpus` are for
    containers whose engine says nothing. `folder_bytes`: what a read-only folder of the host may have.
    """

    openness: Openness = Openness.CLOSED
    exec: tuple[Command, ...] = ()
    reports: str = "none"
    host_reports: bool = False
    end_on_refusal: bool = False
    writable: tuple[str, ...] = ()
    memory_mib: int = MEMORY_MIB
    vcpus: int = VCPUS
    folder_bytes: int = FOLDER_BYTES
