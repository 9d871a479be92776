# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The short form on the real artifacts: what `./doit attack --short` does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_short_form_holds(repository: Path, artifacts: Path, request: pytest.FixtureRequest) -> None:
    argv = [sys.executable, "-m", "tools.attack", "--short", "--json"]
    if request.config.getoption("--series"):
        argv += ["--out", str(artifacts)]
    done = subprocess.run(argv, cwd=repository, capture_output=True, text=True, timeout=3600, check=False)
    found = json.loads(done.stdout)
    wrong = {row["name"]: row for row in found["rows"] if row["verdict"] != "held"}
    assert not wrong, wrong
    assert done.returncode == 0, done.stderr
    assert {row["topic"] for row in found["rows"]} >= {"boot", "storage", "channel"}
