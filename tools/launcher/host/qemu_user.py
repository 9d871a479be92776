# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Who QEMU is when root starts it: nobody, from its first instruction on.

QEMU works on what a hostile guest gives it, so it must not be root. A uid that no account has is chosen for each
start, so that two guests' QEMUs are strangers to each other. Devices that only root may open are shown to it as
private copies, in a mount namespace of its own:

    root ── fork ── [mount namespace: /dev/kvm, /dev/sev] ── setgroups, setresgid, setresuid ── exec QEMU
"""

import ctypes
import os
import pwd
import resource
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.base.errors import UserError

DEVICES = ("/dev/kvm", "/dev/sev")
# One for each process id; systemd's UIDS-GIDS: "unused", above all that it and Debian's policy (9.2.2) give away.
_OWN = 0x70000000
# For user namespaces with 65,536 ids: by both of these documents for nobody's use.
_POOL = range(65520, 65534)
_ID_MAX = (1 << 32) - 2
_STAGE = b"/sys"  # a folder that each system has
_NEW_MOUNTS = 0x20000  # CLONE_NEWNS of linux/sched.h
_SLAVE, _BIND, _NO_SUID_NO_EXEC = 1 << 19 | 1 << 14, 1 << 12, 2 | 8  # MS_ of linux/mount.h
_DETACH = 2  # MNT_DETACH
_SET_NO_NEW_PRIVS = 38  # linux/prctl.h


@dataclass(frozen=True, kw_only=True)
class QemuUser:
    """Whom QEMU becomes, and how it gets at the devices: through `groups`, or as private copies of `nodes`."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    nodes: tuple[str, ...] = ()

    def become(self, *, lock_memory: bool) -> None:
        """In the child between fork and exec. `lock_memory`: the host pins the guest's RAM (SEV, SEV-ES)."""
        if self.nodes:
            _private_nodes(self)
        if lock_memory:
            # What root needs no limit for: sev_pin_memory() of arch/x86/kvm/svm/sev.c.
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        _check(_libc().prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def choose(asked: tuple[int, int] | None) -> tuple[QemuUser | None, str | None]:
    """For this start; None: QEMU is whoever runs the launcher. Then why it stays root, if that was not asked for.

    UserError when what was asked for (uid, gid) cannot be had.
    """
    if os.geteuid() != 0:
        if asked not in (None, (os.geteuid(), os.getegid())):
            raise UserError("only root can start QEMU as somebody else", where="--qemu-user")
        return None, None
    if asked is not None and asked[0] == 0:
        return None, None
    ids = asked or _own()
    if ids is None:
        return None, "this user namespace has no ids to spare"
    groups, nodes = [], []
    for device in DEVICES:
        group = _missing(device, ids)
        if group is not None and group > 0:
            groups.append(group)
        elif group == 0:
            nodes.append(device)
    user = QemuUser(uid=ids[0], gid=ids[1], groups=tuple(groups), nodes=tuple(nodes))
    error = _trial(user)
    if error is None:
        return user, None
    if asked is not None:
        raise UserError(f"QEMU cannot be uid {ids[0]}: {error}", where="--qemu-user", hint="0 leaves it root")
    return None, error


def _own() -> tuple[int, int] | None:
    """An unused number for uid and gid; None where this root is an ordinary user by another name."""
    number = os.getpid()
    maps = [list(_ranges(f"/proc/self/{name}_map")) for name in ("uid", "gid")]
    for candidate in (_OWN + number, *(_POOL[(number + i) % len(_POOL)] for i in range(len(_POOL)))):
        if all(any(candidate in part for part in mapped) for mapped in maps) and _is_free(candidate):
            return candidate, candidate
    return None


def _ranges(path: str) -> Iterator[range]:
    for line in Path(path).read_text("ascii").splitlines():
        first, _, count = map(int, line.split())
        yield range(first, first + count)


def _is_free(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return True
    return False


def _missing(device: str, ids: tuple[int, int]) -> int | None:
    """What these ids lack to use a device: nothing (None), a group, or everything (0)."""
    try:
        status = Path(device).stat()
    except OSError:
        return None  # what is not there is reported by whoever needs it
    wanted = stat.S_IROTH | stat.S_IWOTH
    if ids[0] == status.st_uid:
        return None if status.st_mode >> 6 & wanted == wanted else 0
    if status.st_mode & wanted == wanted:
        return None
    by_group = status.st_mode >> 3 & wanted == wanted
    if by_group and ids[1] == status.st_gid:
        return None
    return status.st_gid if by_group else 0


def _trial(user: QemuUser) -> str | None:
    """Why this process cannot become the user, found out by a child that tries."""
    read, write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            user.become(lock_memory=False)
            for device in (*user.nodes, *(name for name in DEVICES if user.groups and Path(name).exists())):
                os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            os.write(write, failure(error).encode("utf-8", "replace"))
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:  # noqa: PTH123  a descriptor
        said = pipe.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return said or None


def failure(error: OSError) -> str:
    """An error of become() for people."""
    return f"{error.filename or 'changing the user'}: {error.strerror}"


def _private_nodes(user: QemuUser) -> None:
    """Put copies of device nodes, which are the user's, in the place of root's; seen by this process alone."""
    libc = _libc()
    _check(libc.unshare(_NEW_MOUNTS), "unshare (mount namespace)")
    # Mounts of the host still arrive here; none of ours leaves.
    _check(libc.mount(None, b"/", None, _SLAVE, None), "mount --make-rslave /")
    _check(libc.mount(b"none", _STAGE, b"tmpfs", _NO_SUID_NO_EXEC, b"mode=0755,size=64k"), "mount (tmpfs)")
    for number, device in enumerate(user.nodes):
        copy = os.path.join(os.fsdecode(_STAGE), str(number))  # noqa: PTH118  between fork and exec: as little as can be
        os.mknod(copy, stat.S_IFCHR | 0o600, os.stat(device).st_rdev)  # noqa: PTH116  the same
        os.chown(copy, user.uid, user.gid)
        _check(libc.mount(copy.encode(), device.encode(), None, _BIND, None), device)
    _check(libc.umount2(_STAGE, _DETACH), "umount (tmpfs)")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
