# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch attest`: ask a guest that runs for an attestation report, where its document lets the host."""

from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, Ui
from tools.launcher.base.values import Values
from tools.launcher.channel import control
from tools.launcher.options.arguments import NONCE, QUIET
from tools.launcher.options.parser import Group, Option, Syntax

SYNTAX = Syntax(
    Group(
        "options",
        Option("--control", "PATH", text="the socket of `run --control`", convert=Path),
        NONCE,
        Option("-o", "FILE", text="where the report goes", convert=Path),
        Option("--auxblob", "FILE", text="where the certificates go that came with it, if any did", convert=Path),
        QUIET,
    ),
    usage=("--control PATH --nonce HEX|@FILE -o FILE",),
    examples=f"""\
examples:
  {NAME} run --open host-reports --control guest.sock --rootfs app.tar -- /app &
  {NAME} attest --control guest.sock --nonce @nonce -o report.bin
  {NAME} verify report.bin --workload workload.json --nonce @nonce --domain host \\
         --min-tcb bootloader=4,tee=0,snp=24,microcode=219 --vcek vcek.der --chain cert_chain.pem
      the last on the relying party's machine, which made the nonce

exit status: 0 there is a report; 125 there is none; 2 a mistake in options""",
)


def run(values: Values, ui: Ui) -> int:
    """Write the report."""
    missing = [f"--{name}" if len(name) > 1 else f"-{name}" for name in ("control", "nonce", "o") if not values[name]]
    if missing:
        raise UserError(f"give {' and '.join(missing)}", hint=f"see {NAME} attest --help")
    report = control.ask(values.control, values.nonce)
    _write(values.o, report.report)
    if values.auxblob is not None and report.auxblob:
        _write(values.auxblob, report.auxblob)
    certificates = f", {len(report.auxblob)} bytes came with it" if report.auxblob else ""
    ui.note(f"{values.o}: a report of {len(report.report)} bytes from {report.provider or 'the guest'}{certificates}")
    return 0


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(error.strerror or "cannot be written", where=str(path)) from None
