# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime ps`: the processes on this host that are the container."""

import json
import sys

from tools.runtime.cli import words
from tools.runtime.cli.main import Context
from tools.runtime.life import talk
from tools.runtime.life.folder import Folder


def run(given: list[str], context: Context) -> int:
    """Print the monitor's number and QEMU's; what runs in the guest is not the host's to see."""
    found = words.parse(given, {"--format": True}, short={"-f": "--format"})
    pids = [int(pid) for pid in talk.ask(Folder(context.root, found.rest[0]), "processes").split()]
    table = found.get("--format") == "table"
    sys.stdout.write("PID\n" + "".join(f"{pid}\n" for pid in pids) if table else json.dumps(pids) + "\n")
    return 0
