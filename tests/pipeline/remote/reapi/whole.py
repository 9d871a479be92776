# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Every real step, executed by a real service: the same bytes as here. `./doit test_scale`, not part of ./doit test.

Each step is given the inputs that it has here, so one that differs spoils no other.
"""

from collections.abc import Iterator

import pytest

from tests.pipeline.remote.reapi.kit import Casd
from tools.pipeline.base import ambient
from tools.pipeline.engine import others
from tools.pipeline.engine.store.origin import How
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.remote.reapi import address
from tools.pipeline.remote.reapi.service import Service, Settings
from tools.pipeline.tasks.project import Project


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The steps of the default series, or those that only the one has that --series names."""
    if "name" in metafunc.fixturenames:
        project = Project.load()

        def of(series: str) -> dict[str, None]:
            profiles = project.recipes.of_series(series)
            steps = [step.name for profile in profiles for step in project.plan.deliverable(profile).steps]
            assert steps, series
            return dict.fromkeys(steps)

        default = project.recipes.profile(DEFAULT_PROFILE).series
        series = metafunc.config.getoption("--series") or default
        # Firmware, QEMU, agent: once is enough.
        known = of(default) if series != default else {}
        metafunc.parametrize("name", [name for name in of(series) if name not in known])


@pytest.fixture(scope="module")
def casd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Casd]:
    """Room for all tool trees and what the steps take and give."""
    started = Casd(folder=tmp_path_factory.mktemp("casd"), quota="40G").start()
    yield started
    started.kill()


@pytest.fixture(scope="module")
def service(casd: Casd, project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = Settings(execute=True, patience=3600.0)
    folder = tmp_path_factory.mktemp("service")
    made = Service(address.parse(casd.address), settings, cas=project.cas, folder=folder)
    yield made
    made.end()


def test_a_real_step_gives_the_same_bytes(project: Project, service: Service, name: str) -> None:
    engine = project.engine
    step = next(step for step in project.plan.steps if step.name == name)
    here = engine.find(step)
    if here is None:
        pytest.fail(f"{name} is not built; run: ./doit build_all", pytrace=False)
    began, traffic = ambient.monotonic(), (service.connection.traffic.sent, service.connection.traffic.received)
    there = service.execute(engine._work(step, others.wanted(step, here.key, seconds=None)))
    assert there is not None, "it did not run there"
    assert there.origin.how is How.EXECUTED
    now = service.connection.traffic
    print(f"\n{name}: {ambient.monotonic() - began:.1f} s there, {here.seconds:.1f} s here; "
          f"{now.sent - traffic[0]} bytes sent, {now.received - traffic[1]} received")  # fmt: skip
    assert there.outputs == here.outputs
