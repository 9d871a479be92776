# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Wheels through the machine's own pip: it knows the index, the proxy and the certificates, and we write none down."""

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.pipeline.base import ambient
from tools.pipeline.base.errors import BuildError
from tools.pipeline.sources.pins import Wheel
from tools.sev.errors import mask

_SHOWN = 300  # characters of pip's complaint


def place(wheel: Wheel) -> str:
    """What an error names in a URL's place."""
    return f"pip:{wheel.package}=={wheel.version}"


def download(wheel: Wheel, folder: Path, *, sha256: str | None = None) -> Path:
    """Fetch the wheel into an empty folder; nothing of it is run. BuildError in pip's words when it cannot be had.

    With `sha256`, pip takes only a file with these bytes: an index may have several of a version.
    """
    asked = folder / "requirements.txt"
    asked.write_text(f"{wheel.package}=={wheel.version}{f' --hash=sha256:{sha256}' if sha256 else ''}\n")
    # fmt: off
    run("download", "--quiet", "--no-deps", "--only-binary", ":all:",
        "--dest", str(folder),
        "--requirement", str(asked))
    # fmt: on
    path = folder / wheel.file
    if not path.is_file():
        found = sorted(p.name for p in folder.glob("*.whl"))
        raise BuildError(f"the index has {', '.join(found) or 'no wheel'}, not {wheel.file}")
    return path


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder; BuildError names the place that is full or missing."""
    try:
        made = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    except OSError as error:
        where = f"temporary folder {error.filename or ''}".strip()
        raise BuildError(error.strerror or str(error), where=where, hint="set TMPDIR to a folder with space") from None
    with made as name:
        yield Path(name)


def run(*arguments: str, python: Path | None = None, module: Sequence[str] = ("pip",), cwd: Path | None = None) -> str:
    """Run pip (or a `module` that reads its configuration); BuildError with the last line of its complaint."""
    argv = [str(python or sys.executable), "-m", *module, *arguments]
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**ambient.pip_environment(), "LC_ALL": "C.UTF-8", "PIP_NO_INPUT": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1] if lines else "")
        said = re.sub(r"\s+", " ", said.removeprefix("ERROR:")).strip() or f"exit status {done.returncode}"
        if os.strerror(errno.ENOSPC) in said:
            said = f"{said} (its temporary files are in {tempfile.gettempdir()}: set TMPDIR to a folder with space)"
        raise BuildError(f"{' '.join(module)} {arguments[0]}: {mask(said)[:_SHOWN]}")
    return done.stdout
