# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""In QEMU's place: QEMU with other devices than the launcher asked for."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What the launcher itself gives to its devices (tools/launcher/guest/command_line.py).
PROTECTED = "iommu_platform=on,disable-legacy=on"
# Questions to QEMU, which starts no guest, go through unchanged: they have no -m.
_SCRIPT = """\
#!{python}
import json
import os
import sys

sockets, more = json.loads({sockets!r}), json.loads({more!r})
words, kept = sys.argv[1:], []
if "-m" in words:
    size = words[words.index("-m") + 1]
    words[words.index("-machine") + 1] += ",memory-backend=shared"
    kept += ["-object", "memory-backend-memfd,id=shared,share=on,size=" + size, *more]
    while words:
        word = words.pop(0)
        if sockets and word == "-blockdev":
            words.pop(0)
        elif sockets and word == "-device" and words[0].startswith("virtio-blk-pci,drive=rootfs"):
            words.pop(0)
            for number, (path, options) in enumerate(sockets):
                kept += ["-chardev", "socket,id=vhost%d,path=%s" % (number, path)]
                kept += ["-device", "vhost-user-blk-pci,chardev=vhost%d,num-queues=1,%s" % (number, options)]
        else:
            kept.append(word)
else:
    kept = words
os.execv({qemu!r}, [{qemu!r}, *kept])
"""


@dataclass(frozen=True, kw_only=True)
class Socket:
    """A disk that QEMU finds behind a socket; `options` of its device."""

    path: Path
    options: str = PROTECTED


def stand_in(path: Path, qemu: Path, *, disks: Sequence[Socket] = (), more: Sequence[str] = ()) -> Path:
    """An executable at `path`: `qemu` with `disks` in the root's place, and with `more` words.

    Without disks the launcher's own one stays.
    """
    script = _SCRIPT.format(
        python=sys.executable,
        sockets=json.dumps([(str(disk.path), disk.options) for disk in disks]),
        more=json.dumps(list(more)),
        qemu=str(qemu),
    )
    path.write_text(script)
    path.chmod(0o755)
    return path
