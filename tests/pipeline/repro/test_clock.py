# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A shifted clock is in no step's key: only a cache that goes with the check may hold what was made under one."""

from pathlib import Path

import pytest

from tests.checkout import copy_all
from tools.pipeline.base.errors import UserError
from tools.pipeline.engine import sandbox
from tools.pipeline.engine.cas import Cas
from tools.pipeline.engine.results import Results
from tools.pipeline.repro import environments
from tools.pipeline.repro.environments import Job
from tools.pipeline.repro.variations import Name
from tools.pipeline.tasks.project import Project


@pytest.fixture
def shifted(repository: Path, tmp_path: Path, repro_tree: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A checkout with a launcher that nobody has packed, a cache of its own, and a clock that is 210 days ahead."""
    copy = copy_all(repository, tmp_path / "checkout")
    with (copy / "tools/launcher/__init__.py").open("a") as file:
        file.write(f"# {tmp_path}\n")
    project = Project.load(copy)
    project.trees.ensure("python")
    library = repro_tree / environments.FAKETIME.removeprefix("/")
    monkeypatch.setenv("SEV_ARTIFACTS_CLOCK", f"{library} +210d")
    project.engine.cas = Cas(root=tmp_path / "cache")
    project.engine.results = Results(root=tmp_path / "cache/results", seal=project.seal)
    return project


def test_no_result_goes_into_an_ordinary_cache(shifted: Project) -> None:
    """Status 2, and the cache has nothing."""
    with pytest.raises(UserError, match=r"^SEV_ARTIFACTS_CLOCK: .*reproducibility check alone.*; unset it$"):
        shifted.engine.ensure(shifted.plan.launcher)
    assert not shifted.engine.cas.root.exists()


def test_a_check_s_own_cache_takes_it(shifted: Project) -> None:
    """The control."""
    shifted.engine.cas.root.mkdir()
    (shifted.engine.cas.root / sandbox.CLOCK_MARK).touch()
    assert shifted.engine.ensure(shifted.plan.launcher).outputs
    assert list(shifted.engine.results.root.rglob("*.json"))


@pytest.mark.parametrize("chosen", [tuple(Name), tuple(name for name in Name if name is not Name.CLOCK)])
def test_the_check_marks_its_own_cache_and_no_other(tmp_path: Path, chosen: tuple[Name, ...]) -> None:
    """Only where it shifts the clock."""
    job = Job(
        folder=tmp_path / "check", source=tmp_path / "source", bundle=tmp_path / "cache", tasks=("x",), files=("y",),
        trees=("python",),
    )  # fmt: skip
    varied = environments.varied(job, chosen, tree=tmp_path, shift="+210d")
    text = (varied.results / "spec.json").read_text()
    marked = f'"/mnt/w/cache/{sandbox.CLOCK_MARK}"' in text
    assert marked == ("SEV_ARTIFACTS_CLOCK" in text) == (Name.CLOCK in chosen)
    assert sandbox.CLOCK_MARK not in environments.plain(job).argv[-1]
    assert sandbox.CLOCK_MARK not in (job.folder / "plain/spec.json").read_text()
