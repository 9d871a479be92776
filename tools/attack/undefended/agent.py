# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Our initramfs with one thing changed in the agent: its program's bytes, the same number of them."""

from collections.abc import Mapping

from tools.attack.base.lab import Lab
from tools.attack.base.target import Target
from tools.attack.guests import initramfs
from tools.pipeline.base.errors import BuildError

_VERITY = b" 2 panic_on_corruption panic_on_error"


def ignoring_corruption(lab: Lab, target: Target) -> Target:
    """Its dm-verity logs a block that does not verify, and goes on."""
    return patched(lab, target, "ignoring corruption", {_VERITY: b" 1 ignore_corruption".ljust(len(_VERITY))})


def ignoring_errors(lab: Lab, target: Target) -> Target:
    """Its dm-verity panics at a block that does not verify, but not at one that cannot be read."""
    return patched(lab, target, "ignoring errors", {_VERITY: b" 1 panic_on_corruption".ljust(len(_VERITY))})


def patched(lab: Lab, target: Target, name: str, changes: Mapping[bytes, bytes]) -> Target:
    """The target with an agent in which each of these texts, found once, is another of the same length."""

    def make() -> Target:
        data = initramfs.unpacked(lab, target.initramfs.read_bytes())
        for old, new in changes.items():
            if len(old) != len(new) or data.count(old) != 1:
                raise BuildError(f"{old!r} is {data.count(old)} times in the agent, not once")
            data = data.replace(old, new)
        called = f"{target.name}, agent {name}"
        # The kernel takes it uncompressed as well.
        return target.derive(called, lab.folder(called) / "out", initramfs=data)

    return lab.once(f"{target.name}, agent {name}", make)
