# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Sizes of memory as people write them."""

import pytest

from tools.sev.limits import MEMORY_MAX_MIB, MEMORY_MIN_MIB, memory_mib


@pytest.mark.parametrize(
    ("text", "mib"), [("128M", MEMORY_MIN_MIB), ("512M", 512), ("2G", 2048), ("16384G", MEMORY_MAX_MIB)]
)
def test_sizes(text: str, mib: int) -> None:
    assert memory_mib(text) == mib


@pytest.mark.parametrize("text", ["", "M", "512", "0M", "0512M", "-1G", "1.5G", "1 G", "512m", "512MB", "٣G", "²G"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is no memory size"):
        memory_mib(text)


@pytest.mark.parametrize("text", ["127M", "16385G", "99999999G"])
def test_out_of_bounds(text: str) -> None:
    with pytest.raises(ValueError, match="is outside 128M…16384G"):
        memory_mib(text)
