# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What several commands share: options, converters of their values, where the config is looked for."""

import re
from collections.abc import Callable
from pathlib import Path

from tools.launcher.options.parser import Option
from tools.sev.agent.report_data import DATA_MAX
from tools.sev.formats import NETWORK, RUNTIME_NAME, with_addition

_ID_MAX = (1 << 32) - 2


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,7})([MG])", text)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text!r} is no size as in 512M or 2G")
    return int(match[1]) << (10 if match[2] == "G" else 0)


def ids(text: str) -> tuple[int, int]:
    """Converter for uid and gid in numbers."""
    match = re.fullmatch(r"([0-9]{1,10})(?::([0-9]{1,10}))?", text)
    if match is None or any(int(part) > _ID_MAX for part in match.groups() if part is not None):
        raise ValueError(f"{text!r} is no UID or UID:GID in numbers")
    return int(match[1]), int(match[2] if match[2] is not None else match[1])


CONFIG = Option("--config", "FILE", text="default: runtime.toml beside this program", convert=Path)
JSON = Option("--json", text="as one JSON document")
QUIET = Option("--quiet", text="only warnings and errors")
VERITY = Option("--verity", "HASH", text="dm-verity root hash of the EROFS image; in the launch digest")
ROOTFS = Option(
    "--rootfs", "PATH", text="directory, tar (plain, gz, xz, bz2), EROFS image, or a pipe with one", convert=Path
)
BUNDLE = Option("--bundle", "DIR", text="root and workload document that `bundle` has made", convert=Path)
ROOTFS_LIMIT = Option(
    "--rootfs-limit",
    "SIZE",
    text="most that a root may take here when it is packed, piped or decompressed; default: the guest's RAM",
    convert=_size,
)


def _nonce(text: str) -> bytes:
    if text.startswith("@"):
        try:
            with Path(text[1:]).open("rb") as stream:
                data = stream.read(DATA_MAX + 1)
        except (OSError, ValueError) as error:
            raise ValueError(f"{text[:200]}: {getattr(error, 'strerror', None) or 'cannot be read'}") from None
        what = "is longer" if len(data) > DATA_MAX else "is empty"
    else:
        if re.fullmatch(r"([0-9a-fA-F]{2})*", text) is None:
            raise ValueError("must be hexadecimal digits, two for each byte; @FILE takes a file's bytes")
        data = bytes.fromhex(text)
        what = f"has {len(data)}"
    if not 1 <= len(data) <= DATA_MAX:
        raise ValueError(f"must have 1 to {DATA_MAX} bytes, {what}")
    return data


NONCE = Option("--nonce", "HEX|@FILE", text="1 to 64 bytes, new for every report", convert=_nonce)


def whole(low: int, high: int) -> Callable[[str], int]:
    """Converter for a whole number between two bounds."""

    def convert(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,10}", text) is None or not low <= int(text) <= high:
            raise ValueError(f"{text!r} is no whole number from {low} to {high}")
        return int(text)

    return convert


def cmdline_text(text: str) -> str:
    """Converter for what is added to the kernel command line."""
    if re.fullmatch(r"[\x20-\x7e]+", text) is None:
        raise ValueError("must be printable ASCII")
    return text


def own_file() -> Path | None:
    """The one file that this program was packed into; None when it runs from a checkout."""
    # There __file__ runs through the file: /…/out/sev-launch/tools/launcher/options/arguments.py
    return next((parent for parent in Path(__file__).parents if parent.is_file()), None)


def default_config(*, network: bool = False) -> Path:
    """runtime.toml beside the launcher's one file (through symbolic links), or in ./out without one.

    `network`: that of a guest with a network, which has another kernel.
    """
    file = own_file()
    name = with_addition(RUNTIME_NAME, NETWORK) if network else RUNTIME_NAME
    return Path("out", name).absolute() if file is None else file.resolve().parent / name
