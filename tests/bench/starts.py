# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Processor time of programs that take some milliseconds; runs by itself in the sandbox too, so it imports nothing of
ours.

`python3 starts.py ROUNDS PATH COMMANDS` with JSON {name: argv} prints JSON {name: [seconds, …]}.
"""

import json
import os
import sys
from collections.abc import Mapping


def times(commands: Mapping[str, list[str]], *, rounds: int, path: str) -> dict[str, list[float]]:
    """Seconds of each, in turns, in an environment of PATH alone; OSError when one fails."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    # Turn 0 brings the files into memory.
    for number in range(rounds + 1):
        for name, argv in commands.items():
            took = _cpu(argv, path)
            if number:
                found[name].append(took)
    return found


def _cpu(argv: list[str], path: str) -> float:
    """Seconds of processor time, user and system, of one run; the kernel counts them."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, null, descriptor) for descriptor in (0, 1, 2)]
    child = os.posix_spawn(argv[0], argv, {"PATH": path}, file_actions=actions)
    _, status, usage = os.wait4(child, 0)
    os.close(null)
    if status:
        raise OSError(f"{' '.join(argv)} failed")
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    print(json.dumps(times(json.loads(sys.argv[3]), rounds=int(sys.argv[1]), path=sys.argv[2])))
