# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One command line: what `show` names, what is hashed, what QEMU is given, what the guest boots."""

import dataclasses
import hashlib
import json
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.attack.guests.firmware import show
from tools.attack.guests.run import Guest
from tools.pipeline.recipes.profiles import Profile

# Writes down QEMU's arguments: the last ones, the launcher asks for version and devices first.
_RECORDER = """\
#!{python}
import json, os, sys

with open({log!r}, "w") as log:
    json.dump(sys.argv[1:], log)
os.execv({qemu!r}, [{qemu!r}, *sys.argv[1:]])
"""


def _table(artifacts: Path, cmdline: str) -> bytes:
    """QEMU target/i386/sev.c (sev_add_kernel_loader_hashes), computed here from the files."""
    entries = {
        "97d02dd8-bd20-4c94-aa78-e7714d36ab2a": cmdline.encode() + b"\0",
        "44baf731-3a2f-4bd7-9af1-41e29169781d": (artifacts / "initramfs.cpio.zst").read_bytes(),
        "4de79437-abd2-427f-b835-d5b172d2045b": (artifacts / "vmlinuz").read_bytes(),
    }
    body = b"".join(
        uuid.UUID(name).bytes_le + (50).to_bytes(2, "little") + hashlib.sha256(data).digest()
        for name, data in entries.items()
    )
    table = uuid.UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le + (168).to_bytes(2, "little") + body
    return table + bytes(176 - len(table))


def _builtin(root: Path, profile: Profile) -> str:
    """What the production kernel itself puts before its command line: CONFIG_CMDLINE."""
    for path in (root / name for name in profile.kernel.fragments):
        for line in path.read_text().splitlines():
            if line.startswith("CONFIG_CMDLINE="):
                return line.partition("=")[2].strip('"') + " "
    return ""


# Two spaces: whoever splits the line and joins it again is found out.
@pytest.mark.parametrize("append", ["", "some.word=1  other"])
def test_the_line_that_is_digested_is_the_line_that_boots(
    *,
    guest: Guest,
    qemu: Path,
    of_series: Callable[[str], Profile],
    repository: Path,
    artifacts: Path,
    tmp_path: Path,
    append: str,
) -> None:
    """Byte for byte, but for what kernel and firmware add, which are measured themselves."""
    profile = of_series("production")
    wanted = profile.cmdline + (f" {append}" if append else "") + " sev_agent.unbound"
    options = ["--append", append] if append else []

    shown = show(guest.launcher, qemu, "--unprotected", *options)
    assert shown["kernel_cmdline"] == wanted
    assert ["-append", wanted] in shown["options"]
    assert bytes.fromhex(shown["hashes_table"]) == _table(artifacts, wanted)

    recorder, log = tmp_path / "qemu-system-x86_64", tmp_path / "argv.json"
    recorder.write_text(_RECORDER.format(python=sys.executable, log=str(log), qemu=str(qemu)))
    recorder.chmod(0o755)
    done = dataclasses.replace(guest, qemu=recorder).sh("cat /proc/cmdline", "--unbound", *options)
    given = json.loads(log.read_text())
    assert given[given.index("-append") + 1] == wanted
    # edk2's QemuLoadImageLib tells the kernel where its initramfs is.
    assert done.stdout.decode() == f"{_builtin(repository, profile)}{wanted} initrd=initrd\n", done.stderr
    assert (b"launch digest changes" in done.stderr) == bool(append)


@pytest.mark.parametrize(("mode", "cbit"), [("snp", "51"), ("sev-es", "51"), ("sev", "47")])
def test_a_protected_guest_is_given_the_same_line(guest: Guest, qemu: Path, mode: str, cbit: str) -> None:
    """Only shown: starting it needs the hardware."""
    shown = show(guest.launcher, qemu, "--mode", mode, "--cbit", cbit)
    plain = show(guest.launcher, qemu, "--unprotected")
    assert shown["kernel_cmdline"] == plain["kernel_cmdline"]
    assert ["-append", shown["kernel_cmdline"]] in shown["options"]
    assert shown["hashes_table"] == plain["hashes_table"]
