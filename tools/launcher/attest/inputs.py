# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What both forms of `sev-launch verify` are given, and the check that both make."""

import re
from collections.abc import Callable
from pathlib import Path

from tools.launcher.attest.checks import Check, passed
from tools.launcher.attest.expected import Entry, read_expected, select
from tools.launcher.base import encodings
from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import Ui
from tools.launcher.base.values import Values
from tools.launcher.config.runtime_config import RuntimeConfig, load_config
from tools.sev.formats import DIGESTS_NAME
from tools.sev.modes import Mode

_FILE_MAX = 1 << 20


def config_reader(options: Values) -> Callable[[], RuntimeConfig]:
    """The config, read when something needs it: a relying party may have nothing but a digest."""
    return lambda: load_config(options.config)


def expected_digests(options: Values, mode: Mode) -> tuple[Entry, ...]:
    """The launch digests of `mode` to compare with: --digest, or those of the file, filtered."""
    if options.digest is not None:
        digits = 2 * mode.digest_size
        if re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", options.digest) is None:
            raise UserError(f"--digest: a launch digest of {mode} has {digits} hexadecimal digits")
        return (Entry(digest=bytes.fromhex(options.digest), variant="the one given with --digest"),)
    path: Path = options.digests or options.config.parent / DIGESTS_NAME
    return select(read_expected(path, mode), cpu=options.cpu, vcpus=options.cpus, where=str(path))


def read_file(path: Path) -> bytes:
    """A small file that the user named."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_FILE_MAX + 1)
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else "cannot be read"
        raise UserError(what, where=str(path)) from None
    if len(data) > _FILE_MAX:
        raise UserError("larger than 1 MiB", where=str(path))
    return data


def sized_file(path: Path, size: int, *, where: str) -> bytes:
    """A file of `size` bytes, plain or as text; UserError says what it looks like instead."""
    data = read_file(path)
    found = encodings.decode(data, size=size)
    if found is None:
        raise UserError(f"has {len(data)} bytes{encodings.resemblance(data)}, not {size}", where=where)
    return found


def check_debug(on: bool, *, expected: bool, ui: Ui) -> Check:
    """Debugging must be off, unless the policy that the user expects has it on."""
    if on and expected:
        ui.warn("debugging is on, as the expected policy says: the host can read and change this guest's memory")
    return passed(
        "debugging",
        not on or expected,
        "on, as expected: the host can read and change the guest's memory" if on else "off",
        otherwise="on: the host can read and change the guest's memory",
    )
