# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Programs that are running for us, whichever thread started them, so that an interrupt ends all of them.

A signal reaches the main thread only. `stop` then ends the programs, and each thread that waits for one, or
wants to start another, gets `Interrupted`: it cleans up behind itself and returns.
"""

import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tools.pipeline.base import ambient

_TERMINATE = 3.0  # seconds that a program has to end after SIGTERM
_BEAT = 0.2  # seconds between two looks at whether the run is being stopped


class Interrupted(BaseException):
    """The run is being stopped. Not an Exception: nobody should take it for a failure of his step."""


class _State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stopping = False
        self.running: dict[subprocess.Popen[bytes], float] = {}


_STATE = _State()


def stopping() -> bool:
    """Whether the run is being stopped."""
    return _STATE.stopping


def check() -> None:
    """Raise Interrupted when the run is being stopped; for loops that start no program."""
    if _STATE.stopping:
        raise Interrupted


def sleep(seconds: float) -> None:
    """Wait; Interrupted soon after the run is being stopped."""
    end = ambient.monotonic() + seconds
    while (left := end - ambient.monotonic()) > 0:
        check()
        ambient.sleep(min(_BEAT, left))


@contextmanager
def running(argv: Sequence[str], *, grace: float = 0.0, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a program (`options` as for subprocess.Popen); it has ended when the block is left.

    On an interrupt it is killed, or has `grace` seconds to end by itself: the terminal has told it, too, unless
    it has a session of its own. Raises Interrupted then.
    """
    # Under the lock: no program starts after `stop` has looked at what is running.
    with _STATE.lock:
        check()
        process = subprocess.Popen(argv, **options)
        _STATE.running[process] = grace
    try:
        yield process
        process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        with _STATE.lock:
            del _STATE.running[process]
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
    check()


def run(argv: Sequence[str], *, grace: float = 0.0, **options: Any) -> int:
    """Run a program to its end and return its exit status, negative for a signal; see `running`."""
    with running(argv, grace=grace, **options) as process:
        return process.wait()


def stop() -> None:
    """End all that runs and let nothing start any more. Returns when the programs have ended."""
    with _STATE.lock:
        _STATE.stopping = True
        left = dict(_STATE.running)
    for process, grace in left.items():
        if not grace:
            process.kill()
    for send in (signal.SIGTERM, signal.SIGKILL):
        limit = ambient.monotonic() + (max(left.values(), default=0.0) if send == signal.SIGTERM else _TERMINATE)
        while left := {process: grace for process, grace in left.items() if process.poll() is None}:
            if ambient.monotonic() >= limit:
                break
            ambient.sleep(0.01)
        for process in left:
            process.send_signal(send)


def resume() -> None:
    """Programs may start again: for a process, as a test's, that goes on after a stop."""
    _STATE.stopping = False
