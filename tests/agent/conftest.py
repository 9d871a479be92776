# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Guests that are bound to a workload document, before a host that speaks for itself."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tools.attack.guests import agent as guest_kit
from tools.sev.workload.document import Document, Doors, Process, Tar

Boot = Callable[..., guest_kit.Guest]
Bound = Callable[[Document], guest_kit.Guest]
ENVIRONMENT = ("PATH=/bin",)


def bind(document: Document) -> str:
    """The word on the kernel command line that binds a guest to the document."""
    return f"sev_agent.workload={document.sha256}"


@pytest.fixture(scope="session")
def disk(busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guest_kit.root_tar(busybox, tmp_path_factory.mktemp("root") / "root.tar")


@pytest.fixture
def root(disk: Path) -> Tar:
    data = disk.read_bytes()
    return Tar(length=len(data), sha256=hashlib.sha256(data).hexdigest())


@pytest.fixture
def boot(qemu: Path, artifacts: Path, disk: Path, tmp_path: Path) -> Boot:
    """Boots the shipped guest; its host decides what runs unless `binding` says otherwise."""

    def start(
        *,
        image: Path = disk,
        binding: str = "sev_agent.unbound",
        append: str = "",
        options: Sequence[str] = (),
        kernel: Path | None = None,
    ) -> guest_kit.Guest:
        return guest_kit.Guest(
            qemu=qemu,
            kernel=kernel or artifacts / "vmlinuz",
            initrd=artifacts / "initramfs.cpio.zst",
            disk=image,
            folder=tmp_path,
            append=append,
            binding=binding,
            options=options,
        )

    return start


@pytest.fixture
def unbound(boot: Boot) -> guest_kit.Guest:
    """A guest whose host decides what runs."""
    return boot()


@pytest.fixture
def bound(boot: Boot) -> Bound:
    """Boots a guest that is bound to a document, up to READY."""

    def start(document: Document) -> guest_kit.Guest:
        guest = boot(binding=bind(document))
        guest.bound(document.data).expect(guest_kit.READY)
        return guest

    return start


def sh(script: str, **doors: object) -> Process:
    """A shell's script, and what the host may do to it."""
    host = Doors(**doors)  # type: ignore[arg-type]  # fields of several types
    return Process(argv=("sh", "-c", script), environment=ENVIRONMENT, host=host)
