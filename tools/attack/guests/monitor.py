# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""QEMU's machine protocol (QMP): a host looks at its guest, and does to it what a monitor can."""

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

from tools.pipeline.base.errors import BuildError

_LIMIT = 300.0  # seconds without an answer
_TICKS = os.sysconf("SC_CLK_TCK")


class Monitor:
    """QEMU's machine protocol (QMP), as much of it as attacks need."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_LIMIT)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rwb")
        # Not the child's id: between us and QEMU stands the wrapper that gives it the pinned tree.
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self._stat = Path("/proc") / str(int.from_bytes(credentials[:4], "little")) / "stat"
        self._receive()  # the greeting
        self.execute("qmp_capabilities")

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self._socket.close()

    def cpu_seconds(self) -> float:
        """Processor time that QEMU has used."""
        fields = self._stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS  # utime and stime, proc(5)

    def instruction_pointer(self) -> int:
        """The first CPU's. Stopped for that: the emulator keeps it current between blocks of code only."""
        self.execute("stop")
        text = self.human("info registers")
        self.execute("cont")
        found = re.search(r"\b[RE]IP=([0-9a-f]+)", text)
        assert found, text
        return int(found[1], 16)

    def memory(self, address: int, size: int) -> bytes:
        """As the CPU sees it; empty where nothing is mapped."""
        text = self.human(f"x /{size}xb {max(0, address):#x}")
        return bytes(int(byte, 16) for byte in re.findall(r"\b0x([0-9a-f]{2})\b", text))

    def human(self, line: str) -> str:
        """A line as people type it at QEMU's other monitor."""
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def execute(self, command: str, /, **arguments: object) -> Any:
        """A command's answer; BuildError when QEMU refuses it."""
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self._stream.flush()
        while True:
            message = self._receive()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise BuildError(f"QEMU refuses {command}: {message['error'].get('desc')}")

    def _receive(self) -> dict[str, Any]:
        line = self._stream.readline()
        if not line:
            raise ConnectionResetError
        message: dict[str, Any] = json.loads(line)
        return message
