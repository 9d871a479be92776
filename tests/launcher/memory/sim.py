# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A process whose memory looks like that of a QEMU: what only a processor with SEV can make, made up.

Its words: what the memory holds, then a QEMU's options. It says a line when it is ready, and ends with its input.
"""

import mmap
import os
import sys

from tests.launcher.standin_memory import guest_memory

PAGE = 4096
BANNER = b"Linux version 6.12.1 (somebody@here)"


def mark(memory: mmap.mmap | memoryview, at: int, masked: str) -> None:
    """Put the marker there letter by letter, so that it is nowhere else in this process."""
    for number in range(len(masked)):
        memory[at + number] = ord(masked[-1 - number])


def main() -> None:
    kind, masked, *options = sys.argv[1:]
    size = int(options[options.index("-m") + 1].removesuffix("M")) << 20
    append = options[options.index("-append") + 1].encode()
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    # What TCG translates into may be as large as the guest's memory, and hold anything.
    decoy = mmap.mmap(-1, size, flags, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    mark(decoy, PAGE, masked)
    memory = guest_memory(size, shared="memfd" in kind)
    fill(memory, kind, size, append)
    if "marked" in kind:
        # Across two of the pieces that are read at once.
        mark(memory, (8 << 20) - len(masked) // 2, masked)
    crossed = masked[::-1].encode() if "crossed" in kind else b""
    if "talks" in kind:
        talk(memory, size)
    else:
        print("ready", flush=True)
        sys.stdin.read()
    del crossed, decoy


def talk(memory: memoryview, size: int) -> None:
    """What the demonstration's guest says; what it is told lies in a shared buffer, and where its kernel says."""
    start, end = size // 2, size // 2 + (4 << 20)
    print("@id\nuid=0 gid=0\n@dmesg\nMemory Encryption Features active: AMD SEV SEV-ES SEV-SNP", flush=True)
    print(f"software IO TLB: mapped [mem {start:#018x}-{end:#018x}] (4MB)\n@ready", flush=True)
    told = sys.stdin.buffer.readline()
    memory[start + 4096 : start + 4096 + len(told)] = told
    print("@held", flush=True)
    sys.stdin.buffer.readline()
    print("@end 32", flush=True)


def fill(memory: memoryview, kind: str, size: int, append: bytes) -> None:
    half = size // 2
    if "cipher" in kind:
        for at in range(0, size // 4, PAGE):
            memory[at : at + PAGE] = os.urandom(PAGE)
    if "plain" in kind:
        memory[8 * PAGE : 8 * PAGE + len(BANNER)] = BANNER
        for at in range(16 * PAGE, size // 4, PAGE):
            memory[at : at + PAGE] = (b"all kinds of plain text " * 200)[:PAGE]
    if "zeros" in kind:
        memory[: size // 4] = bytes(size // 4)
    if "cipher" in kind or "shared" in kind or "plain" in kind:
        # A device's buffers are shared, and plain.
        memory[half : half + len(append)] = append


main()
