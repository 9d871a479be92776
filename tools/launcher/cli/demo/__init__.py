# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch demo`: the first demonstration of 2018 once more, step by step, on this machine."""

from pathlib import Path

from tools.launcher.base.ui import NAME, Ui
from tools.launcher.base.values import Values
from tools.launcher.cli.demo import starts, steps
from tools.launcher.memory.verdict import Word
from tools.launcher.options.guest_options import HOST
from tools.launcher.options.parser import Group, Option, Syntax
from tools.sev.limits import memory_mib

SYNTAX = Syntax(
    HOST,
    Group(
        "demonstration",
        Option(
            "--docker",
            choices=("auto", "yes", "no"),
            default="auto",
            text="start it with docker: where that knows sev-runtime (auto, the default), always, or never",
        ),
        Option("--runtime", "NAME", text="docker's name for the runtime", default=starts.RUNTIME),
        Option("--image", "NAME", text="docker's image, which has busybox's programs", default="busybox"),
        Option(
            "--rootfs",
            "PATH",
            text="without docker: a root with busybox's programs; default: one with this host's busybox",
            convert=Path,
        ),
        Option("--memory", "SIZE", text="without docker: the guest's RAM, as in 512M or 2G", convert=memory_mib),
    ),
    examples=f"""\
examples:
  {NAME} demo
      with docker where it knows the runtime sev-runtime, else with `{NAME} run`; encrypted where this host can
  {NAME} demo --docker no --unprotected
      the same without encryption, on any machine

exit status: 0 the guest's memory is closed to this host; 1 it ran to its end, and the memory is open, or nothing
was shown; 2 a mistake in options; 125 the guest failed""",
)


def run(values: Values, ui: Ui) -> int:
    """All the steps; what is seen on stdout."""
    del ui
    with starts.started(values) as guest:
        checked = steps.show(guest, timeout=values.timeout or steps.TIMEOUT)
    return 0 if checked.verdict.word in (Word.CIPHERTEXT, Word.NOT_ACCESSIBLE) else 1
