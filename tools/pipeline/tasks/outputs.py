# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What people get.

tools/launcher ── launcher ─────────────────────────────────┐
kernel, firmware, initramfs ─┬─ digests:PROFILE ─┬──────────┤
guest.toml, profile ─────────┤                   └─ runtime:PROFILE ─┬─ manifest:PROFILE ── artifacts:PROFILE
                             │   runtime.toml.j2 ────┘               │
                             └─ kata:PROFILE ────────────────────────┘
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from doit.tools import config_changed

from tools.pipeline.base import files as digest
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.guest import firmware
from tools.pipeline.measure import program, table
from tools.pipeline.measure.table import CPU_KEY, Guest
from tools.pipeline.publish import expected, manifest, out_folder, pack_launcher
from tools.pipeline.publish.kata import TEMPLATE, Variant
from tools.pipeline.recipes.profiles import Carry, Profile
from tools.pipeline.tasks import guest, inputs
from tools.pipeline.tasks.doit_glue import Task, action, remove
from tools.pipeline.tasks.project import Project
from tools.sev.errors import FormatError
from tools.sev.formats import DIGESTS_NAME

LAUNCHER = Path("build/launcher/sev-launch")


def launcher(project: Project) -> Task:
    """sev-launch, one executable file."""
    folder, target = project.root / "tools", project.root / LAUNCHER

    def work() -> None:
        digest.write_if_changed(target, pack_launcher.pack(folder), mode=0o755)

    return {
        "doc": "pack the launcher into one executable file",
        "actions": [action(work)],
        "file_dep": [
            *pack_launcher.sources(folder),
            project.root / "tools/pipeline/publish/pack_launcher.py",
        ],
        "targets": [target],
        "clean": remove(target),
        "io": {"capture": False},
    }


def _parts(project: Project, profile: Profile) -> dict[str, tuple[str, Path]]:
    """Measured artifacts: name in runtime.toml → file name in the output folder, and where it is built."""
    parts = {"kernel": ("vmlinuz", guest.bzimage(project, profile))}
    if profile.carry is Carry.BESIDE:
        parts["initramfs"] = ("initramfs.cpio.zst", project.root / guest.INITRAMFS)
    parts["firmware"] = ("OVMF.fd", guest.firmware_image(project, profile.firmware))
    return parts


def _digests_file(project: Project, profile: Profile) -> Path:
    return project.build / "digests" / profile.name / DIGESTS_NAME


def _config_file(project: Project, profile: Profile) -> Path:
    return project.build / "runtime" / profile.name / "runtime.toml"


def launch_guest(project: Project, profile: Profile, *, artifacts: Mapping[str, str]) -> Guest:
    """What the launch digests of a profile are computed for; `artifacts` are file names by role."""
    guest = project.recipes.guest
    return Guest(
        profile=profile.kind,
        version=project.version(),
        cpu=guest.cpu,
        vcpus=guest.vcpus,
        legacy_vm_type=guest.sev_es_legacy_vm_type,
        cmdline=profile.kernel.cmdline,
        firmware_size=profile.firmware.size.bytes,
        artifacts=artifacts,
    )


def _write_digests(project: Project, profile: Profile, *, parts: Mapping[str, tuple[str, Path]], target: Path) -> None:
    wanted = launch_guest(project, profile, artifacts={role: name for role, (name, _) in parts.items()})
    try:
        found = table.document(wanted, {role: path for role, (_, path) in parts.items()})
    except FormatError as error:
        raise (UserError if error.where == CPU_KEY else BuildError).of(error) from None
    digest.write_if_changed(target, table.serialise(found).encode())


def digests(project: Project) -> Iterator[Task]:
    """digests:PROFILE, the launch digests that the processor will report."""
    for profile in project.recipes.profiles:
        target = _digests_file(project, profile)
        parts = _parts(project, profile)
        yield {
            "name": profile.name,
            "doc": f"compute the launch digests of the {profile.name} profile",
            "actions": [action(partial(_write_digests, project, profile, parts=parts, target=target))],
            "file_dep": [
                *[path for _, path in parts.values()],
                project.root / "recipes/guest.toml",
                project.root / "recipes/profiles" / f"{profile.name}.toml",
                *[project.root / name for name in program.FILES],
                # The library, by version and SHA-256.
                project.root / "requirements.lock",
            ],
            "uptodate": [config_changed(project.version())],
            "targets": [target],
            "clean": remove(target),
            "io": {"capture": False},
        }


def runtime(project: Project) -> Iterator[Task]:
    """runtime:PROFILE, the runtime config."""
    for profile in project.recipes.profiles:
        target, measured = _config_file(project, profile), _digests_file(project, profile)
        parts = _parts(project, profile)
        yield {
            "name": profile.name,
            "doc": f"render runtime.toml of the {profile.name} profile",
            "actions": [
                action(
                    partial(
                        out_folder.write_config,
                        project,
                        profile,
                        parts=parts,
                        digests=measured,
                        target=target,
                    )
                )
            ],
            "file_dep": [
                *[path for _, path in parts.values()],
                measured,
                project.root / "recipes/runtime.toml.j2",
                project.root / "recipes/guest.toml",
                project.root / "recipes/profiles" / f"{profile.name}.toml",
                project.root / "tools/pipeline/publish/runtime_config.py",
                project.root / "tools/sev/policy.py",
                project.root / "tools/pipeline/publish/toml_template.py",
                project.root / "tools/pipeline/publish/out_folder.py",
            ],
            "uptodate": [config_changed(project.version())],
            "targets": [target],
            "clean": remove(target),
            "io": {"capture": False},
        }


