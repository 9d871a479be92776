# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the secure processor says of an SEV or SEV-ES guest: the launch measurement, which QEMU's monitor (QMP) has.

Only who has the session's integrity key (TIK) can tell of which digest and policy it is: docs/attestation.md.
"""

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from tools.launcher.acceptance.model import Measured
from tools.launcher.attest import measurement
from tools.launcher.attest.measurement import Platform
from tools.launcher.base.errors import GuestError
from tools.launcher.channel.session import Session, listen
from tools.launcher.guest.command_line import Option
from tools.launcher.guest.staging import Staging

_SOCKET = "monitor.sock"
_PATIENCE = 30.0
_ANSWER_MAX = 1 << 16


class Monitor:
    """A monitor of the QEMU that is started with `change`, in the folder that `prepare` is given."""

    def __init__(self) -> None:
        self._listener: socket.socket | None = None

    def prepare(self, staging: Staging) -> None:
        """Listen for it."""
        self._listener = listen(staging.folder, _SOCKET)
        user = staging.spec.qemu.user
        if user is not None:
            os.chown(staging.folder / _SOCKET, user.uid, user.gid)

    @staticmethod
    def change(options: list[Option]) -> list[Option]:
        """With a monitor, which connects to us."""
        return [*options, ("-chardev", f"socket,id=monitor,path={_SOCKET}"), ("-mon", "chardev=monitor,mode=control")]

    def close(self) -> None:
        """Hang up."""
        if self._listener is not None:
            self._listener.close()

    def ask(self, commands: Sequence[str]) -> list[dict[str, Any]]:
        """What each command returns; GuestError with what QEMU says against it."""
        assert self._listener is not None
        try:
            self._listener.settimeout(_PATIENCE)
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rwb") as stream:
                connection.settimeout(_PATIENCE)
                stream.readline(_ANSWER_MAX)  # the greeting
                answers = []
                for command in ("qmp_capabilities", *commands):
                    stream.write(json.dumps({"execute": command}).encode() + b"\n")
                    stream.flush()
                    answers.append(_answer(stream.readline, command))
                return answers[1:]
        except (OSError, ValueError) as error:
            raise GuestError(f"QEMU's monitor: {error}") from None


def _answer(line: Any, command: str) -> dict[str, Any]:
    """The next one that is no event."""
    while said := json.loads(line(_ANSWER_MAX) or b"{}"):
        if "error" in said:
            raise GuestError(f"QEMU's monitor: {command}: {said['error'].get('desc', 'refused')}")
        if "return" in said:
            found: dict[str, Any] = said["return"]
            return found
    raise GuestError(f"QEMU's monitor hung up at {command}")


def of_guest(monitor: Monitor, _: Session, *, tik: bytes, policy: int, digest: bytes) -> dict[str, object]:
    """What the owner's key says of it."""
    sev, measure = monitor.ask(("query-sev", "query-sev-launch-measure"))
    return {"measured": compared(sev, measure, tik=tik, policy=policy, digest=digest)}


def compared(
    sev: dict[str, Any], measure: dict[str, Any], *, tik: bytes, policy: int, digest: bytes
) -> Measured:  # fmt: skip
    """Whether the measurement is that of policy and digest, and of others, which it must not be."""
    try:
        platform = Platform(api_major=sev["api-major"], api_minor=sev["api-minor"], build=sev["build-id"])
        blob = measurement.decode(measure["data"])
    except (KeyError, ValueError) as error:
        raise GuestError(f"QEMU's monitor says no launch measurement: {error}") from None
    other = bytes([digest[0] ^ 1]) + digest[1:]

    def matches(policy: int, digest: bytes) -> bool:
        return measurement.matches(blob, tik=tik, platform=platform, policy=policy, digest=digest)

    return Measured(
        expected=matches(policy, digest),
        other_digest=matches(policy, other),
        other_policy=matches(policy ^ 1, digest),
    )
