# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What lies in the cache after real steps, and that what goes is what nobody needs."""

import os
from pathlib import Path

import pytest

from tests.pipeline.engine.workshop import Workshop, shell
from tools.pipeline.base.errors import SevArtifactsError
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.store import inventory
from tools.pipeline.engine.store.inventory import Item, Kind

OLD = shell("echo old >/out/out", name="old")
NEW = shell("echo new >/out/out", name="new")


def age(root: Path, *, when: float) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (when, when))


def listed(engine: Engine, *needed: Step, pins: frozenset[str] = frozenset()) -> list[Item]:
    keys = {key for step in needed if (key := engine.key(step))}
    return inventory.items(engine.cas, engine.results, pins=pins, keys=keys)


def prune(engine: Engine, found: list[Item], *, before: float, most: int | None = None) -> int:
    chosen = inventory.choose(found, before=before, most=most)
    for item in chosen:
        item.remove()
    return len(chosen)


def test_a_result_that_is_needed_stays_with_its_outputs(workshop: Workshop) -> None:
    engine = workshop.engine()
    for step in (OLD, NEW):
        engine.ensure(step)
    age(workshop.cache, when=1000)
    found = listed(engine, NEW)
    assert [item.kind for item in found] == [Kind.RESULT] * 4
    assert prune(engine, found, before=2000) == 2
    fresh = workshop.engine()
    assert fresh.find(NEW) is not None
    assert fresh.find(OLD) is None
    assert len(list(fresh.cas.entries())) == 1
    # And what went can be made again.
    fresh.ensure(OLD)


def test_what_was_used_lately_stays_and_a_no_op_build_is_a_use(workshop: Workshop) -> None:
    for step in (OLD, NEW):
        workshop.engine().ensure(step)
    age(workshop.cache, when=1000)
    # Another checkout, whose locks and steps this one does not know, finds its result; its outputs are not read.
    assert workshop.engine(checkout="other").find(NEW) is not None
    engine = workshop.engine()
    assert prune(engine, listed(engine), before=2000) == 2
    assert workshop.engine().find(NEW) is not None
    assert workshop.engine().find(OLD) is None


def test_an_output_that_two_results_share_goes_with_the_last(workshop: Workshop) -> None:
    twin = shell("echo old >/out/out # the same", name="twin")
    engine = workshop.engine()
    for step in (OLD, twin):
        engine.ensure(step)
    age(workshop.cache, when=1000)
    assert prune(engine, listed(engine, twin), before=2000) == 1
    assert workshop.engine().find(twin) is not None


def test_beyond_the_size_the_oldest_goes(workshop: Workshop) -> None:
    cas = workshop.engine().cas
    for number, name in enumerate((b"a", b"b", b"c")):
        os.utime(cas.path(cas.put_bytes(name * 1000).sha256), (number, number))
    engine = workshop.engine()
    assert prune(engine, listed(engine), before=0, most=3000) == 0
    assert prune(engine, listed(engine), before=0, most=2000) == 1
    assert [entry.used for entry in sorted(cas.entries(), key=lambda e: e.used)] == [1, 2]
    # What is old goes, however small the rest is.
    assert prune(engine, listed(engine), before=2, most=3000) == 1


def test_pins_and_downloads_on_their_way(workshop: Workshop) -> None:
    engine = workshop.engine()
    pinned = engine.cas.put_bytes(b"pinned").sha256
    engine.cas.put_bytes(b"of an older lock")
    partial = workshop.cache / "partial"
    for name in ("a" * 64, "b" * 64, "new-1"):
        (partial / name).write_bytes(b"half")
    age(workshop.cache, when=1000)
    found = listed(engine, pins=frozenset({pinned, "a" * 64}))
    kinds = {(item.kind, item.needed) for item in found}
    assert kinds == {
        (Kind.DOWNLOAD, True),
        (Kind.OTHER, False),
        (Kind.UNFINISHED, True),
        (Kind.UNFINISHED, False),
    }
    assert prune(engine, found, before=2000) == 3
    assert [entry.sha256 for entry in engine.cas.entries()] == [pinned]
    assert [path.name for path in partial.iterdir()] == ["a" * 64]


@pytest.mark.parametrize("before", [True, False])
def test_a_link_in_the_place_of_all_results(workshop: Workshop, *, before: bool) -> None:
    """Not even when it was there before anything was listed: those of another cache stay."""
    engine = workshop.engine()
    engine.ensure(OLD)
    age(workshop.cache, when=1000)
    found = [item for item in listed(engine) if item.kind is Kind.RESULT]
    elsewhere = (workshop.cache / "results").rename(workshop.folder / "elsewhere")
    (workshop.cache / "results").symlink_to(elsewhere)
    (record,) = elsewhere.rglob("*.json")
    with pytest.raises(SevArtifactsError, match="is a link"):
        prune(engine, listed(engine) if before else found, before=2000)
    assert record.is_file()


def test_a_link_in_the_caches_place_removes_nothing_elsewhere(workshop: Workshop) -> None:
    """Others may write to the cache: a folder of results that is a link by the time of the removal."""
    engine = workshop.engine()
    engine.ensure(OLD)
    (folder,) = (workshop.cache / "results").iterdir()
    elsewhere = workshop.folder / "elsewhere"
    folder.rename(elsewhere)
    age(elsewhere, when=1000)
    assert next(elsewhere.iterdir()).is_file()
    folder.mkdir()
    (record,) = elsewhere.iterdir()
    (folder / record.name).write_bytes(record.read_bytes())
    age(workshop.cache, when=1000)
    found = [item for item in listed(engine) if item.kind is Kind.RESULT]
    (folder / record.name).unlink()
    folder.rmdir()
    folder.symlink_to(elsewhere)
    with pytest.raises(SevArtifactsError, match="is a link"):
        prune(engine, found, before=2000)
    assert record.is_file()


def test_disk_usage_counts_an_inode_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    once = inventory.disk_usage(tmp_path)
    assert once >= 100_000
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert inventory.disk_usage(tmp_path) == once
    assert inventory.disk_usage(tmp_path / "none") == 0
