# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Working folders in memory: who gets one, and the disk for whom it is too small."""

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.pipeline.engine.workshop import Workshop, shell
from tools.pipeline.base import ambient
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.memory import Memory
from tools.pipeline.engine.scratch import Scratch

WHERE = "stat -f -c %T /build >/out/out; stat -c '%a %u' /build >>/out/out"


def said(workshop: Workshop, script: str, memory: Memory) -> str:
    """What the script leaves in /out/out."""
    engine = workshop.engine()
    engine.memory = memory
    step = shell(script)
    engine.ensure(step)
    target = workshop.folder / "said"
    target.unlink(missing_ok=True)
    engine.copy(step, "out", target)
    return target.read_text()


def test_memory_where_there_is_enough(workshop: Workshop) -> None:
    assert said(workshop, WHERE, Memory(available=lambda: 1 << 40)) == "tmpfs\n755 1000\n"


def test_the_disk_where_there_is_not(workshop: Workshop) -> None:
    kind, mode = said(workshop, WHERE, Memory(available=lambda: 0)).splitlines()
    assert (kind == "tmpfs", mode) == (_on_tmpfs(workshop.folder), "755 1000")


def _on_tmpfs(folder: Path) -> bool:
    """Whether the tests' own folder is in memory."""
    device = folder.stat().st_dev
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    kinds = {fields[2]: fields[fields.index("-") + 1] for fields in mounts}
    return kinds.get(f"{device >> 8}:{device & 0xFF}") == "tmpfs"


ON_DISK = "test $(stat -f -c %T /build) != tmpfs"
FULL = "head -c 3000000 /dev/zero >/build/zeros"
OF_THE_FULL = {
    "no space": FULL,
    "no space, and much is said after it": f"{FULL} || {{ seq 1000; exit 1; }}",
    "killed": f"{ON_DISK} || kill -9 $$",
    "a bus error": f"{ON_DISK} || kill -7 $$",
    "one of its programs was killed": f"{ON_DISK} || {{ echo Killed; exit 1; }}",
}


@pytest.mark.parametrize("script", OF_THE_FULL.values(), ids=OF_THE_FULL)
def test_once_more_on_disk_when_it_was_too_little(
    workshop: Workshop, capfd: pytest.CaptureFixture[str], script: str
) -> None:
    """Nothing of the first run is there in the second."""
    script = f"test ! -e /out/seen; touch /out/seen; {script}; echo made >/out/out"
    assert said(workshop, script, Memory(size=1 << 20, available=lambda: 1 << 40)) == "made\n"
    assert "note: memory was too little for the step; once more, on disk" in capfd.readouterr().err


def test_only_once_when_it_was_enough(workshop: Workshop, capfd: pytest.CaptureFixture[str]) -> None:
    """Nor when it fails for another reason."""
    memory = Memory(size=1 << 20, available=lambda: 1 << 40)
    assert said(workshop, f"{FULL.replace('3000000', '300000')}; echo made >/out/out", memory) == "made\n"
    with pytest.raises(BuildError):
        said(workshop, "echo broken; exit 1", memory)
    assert "too little" not in capfd.readouterr().err


def test_a_disk_that_is_full_is_not_tried_again(
    workshop: Workshop, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scratch, "has_space", lambda _: False)
    with pytest.raises(BuildError):
        said(workshop, FULL, Memory(size=1 << 20, available=lambda: 1 << 40))
    assert "too little" not in capfd.readouterr().err


def test_a_replay_is_on_disk(workshop: Workshop) -> None:
    """What the step leaves in its folder can be looked into."""
    engine = workshop.engine()
    engine.memory = Memory(available=lambda: 1 << 40)
    with pytest.raises(BuildError):
        engine.ensure(shell("stat -f -c %T /build; echo kept >/build/kept; exit 1"))
    assert engine.log(shell("", name="step")).read_text() == "tmpfs\n"
    replay = engine.build / "replay/step.sh"
    subprocess.run(["sh", replay], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (kept,) = (engine.build / "scratch").glob("*/build/kept")
    assert kept.read_text() == "kept\n"


def test_all_together_never_take_more_than_is_there() -> None:
    """Each leaves as much as it may take itself: for compilers."""
    memory = Memory(size=10, available=lambda: 45)
    with ExitStack() as stack:
        assert [stack.enter_context(memory.room()) for _ in range(5)] == [10, 10, 10, 0, 0]
    with memory.room() as size:
        assert size == 10


def test_the_setting(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEV_ARTIFACTS_SCRATCH", "disk")
    with Memory(available=lambda: 1 << 40).room() as size:
        assert size == 0
    monkeypatch.setenv("SEV_ARTIFACTS_SCRATCH", "ram")
    with pytest.raises(UserError, match="SEV_ARTIFACTS_SCRATCH: 'ram' is not known; set it to disk or unset it"):
        ambient.scratch_on_disk()


MACHINE = {"proc/meminfo": "MemTotal:  9 kB\nMemAvailable:  8192 kB\n"}
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"
HAS = {
    "no group": ({}, 8 << 20),
    "no limit": (
        {"proc/self/cgroup": "0::/a\n", f"{V2}/a/memory.max": "max\n", f"{V2}/a/memory.current": "7\n"},
        8 << 20,
    ),
    "its own limit": (
        {"proc/self/cgroup": "0::/a/b\n", f"{V2}/a/b/memory.max": "5000\n", f"{V2}/a/b/memory.current": "2000\n"},
        3000,
    ),
    "a limit above it": (
        {"proc/self/cgroup": "0::/a/b\n", f"{V2}/a/memory.max": "5000\n", f"{V2}/a/memory.current": "4000\n"},
        1000,
    ),
    "at the top of a container": (
        {"proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "5000\n", f"{V2}/memory.current": "6000\n"},
        0,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/x\n2:memory:/c\n1:name=systemd:/\n",
            f"{V1}/c/memory.limit_in_bytes": "5000\n",
            f"{V1}/c/memory.usage_in_bytes": "1\n",
        },
        4999,
    ),
}


@pytest.mark.parametrize(("group", "expected"), HAS.values(), ids=HAS)
def test_a_container_has_what_its_groups_leave_it(tmp_path: Path, group: dict[str, str], expected: int) -> None:
    for name, text in {**MACHINE, **group}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert ambient.available_memory(tmp_path) == expected


def test_this_machine() -> None:
    assert ambient.available_memory() > 0
