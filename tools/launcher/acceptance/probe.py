# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The program that runs in the guests: a static one of a few hundred bytes, written here by hand, so that nothing else
is needed on the host, and nothing else is in the guest's root.

It prints the kernel's log, makes a marker of 32 bytes that it is sent masked, takes 32 bytes more, and ends at
another 32, or with status 9 when something fails:

    @log ─ the log ─ @up ◀─ 32 bytes, masked ─ @made ◀─ 32 bytes ─ @held ◀─ 32 bytes ─ end
"""

import hashlib
import io
import struct
import tarfile
from pathlib import Path

from tools.launcher.channel.protocol import RootKind
from tools.launcher.guest.rootfs import Rootfs
from tools.sev.workload.document import DEFAULT_CAPABILITIES, Capabilities, Document, Doors, Process, Tar

PATH = "/probe"
PIECE = 32
"""Bytes of a marker and of everything that the program is sent."""
UP, MADE, HELD = b"\n@up\n", b"@made\n", b"@held\n"
FIRST = b"@log\n"
MASK = 0x15
LISTING = """\
-               _start:
488d35bd000000  lea rsi, [rip+log]
6a05            push 5
5a              pop rdx
e886000000      call put
bf03000000      mov edi, 3                          # SYSLOG_ACTION_READ_ALL
be00204000      mov esi, 0x402000
ba00000400      mov edx, 0x40000
b867000000      mov eax, 103                        # syslog
0f05            syscall
85c0            test eax, eax
7867            js fail
89c2            mov edx, eax
e865000000      call put
488d3592000000  lea rsi, [rip+up]
6a05            push 5
5a              pop rdx
e856000000      call put
be00104000      mov esi, 0x401000
e862000000      call get
b920000000      mov ecx, 32
-               again:
80740eff15      xor byte ptr [rsi+rcx-1], 0x15      # the marker: it was never sent
e2f9            loop again
488d3572000000  lea rsi, [rip+made]
6a06            push 6
5a              pop rdx
e831000000      call put
be00184000      mov esi, 0x401800
e83d000000      call get
488d355f000000  lea rsi, [rip+held]
6a06            push 6
5a              pop rdx
e818000000      call put
be00194000      mov esi, 0x401900
e824000000      call get
31ff            xor edi, edi
-               end:
b83c000000      mov eax, 60                         # exit
0f05            syscall
-               fail:
6a09            push 9
5f              pop rdi
ebf4            jmp end
-               put:
6a01            push 1
5f              pop rdi
6a01            push 1
58              pop rax
0f05            syscall
4885c0          test rax, rax
7eee            jle fail
4801c6          add rsi, rax
4829c2          sub rdx, rax
75eb            jnz put
c3              ret
-               get:
56              push rsi
6a20            push 32
5a              pop rdx
-               more:
31ff            xor edi, edi
31c0            xor eax, eax
0f05            syscall
4885c0          test rax, rax
7ed6            jle fail
4801c6          add rsi, rax
4829c2          sub rdx, rax
75ed            jnz more
5e              pop rsi
c3              ret
406c6f670a      log: .ascii "@log\\n"
0a4075700a      up: .ascii "\\n@up\\n"
406d6164650a    made: .ascii "@made\\n"
4068656c640a    held: .ascii "@held\\n"
"""
"""Machine code in hexadecimal and what it is, as GNU as reads it (.intel_syntax noprefix). A test assembles it."""

_BASE, _DATA = 0x400000, 0x401000
_DATA_SIZE = 0x42000
"""Marker, pieces, and from 0x402000 on the log: 256 KiB."""
_READ, _WRITE, _EXECUTE, _LOAD = 4, 2, 1, 1  # of elf.h
_HEADERS = 64 + 2 * 56


def code() -> bytes:
    """The machine code of the listing."""
    words = (line.split()[0] for line in LISTING.splitlines())
    return bytes.fromhex("".join(word for word in words if word != "-"))


def program() -> bytes:
    """An ELF file: code that is read only, and memory that is not executed."""
    text = code()
    size = _HEADERS + len(text)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", identity, 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )  # fmt: skip
    segment = struct.Struct("<IIQQQQQQ")
    first = segment.pack(_LOAD, _READ | _EXECUTE, 0, _BASE, _BASE, size, size, 0x1000)
    second = segment.pack(_LOAD, _READ | _WRITE, 0, _DATA, _DATA, 0, _DATA_SIZE, 0x1000)
    return header + first + second + text


def root(folder: Path) -> tuple[Rootfs, Tar]:
    """A tar with the program in the folder, and what a workload document says of it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(PATH.removeprefix("/"))
        member.size, member.mode = len(program()), 0o755
        archive.addfile(member, io.BytesIO(program()))
    content = data.getvalue()
    path = folder / "probe.tar"
    path.write_bytes(content)
    length = len(content)
    tar = Tar(length=length, sha256=hashlib.sha256(content).hexdigest())
    return Rootfs(path=path, kind=RootKind.TAR, length=length), tar


def document(tar: Tar, *, commands: bool) -> Document:
    """What the guests are bound to. `commands`: the host may start any; without, the document names all that runs."""
    names = (*DEFAULT_CAPABILITIES, "syslog")
    process = Process(argv=(PATH,), capabilities=Capabilities.of(names, uid=0), host=Doors(stdin=True))
    return Document(root=tar, process=process, host_reports=True, host_exec=commands)
