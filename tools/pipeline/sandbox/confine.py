# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Starts bubblewrap with what its command line cannot say: a filter for system calls, and for root another user.

An ordinary user's step runs as that user, seen as uid 1000 inside. Root's must not run as root:

    root ── mount namespace: each --bind source, opened by root, below /sys ── user namespace, in which
            1000 is an unprivileged uid ── bubblewrap, which enters it before it looks at any path

So a step that got out would be nobody, and sources may lie where only root may enter. In the read-only ones root's
files are shown as the step's own, where the file system can (idmapped mounts, Linux 5.12): as an ordinary user's are.

Run as a program of its own, with the standard library only: `sandbox.bwrap_argv` starts it before each step.
"""

import ctypes
import errno
import os
import pwd
import resource
import signal
import sys
from typing import NoReturn

from tools.pipeline.sandbox import seccomp
from tools.pipeline.sandbox.confined import FAILED, INSIDE, PARENT

_POOL = range(65520, 65534)  # reserved by Debian's policy (9.2.2) and systemd's UIDS-GIDS for nobody's use
_MOST = "/proc/sys/user/max_user_namespaces"
_STAGE = "/sys"  # a folder that each system has and no source lies below

# A step's largest file, in bytes: one call could make its log longer than any disk. And no core dump, whose
# handler root runs on the host: 1 means that, for handlers as well (core(5), and do_coredump() in fs/coredump.c).
_LIMITS = ((resource.RLIMIT_FSIZE, 64 << 30), (resource.RLIMIT_CORE, 1))

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_MOUNTS, _NEW_USERS = 0x20000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER of linux/sched.h
_PRIVATE = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC of linux/mount.h
# asm/unistd_64.h and linux/mount.h: these have no wrapper in every C library.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_CLONE = 0x1 | 0x8000 | os.O_CLOEXEC  # OPEN_TREE_CLONE | AT_RECURSIVE
_EMPTY_PATH, _FROM_EMPTY_PATH, _ID_MAP = 0x1000, 0x4, 0x100000  # AT_, MOVE_MOUNT_F_, MOUNT_ATTR_
_HERE = -100  # AT_FDCWD
# PR_SET_PDEATHSIG and so on of linux/prctl.h.
_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_SECURE_BITS, _SET_CHILD_SUBREAPER = 1, 4, 28, 36
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_CAP_SYS_PTRACE = 19  # linux/capability.h
_NO_SET_UID_FIXUP = 1 << 2  # SECBIT_NO_SETUID_FIXUP of linux/securebits.h


class _Attributes(ctypes.Structure):
    """struct mount_attr of linux/mount.h."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def main(argv: list[str]) -> NoReturn:
    """Run bubblewrap to its end: `argv` is its command line, less the options that are worked out here.

    Ends as it ended. Whoever started this may end it with SIGTERM, or die: then nothing of the step is left.
    """
    # Nothing of the caller's is open in a step, whoever starts it.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDING, signal.SIGCHLD})
    # Not left to bubblewrap's --die-with-parent: it is not yet there at the start, is lost at each change of user,
    # and a child that waits for a killed bubblewrap waits for ever.
    _LIBC.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
    _LIBC.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # The caller may have died before that. A replay script does not say who it is.
    if os.environ.get(PARENT, str(os.getppid())) != str(os.getppid()):
        sys.exit(FAILED)
    child = os.fork()
    if child == 0:
        _start(argv)
    status = None
    while status is None and signal.sigwait({*_ENDING, signal.SIGCHLD}) == signal.SIGCHLD:
        status = _reap().get(child)
    for orphan in iter(_some_child, None):
        os.kill(orphan, signal.SIGKILL)
        os.waitpid(orphan, 0)
    code = FAILED if status is None else os.waitstatus_to_exitcode(status)
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _reap() -> dict[int, int]:
    """The status of each child that has ended."""
    ended = {}
    try:
        while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            ended[found[0]] = found[1]
    except ChildProcessError:
        pass
    return ended


