# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A shell script of the build, run in the sandbox on files of a test."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tools.pipeline.engine.tree import Tree
from tools.pipeline.sandbox.sandbox import Command, Mount, bwrap_argv


def run(
    tree: Tree, script: str, *, inputs: Mapping[str, Path], writable: Mapping[str, Path]
) -> "subprocess.CompletedProcess[str]":
    """Run it; `inputs` and `writable` say what lies where inside."""
    for folder in writable.values():
        # When root calls, who runs inside is somebody else.
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
    mounts = [Mount(host=host, inside=inside) for inside, host in inputs.items()]
    mounts += [Mount(host=host, inside=inside, writable=True) for inside, host in writable.items()]
    command = Command(argv=("/bin/sh", "-euc", script), tree=tree.path, mounts=tuple(mounts))
    return subprocess.run(bwrap_argv(command), capture_output=True, text=True, umask=0o022, check=False)
