# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Namespaces: those that the guest has by itself, and those of the host's that are refused."""

import re

from tools.launcher.base.errors import UserError
from tools.launcher.oci.values import Table

_OWN = {
    "mount": ("the host's mounts", "a runtime's own configuration"),
    "pid": ("the host's processes", "--pid host"),
    "ipc": ("the host's shared memory", "--ipc host"),
    "uts": ("the host's name", "--uts host"),
    "network": ("the host's network", "--network host"),
}
"""Namespaces that must be the container's own: whose it would be otherwise, and the option that says so."""
_OTHERS = {
    "user": ("a guest is a boundary by itself, and has one user namespace", "--userns, userns-remap, no root"),
    "time": ("the guest has a clock of its own", "timeOffsets"),
}
_OF_A_PROCESS = re.compile(r"/proc/[0-9]+/.*")
_HOSTS_NETWORK = "/netns/default"
"""Where docker 20.10 keeps its own network namespace, which is the host's."""


def refuse_host(linux: Table, top: Table) -> None:
    """UserError for a namespace that is the host's or another container's."""
    found: dict[str, str] = {}
    for entry in linux.tables("namespaces"):
        kind, path = entry.text("type"), entry.text("path")
        if kind in found:
            raise entry.fault("type", f"is {kind[:40]!r} a second time")
        if kind in _OTHERS:
            reason, option = _OTHERS[kind]
            raise _refused(entry, option, reason)
        if kind not in (*_OWN, "cgroup"):
            raise entry.fault("type", f"is {kind[:40]!r}, which is no namespace that is known")
        found[kind] = path
        if path and kind != "network":
            raise _refused(
                entry, f"--{kind} container:…", "a guest shares nothing with another container but a network"
            )
        if path.endswith(_HOSTS_NETWORK):
            raise _refused(entry, "--network host", "a guest cannot have the host's network")
        if _OF_A_PROCESS.fullmatch(path):
            raise _refused(entry, "--network container:…", "a network namespace has one guest")
    for kind, (what, option) in _OWN.items():
        if kind not in found:
            raise UserError(
                f"refused (from {option}): no namespace {kind!r}, and a guest cannot have {what}",
                where=f"{top.where}: linux.namespaces",
            )


def network_namespace(linux: Table) -> str:
    """The path of the network namespace to join, "" for a new one."""
    return next((one.text("path") for one in linux.tables("namespaces") if one.text("type") == "network"), "")


def _refused(entry: Table, option: str, reason: str) -> UserError:
    return UserError(f"refused (from {option}): {reason}", where=entry.where)
