# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The remedy for a machine that allows no sandbox is the one for that machine."""

from pathlib import Path

import pytest

from tools.pipeline.sandbox import obstacles

PLACES = {
    "docker": (".dockerenv", "", "docker run --security-opt seccomp=unconfined"),
    "podman": ("run/.containerenv", "", "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL"),
    "kubernetes": ("", "KUBERNETES_SERVICE_HOST", "procMount: Unmasked"),
    "gitlab": (".dockerenv", "GITLAB_CI", "[runners.docker]"),
    "another": ("", "container", "have it started with user namespaces"),
}
SETTINGS = {
    "max": ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces="),
    "debian": ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    "ubuntu": ("kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor_parser -r /etc/apparmor.d/bwrap"),
}


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in obstacles.PLACES:
        for name in place.variables:
            monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", PLACES)
def test_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    mark, variable, says = PLACES[name]
    assert obstacles.remedy(tmp_path)[0] == ""
    if variable:
        monkeypatch.setenv(variable, "1")
    if mark:
        (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / mark).touch()
    where, remedy = obstacles.remedy(tmp_path)
    assert where.startswith(" in a")
    assert says in remedy


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(tmp_path: Path, name: str) -> None:
    file, value, says = SETTINGS[name]
    path = tmp_path / "proc/sys" / file
    path.parent.mkdir(parents=True)
    path.write_text(f"{1 - int(value)}\n")
    assert says not in obstacles.remedy(tmp_path)[1]
    path.write_text(f"{value}\n")
    assert says in obstacles.remedy(tmp_path)[1]
