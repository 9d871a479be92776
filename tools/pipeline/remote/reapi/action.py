# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A step as an action of the Remote Execution API: what the sandbox would do, said to somebody else.

    Action ─┬─ Command: argv behind the shell below, environment, out/NAME for each output, platform
            ├─ the root as one Merkle tree (tree.py)
            └─ a time limit

The service must make the action's input root the root of its file system, as buildbox-run does, and give it neither
network nor other users' files. What the API has no word for (umask, personality, working folder, make's job server)
a shell of the tool tree sets up. Outputs are regular files by their names; a link or folder in an output's place is
refused, here as there.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from tools.pipeline.engine import key
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.store.merkle import Digest
from tools.pipeline.remote.reapi.blobs import Source, message

TIMEOUT = 2 * 3600
"""Seconds that a step may run elsewhere. The longest, a kernel, takes minutes."""

PLATFORM: Mapping[str, str] = {
    "ISA": "x86-64",
    "OSFamily": "linux",
    "network": "off",
}
"""Properties that every step asks for, and unixUID and unixGID; the API's lexicon and buildbox have these names."""

# Modes of folders are the service's choice, those of files are ours.
_SHELL = "umask {umask} && chmod 755 {folders} && cd {here} && unset OLDPWD && "
# A job server of its own, with a token for each processor but the step's own, as engine/jobs.py has it here.
_JOBS = (
    "mkfifo /tmp/jobs && exec 9<>/tmp/jobs && n=$(nproc) && i=1 && "
    'while [ "$i" -lt "$n" ]; do printf + >&9; i=$((i + 1)); done && '
    'export MAKEFLAGS=" -j$n --jobserver-auth=fifo:/tmp/jobs" && '
)
_REST = f'exec {" ".join(key.PERSONALITY)} "$@"'


@dataclass(frozen=True, kw_only=True)
class Described:
    """An action: its digest, and the two messages that the service needs to know, as blobs."""

    digest: Digest
    blobs: Mapping[Digest, Source]


def describe(step: Step, *, root: Digest, platform: Mapping[str, str]) -> Described:
    """The step as an action on that root. `platform` is added to the properties that every step asks for."""
    asked = key.command(step)
    here = str(asked["working_directory"])
    shell = _SHELL.format(umask=asked["umask"], folders=shlex.join(_folders(step, here)), here=here)
    shell += (_JOBS if step.parallel else "") + _REST
    users = {"unixUID": str(asked["uid"]), "unixGID": str(asked["gid"])}
    command = reapi.Command(
        arguments=["/bin/sh", "-c", shell, "sh", *step.argv],
        output_paths=sorted(f"out/{name}" for name in step.outputs),
        platform=_platform({**users, **platform}),
    )
    for name, value in sorted(asked["environment"].items()):
        command.environment_variables.add(name=name, value=value)
    told = _encoded(command)
    action = reapi.Action(
        command_digest=message(Digest.of(told)),
        input_root_digest=message(root),
        timeout=Duration(seconds=TIMEOUT),
        # It stands in both since version 2.2 of the API.
        platform=command.platform,
    )
    data = _encoded(action)
    return Described(digest=Digest.of(data), blobs={Digest.of(told): told, Digest.of(data): data})


def _folders(step: Step, here: str) -> list[str]:
    """What the sandbox gives mode 0755: the root, what the step writes to, and every folder of inputs."""
    inputs = {str(parent) for path in step.inputs for parent in PurePosixPath(path).parents}
    return sorted({"/", here, "/out", *inputs})


def _platform(more: Mapping[str, str]) -> reapi.Platform:
    found = reapi.Platform()
    for name, value in sorted({**PLATFORM, **more}.items()):
        found.properties.add(name=name, value=value)
    return found


def _encoded(one: Message) -> bytes:
    return one.SerializeToString(deterministic=True)
