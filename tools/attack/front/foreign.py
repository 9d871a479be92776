# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Somebody else's artifacts: a folder with a runtime.toml, or one in which names say what is what."""

import shutil
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Part
from tools.attack.base.target import CONFIG, LAUNCHER, Target
from tools.launcher.config.runtime_config import load_config
from tools.pipeline.base.errors import UserError
from tools.sev.formats import NETWORK, with_addition

ROLES = ("kernel", "initramfs", "firmware")
_KNOWN = {
    "kernel": ("vmlinuz*", "bzImage*"),
    "initramfs": ("initramfs*", "initrd*"),
    "firmware": ("OVMF*.fd", "ovmf*.fd"),
}
_PARTS = {"kernel": Part.KERNEL, "initramfs": Part.AGENT, "firmware": Part.FIRMWARE}


def target(lab: Lab, folder: Path, named: Mapping[str, str]) -> tuple[Target, frozenset[Part]]:
    """What is in `folder`, completed with ours, and the parts that are theirs. UserError when nothing is."""
    if not folder.is_dir():
        raise UserError("is no folder", where=f"--out {folder}")
    place = lab.folder("foreign") / "out"
    if (folder / CONFIG).is_file() and not named:
        return _configured(lab, folder, place)
    found = {role: path for role in ROLES if (path := _find(folder, role, named.get(role, ""))) is not None}
    if not found:
        raise UserError(
            "holds nothing that looks like a kernel, an initramfs or firmware",
            where=f"--out {folder}",
            hint="say what is what: --kernel FILE, --initramfs FILE, --firmware FILE",
        )
    data = {role: path.read_bytes() for role, path in found.items()}
    made = lab.own.derive(
        "foreign",
        place,
        kernel=data.get("kernel"),
        initramfs=data.get("initramfs"),
        firmware=data.get("firmware"),
        # Their kernel may have a console: its first line says that it was started.
        cmdline=f"console=ttyS0 {lab.own.cmdline}" if "kernel" in data else None,
    )
    return made, frozenset(_PARTS[role] for role in found)


def _configured(lab: Lab, folder: Path, place: Path) -> tuple[Target, frozenset[Part]]:
    # Some rows are about guests with a network, which have a config and a kernel of their own beside the first.
    configs = [name for name in (CONFIG, with_addition(CONFIG, NETWORK)) if (folder / name).is_file()]
    files = {artifact.file for name in configs for artifact in load_config(folder / name).artifacts}
    place.mkdir()
    for name in (*configs, *sorted(files)):
        shutil.copyfile(folder / name, place / name)
    parts = {Part.FIRMWARE, Part.KERNEL, Part.AGENT}
    theirs = (folder / LAUNCHER).is_file()
    shutil.copy((folder if theirs else lab.own.folder) / LAUNCHER, place / LAUNCHER)
    if theirs:
        parts.add(Part.LAUNCHER)
    return Target(name="foreign", folder=place), frozenset(parts)


def _find(folder: Path, role: str, name: str) -> Path | None:
    if name:
        if not (folder / name).is_file():
            raise UserError(f"there is no {name!r}", where=f"--out {folder}", hint=f"--{role} names a file in it")
        return folder / name
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = [path for path in files if any(fnmatchcase(path.name, pattern) for pattern in _KNOWN[role])]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{names}: which is the {role}?", where=f"--out {folder}", hint=f"--{role} FILE says it")
    return found[0] if found else None
