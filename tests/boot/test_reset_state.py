# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the VMSA is made of, asked of a real QEMU: CPU signatures, and the registers that it sets at reset.

What KVM changes of it on the way into the VMSA (EFER.SVME, CR4.MCE, CR0.CD and NW) only hardware shows.
"""

import json
import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tools.launcher.measure import vmsa
from tools.sev import cpu_models
from tools.sev.cpu_models import CPU_MODELS
from tools.sev.vmsa import RESET_VECTOR


def ask(qemu: Path, *options: str, commands: list[dict[str, Any]]) -> list[Any]:
    """Start a stopped machine, give it QMP commands, return their answers."""
    lines = [{"execute": "qmp_capabilities"}, *commands, {"execute": "quit"}]
    done = subprocess.run(
        [qemu, "-nodefaults", "-display", "none", "-S", "-accel", "tcg", "-qmp", "stdio", *options],
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return [answer["return"] for answer in answers if "return" in answer][1:-1]


def test_the_signatures_are_those_of_qemus_models(qemu: Path) -> None:
    """Every model of ours that this QEMU has, among them one of each generation up to Genoa."""
    signatures = {model.name: model.signature for model in CPU_MODELS}
    (listed,) = ask(qemu, "-machine", "none", commands=[{"execute": "query-cpu-definitions"}])
    there = {model["name"].removesuffix("-x86_64-cpu") for model in listed}
    ours = {model.name: model.qemu_models for model in CPU_MODELS}
    asked = [(name, model) for name, models in ours.items() for model in models if model in there]
    assert {"EPYC", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa"} <= {model for _, model in asked}
    assert "EPYC-v4" in {model for _, model in asked}
    commands = [
        {"execute": "query-cpu-model-expansion", "arguments": {"type": "full", "model": {"name": model}}}
        for _, model in asked
    ]
    answers = ask(qemu, "-machine", "q35", commands=commands)
    for (name, model), answer in zip(asked, answers, strict=True):
        props = answer["model"]["props"]
        family, number, stepping = props["family"], props["model"], props["stepping"]
        signature = (family - 15) << 20 | (number >> 4) << 16 | 0xF << 8 | (number & 15) << 4 | stepping
        assert signature == signatures[name], model
    # No model of an EPYC that we do not know: its users would be refused.
    known = {model for models in ours.values() for model in models}
    assert {model for model in there if model.startswith("EPYC")} <= known


@pytest.mark.parametrize("name", ["EPYC", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa"])
def test_the_registers_are_those_of_a_reset(qemu: Path, name: str) -> None:
    command = {"execute": "human-monitor-command", "arguments": {"command-line": "info registers"}}
    (text,) = ask(qemu, "-machine", "q35", "-cpu", name, commands=[command])
    signature = cpu_models.find(name).signature
    page = vmsa.page(eip=RESET_VECTOR, signature=signature, features=0, fpu=True)

    def number(register: str) -> int:
        found = re.search(rf"\b{register} ?= ?([0-9a-f]+)", text)
        assert found is not None, text
        return int(found[1], 16)

    def quad(offset: int) -> int:
        value: int = struct.unpack_from("<Q", page, offset)[0]
        return value

    assert number("EDX") == quad(0x310) == signature
    assert number("EIP") == quad(0x178)
    assert number("EFL") == quad(0x170)
    assert number("DR6") == quad(0x168)
    assert number("DR7") == quad(0x160)
    # KVM clears CD and NW (bits 30 and 29) and sets SVME (bit 12) and MCE (bit 6).
    assert number("CR0") & ~0x60000000 == quad(0x158)
    assert number("CR4") | 0x40 == quad(0x148)
    assert number("EFER") | 0x1000 == quad(0x0D0)
    assert number("FCW") == struct.unpack_from("<H", page, 0x410)[0]
    assert number("MXCSR") == struct.unpack_from("<I", page, 0x408)[0]
    for register in ("EAX", "EBX", "ECX", "ESI", "EDI", "EBP", "ESP", "CR2", "CR3"):
        assert number(register) == 0
    for offset, register in (
        (0x000, "ES"), (0x010, "CS"), (0x020, "SS"), (0x030, "DS"), (0x040, "FS"), (0x050, "GS"),
        (0x070, "LDT"), (0x090, "TR"),
    ):  # fmt: skip
        found = re.search(rf"^{register} *=([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+)", text, re.MULTILINE)
        assert found is not None, text
        selector, base, limit, flags = (int(part, 16) for part in found.groups())
        assert struct.unpack_from("<HHIQ", page, offset) == (selector, flags >> 8, limit, base), register