def _drop_ins(project: Project, profile: Profile) -> dict[str, Path]:
    """Name in the output folder → where it is rendered. None for a kernel that brings an agent of its own."""
    if profile.carry is not Carry.BESIDE:
        return {}
    folder = project.build / "kata" / profile.name
    return {f"kata/{variant.file}": folder / variant.file for variant in Variant}


def kata(project: Project) -> Iterator[Task]:
    """kata:PROFILE, drop-ins for Kata Containers' configuration."""
    for profile in project.recipes.profiles:
        targets = list(_drop_ins(project, profile).values())
        if not targets:
            continue
        names = {role: name for role, (name, _) in _parts(project, profile).items()}
        folder = targets[0].parent
        yield {
            "name": profile.name,
            "doc": f"render drop-ins for Kata Containers, {profile.name} profile",
            "actions": [action(partial(out_folder.write_kata, project, profile, parts=names, folder=folder))],
            "file_dep": [
                project.root / TEMPLATE,
                project.root / "recipes/guest.toml",
                project.root / "recipes/profiles" / f"{profile.name}.toml",
                project.root / "tools/pipeline/publish/kata.py",
                project.root / "tools/pipeline/publish/toml_template.py",
                project.root / "tools/sev/policy.py",
                project.root / "tools/pipeline/publish/out_folder.py",
            ],
            "targets": targets,
            "clean": remove(folder),
            "io": {"capture": False},
        }


def _outputs(project: Project, profile: Profile) -> dict[str, Path]:
    """What the profile ships besides the manifest: name in the output folder → where it is built."""
    return {
        **dict(_parts(project, profile).values()),
        "sev-launch": project.root / LAUNCHER,
        DIGESTS_NAME: _digests_file(project, profile),
        "runtime.toml": _config_file(project, profile),
        **_drop_ins(project, profile),
    }


def _manifest_file(project: Project, profile: Profile) -> Path:
    return project.build / "manifest" / profile.name / manifest.NAME


def manifests(project: Project) -> Iterator[Task]:
    """manifest:PROFILE, what went in and what came out."""
    for profile in project.recipes.profiles:
        target = _manifest_file(project, profile)
        made = _outputs(project, profile)
        names = [profile.kernel.source, *firmware.pins(profile.firmware)]
        sources = [source for source in project.sources if source.pin.name in names]
        files = [*guest.files(project, profile), *_own_files(project, profile)]
        notes = guest.step_notes(project, profile)
        write = partial(
            manifest.write,
            project,
            profile,
            sources=sources,
            files=files,
            notes=notes,
            outputs=made,
            target=target,
        )
        yield {
            "name": profile.name,
            "doc": f"list inputs, steps and outputs of the {profile.name} profile",
            "actions": [action(write)],
            "file_dep": [
                *made.values(), *files, *notes,
                project.root / "tools/pipeline/publish/manifest.py",
                project.root / "tools/pipeline/sources/pins_text.py",
                inputs.stamp(project, "build"),
            ],
            "uptodate": [config_changed({s.pin.name: repr(s) for s in sources})],
            "targets": [target],
            "clean": remove(target),
            "io": {"capture": False},
        }  # fmt: skip


def _own_files(project: Project, profile: Profile) -> list[Path]:
    """Files of the checkout that only the output folder is made from."""
    recipes = project.root / "recipes"
    return [
        project.root / "pyproject.toml",
        recipes / "guest.toml",
        recipes / "runtime.toml.j2",
        recipes / "sources.toml",
        recipes / "toolchain.toml",
        recipes / "profiles" / f"{profile.name}.toml",
        *pack_launcher.sources(project.root / "tools"),
        *([project.root / TEMPLATE] if _drop_ins(project, profile) else []),
    ]


def artifacts(project: Project) -> Iterator[Task]:
    """artifacts:PROFILE, the complete output folder."""
    for profile in project.recipes.profiles:
        files = {**_outputs(project, profile), manifest.NAME: _manifest_file(project, profile)}
        folder = project.out(profile)
        yield {
            "name": profile.name,
            "doc": f"fill {folder.name}/ with the artifacts of the {profile.name} profile",
            "actions": [action(partial(out_folder.assemble, project, profile, files=files, folder=folder))],
            "file_dep": [
                *files.values(),
                project.root / "tools/pipeline/publish/out_folder.py",
                *[path for path in [project.root / expected.EXPECTED] if path.exists()],
                inputs.stamp(project, "build"),
            ],
            "targets": [folder / name for name in [*files, out_folder.SUMS]],
            "clean": remove(folder),
            "io": {"capture": False},
        }
