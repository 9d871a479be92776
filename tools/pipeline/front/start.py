# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Where `./doit` enters Python, as `.venv/bin/python -IS start.py ARGUMENTS`: what must be so before any import.

-S: the environment's packages are looked up here, after signals are in order; -I: no module of this folder is
imported by accident.
"""

import _signal  # type: ignore[import-not-found]  # the C module: `signal` would import more before the next line

# Until main can say a word about it, Ctrl-C ends the process as it ends any program. A shell's `&` ignores it.
if _signal.getsignal(_signal.SIGINT) is not _signal.SIG_IGN:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
# ./doit blocks it before Python has a handler for it; one that came since ends the process here.
_signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGINT])

import os  # noqa: E402 (signals come first)
import sys  # noqa: E402

_AGAIN = "SEV_ARTIFACTS_ENVIRONMENT"


def _fill_descriptors() -> None:
    """What is opened next must not become standard input, output or error."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _environment(root: str) -> None:
    """See that the packages are there: another Python than the one that they were installed for has none."""
    import site  # noqa: PLC0415 (start-up: it looks for packages only when it is asked, here)

    site.main()
    sys.path.insert(0, root)
    try:
        import doit  # noqa: F401, PLC0415 (whether it is there is the question)
    except ImportError:
        if os.environ.get(_AGAIN) == "made":
            sys.exit(f"doit: error: {root}/.venv: has no doit although it was just made; see {root}/.venv/setup.log")
        os.environ[_AGAIN] = "again"
        os.execv("/bin/sh", ["sh", f"{root}/doit", *sys.argv[1:]])  # noqa: S606 (this very command, once more)
    os.environ.pop(_AGAIN, None)


_fill_descriptors()
# Files that are made without a mode of their own are never writable for others.
os.umask(os.umask(0o077) | 0o022)
_environment(__file__.removesuffix("/tools/pipeline/front/start.py"))

from tools.pipeline.front.main import run  # noqa: E402

run(sys.argv[1:])
