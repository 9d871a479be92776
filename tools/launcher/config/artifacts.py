# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Check artifacts against the config, and copy what was checked to where nobody else can change it.

QEMU is given the copy, so the bytes that were hashed are the bytes that boot.
"""

import hashlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.config.runtime_config import Artifact, RuntimeConfig
from tools.sev.errors import FormatError
from tools.sev.footer import Footer, parse_footer

_CHUNK = 1 << 20
_REBUILD = "rebuild with ./doit build, or restore the file"


def verify(config: RuntimeConfig, artifact: Artifact, *, into: Path | None = None) -> Path:
    """Check size and SHA-256 of `artifact`; with `into`, return the path of a verified copy there."""
    source = config.path.parent / artifact.file
    if into is None:
        _read(source, artifact, sink=None)
        return source
    target = into / artifact.file
    # Unverified bytes never carry the final name.
    partial = into / f"{artifact.file}.partial"
    try:
        with partial.open("xb", buffering=0) as stream:
            _read(source, artifact, sink=lambda chunk: _write(stream, chunk, into))
        partial.chmod(0o400)
        partial.rename(target)
    except OSError as error:
        raise UserError.of_write(error, into) from None
    return target


def opened(config: RuntimeConfig, artifact: Artifact) -> tuple[Path, int]:
    """The path of a checked program, and a descriptor of it that stays open: what is run are the bytes it leads to."""
    source = config.path.parent / artifact.file
    where = _where(source, artifact)
    descriptor = _open(source, where=where)
    try:
        _check(descriptor, artifact, where=where, sink=None)
    except BaseException:
        os.close(descriptor)
        raise
    return source, descriptor


def read_verified(config: RuntimeConfig, artifact: Artifact) -> bytes:
    """The bytes of `artifact`, checked."""
    parts: list[bytes] = []
    _read(config.path.parent / artifact.file, artifact, sink=parts.append)
    return b"".join(parts)


def read_firmware(config: RuntimeConfig) -> Footer:
    """What the footer of the config's firmware says, its digest checked; UserError when it cannot be used."""
    data = read_verified(config, config.firmware)
    try:
        return parse_footer(data, where=str(config.path.parent / config.firmware.file))
    except FormatError as error:
        raise UserError.of(error) from None


def _write(stream: io.FileIO, data: bytes, folder: Path) -> None:
    view = memoryview(data)
    try:
        # A raw file writes as much as fits: the loop meets a full disk at the next call.
        while view:
            view = view[stream.write(view) :]
    except OSError as error:
        raise UserError.of_write(error, folder) from None


def _read(source: Path, artifact: Artifact, *, sink: Callable[[bytes], object] | None) -> None:
    where = _where(source, artifact)
    descriptor = _open(source, where=where)
    try:
        _check(descriptor, artifact, where=where, sink=sink)
    finally:
        os.close(descriptor)


def _where(source: Path, artifact: Artifact) -> str:
    return f"{source} ({artifact.role})"


def _open(source: Path, *, where: str) -> int:
    try:
        # O_NONBLOCK: a fifo in the artifact's place must not make the launcher wait for ever.
        return os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", where=where, hint=_REBUILD) from None


def _check(descriptor: int, artifact: Artifact, *, where: str, sink: Callable[[bytes], object] | None) -> None:
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UserError("no regular file", where=where, hint=_REBUILD)
        if status.st_size != artifact.size:
            what = f"has {status.st_size} bytes, runtime.toml says {artifact.size}"
            raise UserError(what, where=where, hint=_REBUILD)
        digest, left = hashlib.sha256(), artifact.size
        while left and (chunk := os.read(descriptor, min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
            if sink is not None:
                sink(chunk)
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", where=where, hint=_REBUILD) from None
    if digest.hexdigest() != artifact.sha256:
        what = f"SHA-256 is {digest.hexdigest()}, runtime.toml says {artifact.sha256}"
        raise UserError(what, where=where, hint=_REBUILD)
