# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""requirements.in → requirements.lock, with the hash of every file that pip may install."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.pipeline import digest, ui
from tools.pipeline.errors import BuildError

WANTED = "requirements.in"
LOCK = "requirements.lock"
_HEADER = """\
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# Written by ./doit lock from requirements.in.
"""
_PIN = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.MULTILINE)


def lock(root: Path) -> list[str]:
    """Resolve anew with pip-tools in a throw-away environment; return the changes, one line each.

    The index is whatever pip is configured for on this machine; its host does not get into the lock.
    """
    with tempfile.TemporaryDirectory(prefix="sev-artifacts-lock-") as folder, ui.working("asking pip"):
        venv = Path(folder) / "venv"
        _run([sys.executable, "-m", "venv", str(venv)], root)
        _run([str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "pip-tools"], root)
        output = Path(folder) / "requirements.lock"
        # fmt: off
        _run([
            str(venv / "bin/pip-compile"), "--quiet", "--generate-hashes", "--strip-extras", "--no-header",
            "--no-emit-index-url", "--no-emit-trusted-host", "--no-emit-find-links", "--no-annotate",
            "--output-file", str(output), WANTED,
        ], root)
        # fmt: on
        text = _HEADER + output.read_text()
    path = root / LOCK
    old = dict(_PIN.findall(path.read_text())) if path.exists() else {}
    new = dict(_PIN.findall(text))
    digest.write_if_changed(path, text.encode())
    return [
        f"{LOCK}: {name} {old.get(name, 'absent')} → {new.get(name, 'removed')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _run(argv: list[str], root: Path) -> None:
    done = subprocess.run(
        argv, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise BuildError(f"{Path(argv[0]).name} ended with status {done.returncode}: {last[0]}", where=WANTED)
