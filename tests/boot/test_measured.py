# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The firmware starts nothing but what the hashes table names.

The launcher injects, into an unprotected guest, the table that QEMU injects into a protected one. A
wrapper around QEMU plays the host that then exchanges what is loaded.
"""

import dataclasses
import sys
from pathlib import Path

import pytest

from tests.boot.conftest import Guest

_SECONDS = "25"  # a refusal is a silent dead loop; beside it, the positive control boots in a few seconds

# QEMU's working directory is the launcher's private folder with the verified copies.
_WRAPPER = """\
#!{python}
import os, sys
from pathlib import Path

qemu, change, args = {qemu!r}, {change!r}, sys.argv[1:]


def flip(option, at):
    path = Path(args[args.index(option) + 1])
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.unlink()
    path.write_bytes(data)


if "-kernel" not in args:
    pass  # the launcher asks for QEMU's version and devices first
elif change == "kernel":
    flip("-kernel", 1_000_000)
elif change == "initramfs":
    flip("-initrd", 100_000)
elif change == "command line":
    args[args.index("-append") + 1] += " x"
elif change == "table":
    at = next(i for i, word in enumerate(args) if word.startswith("loader,"))
    del args[at - 1 : at + 1]
os.execv(qemu, [qemu, *args])
"""


@pytest.mark.parametrize("change", ["nothing", "kernel", "initramfs", "command line", "table"])
def test_a_changed_blob_never_starts(guest: Guest, tmp_path: Path, change: str) -> None:
    """The offsets lie inside the payloads: no file is rejected for its form before its hash is looked at.

    With nothing changed, the same wrapper boots.
    """
    wrapper = tmp_path / "qemu-system-x86_64"
    wrapper.write_text(_WRAPPER.format(python=sys.executable, qemu=str(guest.qemu), change=change))
    wrapper.chmod(0o755)
    done = dataclasses.replace(guest, qemu=wrapper).sh("echo started", "--timeout", _SECONDS)
    if change == "nothing":
        assert (done.stdout, done.returncode) == (b"started\n", 0), done.stderr
    else:
        assert (done.stdout, done.returncode) == (b"", 125), done.stderr
