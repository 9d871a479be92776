# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One budget of jobs: steps side by side, and the programs in them, never run more than there are CPUs."""

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.engine.workshop import Workshop, shell
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.jobs import Jobs
from tools.pipeline.engine.step import Step
from tools.pipeline.tasks.project import Project

# Each line is a begin or an end with its time; overlapping ones are counted.
_WORK = "echo b $(date +%s%N) >>/out/out; sleep 0.3; echo e $(date +%s%N) >>/out/out"


def most_at_once(logs: list[str]) -> int:
    """The largest number of intervals that overlap."""
    events = sorted((int(line.split()[1]), line.startswith("b")) for log in logs for line in log.splitlines())
    running = most = 0
    for _, begins in events:
        running += 1 if begins else -1
        most = max(most, running)
    return most


def at_once(engine: Engine, steps: list[Step]) -> None:
    threads = [threading.Thread(target=engine.ensure, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_steps_take_a_token_each(workshop: Workshop, cores: int) -> None:
    workshop.cores = cores
    engine = workshop.engine()
    steps = [shell(f"{_WORK} # {number}", name=f"step-{number}") for number in range(5)]
    at_once(engine, steps)
    logs = [(workshop.root / f"build/results/{step.name}/out").read_text() for step in steps]
    # How soon a sandbox starts on a busy machine is not for this test to say.
    assert min(cores, 2) <= most_at_once(logs) <= cores


_MAKEFILE = """
all: 1 2 3 4 5 6
%:
	@echo b $$(date +%s%N) >>/out/out; sleep 0.3; echo e $$(date +%s%N) >>/out/out
"""


@pytest.mark.parametrize("cores", [1, 3])
def test_makes_in_two_steps_share_the_tokens(workshop: Workshop, project: Project, cores: int) -> None:
    """GNU make of the build tree takes part: together never more, and more than one step's share while there is."""
    workshop.cores = cores
    workshop.tools = project.trees.ensure("build")
    engine = workshop.engine()
    script = "printf '%s' \"$0\" >/build/Makefile; exec make -C /build all"
    steps = [
        Step(
            name=f"step-{number}",
            title=f"step {number}",
            argv=("/bin/sh", "-euc", f"{script} # {number}", _MAKEFILE),
            tools="python",
            inputs={},
            outputs=("out",),
            parallel=True,
        )
        for number in range(2)
    ]
    at_once(engine, steps)
    logs = [(workshop.root / f"build/results/{step.name}/out").read_text() for step in steps]
    assert min(cores, 2) <= most_at_once(logs) <= cores
    if cores > 2:
        assert max(most_at_once([log]) for log in logs) > 1


def test_tokens_of_a_killed_step_come_back(tmp_path: Path) -> None:
    """What it held is lost with it; when nothing runs any more, all are there again."""
    jobs = Jobs(2)
    with jobs.slot(tmp_path):
        fifo = jobs.mount().host
        with fifo.open("rb+", buffering=0) as taken:
            assert taken.read(1) == b"+"
    with jobs.slot(tmp_path), jobs.slot(tmp_path):
        pass


def test_waiting_for_a_cpu_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Another step may hold all of them for minutes; a step that finds one at once says nothing."""
    jobs = Jobs(1)

    def other() -> None:
        with jobs.slot(tmp_path):
            pass

    thread = threading.Thread(target=other, daemon=True)
    with jobs.slot(tmp_path):
        assert not capfd.readouterr().err
        thread.start()
        said = ""
        for _ in range(2000):
            said += capfd.readouterr().err
            if "waiting for a CPU" in said:
                break
            time.sleep(0.01)
    thread.join()
    assert "waiting for a CPU" in said


def tokens(jobs: Jobs) -> int:
    """Those in the fifo, which are taken and put back."""
    descriptor = os.open(jobs.mount().host, os.O_RDWR | os.O_NONBLOCK)
    try:
        return os.write(descriptor, os.read(descriptor, 1 << 17))
    except BlockingIOError:
        return 0
    finally:
        os.close(descriptor)


def drain(fifo: int) -> None:
    os.read(fifo, 1 << 17)


def flood(fifo: int) -> None:
    try:
        while True:
            os.write(fifo, b"+")
    except BlockingIOError:
        pass


@pytest.mark.parametrize("misuse", [drain, flood])
def test_a_step_that_misuses_the_tokens_harms_no_other(tmp_path: Path, misuse: Callable[[int], None]) -> None:
    """One that waits meanwhile runs after it, and finds the whole budget."""
    jobs = Jobs(4)
    found: list[int] = []

    def other() -> None:
        with jobs.slot(tmp_path):
            found.append(tokens(jobs))

    def bad() -> None:
        with jobs.slot(tmp_path):
            fifo = os.open(jobs.mount().host, os.O_RDWR | os.O_NONBLOCK)
            misuse(fifo)
            if misuse is drain:
                threads[1].start()
            os.close(fifo)
        if misuse is flood:
            threads[1].start()

    # At worst they wait for ever.
    threads = [threading.Thread(target=each, daemon=True) for each in (bad, other)]
    threads[0].start()
    for thread in threads:
        thread.join(20)
    assert found == [3]


def test_two_builds_in_one_checkout_have_a_fifo_each(tmp_path: Path) -> None:
    one, other = Jobs(2), Jobs(3)
    with one.slot(tmp_path), other.slot(tmp_path):
        assert (tokens(one), tokens(other)) == (1, 2)
    # What a process that has ended has left goes; one's and other's are still theirs.
    left = tmp_path / "jobs-left"
    os.mkfifo(left)
    with Jobs(1).slot(tmp_path), one.slot(tmp_path):
        assert not left.exists()
        assert tokens(one) == 1


def test_a_step_with_a_job_server_is_run_again(workshop: Workshop, project: Project) -> None:
    workshop.tools = project.trees.ensure("build")
    script = "printf 'all:\\n\\t+@echo flags $(MAKEFLAGS)\\n' >/build/Makefile; make -C /build; exit 3"
    step = Step(
        name="s", title="s", argv=("/bin/sh", "-euc", script), tools="python", inputs={}, outputs=("o",), parallel=True
    )
    engine = workshop.engine()
    with pytest.raises(BuildError, match="ended with status 3"):
        engine.ensure(step)
    assert "--jobserver-auth=fifo:" in engine.log(step).read_text()
    # The fifo is the build's own.
    again = subprocess.run(["sh", workshop.root / "build/replay/s.sh"], capture_output=True, text=True, check=False)
    assert again.returncode == 3
    assert "-j2" in again.stdout
