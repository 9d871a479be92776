# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""HTTP answers that come to an end: http.client would read "100 Continue" or a header a byte a minute for ever.

What a server may make us wait for is bounded where bytes leave the socket, whatever they then turn out to be.
"""

import http.client
import io
from typing import Any

import requests.adapters
import urllib3.connection
import urllib3.connectionpool

from tools.pipeline.base import ambient

SLOWEST = 1024
"""Bytes a second, averaged over the stall time; slower counts as stalled."""
_BESIDE = 1 << 20  # bytes that are not content: head of an answer, sizes of chunks, trailer


class _Raw(io.RawIOBase):
    """A socket's stream with a budget of bytes and a least speed."""

    def __init__(self, raw: Any, stall: float) -> None:
        self._raw = raw
        self._stall = stall
        self.left = _BESIDE
        self._mark, self._since = ambient.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.left <= 0:
            raise http.client.HTTPException("an answer without end")
        if ambient.monotonic() - self._mark > self._stall:
            if self._since < SLOWEST * self._stall:
                raise TimeoutError("timed out")
            self._mark, self._since = ambient.monotonic(), 0
        count: int = self._raw.readinto(buffer)
        self.left -= count
        self._since += count
        return count

    def restart(self, left: int) -> None:
        """Somebody wants more: time that passed meanwhile was his."""
        self.left = left
        if self._since >= SLOWEST * self._stall:
            self._mark, self._since = ambient.monotonic(), 0

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    stall = 0.0

    def begin(self) -> None:
        self._bounded = _Raw(self.fp.detach(), self.stall)
        self.fp = io.BufferedReader(self._bounded)
        super().begin()

    def read1(self, n: int = -1) -> bytes:
        self._bounded.restart(max(n, 0) + _BESIDE)
        return super().read1(n)


class Adapter(requests.adapters.HTTPAdapter):
    """For a session whose servers may be silent, or slower than SLOWEST, for `stall` seconds."""

    def __init__(self, stall: float) -> None:
        answer = type("Answer", (_Answer,), {"stall": stall})
        self._pools = {}
        for scheme, pool in (
            ("http", urllib3.connectionpool.HTTPConnectionPool),
            ("https", urllib3.connectionpool.HTTPSConnectionPool),
        ):
            connection = type("Connection", (pool.ConnectionCls,), {"response_class": answer})
            self._pools[scheme] = type("Pool", (pool,), {"ConnectionCls": connection})
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """For requests without a proxy."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        """For requests by way of one."""
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager
