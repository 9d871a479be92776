# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The check can fail: non-determinism planted in a copy of the checkout is caught, named and explained.

Each plant is a mistake that somebody could make, in the code that makes the launcher, and is looked for with the
one variation that shows it. What is worked out while the graph is made sees the machine; what runs in the sandbox
sees only what the sandbox cannot hide.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checkout import copy_all
from tools.pipeline.base.errors import BuildError
from tools.pipeline.repro import check
from tools.pipeline.repro.variations import Name
from tools.pipeline.tasks.commands import repro
from tools.pipeline.tasks.project import Project

_STEP = "tools/pipeline/publish/launcher.py"
_IMPORT = "from tools.pipeline.engine.step import CheckoutFile, Step\n"
_PACKS = '"python3", "/inputs/pack.py"'
_MEMBER = "tools/launcher/planted.py"


@dataclass(frozen=True)
class Plant:
    """A mistake: Python for a text that is packed, or shell that writes to the end of what was packed.

    `shown_by` None: any two builds show it.
    """

    shown_by: Name | None
    graph: str = ""
    sandbox: str = ""


PLANTS = {
    "host name": Plant(Name.HOST_NAME, graph="os.uname().nodename"),
    "path": Plant(Name.BUILD_PATH, graph="root"),
    "umask": Plant(Name.UMASK, graph="(os.umask(0o22), os.umask(0o22))[0]"),
    "user": Plant(Name.USER, graph="os.geteuid()"),
    "directory order": Plant(Name.DIRECTORY_ORDER, sandbox="ls -U /src/tools/launcher"),
    "order in the working folder": Plant(
        Name.DIRECTORY_ORDER, sandbox="mkdir /build/d && cd /build/d && touch k f a m c x b q z e && ls -U"
    ),
    "date": Plant(Name.CLOCK, sandbox="date +%Y-%m"),
    "cores": Plant(Name.CORES, sandbox="nproc"),
    "random number": Plant(None, sandbox="od -An -N8 -tx8 /dev/urandom"),
}


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """A copy to plant in."""
    return copy_all(repository, tmp_path / "checkout")


def replace(path: Path, old: str, new: str) -> None:
    """`old` stands there once, or the test would test nothing."""
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))


def plant(copy: Path, name: str) -> Plant:
    """Make the mistake."""
    chosen, path = PLANTS[name], copy / _STEP
    if chosen.graph:
        replace(path, _IMPORT, f"import os\nfrom tools.pipeline.engine.step import Literal\n{_IMPORT}")
        planted = f'"/src/{_MEMBER}": Literal(data=f"# {{{chosen.graph}}}\\n".encode()),'
        replace(path, "        inputs={\n", f"        inputs={{\n            {planted}\n")
    else:
        planted = f"""'"$@" && {chosen.sandbox} >>/out/sev-launch'"""
        replace(path, f"argv=({_PACKS}", f'argv=("/bin/sh", "-euc", {planted}, "sh", {_PACKS}')
    return chosen


def run(copy: Path, *variations: Name) -> None:
    """`./doit repro:launcher --vary …` on the copy."""
    project = Project.load(copy)
    target = repro.targets(project)["launcher"]
    tree = project.trees.ensure("repro").path
    check.run(target, repro.place(project, target), tree=tree, chosen=variations)


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_difference_is_caught_and_named(copy: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """In the error line, in the table, and in diffoscope's reports."""
    planted = plant(copy, name)
    with pytest.raises(BuildError) as info:
        run(copy, *([planted.shown_by] if planted.shown_by else []))
    assert "build/results/launcher/sev-launch" in str(info.value)
    report = copy / "build/repro/launcher/report/build-results-launcher-sev-launch"
    text = (report / "report.txt").read_text()
    assert text
    if planted.graph:
        assert _MEMBER in text
    assert b"<html" in (report / "report.html").read_bytes()
    assert "DIFFERS in" in capfd.readouterr().err


def test_other_variations_do_not_show_it(copy: Path) -> None:
    """So it is the variation that catches it, not chance."""
    planted = plant(copy, "host name")
    run(copy, *sorted({Name.HOST_NAME, Name.UMASK, Name.TIME_ZONE, Name.HOME, Name.PATH} - {planted.shown_by}))


def test_the_sandbox_hides_the_machine(copy: Path) -> None:
    """What shows while the graph is made does not show in a step."""
    planted = """'"$@" && (uname -nm; id -u; umask; pwd; env) >>/out/sev-launch'"""
    replace(copy / _STEP, f"argv=({_PACKS}", f'argv=("/bin/sh", "-euc", {planted}, "sh", {_PACKS}')
    run(copy, *(name for name in Name if name is not Name.CLOCK))


def test_the_check_passes_without_a_plant(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The control of all above, with every variation, each of which had an effect."""
    run(copy, *Name)
    said = capfd.readouterr().err
    assert "same bytes" in said
    assert "NO EFFECT" not in said
    for name in Name:
        assert f"   {name} " in said
