# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Which variations are chosen, and that one without effect is an error."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import copy_all
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.repro import check, environments
from tools.pipeline.repro.variations import VARIATIONS, Name, choose, without_effect
from tools.pipeline.tasks.commands import repro
from tools.pipeline.tasks.project import Project


def test_all_by_default() -> None:
    """And each has a judge."""
    assert choose() == tuple(Name)
    assert set(VARIATIONS) == set(Name)


def test_some_and_without_some() -> None:
    """In the order of the list, whatever the order of the words."""
    assert choose(vary="umask, user") == (Name.USER, Name.UMASK)
    assert choose(without="user") == tuple(name for name in Name if name is not Name.USER)
    assert choose(vary="umask,user", without="umask") == (Name.USER,)


@pytest.mark.parametrize("option", ["vary", "without"])
def test_an_unknown_one_is_named(option: str) -> None:
    """With what there is."""
    with pytest.raises(UserError, match=rf"^--{option}: 'umsk' is no variation; there are: build-path, user"):
        choose(**{option: "user,umsk"})


def run(checkout: Path, *variations: Name) -> Path:
    """Check the launcher; where everything of it lies."""
    project = Project.load(checkout)
    target = repro.targets(project)["launcher"]
    place = repro.place(project, target)
    check.run(target, place, tree=project.trees.ensure("repro").path, chosen=variations)
    return place.folder


@pytest.fixture(scope="module")
def facts(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """What the probes saw in a real check with everything varied."""
    copy = copy_all(repository, tmp_path_factory.mktemp("facts") / "checkout")
    folder = run(copy, *Name)
    result = json.loads((folder / check.RESULT).read_bytes())
    return result["environments"]["plain"], result["environments"]["varied"]


def test_everything_had_an_effect(facts: tuple[Any, Any]) -> None:
    """The control of the tests below; the clock crossed a change of summer time."""
    assert without_effect(tuple(Name), *facts) == []
    varied = facts[1]
    assert varied["zone_has_summer_time"]
    assert varied["summer_time"] != varied["summer_time_unshifted"]


@pytest.mark.parametrize("name", Name)
def test_a_variation_without_effect_is_found(facts: tuple[Any, Any], name: Name) -> None:
    """The same facts on both sides."""
    plain, _ = facts
    assert without_effect((name,), plain, plain) == [name]


def test_a_variation_without_effect_ends_the_check(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the host name, because bwrap's option gets lost."""
    real = environments.varied

    def lost(*args: Any, **kwargs: Any) -> environments.Environment:
        made = real(*args, **kwargs)
        at = made.argv.index("--unshare-uts")
        return environments.Environment(
            name=made.name,
            argv=made.argv[:at] + made.argv[at + 3 :],
            results=made.results,
            decoys_called=made.decoys_called,
        )

    monkeypatch.setattr(environments, "varied", lost)
    copy = copy_all(repository, tmp_path / "checkout")
    with pytest.raises(BuildError, match=r"no effect.*: host-name; .*--without host-name"):
        run(copy, Name.HOST_NAME)


def test_a_program_of_the_host_is_noticed(repository: Path, tmp_path: Path) -> None:
    """Code that makes the graph and calls `date` from PATH meets a decoy, and the check says so."""
    copy = copy_all(repository, tmp_path / "checkout")
    path = copy / "tools/pipeline/publish/launcher.py"
    line = "    return Step(\n        name=title,\n"
    assert path.read_text().count(line) == 1
    planted = f"    import subprocess\n    subprocess.run(['date'], check=False)\n{line}"
    path.write_text(path.read_text().replace(line, planted))
    with pytest.raises(BuildError, match="started programs of the host: date"):
        run(copy, Name.PATH)


@pytest.mark.parametrize("month", range(1, 13))
def test_the_clock_is_shifted_across_a_change_of_summer_time(month: int) -> None:
    """By at least five months, whatever the date of the check."""
    now = dt.datetime(2026, month, 15, tzinfo=dt.UTC).timestamp()
    days = int(environments.clock_shift(now).strip("+d"))
    assert 150 <= days <= 240
    assert environments._summer(now) != environments._summer(now + days * 86_400)
