# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A service that lies: the real one behind a server that changes its answers."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

Lie = Callable[[str, bytes], bytes]
"""lie(method, answer): what is sent in place of a true answer; both are messages as bytes."""

_OPTIONS = [("grpc.max_receive_message_length", 16 << 20)]


def _same(data: bytes) -> bytes:
    return data


class Liar(grpc.GenericRpcHandler):
    """At `address`; `lie` may raise Refusal in place of an answer."""

    def __init__(self, real: str, lie: Lie, credentials: grpc.ServerCredentials | None = None) -> None:
        self.asked: list[str] = []
        self._lie = lie
        self._channel = grpc.insecure_channel(real.partition("://")[2], _OPTIONS)
        self._server = grpc.server(ThreadPoolExecutor(16), options=_OPTIONS)
        self._server.add_generic_rpc_handlers((self,))
        if credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"grpc{'s' if credentials else ''}://127.0.0.1:{self.port}"
        self._server.start()

    def close(self) -> None:
        self._server.stop(None)
        self._channel.close()

    def service(self, handler_call_details: Any) -> Any:
        """Every method as streams both ways, which any method is on the wire."""
        method = str(handler_call_details.method)

        def forward(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            self.asked.append(method.rpartition("/")[2])
            call = self._channel.stream_stream(method, _same, _same)
            call_of = call(requests)
            try:
                for answer in call_of:
                    yield self._lie(method.rpartition("/")[2], answer)
            except grpc.RpcError:
                # Not from the exception, whose type does not say that it has both.
                context.abort(call_of.code(), call_of.details() or "")

        return grpc.stream_stream_rpc_method_handler(forward, _same, _same)
