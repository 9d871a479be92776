# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The check can fail: non-determinism planted in a copy of the checkout is caught, named and explained.

Each plant is a mistake that somebody could make, in the code that makes an artifact, and is looked for with
the one variation that shows it.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checkout import copy_all
from tools.pipeline.base.errors import BuildError
from tools.pipeline.repro import check
from tools.pipeline.repro.variations import Name
from tools.pipeline.tasks import repro
from tools.pipeline.tasks.project import Project

_PACK = "tools/pipeline/publish/pack_launcher.py"
_SORTED = 'return sorted(folder.rglob("*.py"))'
_MAIN = '_add(archive, "__main__.py", _MAIN.encode())'


@dataclass(frozen=True)
class Plant:
    """A mistake: in which file, what stands there, what stands there then, and which variation shows it.

    `shown_by` None: any two builds do. `member`: where in the artifact, if it can be named.
    """

    file: str
    old: str
    new: str
    shown_by: Name | None
    member: str


PLANTS = {
    "host name": Plant(
        _PACK, _MAIN, f'{_MAIN}\n        import os; _add(archive, "built-on", os.uname().nodename.encode())',
        Name.HOST_NAME, member="built-on",
    ),
    "path": Plant(
        _PACK, _MAIN, f'{_MAIN}\n        _add(archive, "built-in", str(folder).encode())',
        Name.BUILD_PATH, member="built-in",
    ),
    "umask": Plant(
        _PACK, "info.external_attr = 0o100644 << 16",
        "import os; u = os.umask(0); os.umask(u); info.external_attr = (0o100666 & ~u) << 16",
        Name.UMASK, member="",
    ),
    "directory order": Plant(
        _PACK, _SORTED, 'return list(folder.rglob("*.py"))', Name.DIRECTORY_ORDER, member=""
    ),
    "random number": Plant(
        _PACK, _MAIN, f'{_MAIN}\n        import os; _add(archive, "build-id", os.urandom(8))',
        None, member="build-id",
    ),
}  # fmt: skip


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """A copy to plant in."""
    return copy_all(repository, tmp_path / "checkout")


def plant(copy: Path, name: str) -> Plant:
    """Make the mistake."""
    chosen = PLANTS[name]
    path = copy / chosen.file
    text = path.read_text()
    assert chosen.old in text
    path.write_text(text.replace(chosen.old, chosen.new, 1))
    return chosen


def run(copy: Path, target: str, *variations: Name) -> None:
    """`./doit repro:TARGET --vary …` on the copy."""
    project = Project.load(copy)
    check.run(project, repro.targets(project)[target], chosen=variations)


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_difference_is_caught_and_named(copy: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """In the error line, in the table, and in diffoscope's reports."""
    planted = plant(copy, name)
    with pytest.raises(BuildError) as info:
        run(copy, "launcher", *([planted.shown_by] if planted.shown_by else []))
    assert "build/launcher/sev-launch" in str(info.value)
    assert planted.member in str(info.value)
    report = copy / "build/repro/launcher/report/build-launcher-sev-launch"
    assert (report / "report.txt").stat().st_size > 0
    assert b"<html" in (report / "report.html").read_bytes()
    assert "DIFFERS in" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["host name", "umask"])
def test_other_variations_do_not_show_it(copy: Path, name: str) -> None:
    """So it is the variation that catches it, not chance."""
    planted = plant(copy, name)
    cheap = {Name.HOST_NAME, Name.UMASK, Name.TIME_ZONE, Name.HOME, Name.PATH}
    run(copy, "launcher", *sorted(cheap - {planted.shown_by}))


def test_the_check_passes_without_a_plant(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The control of all above, with every variation, each of which had an effect."""
    run(copy, "launcher", *Name)
    said = capfd.readouterr().err
    assert "same bytes" in said
    assert "NO EFFECT" not in said
    for name in Name:
        assert f"   {name} " in said


def test_a_date_in_the_sandbox_is_caught(copy: Path) -> None:
    """The clock of build steps is shifted too, or nobody would notice until the month ends."""
    script = copy / "initramfs/agent/build.sh"
    text = script.read_text()
    assert "cargo" in text
    main = copy / "initramfs/agent/src/main.rs"
    said = 'eprintln!("agent: {reason};'
    assert said in main.read_text()
    planted = 'eprintln!(concat!("agent of ", env!("BUILT"), ": {};'
    line = next(line for line in main.read_text().splitlines() if said in line)
    changed = line.replace(said, planted).replace('");', '"), reason);')
    main.write_text(main.read_text().replace(line, changed))
    script.write_text(text.replace("set -eu\n", "set -eu\nBUILT=$(date +%Y-%m)\nexport BUILT\n", 1))
    with pytest.raises(BuildError, match=r"build/agent/agent"):
        run(copy, "agent", Name.CLOCK)
