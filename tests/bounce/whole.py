# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit test_bounce`: 10 GiB through disk and network at once, for each kernel that lets its counters be seen.

The default series' debug kernel; SEV_BOUNCE_KERNELS names others, with commas: linux-6.18-debug.
"""

import os
from pathlib import Path

import pytest

from tests.bounce.conftest import Start
from tests.bounce.machine import FORCED, SLOT
from tools.pipeline.recipes import kernels
from tools.pipeline.tasks.project import Project

_DEBUG = kernels.fragment("debug")
_PRESSURE = 64  # MiB that are left


def _kernels() -> list[str]:
    named = os.environ.get("SEV_BOUNCE_KERNELS", "")
    return named.split(",") if named else [k.name for k in Project.load().recipes.kernels if _DEBUG in k.fragments]


@pytest.fixture(params=_kernels())
def kernel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# In a full pool packets are dropped, and TCP waits: the network's share would take hours.
@pytest.mark.parametrize("size", [(1, 1500, 64), (4, 1500, 256), (64, 65535, 1024)])
def test_ten_gib(start: Start, kernel: str, size: tuple[int, int, int], tmp_path: Path) -> None:
    """Nothing is wrong, lost, left over or stuck, however small the pool is.

    `size`: MiB of the pool, the network's MTU, and its share in MiB.
    """
    pool, mtu, net = size
    wishes = {"disk": (10 << 10) - net, "net": net, "port": 64, "mtu": mtu, "pressure": _PRESSURE}
    result = start(kernel).run(tmp_path / "guest", wishes, pool=pool, append=FORCED)
    assert result.troubles == [], result.log[-4000:]
    assert result.slots == (pool << 20) // SLOT
    assert result.disk + result.network >= 10 << 30
    assert result.network == net << 20
    assert result.grown == 0
    assert result.most > result.rest
    print(f"{kernel}, {pool} MiB: {result}".partition(", log=")[0])
