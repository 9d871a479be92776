# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime document`: what a container's guest is bound to."""

import hashlib
import sys

from tools.runtime.cli import words
from tools.runtime.cli.main import Context
from tools.runtime.life.folder import DOCUMENT, Folder
from tools.sev.workload import openings, reader


def run(given: list[str], context: Context) -> int:
    """Print the document's bytes; --openings: what it leaves to the host, in words."""
    found = words.parse(given, {"--openings": False, "--sha256": False})
    data = Folder(context.root, words.only_id(found, "document")).read(DOCUMENT)
    if found.has("--sha256"):
        data = hashlib.sha256(data).hexdigest().encode() + b"\n"
    elif found.has("--openings"):
        data = "".join(f"{line}\n" for line in openings.openings(reader.parse(data, where=DOCUMENT))).encode()
    sys.stdout.buffer.write(data)
    return 0
