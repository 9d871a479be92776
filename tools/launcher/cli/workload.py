# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch workload`: print the document that options make, or check one."""

from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, Ui, write_stdout
from tools.launcher.base.values import Values
from tools.launcher.guest import binding as bindings
from tools.launcher.options.arguments import CONFIG, QUIET, ROOTFS, ROOTFS_LIMIT, VERITY
from tools.launcher.options.parser import Group, Option, Syntax
from tools.launcher.options.program import EXCLUSIVE, PROGRAM, chosen
from tools.sev.workload import canonical
from tools.sev.workload.document import Document
from tools.sev.workload.openings import openings

SYNTAX = Syntax(
    Group(
        "options",
        CONFIG,
        Option("--canonical", text="print FILE, however it is laid out, in the one form that has a digest"),
        QUIET,
    ),
    Group("root file system", ROOTFS, ROOTFS_LIMIT, VERITY),
    PROGRAM,
    usage=("FILE [--canonical]", "[options] --rootfs PATH -- COMMAND [ARGUMENT …]"),
    positional=Option("file", "FILE", text="a workload document to check", convert=Path),
    examples=f"""\
examples:
  {NAME} workload --rootfs app.tar --user 1000 -- /app > workload.json
      the document that `{NAME} run` makes of these options
  {NAME} workload workload.json
      whether it is one, its SHA-256, and what it leaves to the host""",
    exclusive=EXCLUSIVE,
    workload=True,
)


def run(values: Values, ui: Ui) -> int:
    """Print a document, or what one says."""
    if values.file is None:
        if values.canonical or values.workload or values.unbound:
            raise UserError("the options of `workload` make a document: leave out --canonical, --workload, --unbound")
        with chosen(values, ui, memory=None) as (binding, _):
            if not isinstance(binding, Document):
                raise UserError("no command to run", hint="put it behind --")
            write_stdout(binding.data.decode())
        return 0
    if values.argv or values.rootfs:
        raise UserError("give either a document to check, or --rootfs and a command to make one of")
    if values.canonical:
        write_stdout(canonical.encode(bindings.read_document(values.file, canonical=False).value()).decode())
        return 0
    document = bindings.read_document(values.file)
    lines = [f"SHA-256 {document.sha256}", "What the host may do, or learns, beside ending the guest:"]
    write_stdout("".join(f"{line}\n" for line in [*lines, *(f"  {one}" for one in openings(document) or ["nothing"])]))
    return 0
