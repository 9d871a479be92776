# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The program that writes launch-digests.json, in the sandbox:

    PYTHONPATH=CHECKOUT:WHEEL python3 -m tools.pipeline.measure.program GUEST.json ARTIFACTS OUTPUT

CHECKOUT holds tools/sev and this folder, WHEEL is that of sev-snp-measure, GUEST.json is what guest_json() made,
ARTIFACTS is the folder with the files that it names. Exit status 2 for the user's mistake (a CPU model whose
signature is not known), 1 for artifacts that cannot be measured; either way the last line on stderr says why.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools.pipeline.measure.table import CPU_KEY, Guest, document, serialise
from tools.sev.errors import FormatError, one_line
from tools.sev.modes import ProfileKind


def guest_json(guest: Guest) -> bytes:
    """The program's first argument."""
    return (json.dumps(asdict(guest), indent=1, sort_keys=True) + "\n").encode()


def main(arguments: list[str]) -> int:
    """Write the document; returns the exit status."""
    values, folder, output = (Path(word) for word in arguments)
    said: dict[str, Any] = json.loads(values.read_bytes())
    guest = Guest(**{**said, "profile": ProfileKind(said["profile"])})
    try:
        found = document(guest, {role: folder / name for role, name in guest.artifacts.items()})
    except FormatError as error:
        print(error, file=sys.stderr)
        return 2 if error.where == CPU_KEY else 1
    except OSError as error:
        print(one_line(error.strerror or "cannot be read", where=str(error.filename), hint=None), file=sys.stderr)
        return 1
    output.write_bytes(serialise(found).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
