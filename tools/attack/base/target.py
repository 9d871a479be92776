# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is attacked: a folder like out/, whole enough for sev-launch to start it."""

import hashlib
import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tools.launcher.config.runtime_config import RuntimeConfig, load_config
from tools.pipeline.base.errors import BuildError

CONFIG, LAUNCHER = "runtime.toml", "sev-launch"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Artifacts with their runtime.toml and a sev-launch beside them. `name` is unique among targets."""

    name: str
    folder: Path

    @cached_property
    def config(self) -> RuntimeConfig:
        """Its runtime.toml."""
        return load_config(self.folder / CONFIG)

    @property
    def launcher(self) -> Path:
        """sev-launch."""
        return self.folder / LAUNCHER

    @property
    def kernel(self) -> Path:
        """The kernel."""
        return self.folder / self.config.kernel.file

    @property
    def firmware(self) -> Path:
        """The firmware."""
        return self.folder / self.config.firmware.file

    @property
    def initramfs(self) -> Path:
        """The initramfs; BuildError when the kernel has it inside."""
        if self.config.initramfs is None:
            raise BuildError("has no initramfs of its own", where=str(self.folder))
        return self.folder / self.config.initramfs.file

    @property
    def cmdline(self) -> str:
        """The command line of its config."""
        return self.config.cmdline

    def derive(
        self,
        name: str,
        folder: Path,
        *,
        kernel: bytes | None = None,
        initramfs: bytes | None = None,
        firmware: bytes | None = None,
        cmdline: str | None = None,
    ) -> "Target":
        """The same with other parts, in the new `folder`; None: as it is."""
        shutil.copytree(self.folder, folder, symlinks=True)
        text = (folder / CONFIG).read_text()
        for role, data in (("kernel", kernel), ("initramfs", initramfs), ("firmware", firmware)):
            if data is None:
                continue
            pattern = rf'(\[artifacts\.{role}\]\nfile = "([^"]+)"\n)sha256 = "[0-9a-f]+"\nsize = [0-9]+\n'
            found = re.search(pattern, text)
            if found is None:
                raise BuildError(f"names no {role}", where=str(self.folder / CONFIG))
            (folder / found[2]).write_bytes(data)
            new = f'{found[1]}sha256 = "{hashlib.sha256(data).hexdigest()}"\nsize = {len(data)}\n'
            text = text.replace(found[0], new)
        if cmdline is not None:
            text = re.sub(r"(?m)^cmdline = .*$", lambda _: f'cmdline = "{cmdline}"', text)
        (folder / CONFIG).write_text(text)
        return Target(name=name, folder=folder)
