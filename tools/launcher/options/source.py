# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch --source FOLDER`: the program's source, as it was packed."""

import zipfile
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import write_stdout
from tools.launcher.options.arguments import own_file


def unpack(folder: str) -> None:
    """Write the sources below `folder`, which must not exist; names what it made on stdout."""
    archive = own_file()
    if archive is None:
        raise UserError("this is no packed program; its source is where it runs from", where="--source")
    target = Path(folder)
    try:
        target.mkdir()
        with zipfile.ZipFile(archive) as members:
            names = [name for name in members.namelist() if name.startswith("tools/")]
            members.extractall(target, names)
    except OSError as error:
        raise UserError(error.strerror or str(error), where=folder) from None
    write_stdout(f"{folder}: {len(names)} files; `python3 -m tools.launcher` in it runs them\n")
