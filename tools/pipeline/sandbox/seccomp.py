# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The system calls that a build step may not make, as a BPF program for the kernel (seccomp(2)).

Denied is what no compiler, linker, archiver or script needs and what has let programs out of sandboxes before:
mounts and namespaces, other processes' memory, kernel keys, BPF, io_uring, modules, clocks. Everything else stays
allowed: what a build needs next year is not known here, and the rest of the sandbox does not lean on this list.
"""

import errno
import struct
from dataclasses import dataclass

# linux/bpf_common.h and linux/seccomp.h.
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND|BPF_K, BPF_RET|BPF_K
_EQUAL, _AT_LEAST = 0x15, 0x35  # BPF_JMP with BPF_JEQ or BPF_JGE, and BPF_K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X86_64 = 0xC000003E  # AUDIT_ARCH_X86_64 of linux/audit.h
_X32 = 0x40000000  # __X32_SYSCALL_BIT of asm/unistd.h

NUMBERS = {
    "open": 2, "ioctl": 16, "socket": 41, "socketpair": 53, "clone": 56, "creat": 85, "chmod": 90, "fchmod": 91,
    "ptrace": 101, "syslog": 103, "mknod": 133, "uselib": 134, "modify_ldt": 154, "pivot_root": 155,
    "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168,
    "reboot": 169, "iopl": 172, "ioperm": 173, "create_module": 174, "init_module": 175, "delete_module": 176,
    "quotactl": 179, "lookup_dcookie": 212, "clock_settime": 227, "kexec_load": 246, "add_key": 248,
    "request_key": 249, "keyctl": 250, "openat": 257, "mknodat": 259, "fchmodat": 268, "unshare": 272,
    "perf_event_open": 298, "fanotify_init": 300, "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308,
    "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "kexec_file_load": 320,
    "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "clone3": 435, "openat2": 437, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
    "quotactl_fd": 443, "memfd_secret": 447, "fchmodat2": 452, "open_tree_attr": 467,
}  # fmt: skip
"""asm/unistd_64.h; a test compares them with the tool tree's."""

_REFUSED = (
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd",
    "mount", "umount2", "pivot_root", "chroot", "setns", "open_tree", "open_tree_attr", "move_mount", "fsopen",
    "fsconfig", "fsmount", "fspick", "mount_setattr", "open_by_handle_at", "fanotify_init", "quotactl", "quotactl_fd",
    "add_key", "request_key", "keyctl", "bpf", "perf_event_open", "userfaultfd", "memfd_secret",
    "kexec_load", "kexec_file_load", "create_module", "init_module", "finit_module", "delete_module",
    "reboot", "swapon", "swapoff", "acct", "syslog", "settimeofday", "clock_settime", "clock_adjtime",
    "iopl", "ioperm", "modify_ldt", "uselib", "lookup_dcookie",
)  # fmt: skip
# As on a kernel that does not have them: programs then do what they did before these were there. The flags of
# clone3 and openat2 lie in memory, where a filter cannot see them.
_ABSENT = ("clone3", "openat2", "io_uring_setup", "io_uring_enter", "io_uring_register")

# CLONE_NEW* of linux/sched.h: TIME, NS, CGROUP, UTS, IPC, USER, PID, NET.
_NAMESPACES = 0x80 | 0x20000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_SET_UID = 0o4000
_CREATES = 0o100 | 0o20000000  # O_CREAT, __O_TMPFILE: only then is there a mode
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: vsock knows no network namespace
_TYPE_FOR_TERMINAL = 0x5412  # TIOCSTI of asm-generic/ioctls.h


@dataclass(frozen=True)
class _Bits:
    """A call is refused when all of these (argument, mask) have a bit in common."""

    name: str
    tests: tuple[tuple[int, int], ...]


_BITS = (
    _Bits("openat", ((2, _CREATES), (3, _SET_UID))),
    _Bits("open", ((1, _CREATES), (2, _SET_UID))),
    _Bits("creat", ((1, _SET_UID),)),
    _Bits("chmod", ((1, _SET_UID),)),
    _Bits("fchmod", ((1, _SET_UID),)),
    _Bits("fchmodat", ((2, _SET_UID),)),
    _Bits("fchmodat2", ((2, _SET_UID),)),
    _Bits("mknod", ((1, _SET_UID),)),
    _Bits("mknodat", ((2, _SET_UID),)),
    _Bits("clone", ((0, _NAMESPACES),)),
    _Bits("unshare", ((0, _NAMESPACES),)),
)


def program() -> bytes:
    """The filter: an array of struct sock_filter, for `bwrap --seccomp` or prctl(2)."""
    refuse, absent = _code(_RETURN, _ERRNO | errno.EPERM), _code(_RETURN, _ERRNO | errno.ENOSYS)
    number = _code(_LOAD, _NUMBER)
    # Calls of other architectures have other numbers: there is no 32-bit program in a tool tree.
    parts = [_code(_LOAD, _ARCHITECTURE), _code(_EQUAL, _X86_64, 1, 0), absent]
    parts += [number, _code(_AT_LEAST, _X32, 0, 1), absent]
    for rule in _BITS:
        body = b""
        for argument, mask in reversed(rule.tests):
            after = body or refuse
            # On to the next test; without a common bit to the end of this rule, where the number is loaded again.
            body = _code(_LOAD, _ARGUMENTS + 8 * argument) + _code(_AND, mask)
            body += _code(_EQUAL, 0, len(after) // 8, 0) + after
        parts += _when(rule.name, body + number)
    family = _code(_LOAD, _ARGUMENTS)
    for i, known in enumerate(_FAMILIES):
        family += _code(_EQUAL, known, len(_FAMILIES) - i, 0)
    for name in ("socket", "socketpair"):
        parts += _when(name, family + refuse + number)
    typed = _code(_LOAD, _ARGUMENTS + 8) + _code(_EQUAL, _TYPE_FOR_TERMINAL, 0, 1) + refuse
    parts += _when("ioctl", typed + number)
    for name in _REFUSED:
        parts += _when(name, refuse)
    for name in _ABSENT:
        parts += _when(name, absent)
    return b"".join([*parts, _code(_RETURN, _ALLOW)])


def _when(name: str, body: bytes) -> list[bytes]:
    return [_code(_EQUAL, NUMBERS[name], 0, len(body) // 8), body]


def _code(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
