# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The simulation of many workers, on cases that were computed by hand."""

import pytest

from tests.bench.builds.spread import Item, Network, chains, matrix, simulate

_FREE = Network(link=float("inf"), registry=float("inf"), latency=0.0)


def test_a_matrix_has_shared_steps_once() -> None:
    items = [Item(name="source", seconds=1), Item(name="kernel", seconds=5, needs={"source": 3}, own=True),
             Item(name="digests", seconds=1, needs={"kernel": 2}, own=True)]  # fmt: skip
    found = matrix(items, 2)
    assert [item.name for item in found] == ["source", "kernel#0", "digests#0", "kernel#1", "digests#1"]
    assert found[4].needs == {"kernel#1": 2}
    assert chains(found) == {"source": 7, "kernel#0": 6, "digests#0": 1, "kernel#1": 6, "digests#1": 1}


@pytest.mark.parametrize(
    ("workers", "makespan"),
    [
        (1, 2 + 4 * 6.0),  # one after the other
        (2, 2 + 2 * 6.0),  # the second worker has nothing to do during the shared step
        (4, 2 + 6.0),
        (64, 2 + 6.0),  # the longest chain: more workers do not help
    ],
)
def test_it_stops_at_the_longest_chain(workers: int, makespan: float) -> None:
    items = [Item(name="source", seconds=2), Item(name="kernel", seconds=6, needs={"source": 1}, own=True)]
    found = simulate(matrix(items, 4), workers, _FREE)
    assert (found.makespan, found.work) == (makespan, 26.0)


def test_the_longest_chain_goes_first() -> None:
    """A chain of 1 + 5 and three steps of 2: 6 seconds for two workers; in the order of names it would be 8."""
    items = [Item(name=name, seconds=2) for name in ("a", "b", "c")]
    items += [Item(name="d", seconds=1), Item(name="e", seconds=5, needs={"d": 1})]
    assert simulate(items, 2, _FREE).makespan == 6


def test_bytes_take_their_time() -> None:
    """Of 100 bytes: 10 s up a link of 10, 10 s down another; whoever has made them needs neither."""
    items = [Item(name="source", seconds=1, size=100)]
    items += [Item(name=name, seconds=50, needs={"source": 100}) for name in ("x", "y")]
    network = Network(link=10, registry=float("inf"), latency=1)
    # The maker: 1 + 1, then 1 + 50. The other: 1 + 1, 10 up, 10 down, 1 + 50.
    assert simulate(items, 2, network).makespan == 2 + 10 + 10 + 51
    assert simulate(items[:2], 2, network).makespan == 2 + 51
    assert simulate(items, 2, network).moved == 200


def test_all_share_the_registry() -> None:
    """Four workers, a registry of 100 bytes a second: 1 s up, then three others come one after the other."""
    items = [Item(name="source", seconds=1, size=100)]
    items += [Item(name=f"k{number}", seconds=50, needs={"source": 100}) for number in range(4)]
    network = Network(link=float("inf"), registry=100, latency=0)
    assert simulate(items, 4, network).makespan == 1 + 1 + 3 + 50
    assert simulate(items, 4, _FREE).makespan == 1 + 50


def test_the_same_again() -> None:
    items = [Item(name="source", seconds=2.5, size=9), Item(name="kernel", seconds=6, needs={"source": 4}, own=True)]
    steps = matrix(items, 50)
    assert simulate(steps, 7, Network()) == simulate(steps, 7, Network())
