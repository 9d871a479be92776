# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The kernel command line: what is launched and what is digested come from here, byte for byte."""

from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.guest import verity as verity_image
from tools.sev.limits import CMDLINE_MAX


def compose(config: RuntimeConfig, *, append: str, verity: str | None, rootfs: Path | None) -> str:
    """The command line of the config, plus what --append and --verity say; nothing else may touch it."""
    parts = [config.cmdline]
    if append:
        parts.append(append)
    if verity is not None and rootfs is not None:
        parts.append(verity_image.read_verity(rootfs, root_hash=verity).cmdline)
    text = " ".join(part for part in parts if part)
    if len(text) > CMDLINE_MAX:
        raise UserError(f"the kernel command line has {len(text)} bytes, the kernel takes {CMDLINE_MAX}")
    keys = [word.partition("=")[0] for word in text.split() if word.startswith("sev_agent.")]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"{key} stands twice on the kernel command line; the agent refuses that")
    return text
