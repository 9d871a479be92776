# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime features`: what this runtime can do, as the OCI runtime specification has it (features.md)."""

from typing import Any

from tools.launcher.base.ui import write_json
from tools.runtime.cli import words
from tools.runtime.cli.main import Context
from tools.runtime.config.annotations import PREFIX
from tools.runtime.config.settings import ALLOWED
from tools.runtime.life.create import VERSION
from tools.sev.workload.document import CAPABILITIES

_HOOKS = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")


def run(given: list[str], _context: Context) -> int:
    """Print it."""
    words.parse(given, {})
    write_json(value())
    return 0


def value() -> dict[str, Any]:
    """The features structure."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": list(_HOOKS),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
            "capabilities": [f"CAP_{name.upper()}" for name in CAPABILITIES],
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": False, "rdma": False},
            "seccomp": {"enabled": True},
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
        },
        "potentiallyUnsafeConfigAnnotations": [PREFIX + name for name in ALLOWED],
    }
