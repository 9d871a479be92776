# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Why this machine lets nobody make a sandbox, and what to do about it: kernel settings, AppArmor, containers."""

from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import ambient

_MOST = "proc/sys/user/max_user_namespaces"
_CLONE = "proc/sys/kernel/unprivileged_userns_clone"  # Debian's and Arch's kernels
_APPARMOR = "proc/sys/kernel/apparmor_restrict_unprivileged_userns"  # Ubuntu from 23.10 on
_PROFILE = "abi <abi/4.0>, profile bwrap /usr/bin/bwrap flags=(unconfined) { userns, }"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A kind of container: how it is recognised (a variable or a file), and what must be said to what runs it."""

    name: str
    variables: tuple[str, ...]
    files: tuple[str, ...]
    remedy: str


_UNCONFINED = "--security-opt seccomp=unconfined"
PLACES = (
    # Before docker and podman, which it may be made of.
    Place(
        name="a GitLab job",
        variables=("GITLAB_CI",),
        files=(),
        remedy="set privileged = true under [runners.docker] in the runner's config.toml, or use a shell executor",
    ),
    Place(
        name="a Kubernetes pod",
        variables=("KUBERNETES_SERVICE_HOST",),
        files=("var/run/secrets/kubernetes.io",),
        remedy="give the pod hostUsers: false and its container securityContext: procMount: Unmasked, "
        "seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}",
    ),
    Place(
        name="a podman container",
        variables=(),
        files=("run/.containerenv",),
        remedy=f"start it with podman run {_UNCONFINED} --security-opt unmask=ALL --security-opt label=disable",
    ),
    Place(
        name="a docker container",
        variables=(),
        files=(".dockerenv",),
        remedy=f"start it with docker run {_UNCONFINED} --security-opt apparmor=unconfined "
        "--security-opt systempaths=unconfined",
    ),
    Place(
        name="a container",
        variables=("container",),
        files=(),
        remedy="have it started with user namespaces allowed (seccomp, AppArmor) and /proc unmasked",
    ),
)


def remedy(root: Path = Path("/")) -> tuple[str, str]:
    """Where we are ("" for no container) and what to do; `root` is where /proc and the marks of containers are."""
    place = next((p for p in PLACES if _is_here(p, root)), None)
    where = f" in {place.name}" if place else ""
    if _setting(root / _MOST) == "0":
        return where, "as root on the host: sysctl -w user.max_user_namespaces=15000"
    if _setting(root / _CLONE) == "0":
        return where, "as root on the host: sysctl -w kernel.unprivileged_userns_clone=1"
    if place:
        return where, place.remedy
    if _setting(root / _APPARMOR) == "1":
        return where, (
            f"as root: echo '{_PROFILE}' >/etc/apparmor.d/bwrap && apparmor_parser -r /etc/apparmor.d/bwrap "
            "(or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0)"
        )
    return where, "allow user namespaces: something (seccomp, a security module, lacking capabilities) forbids them"


def _is_here(place: Place, root: Path) -> bool:
    return bool(ambient.host_environment(*place.variables)) or any((root / file).exists() for file in place.files)


def _setting(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
