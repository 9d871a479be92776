# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`--help`, `--version`."""

from tools.launcher.base.ui import sentence, write_stdout
from tools.runtime.base.log import NAME

VERSION = "0.1.0"
SPECIFICATION = "1.2.0"
_ID = "ID"
COMMANDS = {
    "create": ("--bundle DIR [--pid-file FILE] [--console-socket SOCKET] ID", "boot a guest for a bundle's container"),
    "start": (_ID, "run in a container's guest what the bundle says"),
    "state": (_ID, "print the container's state"),
    "kill": ("ID [SIGNAL]", "send a signal to what runs in a container; KILL ends the guest, whatever it thinks of it"),
    "delete": ("[--force] ID", "remove what is left of a container; --force: of one that still runs, too"),
    "exec": (
        "--process FILE [--detach] [--pid-file FILE] [--console-socket SOCKET] ID",
        "start another process in a container",
    ),
    "ps": ("[--format json|table] ID", "print the numbers of a container's processes on this host: monitor and QEMU"),
    "pause": (_ID, "let a container's processors stand still"),
    "resume": (_ID, "let them go on"),
    "document": ("[--sha256|--openings] ID", "print the workload document that a container's guest is bound to"),
    "features": ("", "print what this runtime can do, as the OCI runtime specification has it"),
    "install": (
        "--docker|--podman|--containerd [--write] [--name NAME] [--to FILE]",
        "print what an engine must be told of this runtime, or write it; of a --config before it, too",
    ),
    "doctor": ("", "say what containers need here, and what is missing"),
    "source": ("DIR", "unpack the program's source into a new folder"),
}
"""Usage and summary."""


def run(given: list[str], _context: object) -> int:
    """Print what `--help`, `--version` or `COMMAND --help` ask for."""
    word = given[0] if given else ""
    if word == "--version":
        write_stdout(f"{NAME} version {VERSION}\nspec: {SPECIFICATION}\n")  # the second line as runc's
    elif word in COMMANDS:
        usage, text = COMMANDS[word]
        write_stdout(f"{f'usage: {NAME} {word} {usage}'.rstrip()}\n\n{sentence(text)}\n")
    else:
        write_stdout(_overview())
    return 0


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = "".join(f"  {name:<{width}}{text}\n" for name, (_, text) in COMMANDS.items())
    return (
        f"usage: {NAME} [--config FILE] [--root DIR] [--log FILE] [--log-format json|text] COMMAND …\n"
        f"       {NAME} COMMAND --help       {NAME} --version\n\n"
        "An OCI runtime whose containers are confidential guests: docker, containerd and podman call it.\n\n"
        f"commands:\n{lines}"
    )
