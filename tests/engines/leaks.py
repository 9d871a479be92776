# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is left in a box after containers: everything that a runtime may forget."""

import re
from dataclasses import dataclass, fields
from typing import Self

from tests.engines.box import Box, wait

# dockerd's own: names of namespaces, which it takes away only once a minute, and what each start of it makes anew.
_NOT_OURS = "! -path '/run/docker/netns/*' ! -path '/run/docker/libnetwork/*' ! -name unmount-on-shutdown"
_LOOK = {
    "mounts": "cut -d' ' -f5 /proc/1/mountinfo",
    "interfaces": "ls /sys/class/net",
    "files": f"find /run /tmp /dev/shm /var/lib/sev-runtime ! -type d {_NOT_OURS} 2>/dev/null",
    "folders": "find /run /tmp /var/lib/sev-runtime -type d 2>/dev/null",
    "groups": "find /sys/fs/cgroup -type d",
}


@dataclass(frozen=True, kw_only=True)
class Rest:
    """All of a box that a container adds to, with ids and pids of the moment left out."""

    processes: tuple[str, ...]
    mounts: tuple[str, ...]
    interfaces: tuple[str, ...]
    files: tuple[str, ...]
    folders: tuple[str, ...]
    groups: tuple[str, ...]

    @classmethod
    def of(cls, box: Box) -> Self:
        """What there is now."""
        found = {name: tuple(sorted(box.check("sh", "-c", f"{look} || :").split("\n"))) for name, look in _LOOK.items()}
        running = tuple(sorted(re.sub(r"\d+", "N", words) for words in box.processes().values()))
        return cls(processes=running, **found)

    def check(self, box: Box) -> None:
        """Waits until the box is as it was: an engine tidies up a moment after it has answered."""
        now = [self]

        def same() -> bool:
            now[0] = Rest.of(box)
            return now[0] == self

        try:
            wait(same, limit=30)
        except AssertionError:
            more = {f.name: sorted({*getattr(now[0], f.name)} ^ {*getattr(self, f.name)}) for f in fields(self)}
            raise AssertionError(f"left over or lost: { {k: v for k, v in more.items() if v} }") from None
