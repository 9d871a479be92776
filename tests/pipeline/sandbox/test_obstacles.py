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
    for place in (*obstacles.PLACES, obstacles.GITLAB):
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


def test_a_gitlab_job_outside_of_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a shell executor: the machine itself is what must be set up."""
    monkeypatch.setenv("GITLAB_CI", "true")
    assert obstacles.remedy(tmp_path)[0] == ""
    (tmp_path / ".dockerenv").touch()
    assert "[runners.docker]" in obstacles.remedy(tmp_path)[1]


def test_a_container_on_ubuntu_needs_both(tmp_path: Path) -> None:
    setting = tmp_path / "proc/sys/kernel/apparmor_restrict_unprivileged_userns"
    setting.parent.mkdir(parents=True)
    (tmp_path / ".dockerenv").touch()
    for value, parts in (("0", 1), ("1", 2)):
        setting.write_text(f"{value}\n")
        told = obstacles.remedy(tmp_path)[1].split("; ")
        assert len(told) == parts
        assert told[0].startswith("start it with docker run ")
        assert told[1:] in ([], ["as root on the host: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"])


STATUS = "Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nCapEff:\t{capabilities:016x}\n"


@pytest.mark.parametrize("mark", ["", ".dockerenv"], ids=["anywhere", "container"])
def test_capabilities_that_root_lacks(tmp_path: Path, mark: str) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / mark).touch()
    needed = 1 << 6 | 1 << 7 | 1 << 31
    for uid, capabilities, lacks in ((0, needed, ""), (0, needed - (1 << 7), ": SETUID"), (1000, 0, "")):
        (tmp_path / "proc/self/status").write_text(STATUS.format(uid=uid, capabilities=capabilities))
        told = obstacles.remedy(tmp_path)[1]
        assert ("capabilities that root lacks" in told) == bool(lacks)
        assert told.endswith(lacks)
