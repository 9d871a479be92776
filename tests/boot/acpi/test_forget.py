# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The whole attack: firmware, kernel, initramfs and a command line that binds the guest to a workload document, all
verified; the host has a table whose AML makes the guest an unbound one in the kernel's memory, and starts its program.

With Debian's kernel in our kernel's place, all else the same, the host's program runs.
"""

import dataclasses
import subprocess
from pathlib import Path

import pytest

from tools.attack.acpi import debian
from tools.attack.acpi.forget import Host
from tools.attack.base.lab import Lab
from tools.attack.base.target import Target
from tools.attack.guests.firmware import show
from tools.attack.guests.initramfs import unpacked
from tools.attack.guests.run import Guest

_BOUND, _UNBOUND = b"sev_agent.workload=", b"sev_agent.unbound  "
_MEMORY = 512 << 20
_ANSWER = b"the host's program\n"


@pytest.fixture(scope="module")
def undefended(guest: Guest, lab: Lab, busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Guest:
    """Our guest on Debian's kernel."""
    ours, tree = Target(name="ours", folder=guest.launcher.parent), lab.tree("bench")
    initramfs = debian.initramfs(unpacked(lab, ours.initramfs.read_bytes()), busybox=busybox, tree=tree)
    kernel = debian.kernel(tree).read_bytes()
    made = ours.derive("Debian's", tmp_path_factory.mktemp("debian") / "out", kernel=kernel, initramfs=initramfs)
    return dataclasses.replace(guest, launcher=made.launcher)


def _run(guest: Guest, *options: str) -> tuple[bytes, int]:
    done = guest.sh("echo the host\\'s program", *options)
    return done.stdout, done.returncode


def _attack(guest: Guest, qemu: Path, folder: Path, iasl: Path, document: Path) -> tuple[bytes, int, Host]:
    # On a busy machine the emulated timer is late, which the kernel would take for a broken one.
    words = ("--unprotected", "--accel", "tcg", "--append", "no_timer_check")
    shown = show(guest.launcher, qemu, *words, binding=("--workload", str(document)))
    host = Host(
        folder=folder,
        qemu=qemu,
        cmdline=dict(option for option in shown["options"] if len(option) == 2)["-append"],
        table=bytes.fromhex(shown["hashes_table"]),
        memory=_MEMORY,
    )
    places = []
    for _ in range(2):
        # The honest table first: the guest is bound, and takes nothing else.
        assert _run(dataclasses.replace(guest, qemu=host.program()), "--unbound") == (b"", 125)
        places.append(host.find(_BOUND))
    assert places[0] & places[1]
    program = host.attack(iasl, places[0] & places[1], _BOUND, _UNBOUND)
    out, status = _run(dataclasses.replace(guest, qemu=program), "--unbound")
    return out, status, host


@pytest.fixture
def document(guest: Guest, tmp_path: Path) -> Path:
    """A workload document of somebody who wants something else to run."""
    path = tmp_path / "workload.json"
    argv = [str(guest.launcher), "workload", "--rootfs", str(guest.rootfs), "--", "true"]
    path.write_bytes(subprocess.run(argv, capture_output=True, check=True).stdout)
    return path


def test_an_undefended_kernel_forgets(
    undefended: Guest, qemu: Path, iasl: Path, reachable: Path, document: Path
) -> None:
    """The control: the agent reads another command line, and starts what the host gives."""
    out, status, host = _attack(undefended, qemu, reachable, iasl, document)
    tried, made = host.said()
    assert tried == made > 0
    assert (out, status) == (_ANSWER, 0)


def test_the_shipped_kernel_remembers(guest: Guest, qemu: Path, iasl: Path, reachable: Path, document: Path) -> None:
    """The table is taken, its AML runs, and none of its writes is made."""
    out, status, host = _attack(guest, qemu, reachable, iasl, document)
    tried, made = host.said()
    assert (tried > 0, made) == (True, 0)
    assert (out, status) == (b"", 125)


def test_unbound_guests_run_the_program(guest: Guest, undefended: Guest) -> None:
    """So what is refused above is refused because the guest is bound, with either kernel."""
    for each in (guest, undefended):
        assert _run(each, "--unbound") == (_ANSWER, 0)
