# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What runs in the guest.

    source:linux ── kernel_config:PROFILE ── kernel:PROFILE ──────────────┐
    source:edk2 ── firmware:TARGET-SIZE ──────────────────────────────────┤
    agent ── initramfs ───────────────────────────────────────────────────┴── (outputs)

Files that only have to be there are targets below build/; folders are stood for by stamps with their digest,
so that a change which gives the same bytes again stops there.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from doit.tools import config_changed

from tools.pipeline.base import files as digest
from tools.pipeline.engine.store import Result
from tools.pipeline.guest import agent, firmware, kernel, source_tree
from tools.pipeline.recipes.profiles import Carry, FirmwareRecipe, Profile
from tools.pipeline.tasks import inputs
from tools.pipeline.tasks.doit_glue import Task, action, remove
from tools.pipeline.tasks.project import Project

AGENT = Path("build/agent/agent")
CPIO = Path("build/initramfs/initramfs.cpio")
INITRAMFS = Path("build/initramfs/initramfs.cpio.zst")


def bzimage(project: Project, profile: Profile) -> Path:
    """The profile's kernel."""
    return project.build / "kernel" / profile.name / "bzImage"


def firmware_image(project: Project, recipe: FirmwareRecipe) -> Path:
    """The firmware of a recipe; profiles with the same recipe share it."""
    return project.build / "firmware" / recipe.name / "OVMF.fd"


def _config(project: Project, profile: Profile) -> Path:
    return project.build / "kernel" / profile.name / "config"


def _source_stamp(project: Project, name: str) -> Path:
    return project.build / "stamps" / f"source-{name}"


def _code(project: Project, *names: str) -> list[Path]:
    """The modules whose change may change what a task makes; the steps' own code is in their keys."""
    return [project.root / "tools/pipeline" / f"{name}.py" for name in ("engine/sandbox", "engine/store", *names)]


def sources(project: Project) -> Iterator[Task]:
    """source:NAME for each source that a profile uses."""
    kernels = {p.kernel.source: p.kernel for p in project.recipes.profiles}
    firmwares = {p.firmware.source: p.firmware for p in project.recipes.profiles}
    for name, kernel_recipe in sorted(kernels.items()):
        folder = kernel.patch_folder(project, kernel_recipe)
        files = [
            folder / "series",
            *sorted(folder.glob("*.patch")),
            *_code(project, "guest/source_tree", "guest/patches", "guest/kernel"),
        ]
        make = partial(kernel.source_tree, project, kernel_recipe)
        yield _source(project, name, make, pins=[name], files=files)
    for name, firmware_recipe in sorted(firmwares.items()):
        files = [
            *firmware.patch_files(project),
            *_code(project, "guest/source_tree", "guest/patches", "guest/firmware"),
        ]
        make = partial(firmware.source_tree, project, firmware_recipe)
        yield _source(project, name, make, pins=firmware.pins(firmware_recipe), files=files)


def _source(project: Project, name: str, make: Callable[[], Result], *, pins: list[str], files: list[Path]) -> Task:
    stamp = _source_stamp(project, name)

    def work() -> None:
        digest.write_if_changed(stamp, f"{make().digests[source_tree.FOLDER]}\n".encode())

    return {
        "name": name,
        "doc": f"unpack {name} and apply our patches",
        "actions": [action(work)],
        "file_dep": [*files, inputs.stamp(project, "build")],
        "task_dep": ["fetch:sources"],
        "uptodate": [config_changed({pin: project.source(pin).pin.sha256 for pin in pins})],
        "targets": [stamp, project.store.note(f"source-{name}")],
        "clean": remove(stamp),
        "io": {"capture": False},
    }


def kernel_config(project: Project) -> Iterator[Task]:
    """kernel_config:PROFILE, the audited configuration."""
    for profile in project.recipes.profiles:
        target = _config(project, profile)
        yield {
            "name": profile.name,
            "doc": f"kernel configuration of the {profile.name} profile, audited",
            "actions": [action(partial(kernel.configure, project, profile, target))],
            "file_dep": [
                *kernel.fragments(project, profile),
                *_code(project, "guest/kernel", "guest/kconfig"),
                _source_stamp(project, profile.kernel.source),
                inputs.stamp(project, "build"),
            ],
            "uptodate": [config_changed({"fragments": repr(profile.kernel.fragments), "carry": profile.carry})],
            "targets": [target, project.store.note(kernel.config_log(profile))],
            "clean": remove(target),
            "io": {"capture": False},
        }


