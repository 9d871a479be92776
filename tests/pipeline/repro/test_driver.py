# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The driver inside an environment, by itself."""

import json
import subprocess
import sys
import time
from pathlib import Path

_DRIVER = Path(__file__).resolve().parents[3] / "tools/pipeline/repro/driver.py"
_BUILD = """import os, pathlib, signal, sys, time
def told(*_):
    pathlib.Path("told").write_text("")
    sys.exit(1)
signal.signal(signal.SIGTERM, told)
pathlib.Path("runs").write_text("")
time.sleep(60)
pathlib.Path("over").write_text("")
"""


def _eventually(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(path)


def test_a_build_ends_with_its_driver(tmp_path: Path) -> None:
    """Killed, as by ./doit that is told to end: nothing goes on building behind it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "build.py").write_text(_BUILD)
    spec = {
        "umask": 0o022,
        "cores": 0,
        "checkout": str(tmp_path / "checkout"),
        "results": str(tmp_path),
        "folders": [],
        "marks": [],
        "source": str(source),
        "reverse": False,
        "localedef": [],
        "environment": {},
        # In doit's place, whatever it is asked for.
        "python": [sys.executable, "build.py"],
        "trees": [],
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    driver = subprocess.Popen([sys.executable, str(_DRIVER), str(tmp_path / "spec.json")])
    _eventually(tmp_path / "checkout/runs")
    driver.kill()
    driver.wait()
    _eventually(tmp_path / "checkout/told")
    assert not (tmp_path / "checkout/over").exists()
