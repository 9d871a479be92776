# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Starts that QEMU loses are begun anew, and only those: with a program in QEMU's place."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from tests.bounce import machine
from tests.bounce.machine import Machine, Result
from tools.pipeline.base.errors import BuildError

SAYS = json.dumps({field.name: 0 for field in fields(Result) if field.name != "log"})
STARTED = "echo start >>../starts"


@pytest.mark.parametrize(
    ("begins", "starts"),
    [
        pytest.param("", 1, id="speaks"),
        pytest.param("test -e ../lost || { touch ../lost; exec sleep 60; }", 2, id="silent"),
        pytest.param("test -e ../lost || { touch ../lost; kill -ABRT $$; }", 2, id="aborted"),
        pytest.param("exit 1", 1, id="ended"),
        pytest.param("exec sleep 60", machine._STARTS, id="always-silent"),
    ],
)
def test_a_start_that_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: str, starts: int) -> None:
    monkeypatch.setattr(machine, "_FIRST_WORD", 1.0)
    qemu = tmp_path / "qemu"
    qemu.write_text(f"#!/bin/sh\n{STARTED}\n{begins}\necho 'load: {SAYS}' >serial\n")
    qemu.chmod(0o755)
    made = Machine(qemu=qemu, kernel=qemu, initramfs=qemu)
    if begins in {"exit 1", "exec sleep 60"}:
        with pytest.raises(BuildError, match="ended without a result"):
            made.run(tmp_path / "guest", {"disk": 1}, pool=4)
    else:
        assert not made.run(tmp_path / "guest", {"disk": 1}, pool=4).stalled
    assert (tmp_path / "starts").read_text().count("start") == starts
