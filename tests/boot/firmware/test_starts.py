# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the firmware leaves to the kernel, and what it does itself in more than one way.

Emulated: the agent's first word says that memory, buses and devices were found.
"""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tools.attack.base.lab import Lab
from tools.attack.guests.firmware import Became, Host, start
from tools.attack.guests.monitor import LIMIT, Monitor
from tools.launcher.channel.session import listen
from tools.pipeline.base import children

Option = tuple[str, ...]


def other(host: Host, name: str, value: Callable[[str], str], *more: Option) -> Host:
    """The host with this one option changed, and more of them before it."""
    options: list[Option] = []
    for option in host.options:
        if option[0] == name and value(option[1]) != option[1]:
            options += [*more, (name, value(option[1]))]
            more = ()
        else:
            options.append(option)
    assert not more
    return replace(host, options=tuple(options))


@pytest.mark.parametrize("has", ["on", "off"])
def test_hashes_by_sha_instructions_or_not(lab: Lab, tmp_path: Path, has: str) -> None:
    """Kernel, initramfs and command line of any length; a table that is right and one that is not."""
    host = other(Host.of(lab.own, lab.qemu), "-cpu", lambda _: f"max,sha-ni={has}")
    for number, wanted in enumerate((Became.BOOTED, Became.REFUSED)):
        (tmp_path / str(number)).mkdir()
        assert start(replace(host, cmdline=host.cmdline + number * " x"), tmp_path / str(number)) is wanted


@pytest.mark.parametrize("memory", ["128M", "3G", "5G"])
def test_memory_below_and_above_four_gibibytes(lab: Lab, tmp_path: Path, memory: str) -> None:
    host = other(Host.of(lab.own, lab.qemu), "-m", lambda _: memory)
    assert start(host, tmp_path) is Became.BOOTED


@pytest.mark.parametrize("bridge", ["pcie-root-port,id=bridge0,chassis=1", "pci-bridge,id=bridge0,chassis_nr=1"])
def test_the_kernel_numbers_buses_and_places_bars(lab: Lab, tmp_path: Path, bridge: str) -> None:
    """The firmware looks at no device: the one that the agent speaks through lies behind another."""

    def behind(value: str) -> str:
        return f"{value},bus=bridge0" if value.startswith("virtio-serial-pci,") else value

    host = other(Host.of(lab.own, lab.qemu), "-device", behind, ("-device", bridge))
    assert start(host, tmp_path) is Became.BOOTED


def test_nothing_resumes(lab: Lab, tmp_path: Path) -> None:
    """The host's CMOS says that the guest slept (index 0x0F, ports 0x70 and 0x71): it starts as ever."""
    argv = [*Host.of(lab.own, lab.qemu).argv(tmp_path), "-S"]
    with (
        listen(tmp_path, "agent.sock") as listener,
        children.running(argv, cwd=tmp_path, stdin=subprocess.DEVNULL) as qemu,
        Monitor.connect(tmp_path / "qmp.sock", alive=lambda: qemu.poll() is None) as monitor,
    ):
        monitor.human("o /b 0x70 0x0f")
        monitor.human("o /b 0x71 0xfe")
        monitor.execute("cont")
        listener.settimeout(LIMIT)
        agent, _ = listener.accept()
        with agent:
            agent.settimeout(LIMIT)
            assert agent.recv(1)
        qemu.kill()
