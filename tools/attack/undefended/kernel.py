# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A kernel without the project's patches and its hardening: Debian's cloud kernel of the same version."""

import hashlib
from functools import partial

from tools.attack.acpi import debian as package
from tools.attack.acpi.host import Side
from tools.attack.acpi.machine import Machine
from tools.attack.base.lab import Lab
from tools.attack.base.target import Target


def debian(lab: Lab, target: Target) -> Target:
    """The target with Debian's kernel in its kernel's place."""
    return lab.once(f"{target.name}, Debian's kernel", partial(_with, lab, target))


def side(lab: Lab, target: Target) -> Side:
    """An honest start of the target's kernel, for a host who makes up ACPI tables; Debian's shows the memory map."""
    shown = lab.once(f"acpi map {_sha256(target)}", partial(_map, lab, target))
    if target.kernel.read_bytes() == package.kernel(lab.tree("bench")).read_bytes():
        return shown
    machine = Machine(qemu=lab.qemu, kernel=target.kernel, firmware=target.firmware)
    name = f"acpi honest {target.name}"
    return lab.once(name, lambda: shown.beside(machine, lab.folder(name) / "guest"))


def _sha256(target: Target) -> str:
    return hashlib.sha256(target.firmware.read_bytes()).hexdigest()


def _map(lab: Lab, target: Target) -> Side:
    machine = Machine(qemu=lab.qemu, kernel=package.kernel(lab.tree("bench")), firmware=target.firmware)
    return Side.undefended(machine, lab.folder(f"acpi map {_sha256(target)}") / "guest")


def _with(lab: Lab, target: Target) -> Target:
    name = f"{target.name}, Debian's kernel"
    data = package.kernel(lab.tree("bench")).read_bytes()
    return target.derive(name, lab.folder(name) / "out", kernel=data)
