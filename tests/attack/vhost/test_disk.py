# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The honest disk, and of each lie: told for the bait and for nothing else, and what it is."""

import os
import struct
from collections.abc import Callable

import pytest

from tests.attack.vhost.driver import TABLE, Driver, ask
from tools.attack.vhost.disk import SECTOR, Config, Disk
from tools.attack.vhost.lies import LIES, data, rings

CONTENT = b"".join(bytes([number]) * SECTOR for number in range(1, 201)) + b"x" * (1024 - 200) * SECTOR
BAIT = range(8, 16)
OTHER = range(16, 24)


def disk(kind: type[Disk] = Disk) -> Disk:
    return kind(memoryview(CONTENT), serial=b"rootfs", bait=BAIT)


def data_of(sectors: range) -> bytes:
    return CONTENT[sectors.start * SECTOR : sectors.stop * SECTOR]


def read(driver: Driver, served: Disk, sectors: range, *, indirect: bool = False) -> tuple[bytes, int, list[int]]:
    """Data, status, and the lengths of what came back under the right identity."""
    head, data, status = ask(driver, sectors.start, len(sectors) * SECTOR, indirect=indirect)
    served.serve(driver.ring)
    lengths = [length for identity, length in driver.entries() if identity == head]
    return driver.read(data, len(sectors) * SECTOR), driver.read(status, 1)[0], lengths


@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize("sectors", [range(1), BAIT, OTHER, range(1000, 1024)])
def test_the_honest_disk_reads(sectors: range, indirect: bool) -> None:
    expected = (data_of(sectors), 0, [len(sectors) * SECTOR + 1])
    assert read(Driver(), disk(), sectors, indirect=indirect) == expected


def test_the_honest_disk_refuses_what_lies_behind_its_end() -> None:
    _, status, lengths = read(Driver(), disk(), range(1020, 1028))
    assert (status, lengths) == (1, [1])


@pytest.mark.parametrize(("kind", "result"), [(8, 0), (4, 0), (1, 2), (13, 2), (0xFFFFFFFF, 2)])
def test_other_requests(kind: int, result: int) -> None:
    driver = Driver()
    head, data, status = ask(driver, 0, 20, kind=kind)
    disk().serve(driver.ring)
    assert driver.read(status, 1)[0] == result
    assert [identity for identity, _ in driver.entries()] == [head]
    assert driver.read(data, 20) == (b"rootfs" + bytes(14) if kind == 8 else bytes(20))


def test_the_configuration_space_is_the_specification_s() -> None:
    packed = Config(capacity=7, seg_max=3, blk_size=512, wce=1, num_queues=2, max_write_zeroes_seg=9).pack()
    assert len(packed) == 60
    assert struct.unpack_from("<Q", packed, 0) == (7,)
    assert struct.unpack_from("<I", packed, 12) == (3,)
    assert struct.unpack_from("<I", packed, 20) == (512,)
    assert packed[32] == 1
    assert struct.unpack_from("<H", packed, 34) == (2,)
    assert struct.unpack_from("<I", packed, 52) == (9,)


@pytest.mark.parametrize("name", sorted(set(LIES) - {"none", "ids-swapped", "interrupt-storm"}))
def test_no_lie_is_told_outside_of_the_bait(name: str) -> None:
    served = disk(LIES[name])
    assert read(Driver(), served, OTHER) == (data_of(OTHER), 0, [len(OTHER) * SECTOR + 1])
    assert served.lies == 0


# What these do is seen later than the completion, or in numbers of interrupts.
_LATER = {"ids-swapped", "changes-between-reads", "interrupt-storm", "completes-before-data"}


@pytest.mark.parametrize("name", sorted({*data.LIES, *rings.LIES} - _LATER))
def test_a_lie_is_told_for_the_bait(name: str) -> None:
    """And it shows: in data, status, the used ring, or the descriptors."""
    driver, served = Driver(), disk(LIES[name])
    head, data, status = ask(driver, BAIT.start, len(BAIT) * SECTOR)
    table = driver.read(TABLE, 16 * driver.size)
    served.serve(driver.ring)
    assert served.lies == 1
    data_and_status = (driver.read(data, len(BAIT) * SECTOR), driver.read(status, 1))
    index, entries = driver.used_index, driver.entries()
    honest = [(data_of(BAIT), b"\0"), 1, [(head, len(BAIT) * SECTOR + 1)], table]
    assert [data_and_status, index, entries, driver.read(TABLE, 16 * driver.size)] != honest


def test_the_data_that_come_later() -> None:
    driver, served = Driver(), disk(LIES["completes-before-data"])
    waiting: list[Callable[[], None]] = []
    served.later = lambda _, action: waiting.append(action)
    head, data, _ = ask(driver, BAIT.start, SECTOR)
    served.serve(driver.ring)
    assert [identity for identity, _ in driver.entries()] == [head]
    assert driver.read(data, SECTOR) == bytes(SECTOR)
    (action,) = waiting
    action()
    assert driver.read(data, SECTOR) == data_of(range(BAIT.start, BAIT.start + 1))


def test_a_storm_is_many_interrupts_and_one_completion() -> None:
    driver, served = Driver(), disk(LIES["interrupt-storm"])
    driver.ring.call = os.eventfd(0, os.EFD_NONBLOCK)
    assert read(driver, served, BAIT) == (data_of(BAIT), 0, [len(BAIT) * SECTOR + 1])
    assert os.eventfd_read(driver.ring.call) > 1000
    os.close(driver.ring.call)


def test_the_one_who_changes_between_reads() -> None:
    served = disk(LIES["changes-between-reads"])
    driver = Driver()
    assert read(driver, served, BAIT)[0] == data_of(BAIT)
    # Any part of it that was asked for before, however the second request is cut.
    assert read(driver, served, range(15, 17))[0] == bytes(2 * SECTOR)


def test_two_requests_get_each_other_s_data() -> None:
    driver, served = Driver(), disk(LIES["ids-swapped"])
    one, first, _ = ask(driver, BAIT.start, 512)
    two, second, _ = ask(driver, OTHER.start, 512)
    served.serve(driver.ring)
    assert sorted(identity for identity, _ in driver.entries()) == sorted([one, two])
    assert driver.read(first, 512) == data_of(range(OTHER.start, OTHER.start + 1))
    assert driver.read(second, 512) == data_of(range(BAIT.start, BAIT.start + 1))
