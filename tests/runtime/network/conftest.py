# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Namespaces for the tests of a container's network."""

from collections.abc import Iterator

import pytest

from tests.runtime.network.spaces import Wire


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A container's network namespace, and what is outside of it."""
    wire = Wire()
    yield wire
    wire.close()
