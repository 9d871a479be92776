# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of files, files that are never half-written, and whose files may be trusted."""

import errno
import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from tools.pipeline.base import ambient
from tools.pipeline.base.errors import UserError


def of_bytes(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    """SHA-256 of a file's bytes in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write under a temporary name in the same folder, then rename; a reader sees old or new, never half.

    The mode is explicit, never the umask's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_once(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file unless it is there; of several that try at once, one wins and none sees half a file."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.chmod(mode)
        # A link, not a rename: it fails where the name is taken.
        with suppress(FileExistsError):
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)


def write_if_changed(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Like write_atomically, but leaves a file with the same bytes alone."""
    if not (path.is_file() and path.read_bytes() == data and stat.S_IMODE(path.stat().st_mode) == mode):
        write_atomically(path, data, mode=mode)


def read_private(path: Path, limit: int = 64 << 10) -> bytes:
    """The bytes of a file with a secret, at most `limit`. UserError unless it is a regular file of ours alone."""
    try:
        # O_NONBLOCK: opening a fifo must not wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UserError("is not a regular file", where=str(path))
            check_private(status, path)
            data = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(data) > limit:
        raise UserError(f"is larger than {limit} bytes, so no key file", where=str(path))
    return data


def check_authorities(path: Path, where: str) -> None:
    """UserError, naming `where`, unless the file has certificates: without one no server would ever be accepted."""
    hint = "name a PEM file of certificates"
    if not path.is_file():
        raise UserError("is not there", where=where, hint=hint)
    try:
        with path.open("rb") as file:
            found = any(line.startswith(b"-----BEGIN CERTIFICATE-----") for line in file)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=where, hint=hint) from None
    if not found:
        raise UserError("holds no certificates in PEM", where=where, hint=hint)


def check_private(status: os.stat_result, path: Path) -> None:
    """Raise UserError unless a file with a secret is ours, and nobody else's to read or write."""
    us = ambient.effective_uid()
    if status.st_uid != us:
        raise UserError(
            f"belongs to uid {status.st_uid}, not to uid {us}, who uses it",
            where=str(path),
            hint="make a copy that is yours, with mode 600, or change the owner",
        )
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise UserError(f"others can read or write it (mode {mode:o})", where=str(path), hint=f"chmod 600 {path}")


def check_unshared(path: Path, *, sticky: bool = False) -> None:
    """Raise UserError unless a folder is ours or root's, and nobody else can change what names in it mean.

    `sticky`: a folder in which nobody can rename what is not theirs (as /tmp) will do.
    """
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode):
        raise UserError("is no folder", where=str(path), hint="remove it")
    if status.st_uid not in {0, ambient.effective_uid()}:
        raise UserError(
            f"belongs to uid {status.st_uid}, so what lies there cannot be trusted",
            where=str(path),
            hint="remove it, or set SEV_ARTIFACTS_CACHE to a folder of your own",
        )
    if mode & 0o022 and not (sticky and mode & stat.S_ISVTX):
        raise UserError(
            f"others can write there (mode {mode:o}), so what lies there cannot be trusted",
            where=str(path),
            hint=f"chmod {'+t' if sticky else 'go-w'} {path}, or set SEV_ARTIFACTS_CACHE to a folder of your own",
        )


def open_lock(path: Path) -> int:
    """A descriptor of a lock file (for flock), made unless it is there; UserError when it is a link."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError("is a link where a lock must be", where=str(path), hint="remove it") from None


def open_folder(root: Path, *names: str, make: bool = False) -> int:
    """A descriptor of a folder below `root`, for use as dir_fd; no link below `root` is followed.

    With `make`, folders that are not there are made (mode 0755, whatever the umask). FileNotFoundError without;
    UserError when a link or a file is in the way.
    """
    if make:
        root.mkdir(parents=True, exist_ok=True)
    here, path = os.open(root, _FOLDER), root
    for name in names:
        above, path = here, path / name
        try:
            made = make and _make_folder(name, above)
            here = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
        except NotADirectoryError:
            # What O_NOFOLLOW and O_DIRECTORY together say of a link, too (open(2)).
            raise UserError("is a link or a file where a folder must be", where=str(path), hint="remove it") from None
        finally:
            os.close(above)
        if made:
            os.fchmod(here, 0o755)
    return here


def members(root: Path, *names: str) -> list[tuple[str, os.stat_result]]:
    """Names and states of the regular files in a folder below `root`, sorted; none when it is not there."""
    try:
        folder = open_folder(root, *names)
    except FileNotFoundError:
        return []
    try:
        found = []
        for name in sorted(os.listdir(folder)):  # noqa: PTH208 (a descriptor)
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found.append((name, status))
        return found
    finally:
        os.close(folder)


def read_member(root: Path, *path: str, limit: int) -> bytes | None:
    """The bytes of a regular file below `root`; no link is followed, and nothing waits for a fifo's writer.

    None when there is none, or it has more than `limit` bytes. UserError when a link is where a folder must be.
    """
    *names, last = path
    try:
        folder = open_folder(root, *names)
    except FileNotFoundError:
        return None
    try:
        descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    finally:
        os.close(folder)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = file.read(limit + 1)
        return data if len(data) <= limit else None


def write_member(root: Path, *path: str, data: bytes) -> None:
    """Like write_atomically (mode 0644), where others may write: no link below `root` is followed.

    What they put in the new file's place before it has its name has its name then, and nothing else is changed.
    """
    *names, last = path
    folder = open_folder(root, *names, make=True)
    try:
        new = f".{last}.{ambient.random_bytes(8).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(new, flags, 0o600, dir_fd=folder), "wb") as file:
            try:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
                os.replace(new, last, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(new, dir_fd=folder)
                raise
    finally:
        os.close(folder)


def remove_member(root: Path, *path: str) -> None:
    """Remove a file below `root`, if it is there; no link on the way is followed."""
    *names, last = path
    with suppress(FileNotFoundError):
        folder = open_folder(root, *names)
        try:
            os.unlink(last, dir_fd=folder)
        finally:
            os.close(folder)


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def _make_folder(name: str, above: int) -> bool:
    try:
        os.mkdir(name, 0o755, dir_fd=above)
    except FileExistsError:
        return False
    return True