def kernels(project: Project) -> Iterator[Task]:
    """kernel:PROFILE."""
    for profile in project.recipes.profiles:
        target, config, cpio = bzimage(project, profile), _config(project, profile), project.root / CPIO
        builtin = [cpio] if profile.carry is Carry.BUILTIN else []
        yield {
            "name": profile.name,
            "doc": f"compile the kernel of the {profile.name} profile",
            "actions": [action(partial(kernel.build, project, profile, config=config, cpio=cpio, target=target))],
            "file_dep": [
                config,
                *builtin,
                *_code(project, "guest/kernel"),
                _source_stamp(project, profile.kernel.source),
                inputs.stamp(project, "build"),
            ],
            "targets": [target, *[project.store.note(log) for log in kernel.logs(profile)]],
            "clean": remove(target),
            "io": {"capture": False},
        }


def whole_kernels(project: Project) -> Iterator[Task]:
    """kernel_whole:PROFILE for each profile whose kernel is linked from another's objects."""
    for profile in project.recipes.profiles:
        if profile.carry is Carry.BUILTIN:
            config, cpio, linked = _config(project, profile), project.root / CPIO, bzimage(project, profile)
            check = partial(kernel.check_whole, project, profile, config=config, cpio=cpio, linked=linked)
            yield {
                "name": profile.name,
                "doc": f"compile the {profile.name} kernel whole and compare it with the linked one",
                "actions": [action(check)],
                "task_dep": [f"kernel:{profile.name}"],
                "io": {"capture": False},
            }


def firmwares(project: Project) -> Iterator[Task]:
    """firmware:TARGET-SIZE for each combination that a profile uses."""
    recipes = {p.firmware.name: p.firmware for p in project.recipes.profiles}
    for name, recipe in sorted(recipes.items()):
        target = firmware_image(project, recipe)
        yield {
            "name": name,
            "doc": f"build OVMF (AmdSev), {recipe.target}, {recipe.size}, and check its footer",
            "actions": [action(partial(firmware.build, project, recipe, target))],
            "file_dep": [
                firmware.script(project),
                *_code(project, "guest/firmware"),
                _source_stamp(project, recipe.source),
                inputs.stamp(project, "build"),
            ],
            "targets": [target, project.store.note(firmware.log(recipe))],
            "clean": remove(target),
            "io": {"capture": False},
        }


def agents(project: Project) -> Task:
    """The agent."""
    target = project.root / AGENT
    return {
        "doc": "compile the guest agent (Rust, static)",
        "actions": [action(partial(agent.build, project, target))],
        "file_dep": [*agent.sources(project), *_code(project, "guest/agent"), inputs.stamp(project, "build")],
        "targets": [target, project.store.note("agent")],
        "clean": remove(target),
        "io": {"capture": False},
    }


def initramfs(project: Project) -> Task:
    """The initramfs, plain and compressed."""
    built, cpio, compressed = project.root / AGENT, project.root / CPIO, project.root / INITRAMFS
    folder = project.root / "initramfs"
    return {
        "doc": "pack the initramfs from its manifest; fails over the budget",
        "actions": [action(partial(agent.pack, project, agent=built, cpio=cpio, compressed=compressed))],
        "file_dep": [
            built,
            folder / "manifest.toml",
            *[folder / name for name in agent.manifest(project).files()],
            *_code(project, "guest/agent", "guest/initramfs"),
            inputs.stamp(project, "build"),
        ],
        "targets": [cpio, compressed, project.store.note("initramfs")],
        "clean": remove(cpio, compressed),
        "io": {"capture": False},
    }


def step_notes(project: Project, profile: Profile) -> list[Path]:
    """What the profile's build steps were and gave: targets of the tasks above."""
    logs = [
        f"source-{profile.kernel.source}",
        f"source-{profile.firmware.source}",
        "agent",
        "initramfs",
        firmware.log(profile.firmware),
        kernel.config_log(profile),
        *kernel.logs(profile),
    ]
    return [project.store.note(log) for log in sorted(logs)]


def files(project: Project, profile: Profile) -> list[Path]:
    """Every file of the checkout that the profile's kernel, firmware and initramfs are made from, sorted."""
    patches = kernel.patch_folder(project, profile.kernel)
    folder = project.root / "initramfs"
    return sorted(
        {
            *kernel.fragments(project, profile),
            patches / "series",
            *sorted(patches.glob("*.patch")),
            firmware.script(project),
            *firmware.patch_files(project),
            folder / "manifest.toml",
            *[folder / name for name in agent.manifest(project).files()],
            *agent.sources(project),
        }
    )
