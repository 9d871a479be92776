# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the parsers of several commands share: converters, and where the config is looked for."""

import argparse
import re
import zipfile
from pathlib import Path

from tools.sev.formats import RUNTIME_NAME


class whole:  # noqa: N801  reads as a converter
    """Converter for a whole number between two bounds."""

    def __init__(self, low: int, high: int) -> None:
        self._low = low
        self._high = high

    def __call__(self, text: str) -> int:
        """The number; argparse makes its error of the exception."""
        if re.fullmatch(r"[0-9]{1,6}", text) is None or not self._low <= int(text) <= self._high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {self._low} to {self._high}")
        return int(text)


def cmdline_text(text: str) -> str:
    """Converter for what is added to the kernel command line."""
    if re.fullmatch(r"[\x20-\x7e]+", text) is None:
        raise argparse.ArgumentTypeError("must be printable ASCII")
    return text


def default_config() -> Path:
    """runtime.toml beside the launcher's one file (through symbolic links), or in ./out without one."""
    for parent in Path(__file__).parents:
        # In a zipapp __file__ runs through the archive: /…/out/sev-launch/package/arguments.py
        if parent.is_file() and zipfile.is_zipfile(parent):
            return parent.resolve().parent / RUNTIME_NAME
    return Path("out", RUNTIME_NAME).absolute()
