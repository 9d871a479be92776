# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch bundle`: an image's layers on one disk under dm-verity, the same bytes on every machine."""

import re
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, Ui, write_json, write_stdout
from tools.launcher.base.values import Values
from tools.launcher.bundle.make import Bundle, make
from tools.launcher.bundle.sources import Wanted
from tools.launcher.layers.plain import LIMIT
from tools.launcher.layers.rules import ID_MAX
from tools.launcher.options.arguments import JSON, QUIET, default_config
from tools.launcher.options.parser import Group, Option, Syntax
from tools.sev.formats import MKFS_NAME

_UNITS = {"M": 20, "G": 30}


def _owner(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,10}):([0-9]{1,10})", text)
    if match is None or max(map(int, match.groups())) > ID_MAX:
        raise ValueError(f"{text!r} is no owner: two numbers, as in 0:0")
    return int(match[1]), int(match[2])


def _size(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,5})([MG])", text)
    if match is None:
        raise ValueError(f"{text!r} is no size: a whole number and M or G, as in 64G")
    return int(match[1]) << _UNITS[match[2]]


SYNTAX = Syntax(
    Group(
        "options",
        Option("-o", "DIR", text="the folder to make", convert=Path),
        Option("--image", "NAME", text="which image, where the source holds several: its name, or its digest"),
        Option(
            "--owner",
            "UID:GID",
            text="whom all files of a directory or tar belong to, instead of their own",
            convert=_owner,
        ),
        Option("--max-size", "SIZE", text="what a layer may unpack to (default: 64G)", convert=_size, default=LIMIT),
        Option("--mkfs", "FILE", text="mkfs.erofs (default: the one beside this program)", convert=Path),
        JSON,
        QUIET,
    ),
    usage=("SOURCE -o DIR [options]",),
    positional=Option(
        "SOURCE", "SOURCE", text="an OCI image layout, what `docker save` wrote, a directory or a tar", convert=Path
    ),
    examples=f"""examples:
  {NAME} bundle busybox.tar -o busybox
      what `docker save busybox > busybox.tar` wrote, as busybox/disk.img and busybox/bundle.json

exit status: 0 made; 2 a mistake in options, or an image that cannot be used""",
)


def run(values: Values, ui: Ui) -> int:
    """Make the bundle; what it is on stdout."""
    if values.SOURCE is None or values.o is None:
        what = "no SOURCE" if values.SOURCE is None else "no folder to make"
        raise UserError(what, hint=f"say `{NAME} bundle SOURCE -o DIR`")
    wanted = Wanted(source=values.SOURCE, name=values.image, owner=values.owner, limit=values.max_size)
    mkfs = values.mkfs or default_config().parent / MKFS_NAME
    bundle = make(wanted, values.o, mkfs=mkfs.absolute(), note=ui.note)
    if values.json:
        write_json(bundle.as_json())
    else:
        write_stdout(_text(bundle, values.o))
    return 0


def _text(bundle: Bundle, folder: Path) -> str:
    size = f"{bundle.tree.blocks / 256:.1f} MiB"
    layers = "1 layer" if len(bundle.layers) == 1 else f"{len(bundle.layers)} layers"
    argv = " ".join(bundle.process.argv) or "nothing: the image names no command"
    image = f"image      {bundle.digest}\n" if bundle.digest else ""
    return (
        f"{image}made       {folder}: {layers}, {size}\n"
        f"root hash  {bundle.tree.root_hash}\n"
        f"runs       {argv}, as {bundle.process.uid}:{bundle.process.gid} in {bundle.process.directory}\n"
    )
