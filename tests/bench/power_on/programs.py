# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The programs that a start consists of, with their symbols.

kernel-K's objects ── vmlinux, and what unpacks it (the EFI stub)
firmware-F, compiled once more, by the same script ── every module, when the image has come out the same
agent, linked without being stripped
"""

import dataclasses
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench.power_on.elf import Elf
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.step import Step
from tools.pipeline.guest import agent, firmware, kernel
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks.project import Project

_KERNEL, _UNPACKER, _MODULES = "vmlinux", "unpacker", "modules.tar"
# What edk2's rules copy before they strip a module. Some are built for two phases, each in a folder of its own.
_COLLECT = (
    "cd /build/Build/*/*_GCC/X64 && find . -path '*/DEBUG/*.debug' | LC_ALL=C sort >/tmp/list"
    f" && tar --create --files-from=/tmp/list --file=/out/{_MODULES}"
)


@dataclass(frozen=True, kw_only=True)
class Programs:
    """What may run before the agent says HELLO. `unpacker` is the kernel's EFI stub with its decompressor."""

    kernel: Elf
    unpacker: Elf
    modules: dict[str, Elf]
    agent: Elf
    flash: bytes
    """The firmware's file, which ends at 4 GiB."""


def load(project: Project, folder: Path) -> Programs:
    """Those of the default profile; compiles firmware and agent with symbols unless the cache has them."""
    profile, plan = project.recipes.profile(DEFAULT_PROFILE), project.plan
    folder.mkdir(parents=True, exist_ok=True)
    linked = _kernel(plan.kernel(profile.kernel, builtin=False))
    made = plan.firmware(profile.firmware)
    named = _firmware(made)
    flash, again = (_output(project, step, firmware.IMAGE, folder) for step in (made, named))
    if flash != again:
        raise BuildError("gave other bytes when it was compiled for its symbols", where=made.name)
    whole = dataclasses.replace(
        plan.agent,
        name="agent-symbols",
        title="agent with symbols",
        environment={**plan.agent.environment, "CARGO_PROFILE_RELEASE_STRIP": "none"},
    )
    return Programs(
        kernel=Elf.read(_output(project, linked, _KERNEL, folder), where=_KERNEL),
        unpacker=Elf.read(_output(project, linked, _UNPACKER, folder), where=_UNPACKER),
        modules=_modules(_output(project, named, _MODULES, folder)),
        agent=Elf.read(_output(project, whole, agent.NAME, folder), where=whole.name),
        flash=flash,
    )


def _kernel(compiled: Step) -> Step:
    """Takes the two programs with symbols out of what compiling has left."""
    inside = "/inputs/objects"
    paths = {_KERNEL: "./vmlinux", _UNPACKER: "./arch/x86/boot/compressed/vmlinux"}
    moves = " && ".join(f"mv {path} /out/{name}" for name, path in paths.items())
    return Step(
        name=f"{compiled.name}-symbols",
        title=f"{compiled.title}, its symbols",
        argv=(
            "/bin/sh", "-euc",
            f"cd /build && tar --zstd --extract --file={inside} {' '.join(paths.values())} && {moves}",
        ),
        tools="build",
        inputs={inside: compiled.output(kernel.OBJECTS)},
        outputs=tuple(paths),
    )  # fmt: skip


def _firmware(made: Step) -> Step:
    """The same step, which gives its modules, too."""
    script = made.argv[-1].replace("exec bash", "bash")
    return dataclasses.replace(
        made,
        name=f"{made.name}-symbols",
        title=f"{made.title}, for its symbols",
        argv=(*made.argv[:-1], f"{script} && {_COLLECT}"),
        outputs=(*made.outputs, _MODULES),
        checks=(),
    )


def _modules(archive: bytes) -> dict[str, Elf]:
    """Every module by its name, in the order of the archive; two of one name get their folder's, too."""
    found: dict[str, Elf] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            path, stream = Path(member.name), tar.extractfile(member)
            if stream is not None:
                name = path.stem if path.stem not in found else f"{path.parts[-4]}/{path.stem}"
                found[name] = Elf.read(stream.read(), where=member.name)
    return found


def _output(project: Project, step: Step, name: str, folder: Path) -> bytes:
    path = folder / f"{step.name}-{name}"
    project.engine.ensure(step)
    project.engine.copy(step, name, path)
    return path.read_bytes()
