# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Working folders in memory: who gets one, and the disk for whom it is too small."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.pipeline.engine.workshop import Workshop, shell
from tools.pipeline.base import ambient
from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.memory import Memory

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


def test_once_more_on_disk_when_it_was_too_little(workshop: Workshop, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing of the first run is there in the second."""
    script = "test ! -e /out/seen; touch /out/seen; head -c 3000000 /dev/zero >/build/zeros; echo made >/out/out"
    assert said(workshop, script, Memory(size=1 << 20, available=lambda: 1 << 40)) == "made\n"
    assert "1.0 MiB of memory were too little; once more, on disk" in capfd.readouterr().err
    script = script.replace("3000000", "300000")
    assert said(workshop, script, Memory(size=1 << 20, available=lambda: 1 << 40)) == "made\n"
    assert "too little" not in capfd.readouterr().err


def test_all_together_never_take_more_than_is_there() -> None:
    """Each leaves as much as it may take itself: for compilers."""
    memory = Memory(size=10, available=lambda: 45)
    with ExitStack() as stack:
        assert [stack.enter_context(memory.room()) for _ in range(5)] == [10, 10, 10, 0, 0]
    with memory.room() as size:
        assert size == 10


def test_what_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEV_ARTIFACTS_SCRATCH", raising=False)
    assert ambient.available_memory() > 0
    monkeypatch.setenv("SEV_ARTIFACTS_SCRATCH", "disk")
    assert ambient.available_memory() == 0
    monkeypatch.setenv("SEV_ARTIFACTS_SCRATCH", "ram")
    with pytest.raises(UserError, match="SEV_ARTIFACTS_SCRATCH: 'ram' is not known; set it to disk or unset it"):
        ambient.available_memory()


def test_a_container_has_what_its_group_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEV_ARTIFACTS_SCRATCH", raising=False)
    most, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(ambient, "_GROUP_MEMORY", ((str(most), str(used)),))
    machine = ambient.available_memory()
    most.write_text("5000\n")
    used.write_text("2000\n")
    assert ambient.available_memory() == 3000
    most.write_text("max\n")
    assert ambient.available_memory() > machine // 2
