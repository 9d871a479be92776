# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Hooks of the engine: programs that get the container's state on stdin, each within its time."""

import dataclasses
import json
import subprocess
from collections.abc import Sequence

from tools.launcher.oci.container import Hook, Hooks
from tools.runtime.life.folder import ContainerError

_SAID = 400  # characters of what a failing hook wrote


def run(kind: str, hooks: Sequence[Hook], state: bytes, *, bundle: str) -> None:
    """Run them one after the other; ContainerError names the first that fails, and the rest do not run."""
    for number, hook in enumerate(hooks):
        where = f"hook {kind}[{number}] ({hook.path})"
        try:
            done = subprocess.run(
                hook.args or (hook.path,),
                executable=hook.path,
                env=dict(entry.partition("=")[::2] for entry in hook.env),
                cwd=bundle,
                input=state,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=hook.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ContainerError(f"took longer than its {hook.timeout:g} s", where=where) from None
        except OSError as error:
            raise ContainerError(f"cannot be run: {error.strerror}", where=where) from None
        if done.returncode != 0:
            how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
            said = done.stdout.decode("utf-8", "replace").strip()[-_SAID:]
            raise ContainerError(f"ended with {how}" + (f": {said}" if said else ""), where=where)


def packed(hooks: Hooks) -> bytes:
    """Those that other processes run later, as a file's content; empty for none."""
    if not hooks.poststart and not hooks.poststop:
        return b""
    later = {"poststart": hooks.poststart, "poststop": hooks.poststop}
    return json.dumps({kind: [dataclasses.asdict(hook) for hook in some] for kind, some in later.items()}).encode()


def unpacked(data: bytes, kind: str) -> list[Hook]:
    """Those of a kind from packed()'s file."""
    return [
        Hook(path=one["path"], args=tuple(one["args"]), env=tuple(one["env"]), timeout=one["timeout"])
        for one in json.loads(data)[kind]
    ]
