# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A shifted clock is in no step's key: only a cache that goes with the check may hold what was made under one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.pipeline.repro import environments
from tools.pipeline.repro.environments import Job
from tools.pipeline.repro.variations import Name
from tools.pipeline.sandbox import sandbox


@pytest.mark.parametrize("marked", [False, True])
def test_only_a_check_s_own_cache_is_used(repository: Path, repro_tree: Path, tmp_path: Path, *, marked: bool) -> None:
    """Status 2 and one line; the same with the mark is the control."""
    if marked:
        (tmp_path / sandbox.CLOCK_MARK).touch()
    shift = f"{repro_tree}{environments.FAKETIME} +210d"
    done = subprocess.run(
        [sys.executable, "-m", "tools.pipeline.front", "graph"],
        cwd=repository,
        env={**os.environ, "SEV_ARTIFACTS_CACHE": str(tmp_path), "SEV_ARTIFACTS_CLOCK": shift},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if marked else 2), done.stderr
    refusal = (
        "error: SEV_ARTIFACTS_CLOCK: is for the reproducibility check alone, which has a cache of its own; unset it"
    )
    assert [line for line in done.stderr.splitlines() if "error" in line] == ([] if marked else [f"doit: {refusal}"])
    assert marked or not list(tmp_path.iterdir())


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
