# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The socket at which a running guest is asked for attestation reports.

A connection is one question: a line of JSON there, a line back. `run --control` has the socket, `attest` asks.
"""

import base64
import binascii
import contextlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.launcher.base.errors import GuestError, UserError
from tools.launcher.channel.attest import Report
from tools.launcher.channel.session import Session, listen
from tools.sev.agent.report_data import DATA_MAX

_REQUEST_MAX = 4096
_ANSWER_MAX = 1 << 20
_QUEUE = 16
# Seconds. The guest's question may take its time at the processor, whom others ask too.
_PATIENCE = 120.0


@contextmanager
def opened(path: Path | None, session: Session) -> Iterator[None]:
    """Serve `path` while the session serves its guest; nothing for None. The socket is this user's alone."""
    if path is None:
        yield
        return
    old = os.umask(0o177)
    try:
        server = listen(path.absolute().parent, path.name)
        server.listen(_QUEUE)
    except OSError as error:
        hint = "a launcher that was killed leaves it: remove it if none runs" if os.path.lexists(path) else None
        raise UserError(error.strerror or "cannot be made", where=f"--control {path}", hint=hint) from None
    finally:
        os.umask(old)
    with server:
        control = _Control(session, server)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            control.close()


class _Control:
    """At most one who asks; whoever comes while somebody dawdles takes their place."""

    def __init__(self, session: Session, server: socket.socket) -> None:
        self._session = session
        self._server = server
        self._client: socket.socket | None = None
        self._request = b""
        session.watch(server.fileno(), self._on_connect)
        session.on_report = self._on_report

    def close(self) -> None:
        """Serve nobody any more."""
        self._session.watch(self._server.fileno(), None)
        self._drop()

    def _on_connect(self) -> None:
        try:
            client, _ = self._server.accept()
        except OSError:
            return
        client.setblocking(False)
        # The other's question may have come in the same round of events: then nobody dawdles.
        self._on_request()
        if self._client is not None and self._session.link.attesting:
            _send(client, {"error": "another report is being asked for: try again"})
            client.close()
            return
        self._drop()
        self._client, self._request = client, b""
        self._session.watch(client.fileno(), self._on_request)

    def _on_request(self) -> None:
        if self._client is None:
            return  # answered in the round of events that this one belongs to
        try:
            data = self._client.recv(_REQUEST_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._request += data
        if not data or len(self._request) > _REQUEST_MAX:
            self._drop()
        elif b"\n" in data and not self._session.link.attesting:
            try:
                self._session.link.attest(_question(self._request))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                self._answer({"error": f"cannot be asked: {error}"})

    def _on_report(self, report: Report) -> None:
        if report.failure is not None:
            self._answer({"error": f"the guest has no report: {report.failure}"})
            return
        blobs = {"report": report.report, "auxblob": report.auxblob}
        encoded = {name: base64.b64encode(blob).decode() for name, blob in blobs.items()}
        self._answer({"provider": report.provider, **encoded})

    def _answer(self, answer: dict[str, Any]) -> None:
        if self._client is not None:
            _send(self._client, answer)
        self._drop()

    def _drop(self) -> None:
        if self._client is not None:
            self._session.watch(self._client.fileno(), None)
            self._client.close()
            self._client = None


def _question(request: bytes) -> bytes:
    data = bytes.fromhex(json.loads(request)["attest"])
    if not 1 <= len(data) <= DATA_MAX:
        raise ValueError(f"{len(data)} bytes, not 1 to {DATA_MAX}")
    return data


def _send(client: socket.socket, answer: dict[str, Any]) -> None:
    # An answer fits into the socket's buffer; whoever does not take it must not hold up the guest.
    with contextlib.suppress(OSError):
        client.settimeout(1.0)
        client.sendall(json.dumps(answer).encode() + b"\n")


def ask(path: Path, data: bytes) -> Report:
    """A report over `data` (1 to 64 bytes) from the guest of the launcher that has this socket.

    UserError when there is no such launcher, GuestError with what the launcher or the guest says against it.
    """
    where = str(path)
    try:
        answer = _exchange(path, json.dumps({"attest": data.hex()}).encode() + b"\n")
    except TimeoutError:
        raise GuestError(f"no answer within {_PATIENCE:g} s", where=where) from None
    except OSError as error:
        hint = "it is the socket of `run --control`, which must still run"
        raise UserError(error.strerror or "cannot be asked", where=where, hint=hint) from None
    try:
        said = json.loads(answer)
        if "error" in said:
            raise GuestError(str(said["error"]), where=where)
        report, auxblob = (base64.b64decode(said[name], validate=True) for name in ("report", "auxblob"))
        return Report(provider=str(said["provider"]), report=report, auxblob=auxblob)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        what = "the launcher ended" if not answer else "what answers there is no launcher of guests"
        raise GuestError(what, where=where) from None


def _exchange(path: Path, request: bytes) -> bytes:
    # By way of a descriptor: a socket's own path may have no more than 107 bytes.
    folder = os.open(path.absolute().parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_PATIENCE)
            client.connect(f"/proc/self/fd/{folder}/{path.name}")
            # It may have said that it takes no question now, and gone: that is still to be read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(request)
            with client.makefile("rb") as stream:
                return stream.readline(_ANSWER_MAX)
    finally:
        os.close(folder)
