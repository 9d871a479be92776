# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The output folder: what steps have made, copied to its place and checked there.

outputs of steps ── verified copies ─┬─ out/
manifest.json ───────────────────────┘   └─ sev-launch check, in the sandbox ── SHA256SUMS
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import files, ui
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.step import Output
from tools.pipeline.publish import expected, launcher, manifest
from tools.pipeline.sandbox import sandbox
from tools.sev.formats import MKFS_NAME, NETWORK, QEMU_NAME, RUNTIME_NAME, SUMS_NAME, with_addition

_CHECK_TOOLS = "python"
_EXECUTABLES = {launcher.NAME, launcher.RUNTIME, MKFS_NAME, QEMU_NAME}
_CONFIGS = {RUNTIME_NAME, with_addition(RUNTIME_NAME, NETWORK)}


@dataclass(frozen=True, kw_only=True)
class OutFolder:
    """A profile's output folder: each file's output, and the manifest's bytes beside them.

    A name may have a folder before it: kata/NAME.
    """

    folder: Path
    outputs: Mapping[str, Output]

    def is_current(self, engine: Engine, listed: bytes) -> bool:
        """Whether the folder holds exactly these files with these bytes."""
        wanted = self._digests(engine, listed)
        if wanted is None:
            return False
        sums = _sums(wanted)
        try:
            found = {name: files.of_file(self.folder / name) for name in wanted}
            return found == wanted and (self.folder / SUMS_NAME).read_bytes() == sums
        except OSError:
            return False

    def fill(self, engine: Engine, listed: bytes, *, root: Path, profile: str, default: bool) -> None:
        """Copy everything to its place, each file by rename, configs after what they name; then check.

        Whoever starts a guest while this runs gets the old set, the new one, or a refusal by digest. The packed
        launcher itself checks the folder, in the sandbox, by its own schema. Raises BuildError for what it refuses.
        """
        wanted = self._digests(engine, listed)
        assert wanted is not None
        for name in sorted(self.outputs, key=lambda name: (name in _CONFIGS, name)):
            target, output = self.folder / name, self.outputs[name]
            mode = 0o755 if name in _EXECUTABLES else 0o644
            _put(engine, output, target, digest=wanted[name], mode=mode)
        files.write_if_changed(self.folder / manifest.NAME, listed)
        self._name_strays(wanted)
        for name in sorted(_CONFIGS & self.outputs.keys()):
            self._check(engine, name)
        files.write_if_changed(self.folder / SUMS_NAME, _sums(wanted))
        self._report(wanted, profile=profile, default=default, verdict=expected.verdict(root, self.folder).line)

    def _digests(self, engine: Engine, listed: bytes) -> dict[str, str] | None:
        """File name → SHA-256; None when a step has not been made."""
        found = {manifest.NAME: files.of_bytes(listed)}
        for name, output in self.outputs.items():
            result = engine.find(output.step)
            if result is None:
                return None
            found[name] = result.outputs[output.name].digest.sha256
        return found

    def _name_strays(self, wanted: Mapping[str, str]) -> None:
        known = {self.folder / name for name in [*wanted, SUMS_NAME]}
        known |= {path.parent for path in known}
        for stray in sorted(set(self.folder.rglob("*")) - known):
            ui.line(f"   note: {stray.relative_to(self.folder)} in {self.folder.name}/ is not of this build")

    def _check(self, engine: Engine, config: str) -> None:
        command = sandbox.Command(
            argv=("python3", f"/out/{launcher.NAME}", "check", "--config", f"/out/{config}"),
            tree=engine.check_tools(_CHECK_TOOLS).path,
            mounts=(sandbox.Mount(host=self.folder, inside="/out"),),
            chdir="/out",
        )
        # When all steps' results were there, nothing has tried it yet.
        sandbox.available()
        sandbox.output_of(command)

    def _report(self, wanted: Mapping[str, str], *, profile: str, default: bool, verdict: str) -> None:
        name = self.folder.name
        ui.line("")
        ui.line(ui.paint(f"   {name}/  ({profile} profile)", "1"))
        width = max(20, *(len(file) for file in wanted))
        for file, digest in sorted(wanted.items()):
            size = ui.size((self.folder / file).stat().st_size)
            ui.line(f"   {file:<{width}} {size:>9}  sha256 {digest}")
        ui.line("")
        ui.line(f"   {verdict}")
        ui.line("")
        if default:
            ui.line(f"   next: {name}/sev-launch doctor    what this host can do")
            ui.line(f"         {name}/sev-launch run --rootfs DIR -- COMMAND")
            ui.line("         (add --unprotected on a machine without SEV)")
            ui.line(f"         {name}/sev-runtime doctor   the same for docker, podman and containerd")
            ui.line(f"         {name}/sev-runtime install  tells one of them")


def _put(engine: Engine, output: Output, target: Path, *, digest: str, mode: int) -> None:
    """Copy an output to its place by rename, unless it is there already."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Of our own, never the umask's: the check below is made by another user when root builds.
    target.parent.chmod(0o755)
    if target.is_file() and not target.is_symlink() and files.of_file(target) == digest:
        target.chmod(mode)
        return
    temporary = target.with_name(f".{target.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        engine.copy(output.step, output.name, temporary)
        temporary.chmod(mode)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _sums(digests: Mapping[str, str]) -> bytes:
    """In sha256sum's format."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()
