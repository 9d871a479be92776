# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: an engine with each runtime in turn, so that what is expected of ours is seen to hold with runc."""

from collections.abc import Iterator

import pytest

from tests.engines.kit import Docker, Runtime

NAMES = ("runc", "sev")


@pytest.fixture(params=NAMES)
def docker(request: pytest.FixtureRequest, dockerd: Docker, runtimes: dict[str, Runtime]) -> Iterator[Docker]:
    """docker; a test leaves no container."""
    yield dockerd.using(runtimes[request.param])
    for name in dockerd("ps", "--all", "--quiet").split():
        dockerd("rm", "--force", "--volumes", name)


@pytest.fixture
def of_runc(docker: Docker, runtimes: dict[str, Runtime]) -> Docker:
    """The control, where the two are compared in one test."""
    return docker.using(runtimes["runc"])
