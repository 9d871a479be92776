# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Why this machine lets nobody make a sandbox, and what to do about it: kernel settings, AppArmor, containers."""

from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import ambient

_MOST = "proc/sys/user/max_user_namespaces"
_CLONE = "proc/sys/kernel/unprivileged_userns_clone"  # Debian's and Arch's kernels
_RESTRICTED = "kernel.apparmor_restrict_unprivileged_userns"  # Ubuntu from 23.10 on
_APPARMOR = f"proc/sys/{_RESTRICTED.replace('.', '/')}"
_CAPABILITIES = {"SETGID": 6, "SETUID": 7, "SETFCAP": 31}  # that confine.py's root needs; linux/capability.h
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


# In one of these. Not the other options: its security_opt knows no systempaths.
GITLAB = Place(
    name="a container of GitLab's",
    variables=("GITLAB_CI",),
    files=(),
    remedy="set privileged = true under [runners.docker] or [runners.kubernetes] in the runner's config.toml, "
    "or use a shell executor",
)


def remedy(root: Path = Path("/")) -> tuple[str, str]:
    """Where we are ("" for no container) and what to do; `root` is where /proc and the marks of containers are."""
    place = next((p for p in PLACES if _is_here(p, root)), None)
    if place and _is_here(GITLAB, root):
        place = GITLAB
    where = f" in {place.name}" if place else ""
    if _setting(root / _MOST) == "0":
        return where, "as root on the host: sysctl -w user.max_user_namespaces=15000"
    if _setting(root / _CLONE) == "0":
        return where, "as root on the host: sysctl -w kernel.unprivileged_userns_clone=1"
    if _is_chroot(root):
        return f"{where} in a chroot", "enter it with bwrap --dev-bind FOLDER / --cap-add ALL sh, not with chroot"
    told = [place.remedy] if place else []
    if lacking := _lacking(root):
        told.append(f"run as another user than root, or with the capabilities that root lacks: {', '.join(lacking)}")
    if _setting(root / _APPARMOR) == "1":
        setting = f"sysctl -w {_RESTRICTED}=0"
        profile = f"echo '{_PROFILE}' >/etc/apparmor.d/bwrap && apparmor_parser -r /etc/apparmor.d/bwrap"
        told.append(f"as root on the host: {setting}" if place else f"as root: {profile} (or {setting})")
    return where, "; ".join(told) or (
        "allow user namespaces: something (seccomp, a security module, a chroot, lacking capabilities) forbids them"
    )


def _is_chroot(root: Path) -> bool:
    """Whether nothing is mounted at / : so it is in a chroot into a folder, and nowhere else."""
    mounted = _setting(root / "proc/self/mountinfo")
    return bool(mounted) and "/" not in {line.split()[4] for line in mounted.splitlines()}


def _lacking(root: Path) -> list[str]:
    """Capabilities that we need and have not, if we are root."""
    status = dict(line.split(":", 1) for line in _setting(root / "proc/self/status").splitlines())
    if not status or status["Uid"].split()[1] != "0":
        return []
    return [name for name, bit in _CAPABILITIES.items() if not int(status["CapEff"], 16) >> bit & 1]


def _is_here(place: Place, root: Path) -> bool:
    return bool(ambient.host_environment(*place.variables)) or any((root / file).exists() for file in place.files)


def _setting(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