def _some_child() -> int | None:
    """A process that is ours to end: bubblewrap, or one that it left; there are more as long as there is one."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return next(map(int, file.read().split()), None)


def _start(argv: list[str]) -> NoReturn:
    """Become bubblewrap."""
    try:
        filter_file = os.memfd_create("seccomp", 0)
        os.write(filter_file, seccomp.program())
        os.lseek(filter_file, 0, os.SEEK_SET)
        # What Python, nohup or a shell's & ignore or block, a step would, too.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for which, most in _LIMITS:
            hard = resource.getrlimit(which)[1]
            limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(which, (limit, limit))
        uid = _step_uid() if os.geteuid() == 0 else None
        program: str | int = argv[0]
        if uid is None:
            users, rest = ["--unshare-user", "--disable-userns"], argv[1:]
        else:
            # Opened as root: it, too, may lie where only root may enter.
            program = os.open(argv[0], os.O_RDONLY | os.O_CLOEXEC)
            users, rest = _as_another(uid, argv[1:])
        # The least for when this program itself is killed; bubblewrap's own option comes later.
        _LIBC.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        # No shell is wanted: this process is to be the program.
        os.execve(program, [argv[0], *users, "--seccomp", str(filter_file), *rest], {})  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"sandbox: {error.filename or 'setting it up'}: {error.strerror}\n")
    finally:
        sys.stderr.flush()
        os._exit(FAILED)


def _step_uid() -> int | None:
    """A uid that is no account's, with the next one; None where root is an ordinary user by another name.

    That is so in a user namespace that has no such uid: outside, its root is whoever made it.
    """
    with open("/proc/self/uid_map", encoding="ascii") as file:
        mapped = [(int(first), int(count)) for first, _, count in map(str.split, file)]
    there = [uid for uid in _POOL if any(first <= uid < first + count for first, count in mapped)]
    free = [uid for uid in there if _is_free(uid)]
    for uid in free:
        if uid + 1 in free:
            return uid
    if there:
        raise OSError(0, "every one is some account's", f"uids {_POOL.start} to {_POOL.stop - 1}")
    return None


def _is_free(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return True
    return False


def _as_another(uid: int, options: list[str]) -> tuple[list[str], list[str]]:
    """Options for a user namespace in which 1000 is `uid`, and `options` with sources that it can reach."""
    # Not os.setgroups: its error does not say what failed.
    _check(_LIBC.setgroups(0, None), "setgroups")
    if not _is_mighty() or _LIBC.unshare(_NEW_MOUNTS) < 0:
        # Root of a container: all of it in a user namespace with the same uids.
        _check(_LIBC.setns(_user_namespace((0, 0), (uid, uid), (uid + 1, uid + 1)), _NEW_USERS), "setns")
        _check(_LIBC.unshare(_NEW_MOUNTS), "unshare (mount namespace)")
    _check(_LIBC.mount(None, b"/", None, _PRIVATE, None), "mount --make-rprivate /")
    shown_as = _user_namespace((0, uid))
    sources: list[tuple[int, bool]] = []
    changed: list[str] = []
    words = iter(options)
    for word in words:
        changed.append(word)
        if word == "--":
            break
        if word in {"--bind", "--ro-bind"}:
            source = next(words)
            changed.append(f"{_STAGE}/{len(sources)}")
            sources.append((_source(source, uid, None if word == "--bind" else shown_as), os.path.isdir(source)))
    changed += words
    _check(_LIBC.mount(b"none", _STAGE.encode(), b"tmpfs", 0, b"mode=0755"), f"mount {_STAGE}")
    for number, (descriptor, is_folder) in enumerate(sources):
        _place(descriptor, f"{_STAGE}/{number}", is_folder=is_folder)
    # bubblewrap mounts devpts, for which the namespace needs a root: one more uid that is nobody's.
    users = _user_namespace((0, uid + 1), (INSIDE, uid), owner=uid)
    os.set_inheritable(users, True)
    # Its owner may enter it, and bubblewrap needs no more.
    _become(uid)
    # Of a --block-fd one byte is read, of which there is none, and it is closed: a step must not inherit it.
    return ["--userns", str(users), "--block-fd", str(users)], changed


def _is_mighty() -> bool:
    """Whether root may look into the namespaces of processes that have become another user, which it must."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        effective = next(line for line in file if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> _CAP_SYS_PTRACE & 1)


def _source(path: str, uid: int, shown_as: int | None) -> int:
    """A descriptor of a mount of the path; a writable one (`shown_as` None) is given to the step's uid."""
    descriptor = int(_check(_LIBC.syscall(_OPEN_TREE, _HERE, os.fsencode(path), ctypes.c_uint(_CLONE)), path))
    if shown_as is None:
        os.chown(f"/proc/self/fd/{descriptor}", uid, uid)
        return descriptor
    attributes = _Attributes(attr_set=_ID_MAP, userns_fd=shown_as)
    # Not every file system can (proc, overlayfs), nor may every root: its files then are of somebody unknown.
    _LIBC.syscall(
        _MOUNT_SETATTR,
        descriptor,
        b"",
        _EMPTY_PATH,
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    return descriptor


def _place(descriptor: int, path: str, *, is_folder: bool) -> None:
    if is_folder:
        os.mkdir(path, 0o755)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
    _check(_LIBC.syscall(_MOVE_MOUNT, descriptor, b"", _HERE, path.encode(), _FROM_EMPTY_PATH), path)


def _become(uid: int) -> None:
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _user_namespace(*mapped: tuple[int, int], owner: int | None = None) -> int:
    """A descriptor of a user namespace with (inside, outside) ids.

    With an `owner`, it is that uid's, and no other can be made in it.
    """
    hear, ask = os.pipe()
    listen, answer = os.pipe()
    child = os.fork()
    if child == 0:
        # Ends with us, whatever ends us: then nobody can write to the pipe any more.
        os.close(ask)
        _enter_user_namespace(hear, answer, owner)
    try:
        _hear(listen, "making a user namespace")
        text = "".join(f"{inside} {outside} 1\n" for inside, outside in mapped)
        _write(f"/proc/{child}/uid_map", text)
        _write(f"/proc/{child}/gid_map", text)
        os.write(ask, b".")
        _hear(listen, _MOST)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for descriptor in (hear, ask, listen, answer):
            os.close(descriptor)
        os.waitpid(child, 0)


def _enter_user_namespace(hear: int, answer: int, owner: int | None) -> NoReturn:
    """The child's part: says after each step whether it went well (0) or the errno, and waits."""
    try:
        if owner is not None:
            # Root's capabilities stay, for systems that forbid user namespaces to all others.
            _check(_LIBC.prctl(_SET_SECURE_BITS, _NO_SET_UID_FIXUP, 0, 0, 0), "")
            _become(owner)
            # After a change of user, /proc/PID is the first user namespace's root's alone.
            _check(_LIBC.prctl(_SET_DUMPABLE, 1, 0, 0, 0), "")
        _check(_LIBC.unshare(_NEW_USERS), "")
        os.write(answer, b"\0")
        os.read(hear, 1)
        if owner is not None:
            _write(_MOST, "0")
        os.write(answer, b"\0")
        os.read(hear, 1)
    except OSError as error:
        os.write(answer, bytes([error.errno or errno.EIO]))
    finally:
        os._exit(0)


def _hear(listen: int, what: str) -> None:
    answer = os.read(listen, 1)
    if answer != b"\0":
        raise OSError(answer[0], os.strerror(answer[0]), what)


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)
    return result


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(descriptor)
