# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A guest's private folder, filled: verified copies, hashes table, disk image."""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.config import artifacts
from tools.launcher.config.owner import b64
from tools.launcher.guest.command_line import Files
from tools.launcher.guest.qemu import tail
from tools.launcher.guest.rootfs import Rootfs
from tools.launcher.guest.spec import Spec, Wanted
from tools.launcher.host.qemu_user import QemuUser
from tools.sev.agent.agent_abi import FOLDER
from tools.sev.modes import Console

SOCKET = "agent.sock"
_CONSOLE, _FIRMWARE_LOG, _HASHES, _ROOTFS = "console.log", "firmware.log", "hashes.bin", "rootfs.img"
_DH_CERT, _SESSION = "dh-cert.b64", "session.b64"
_MADE = ("hashes", "dh_cert", "session")
_LOG_BYTES = 16 << 10


class Staging:
    """`files` are the names that QEMU is given; it runs in `folder`."""

    def __init__(self, spec: Spec, folder: Path, *, rootfs: Rootfs | None = None, console: Path | None = None) -> None:
        self.spec = spec
        self.folder = folder
        config = spec.config
        for artifact in config.artifacts:
            artifacts.verify(config, artifact, into=folder)
        serial = config.devices.console is Console.SERIAL
        self.console_log = None if not serial else console or folder / _CONSOLE
        self.files = Files(
            kernel=config.kernel.file,
            initramfs=None if config.initramfs is None else config.initramfs.file,
            firmware=config.firmware.file,
            agent_socket=SOCKET,
            rootfs=None if rootfs is None else _ROOTFS,
            console_log=None if self.console_log is None else str(self.console_log),
            firmware_log=_FIRMWARE_LOG if serial else None,
            hashes=_HASHES if spec.protection is None else None,
            dh_cert=self._stage(_DH_CERT, spec.owner.dh_cert),
            session=self._stage(_SESSION, spec.owner.session),
            folders=tuple(map(FOLDER.format, range(len(spec.folders)))),
        )
        if rootfs is not None:
            # A link with a plain name: no path of the user's needs quoting for QEMU.
            (folder / _ROOTFS).symlink_to(rootfs.path)
        for name, path in zip(self.files.folders, spec.folders, strict=True):
            (folder / name).symlink_to(path.absolute())
        if spec.protection is None:
            self._write(_HASHES, spec.hashes)
        if spec.qemu.user is not None:
            self._share(spec.qemu.user)

    def _share(self, user: QemuUser) -> None:
        """Let QEMU, which is somebody else, read what it needs here, by its group; nothing is its own."""
        names = (getattr(self.files, field) for field in ("kernel", "initramfs", "firmware", *_MADE))
        for path in (self.folder / name for name in names if name is not None):
            os.chown(path, -1, user.gid)
            path.chmod(0o440)
        os.chown(self.folder, -1, user.gid)
        self.folder.chmod(0o710)

    @contextmanager
    def handed_over(self) -> Iterator[Files]:
        """What QEMU is given. Files that may lie anywhere are opened here, where QEMU as another user may not go.

        The descriptors are open inside the block; QEMU inherits them.
        """
        files, folder = self.files, self.folder
        if self.spec.qemu.user is None:
            yield files
            return
        with ExitStack() as stack:
            opened: list[int] = []
            kept: list[int] = []

            def hand(name: str | None, flags: int) -> str | None:
                if name is None:
                    return None
                try:
                    opened.append(os.open(folder / name, flags | os.O_CLOEXEC, 0o666))
                except OSError as error:
                    raise UserError(error.strerror or "cannot be opened", where=name) from None
                stack.callback(os.close, opened[-1])
                return f"/dev/fdset/{len(opened)}"

            def shared(name: str) -> str:
                """For a whole folder QEMU takes no open file, but a path, and it must be one that leads there."""
                path = hand(name, os.O_PATH | os.O_DIRECTORY)
                assert path is not None
                kept.append(opened.pop())
                return f"/proc/self/fd/{kept[-1]}"

            log = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            changed = dataclasses.replace(
                files,
                rootfs=hand(files.rootfs, os.O_RDONLY),
                console_log=hand(files.console_log, log),
                firmware_log=hand(files.firmware_log, log),
                folders=tuple(
                    shared(name) if stays else hand(name, os.O_RDONLY) or name
                    for name, stays in zip(files.folders, self.spec.shared, strict=True)
                ),
            )
            yield dataclasses.replace(changed, descriptors=tuple(opened), kept=tuple(kept))

    def _stage(self, name: str, data: bytes | None) -> str | None:
        """What was checked, as the base64 file that QEMU reads."""
        if data is None:
            return None
        self._write(name, b64(data).encode())
        return name

    def _write(self, name: str, data: bytes) -> None:
        try:
            (self.folder / name).write_bytes(data)
        except OSError as error:
            raise UserError.of_write(error, self.folder) from None

    def logs(self) -> tuple[str, ...]:
        """The end of the guest's console and of the firmware's messages, where there are any."""
        lines: tuple[str, ...] = ()
        for name, path in (("firmware", self.folder / _FIRMWARE_LOG), ("console", self.console_log)):
            if path is not None:
                try:
                    with path.open("rb") as stream:
                        stream.seek(max(0, path.stat().st_size - _LOG_BYTES))
                        lines += tuple(f"{name}: {line}" for line in tail(stream.read(_LOG_BYTES)))
                except OSError:
                    continue
        return lines


def shown(spec: Spec, wanted: Wanted, *, console: Path | None) -> Files:
    """For people: files where they lie; what a start makes in its private folder under its plain name."""
    config = spec.config
    folder = config.path.absolute().parent
    serial = config.devices.console is Console.SERIAL
    return Files(
        kernel=str(folder / config.kernel.file),
        initramfs=None if config.initramfs is None else str(folder / config.initramfs.file),
        firmware=str(folder / config.firmware.file),
        rootfs=_absolute(wanted.rootfs),
        hashes=_HASHES if spec.protection is None else None,
        console_log=str(console or _CONSOLE) if serial else None,
        firmware_log=_FIRMWARE_LOG if serial else None,
        dh_cert=_absolute(wanted.owner.dh_cert),
        session=_absolute(wanted.owner.session),
        folders=tuple(str(path.absolute()) for path in wanted.folders),
    )


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
