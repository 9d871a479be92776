# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The device's side of a virtqueue against a driver that was written from the specification."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attack.vhost.driver import BASE, SIZE, TABLE, Buffer, Driver
from tools.attack.vhost.memory import OutsideError
from tools.attack.vhost.ring import DESCRIPTOR, INDIRECT, NEXT

BUFFERS = st.lists(st.builds(Buffer, st.integers(1, 600), st.booleans()), min_size=1, max_size=8)


# The machine that runs this may be busy.
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(BUFFERS, st.booleans()), min_size=1, max_size=12))
def test_what_is_given_is_taken_and_comes_back(chains: list[tuple[list[Buffer], bool]]) -> None:
    driver = Driver()
    for buffers, indirect in chains:
        head, places = driver.give(buffers, indirect=indirect)
        chain = driver.ring.take()
        assert chain is not None
        assert chain.head == head
        taken = [(segment.address, segment.length, segment.writable) for segment in chain.segments]
        assert taken == [(place, buffer.length, buffer.writable) for place, buffer in zip(places, buffers, strict=True)]
        assert driver.ring.take() is None
        driver.ring.complete(chain.head, 7)
        assert driver.entries() == [(head, 7)]


def test_indices_wrap_at_65536() -> None:
    driver = Driver(start=0xFFFE)
    for number in range(4):
        head, _ = driver.give([Buffer(1, writable=True)])
        chain = driver.ring.take()
        assert chain is not None
        assert chain.head == head == number
        driver.ring.complete(chain.head, 1)
        assert driver.entries() == [(head, 1)]
    assert driver.used_index == 2


def test_a_circle_of_descriptors_ends() -> None:
    driver = Driver()
    driver.give([Buffer(1, writable=True), Buffer(1, writable=True)])
    driver.write(TABLE + 16, DESCRIPTOR.pack(BASE, 1, NEXT, 0))
    with pytest.raises(ValueError, match="circle"):
        driver.ring.take()


@pytest.mark.parametrize("following", [8, 0xFFFF])
def test_a_descriptor_beyond_the_table(following: int) -> None:
    driver = Driver()
    driver.give([Buffer(1, writable=True)])
    driver.write(TABLE, DESCRIPTOR.pack(BASE, 1, NEXT, following))
    with pytest.raises(ValueError, match=f"descriptor {following} of 8"):
        driver.ring.take()


@pytest.mark.parametrize(("address", "size"), [(BASE - 1, 1), (BASE + SIZE, 1), (BASE + SIZE - 1, 2), (1 << 63, 16)])
def test_memory_that_is_not_there(address: int, size: int) -> None:
    driver = Driver()
    assert len(driver.memory.at(BASE + SIZE - 1, 1)) == 1
    with pytest.raises(OutsideError):
        driver.memory.at(address, size)
    driver.give([Buffer(1, writable=True)])
    driver.write(TABLE, DESCRIPTOR.pack(address, 16, INDIRECT, 0))
    with pytest.raises(OutsideError):
        driver.ring.take()


def test_an_interrupt_is_one_count_of_the_eventfd() -> None:
    driver = Driver()
    driver.ring.interrupt()  # nobody listens
    driver.ring.call = os.eventfd(0, os.EFD_NONBLOCK)
    driver.ring.interrupt()
    driver.ring.interrupt()
    assert os.eventfd_read(driver.ring.call) == 2
    os.close(driver.ring.call)
