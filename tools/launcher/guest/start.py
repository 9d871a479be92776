# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From a filled folder to a guest whose agent has spoken."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tools.launcher.base.errors import GuestError
from tools.launcher.channel.link import Bound, Container, Link
from tools.launcher.channel.protocol import Hello
from tools.launcher.channel.session import Session, listen
from tools.launcher.channel.streams import Signals
from tools.launcher.guest import command_line
from tools.launcher.guest.command_line import Option
from tools.launcher.guest.qemu import Qemu
from tools.launcher.guest.spec import Accel
from tools.launcher.guest.staging import SOCKET, Staging
from tools.sev.modes import Mode, ProfileKind

Change = Callable[[list[Option]], list[Option]]


@contextmanager
def booted(
    staging: Staging, *, accel: Accel, container: Container | Bound, signals: Signals, timeout: float
) -> Iterator[Session]:
    """Start QEMU and wait for the agent, `timeout` seconds; at the end of the block nothing of it is left.

    QEMU belongs to this process and dies with it, whichever that is: sev-launch, or a container's monitor.
    """
    with launched(staging, accel=accel, container=container, signals=signals) as session:
        session.wait_hello(timeout)
        assert session.link.hello is not None
        _check_profile(session.link.hello, staging.spec.config.profile)
        yield session


@contextmanager
def launched(
    staging: Staging,
    *,
    accel: Accel,
    container: Container | Bound,
    signals: Signals,
    change: Change = lambda same: same,
) -> Iterator[Session]:
    """The same without a word of the agent's. `change` is for who plays another host: QEMU's options as it has them."""
    spec = staging.spec
    # From here on the session takes the signals.
    signals.early = False
    (staging.folder / SOCKET).unlink(missing_ok=True)
    user = spec.qemu.user
    with listen(staging.folder, SOCKET) as listener:
        if user is not None:
            os.chown(staging.folder / SOCKET, user.uid, user.gid)
        with staging.handed_over() as files:
            qemu = Qemu(
                command_line.argv(change(command_line.build(spec, accel=accel, files=files))),
                cwd=staging.folder,
                user=user,
                lock_memory=spec.protection in (Mode.SEV, Mode.SEV_ES),
                descriptors=(*files.descriptors, *files.kept, *(fd for nic in spec.network for fd in nic.descriptors)),
                program=spec.qemu.descriptor,
            )
        session = Session(link=Link(container), machine=qemu, listener=listener, signals=signals)
        try:
            yield session
        except GuestError as error:
            qemu.stop()
            error.details += staging.logs()
            raise
        finally:
            qemu.stop()
            session.close()


def _check_profile(hello: Hello, profile: ProfileKind) -> None:
    if hello.debug != (profile is ProfileKind.DEBUG):
        said = "debug" if hello.debug else "production"
        raise GuestError(f"the agent says that it runs as {said}, the config says {profile}")
