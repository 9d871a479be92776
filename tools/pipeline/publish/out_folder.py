# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The output folder: runtime.toml, and everything copied to its place and checked there."""

from collections.abc import Mapping
from pathlib import Path

from tools.pipeline.base import files as digest
from tools.pipeline.base import ui
from tools.pipeline.engine import sandbox
from tools.pipeline.publish import expected, kata, runtime_config, toml_template
from tools.pipeline.publish.kata import Variant
from tools.pipeline.publish.runtime_config import Artifact
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Profile
from tools.pipeline.tasks.project import Project

SUMS = "SHA256SUMS"
_EXECUTABLE = "sev-launch"
_CONFIG = "runtime.toml"


def write_config(
    project: Project,
    profile: Profile,
    *,
    parts: Mapping[str, tuple[str, Path]],
    digests: Path,
    target: Path,
) -> None:
    """Render runtime.toml for the measured artifacts in `parts` and their launch-digests.json."""
    text = runtime_config.render(
        toml_template.read(project.root, runtime_config.TEMPLATE),
        profile=profile,
        guest=project.recipes.guest,
        artifacts={key: Artifact.of(path, file=name) for key, (name, path) in parts.items()},
        version=project.version(),
        digests=runtime_config.read_digests(digests),
    )
    digest.write_if_changed(target, text.encode())


def write_kata(project: Project, profile: Profile, *, parts: Mapping[str, str], folder: Path) -> None:
    """Render the drop-ins for Kata Containers; `parts` are the file names in the output folder by role."""
    template = toml_template.read(project.root, kata.TEMPLATE)
    for variant in Variant:
        text = kata.render(
            template,
            variant=variant,
            profile=profile,
            guest=project.recipes.guest,
            kernel=parts["kernel"],
            firmware=parts["firmware"],
        )
        digest.write_if_changed(folder / variant.file, text.encode())


def assemble(project: Project, profile: Profile, *, files: Mapping[str, Path], folder: Path) -> None:
    """Copy the artifacts to the output folder, each by rename, runtime.toml after what it names.

    A name may have a folder before it: kata/NAME.
    Whoever starts a guest while this runs gets the old set, the new one, or a refusal by digest. The
    packed launcher itself then checks the folder, in the sandbox, by its own schema.
    """
    names = sorted(files, key=lambda name: (name == _CONFIG, name))
    for name in names:
        mode = 0o755 if name == _EXECUTABLE else 0o644
        digest.write_if_changed(folder / name, files[name].read_bytes(), mode=mode)
    known = {folder / name for name in [*files, SUMS]}
    known |= {path.parent for path in known}
    for stray in sorted(set(folder.rglob("*")) - known):
        ui.line(f"   note: {stray.relative_to(folder)} in {folder.name}/ is not of this build")
    _check(project, folder)
    sums = "".join(f"{digest.of_file(folder / name)}  {name}\n" for name in sorted(files))
    digest.write_if_changed(folder / SUMS, sums.encode())
    _report(profile, folder, sorted(files), verdict=expected.verdict(project.root, folder))


def _check(project: Project, folder: Path) -> None:
    command = sandbox.Command(
        argv=("python3", "/out/sev-launch", "check"),
        tree=project.tree("build").path,
        mounts=(sandbox.Mount(host=folder, inside="/out"),),
        chdir="/out",
    )
    sandbox.output_of(command)


def _report(profile: Profile, folder: Path, names: list[str], *, verdict: str) -> None:
    ui.line("")
    ui.line(ui.paint(f"   {folder.name}/  ({profile.name} profile)", "1"))
    width = max(20, *(len(name) for name in names))
    for name in names:
        path = folder / name
        ui.line(f"   {name:<{width}} {ui.size(path.stat().st_size):>9}  sha256 {digest.of_file(path)}")
    ui.line("")
    ui.line(f"   {verdict}")
    ui.line("")
    if profile.name == DEFAULT_PROFILE:
        ui.line(f"   next: {folder.name}/sev-launch doctor    what this host can do")
        ui.line(f"         {folder.name}/sev-launch run --rootfs DIR -- COMMAND")
        ui.line("         (add --unprotected on a machine without SEV)")
