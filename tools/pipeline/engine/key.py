# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A step's key: the SHA-256 of a canonical description of what is executed.

The description has the shape of an action of the Remote Execution API: a command (argv, environment, working
directory, ids, umask), a Merkle digest for each mount point, and the outputs. Names, titles and checks are not in
it, and no source text of ours: what a step is called or how it is reported changes no byte.
"""

import json
from collections.abc import Mapping
from typing import Any

from tools.pipeline.base import files
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.store import merkle
from tools.pipeline.sandbox import sandbox

ENGINE_VERSION = 1
"""Raised when the same description comes to mean something else: another sandbox, other folders or file modes.

tests/pipeline/engine/test_key.py holds descriptions and their keys, and fails until this is raised.
"""


PERSONALITY = sandbox.PERSONALITY
"""What every step's command is started by, here and elsewhere; no part of a key."""


def command(step: Step) -> dict[str, Any]:
    """What is started, in which surroundings."""
    return {
        "argv": list(step.argv),
        "environment": {**sandbox.ENVIRONMENT, **step.environment},
        "working_directory": sandbox.WORKING_DIRECTORY,
        "uid": sandbox.UID,
        "gid": sandbox.UID,
        "umask": f"{sandbox.UMASK:03o}",
    }


def describe(step: Step, *, tools: str, inputs: Mapping[str, merkle.File]) -> dict[str, Any]:
    """All that the result depends on. `tools` is the tool tree's digest, `inputs` what lies at each inside path."""
    return {
        "engine": ENGINE_VERSION,
        "command": command(step),
        "mounts": {"/": tools, **mounts(inputs)},
        "outputs": sorted(step.outputs),
        "parallel": step.parallel,
    }


def mounts(inputs: Mapping[str, merkle.File]) -> dict[str, str]:
    """The digest of each top-level folder that holds inputs."""
    root = merkle.of_files({path.removeprefix("/"): node for path, node in inputs.items()})
    return {f"/{name.decode()}": node.digest().sha256 for name, node in root.members.items()
            if isinstance(node, merkle.Folder)}  # fmt: skip


def of(description: Mapping[str, Any]) -> str:
    """SHA-256 of the description in a form that has one text for one meaning."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return files.of_bytes(text.encode())
