# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A tool tree of a suite of its own: asked of that suite's index, locked with it, and stale when it changes."""

import pytest

from tests.pipeline.sources.lock.world import World, world
from tools.pipeline.base.errors import UserError
from tools.pipeline.sources import pins, wanted
from tools.pipeline.sources.apt import Apt, Found

__all__ = ["world"]


@pytest.fixture
def asked(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Package → the suite of whose index it was asked."""
    found: dict[str, str] = {}

    def closure(
        self: Apt, packages: tuple[str, ...], *, prefer: dict[str, str], avoid: set[tuple[str, str]]
    ) -> list[Found]:
        found.update(dict.fromkeys(packages, self.suite))
        return world.closure(packages, prefer, avoid)

    monkeypatch.setattr(Apt, "closure", closure)
    return found


def fresh(world: World) -> None:
    toolchain = wanted.read_toolchain(world.root / wanted.TOOLCHAIN_TOML)
    locked = pins.read_toolchain_lock(world.root / pins.TOOLCHAIN_LOCK)
    sources = pins.read_sources_lock(world.root / pins.SOURCES_LOCK)
    pins.check_fresh(world.root, sources=sources, toolchain=toolchain, locked=locked)


def test_its_own_index(world: World, asked: dict[str, str]) -> None:
    world.edit("toolchain.toml", "[trees.boot]\n", '[trees.boot]\nsuite = "bookworm"\n')
    world.lock()
    assert asked == {"gcc": "trixie", "qemu": "bookworm"}
    locked = pins.read_toolchain_lock(world.root / pins.TOOLCHAIN_LOCK)
    assert locked.suites == (("boot", "bookworm"),)
    assert pins.render_toolchain(locked) == world.text()[1]
    fresh(world)


def test_another_suite_makes_the_lock_stale(world: World, asked: dict[str, str]) -> None:
    world.lock()
    fresh(world)
    world.edit("toolchain.toml", "[trees.boot]\n", '[trees.boot]\nsuite = "bookworm"\n')
    with pytest.raises(UserError, match="was resolved for other packages"):
        fresh(world)
    with pytest.raises(UserError, match="boot changed too"):
        world.lock("build")
    asked.clear()
    world.lock("boot")
    assert asked == {"qemu": "bookworm"}
    fresh(world)
