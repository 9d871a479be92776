# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Stands in for a QEMU on a host with SEV-SNP, its secure processor, firmware, kernel and agent: none can be had here.

What it shows is that the command asks the right questions, and what it says when an answer is wrong; nothing of SEV.
The digest that it measures is computed from the files that it was given. Its first word is a file with its settings;
`lies` in there are what this machine does not do as it should.
"""

import hashlib
import json
import os
import re
import socket
import struct
import sys
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from tests.launcher.acceptance.machine_key import signature_holds
from tests.launcher.attest.attestation_kit import Draft
from tests.launcher.standin_frames import frame, hello
from tests.launcher.standin_memory import guest_memory
from tools.launcher.measure.cpu_signature import signature_of
from tools.launcher.measure.launch_digest import LaunchDigests
from tools.sev.hashes_table import hashes_table
from tools.sev.id_block import IdBlock
from tools.sev.modes import Mode

MASK = 0x15
FEATURES = "[    0.1] Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP"
PLATFORM = "[    0.5] virtio_rng virtio2: device must provide VIRTIO_F_ACCESS_PLATFORM"


class Machine:
    def __init__(self, settings: dict[str, Any], words: list[str]) -> None:
        self.lies = set(settings["lies"])
        self.words = words
        self.snp = next((w for w in words if w.startswith("sev-snp-guest,")), None)
        self.append = self.value("-append")
        self.tables = tuple(Path(self.value(name)).read_bytes() for name in ("-bios", "-kernel", "-initrd"))

    def value(self, option: str) -> str:
        return self.words[self.words.index(option) + 1]

    def asked(self, name: str) -> str | None:
        assert self.snp is not None
        found = re.search(rf",{name}=([^,]+)", self.snp)
        return found[1] if found else None

    @property
    def table(self) -> bytes:
        _, kernel, initrd = (hashlib.sha256(data).digest() for data in self.tables)
        return hashes_table(kernel_sha256=kernel, initrd_sha256=initrd, cmdline=self.append)

    @property
    def digest(self) -> bytes:
        own = LaunchDigests(self.tables[0], self.table, where="bios")
        text = own.digest(Mode.SNP, signature=signature_of("EPYC-v4"), vcpus=1, legacy_vm_type=False)
        return bytes.fromhex(text)

    def launch(self) -> None:
        """What processor and firmware do before the guest runs."""
        if self.snp is None:
            good = Path("hashes.bin").read_bytes() == self.table
            if not good and "ends-changed" in self.lies:
                sys.exit("qemu: the changed guest is gone")
            if not good and "firmware" not in self.lies:
                while True:
                    pass
            return
        block = self.asked("id-block")
        if self.value("-accel").startswith("tcg"):
            if len(b64decode(block or "")) != 96:
                sys.exit("qemu: parameter length of 95 not equal to 96")
            sys.exit("qemu: cannot set up private guest memory for sev-snp-guest: KVM required")
        if block is None or "processor" in self.lies:
            return
        raw, auth = b64decode(block), b64decode(self.asked("id-auth") or "")
        if IdBlock.unpack(raw).digest != self.digest:
            sys.exit("qemu: sev_snp_launch_finish: SNP_LAUNCH_FINISH ret=-5 fw_error=11 'Bad measurement'")
        if not signature_holds(raw, auth):
            sys.exit("qemu: sev_snp_launch_finish: SNP_LAUNCH_FINISH ret=-5 fw_error=10 'Bad signature'")

    def log(self) -> str:
        lines = ["[    0.0] Linux version 6.12.1", self.pool]
        if (self.snp is None) is ("kernel" in self.lies):
            lines.append(FEATURES)
        rng = next(w for w in self.words if w.startswith("virtio-rng-pci"))
        if "iommu_platform=off" in rng and "device" not in self.lies:
            lines.append(PLATFORM)
        return "\n".join(lines)

    @property
    def bounces(self) -> bool:
        return self.snp is not None or "swiotlb=force" in self.append

    @property
    def pool(self) -> str:
        start, end = 0x2000000, 0x2400000
        return f"[    0.2] software IO TLB: mapped [mem {start:#018x}-{end:#018x}] (4MB)" if self.bounces else ""

    def report(self, data: bytes) -> bytes:
        auth = b64decode(self.asked("id-auth") or "")
        digest = self.digest
        if "report" in self.lies:
            digest = digest[::-1]
        wanted = hashlib.sha512(
            b"sev-artifacts report 1 host\0" + struct.pack("<I", len(data)) + data
        ).digest()  # fmt: skip
        draft = Draft(
            policy=int(self.asked("policy") or "0", 16),
            report_data=wanted,
            measurement=digest,
            id_key_digest=hashlib.sha384(auth[0x240 : 0x240 + 1028]).digest(),
        )
        return draft.raw(ec.generate_private_key(ec.SECP384R1()))


class Agent:
    """The agent and the program, in one; the guest's memory is a mapping as QEMU's."""

    def __init__(self, machine: Machine, connection: socket.socket) -> None:
        self.machine = machine
        self.connection = connection
        size = int(machine.value("-m").removesuffix("M")) << 20
        self.memory = guest_memory(size, shared=machine.snp is not None)
        append = machine.append.encode()
        self.memory[0x1000000 : 0x1000000 + len(append)] = append
        self.document: dict[str, Any] = {}
        self.heard = b""
        self.said = 0

    def send(self, kind: int, process: int = 0, payload: bytes = b"") -> None:
        self.connection.sendall(frame(kind, process, payload))

    def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.connection.recv(size - len(data))
            if not piece:
                os._exit(0)
            data += piece
        return data

    def say(self, text: str) -> None:
        self.send(0x33, 1, text.encode())

    def serve(self) -> None:
        self.connection.sendall(hello(bound=1))
        parts = b""
        while True:
            kind, flags, _, process, length = struct.unpack("<BBHII", self.receive(12))
            payload = self.receive(length)
            if kind in (0x11, 0x17, 0x1A) and flags:
                parts += payload
                continue
            payload, parts = (parts + payload, b"") if kind in (0x11, 0x17, 0x1A) else (payload, parts)
            self.handle(kind, process, payload)

    def handle(self, kind: int, process: int, payload: bytes) -> None:
        if kind == 0x17:
            self.document = json.loads(payload)
        elif kind == 0x19:
            self.send(0x31, 0, bytes(4))
        elif kind == 0x1A:
            self.send(0x32, process, struct.pack("<I", 7))
            self.say(f"@log\n{self.machine.log()}\n@up\n")
        elif kind == 0x11:
            self.command(process)
        elif kind == 0x12:
            self.heard += payload
            self.send(0x20, 1, struct.pack("<B3xI", 0, len(payload)))
            while len(self.heard) >= 32 * (self.said + 1):
                self.piece(self.heard[32 * self.said : 32 * (self.said + 1)])
                self.said += 1
        elif kind == 0x16:
            os._exit(0)
        elif kind == 0x1B:
            report = self.machine.report(payload)
            pieces = (b"sev_guest", report, b"")
            self.send(0x37, 0, bytes(4) + b"".join(struct.pack("<I", len(piece)) + piece for piece in pieces))

    def command(self, process: int) -> None:
        if self.document["host"]["exec"] or "agent" in self.machine.lies:
            self.send(0x32, process, struct.pack("<I", 8))
            self.send(0x35, process, struct.pack("<BBHI", 0, 0, 0, 9))
        else:
            self.send(0x3F, process, struct.pack("<HI", 9, 7) + b"refused")

    def piece(self, data: bytes) -> None:
        if self.said == 0:
            if self.machine.snp is None or "memory" in self.machine.lies:
                # Byte by byte, so that it is nowhere else in this process.
                for number, byte in enumerate(data):
                    self.memory[0x3000000 + number] = byte ^ MASK
            self.say("@made\n")
        elif self.said == 1:
            at = 0x2001000 if self.machine.bounces and "bounce" not in self.machine.lies else 0x4001000
            self.memory[at : at + len(data)] = data
            self.say("@held\n")
        elif "mute" not in self.machine.lies or self.document["host"]["exec"]:
            self.send(0x35, 1, struct.pack("<BBHI", 0, 0, 0, 9 if "program" in self.machine.lies else 0))


def main() -> None:
    settings, words = json.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2:]
    if "-version" in words:
        print("QEMU emulator version 10.2.2 (stand-in)")
        return
    if "loader,help" in words:
        return
    if "hangs" in settings["lies"]:
        time.sleep(3600)
    ended = Path(f"{sys.argv[1]}.ended")
    if "ends" in settings["lies"] or ("ends-once" in settings["lies"] and not ended.exists()):
        ended.touch()
        print("qemu: the timer is late", file=sys.stderr)
        sys.exit(3)
    path = next(w for w in words if w.startswith("socket,id=agent,path=")).split("path=")[1]
    machine = Machine(settings, words)
    machine.launch()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    Agent(machine, connection).serve()


main()
