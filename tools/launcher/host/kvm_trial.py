# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Remembers whether a guest really ran on this host's KVM, so that the trial is paid once a boot.

A verdict is worth nothing more than time: a file that is missing, foreign or malformed counts as empty,
and one that cannot be written is not missed.
"""

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path

from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.host.qemu_program import QemuProgram

_NAME = "kvm-verdicts.json"
_SIZE_MAX = 1 << 16
_ENTRIES_MAX = 32
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def _folder() -> Path | None:
    """The XDG cache folder; relative values are invalid and ignored, as the specification says."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given.startswith("/"):
        return Path(given, "sev-artifacts")
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ".cache" / "sev-artifacts" if home.is_absolute() else None


def _key(qemu: QemuProgram, config: RuntimeConfig) -> str | None:
    try:
        boot = _BOOT_ID.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    parts = [boot, qemu.path, repr(qemu.version), *(artifact.sha256 for artifact in config.artifacts)]
    return hashlib.sha256(os.fsencode("\0".join(parts))).hexdigest()


def _load(path: Path) -> dict[str, bool]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:  # noqa: PTH123  a descriptor, not a path
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return {}
            data = json.loads(stream.read(_SIZE_MAX))
    except (OSError, ValueError, RecursionError):
        return {}
    verdicts = data.get("verdicts") if isinstance(data, dict) else None
    if not isinstance(verdicts, dict):
        return {}
    return {key: value for key, value in verdicts.items() if isinstance(value, bool)}


def recall(qemu: QemuProgram, config: RuntimeConfig) -> bool | None:
    """Whether KVM ran these artifacts under this QEMU since this host booted; None when never tried."""
    folder, key = _folder(), _key(qemu, config)
    if folder is None or key is None:
        return None
    return _load(folder / _NAME).get(key)


def remember(qemu: QemuProgram, config: RuntimeConfig, *, works: bool) -> None:
    """Keep a verdict for the rest of this boot."""
    folder, key = _folder(), _key(qemu, config)
    if folder is None or key is None:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        verdicts = _load(folder / _NAME)
        verdicts.pop(key, None)
        kept = dict(list(verdicts.items())[-(_ENTRIES_MAX - 1) :])
        kept[key] = works
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=_NAME)
        try:
            with open(descriptor, "w", encoding="utf-8") as stream:  # noqa: PTH123  a descriptor
                json.dump({"verdicts": kept}, stream, indent=1)
            Path(temporary).replace(folder / _NAME)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
