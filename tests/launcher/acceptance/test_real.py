# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The command on real guests of the built artifacts, emulated and without SEV: what can be run holds, and is seen."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from tools.attack.base.lab import Lab
from tools.attack.undefended.firmware import unverified
from tools.launcher.acceptance.catalogue import CHECKS
from tools.launcher.acceptance.model import PROTECTED, Guest

PLAIN = {check.name for check in CHECKS if Guest.PLAIN in check.guests}
BLOBS = {"changed-kernel", "changed-initramfs", "changed-cmdline"}


def accept(folder: Path, result: Path, *words: str) -> tuple[int, str, dict[str, Any]]:
    """The packed launcher of the artifacts: status, table, what it wrote."""
    argv: list[str | Path] = [folder / "sev-launch", "acceptance", "--accel", "tcg", "--json", result, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=1200)
    assert result.exists(), done.stderr
    return done.returncode, done.stdout, json.loads(result.read_bytes())


def of_plain(found: dict[str, Any], result: str) -> set[str]:
    return {line["name"] for line in found["checks"] if line["guest"] == "unprotected" and line["result"] == result}


def test_what_can_be_run_here_holds(artifacts: Path, repository: Path, tmp_path: Path) -> None:
    status, table, found = accept(artifacts, tmp_path / "result.json")
    schema = json.loads((repository / "docs/schemas/acceptance.schema.json").read_bytes())
    Draft202012Validator(schema).validate(found)
    failed = [line for line in found["checks"] if line["result"] == "failed"]
    assert not failed
    assert of_plain(found, "held") == PLAIN, table
    assert status == 0
    # Each line that needs the processor says why there is none; on a machine that has one, it was run.
    for guest in PROTECTED:
        lines = [line for line in found["checks"] if line["guest"] == str(guest)]
        assert len(lines) == len([check for check in CHECKS if guest in check.guests])
        if found["guests"][str(guest)]:
            assert {line["result"] for line in lines} == {"not run"}
            assert all(line["seen"] for line in lines)
    assert all(line["control"] for line in found["checks"] if line["name"] in {*BLOBS, "exec-refused"} and of(line))
    for check in CHECKS:
        assert check.name in table
    assert set(found["seconds"]["unprotected"]) == {"agent", "root", "first word"}


def of(line: dict[str, Any]) -> bool:
    return bool(line["guest"] == "unprotected")


def test_firmware_that_verifies_nothing_is_found_out(lab: Lab, tmp_path: Path) -> None:
    """The same artifacts but for the defence: its three lines fail, and no other."""
    undefended = unverified(lab, lab.own)
    status, table, found = accept(undefended.folder, tmp_path / "result.json", "--mode", "unprotected")
    assert of_plain(found, "failed") == BLOBS, table
    assert of_plain(found, "held") == PLAIN - BLOBS
    assert status == 1
    assert "it started, in" in table


def test_no_file_is_written_over(artifacts: Path, tmp_path: Path) -> None:
    """Before ten minutes go by."""
    (tmp_path / "acceptance.json").write_text("mine")
    done = subprocess.run(
        [artifacts / "sev-launch", "acceptance"], capture_output=True, text=True, check=False, cwd=tmp_path,
        env=os.environ,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "sev-launch: acceptance.json: is there already; --json FILE writes another, or over this one\n"
    )
    assert (tmp_path / "acceptance.json").read_text() == "mine"
