# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The commands. A command's module is imported when it is called, and not before."""

from tools.launcher.base.errors import UserError, suggestion
from tools.launcher.base.ui import NAME, sentence

COMMANDS = {
    "run": "start the guest, run a command in it, relay its standard streams, end with its status",
    "show": "print the QEMU command line that `run` would use, one option a line",
    "check": "check config, artifacts and firmware, without asking the host for anything",
    "doctor": "say what this host can do; status 0 when the guest can run on it, 1 when not",
    "digest": "print the launch digest that the processor will report for what `run` starts with the same options",
    "workload": "print the document that says what runs and what the host may do, or check one",
    "policy": "say what a guest policy's bits mean, or make the bits from names",
    "bundle": "put an image's layers onto one disk under dm-verity, with the same bytes on every machine",
    "pull": "take artifacts from a registry, once enough of those vouch for them whom a policy names",
    "attest": "ask a running guest for an attestation report, where its workload document lets the host",
    "memcheck": "read a running guest's memory from this host, and say whether it is open or encrypted",
    "demo": "start a guest and show what its kernel says and what this host sees of its memory, step by step",
    "acceptance": "start guests of each mode that this host has, and say line by line which claims hold on it",
    "verify": "check an attestation report or a launch measurement against what is expected",
}
"""Name and summary; the module tools.launcher.cli.NAME has SYNTAX and run(values, ui) → exit status."""

_EXAMPLES = f"""\
examples:
  {NAME} run --rootfs busybox.tar -- sh -c 'id -u'
      run a command in an SEV-SNP guest whose root is that tar, and end with its status
  {NAME} run --unprotected --rootfs ./rootfs --open stdin -- /bin/sh < script
      the same guest without encryption, on any machine: for trying things out
  {NAME} run --mode sev-es --rootfs app.erofs --verity "$HASH" -- /app
      SEV-ES; the guest starts only from an EROFS image with this dm-verity root hash
  {NAME} show --unprotected --json --rootfs ./rootfs -- /bin/sh
      the QEMU command line that `run` would use
  {NAME} doctor
      what this host can do and, if it cannot run the guest, why

exit status of run: that of the command; 128+N when signal N ended it; 126 it cannot be run, 127 not found;
125 the guest failed; 2 a mistake in options, config, artifacts or host.
"""


def overview() -> str:
    """What `sev-launch --help` prints."""
    width = max(map(len, COMMANDS)) + 2
    commands = "".join(f"  {name:<{width}}{text}\n" for name, text in COMMANDS.items())
    return (
        f"usage: {NAME} COMMAND [options]     ({NAME} COMMAND --help tells more)\n"
        f"       {NAME} --source DIR          unpack the program's source\n\n"
        f"{sentence('start a confidential guest and run one command in it')}\n\n"
        f"commands:\n{commands}\n{_EXAMPLES}"
    )


def check_name(words: list[str]) -> str:
    """The command that the words call; UserError for none."""
    if not words:
        raise UserError("the following arguments are required: COMMAND", hint=f"see {NAME} --help")
    if words[0] not in COMMANDS:
        near = suggestion(words[0], [*COMMANDS, "--help", "--source"])
        what = f"argument COMMAND: invalid choice: {words[0][:80]!r}{near}"
        raise UserError(f"{what} (known: {', '.join(COMMANDS)})", hint=f"see {NAME} --help")
    return words[0]
