# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch bundle`: an image as one disk and a workload document, the same bytes on every machine."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, Ui, write_json, write_stdout
from tools.launcher.base.values import Values
from tools.launcher.bundle.image_config import Changes
from tools.launcher.bundle.make import Bundle, Steps, make
from tools.launcher.bundle.sources import Wanted
from tools.launcher.config import sums
from tools.launcher.config.runtime_config import RuntimeConfig, load_config
from tools.launcher.layers.plain import LIMIT
from tools.launcher.layers.rules import ID_MAX
from tools.launcher.options import launch_digests
from tools.launcher.options.arguments import CONFIG, JSON, QUIET, default_config
from tools.launcher.options.launch_digests import Answer, Request
from tools.launcher.options.parser import Group, Option, Syntax
from tools.launcher.options.program import PROGRAM, document_of, given_environment, warn_of_secrets
from tools.launcher.options.progress import MKFS, OWN_MKFS, progress
from tools.sev.formats import MKFS_NAME, WORKLOAD
from tools.sev.workload.document import Document, Process, Verity

_DIGESTS = "digests.json"

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


_FROM_HERE = Group(
    PROGRAM.title.partition(";")[0] + "; without these, as the image's config says",
    Option("--entrypoint", "WORD", text="instead of the image's entrypoint and command; '' for none"),
    Option("--user", "USER[:GROUP]", text="names from the image's /etc/passwd and /etc/group, or numbers"),
    *(option for option in PROGRAM.options if option.name not in ("--workload", "--unbound", "--user")),
)
SYNTAX = Syntax(
    Group(
        "options",
        Option("-o", "DIR", text="the folder to make", convert=Path),
        CONFIG,
        MKFS,
        JSON,
        QUIET,
    ),
    Group(
        "the image",
        Option("--image", "NAME", text="which image, where the source holds several: its name, or its digest"),
        Option(
            "--layer",
            "PATH",
            text="instead of SOURCE, the lowest first: each layer's tar, or the folder where overlayfs has it",
            convert=Path,
            many=True,
        ),
        Option(
            "--userxattr",
            text="those folders were unpacked by an engine without root, by overlayfs's option of that name",
        ),
        Option("--image-config", "FILE", text="the image's config, for layers, a directory or a tar", convert=Path),
        Option(
            "--owner",
            "UID:GID",
            text="whom all files of a directory, a tar or layers belong to, instead of their own",
            convert=_owner,
        ),
        Option("--max-size", "SIZE", text="what a layer may unpack to; default: 64G", convert=_size, default=LIMIT),
    ),
    _FROM_HERE,
    usage=("SOURCE -o DIR [options] [-- ARGUMENT …]", "--layer PATH … -o DIR [options] [-- ARGUMENT …]"),
    positional=Option(
        "SOURCE", "SOURCE", text="an OCI image layout, what `docker save` wrote, a directory or a tar", convert=Path
    ),
    workload=True,
    exclusive=(("--image", "--layer"),),
    examples=f"""examples:
  {NAME} bundle app.tar -o app
      what `docker save app > app.tar` wrote, as app/disk.img and app/workload.json
  {NAME} run --bundle app
  {NAME} bundle app.tar -o app --user app --env LOG=debug --open signals -- --serve
      with another user, one more variable and other arguments than the image has, and open to signals
  {NAME} bundle root.tar -o app -- /bin/app
      a root file system by itself; what runs in it is put behind --

exit status: 0 made; 2 a mistake in options, or an image that cannot be used""",
)


def run(values: Values, ui: Ui) -> int:
    """Make the bundle; what it is on stdout."""
    if values.o is None:
        raise UserError("no folder to make", hint=_USE)
    if (values.SOURCE is None) is not bool(values.layer):
        raise UserError("no SOURCE" if values.SOURCE is None else "give SOURCE or --layer, not both", hint=_USE)
    if values.userxattr and not values.layer:
        raise UserError("--userxattr belongs to --layer")
    wanted = Wanted(
        source=values.SOURCE,
        parts=tuple(values.layer),
        name=values.image,
        config=values.image_config,
        owner=values.owner,
        userxattr=values.userxattr,
        limit=values.max_size,
    )
    changes = Changes(
        entrypoint=values.entrypoint,
        argv=values.argv,
        env=given_environment(values),
        directory=values.workdir,
        user=values.user,
    )
    config = _config(values)
    mkfs = values.mkfs or sums.checked((values.config or default_config()).parent / MKFS_NAME, hint=OWN_MKFS)
    made = _Made(values, config)
    with progress(ui) as begin:
        steps = Steps(note=ui.note, begin=begin, describe=made.describe)
        bundle = make(wanted, values.o, mkfs=mkfs.absolute(), changes=changes, steps=steps)
    warn_of_secrets(values, ui)
    if config is None:
        where = default_config()
        ui.note(f"{where}: not there, so no launch digests; `{NAME} digest --bundle {values.o}` computes them")
    if values.json:
        write_json({**bundle.as_json(), "workload": made.document.sha256, "digests": made.digests})
    else:
        write_stdout(_text(bundle, values.o) + made.text())
    return 0


_USE = f"say `{NAME} bundle SOURCE -o DIR`"


def _config(values: Values) -> RuntimeConfig | None:
    """The artifacts that the launch digests are of; None where there are none, for the disk is the same with any."""
    path = values.config or default_config()
    if values.config is None and not path.is_file():
        return None
    config = load_config(path)
    launch_digests.check_artifacts(config)
    return config


class _Made:
    """What comes into the folder beside the disk, and what is said of it."""

    document: Document

    def __init__(self, values: Values, config: RuntimeConfig | None) -> None:
        self._values = values
        self._config = config
        self._request: Request | None = None
        self._answers: list[Answer] = []

    def describe(self, bundle: Bundle) -> Mapping[str, bytes]:
        """workload.json, and the launch digests of a guest that is bound to it."""
        tree, process = bundle.tree, bundle.process
        self.document = document_of(
            self._values,
            root=Verity(root_hash=tree.root_hash, salt=tree.salt, layers=tuple(s.blocks for s in bundle.layers)),
            process=Process(
                argv=process.argv,
                environment=process.env,
                cwd=process.directory,
                uid=process.uid,
                gid=process.gid,
                groups=process.groups,
            ),
        )
        files = {WORKLOAD: self.document.data}
        if self._config is not None:
            self._request = launch_digests.of_document(self._config, self.document)
            self._answers = launch_digests.answers(self._request)
            answer = launch_digests.as_json(self._request, self._answers)
            files[_DIGESTS] = (json.dumps(answer, indent=2) + "\n").encode("ascii")
        return files

    @property
    def digests(self) -> list[dict[str, object]]:
        """The launch digests."""
        if self._request is None:
            return []
        found: list[dict[str, object]] = launch_digests.as_json(self._request, self._answers)["digests"]
        return found

    def text(self) -> str:
        """For people: the document's digest, and the launch digest in the config's mode."""
        lines = f"workload   SHA-256 {self.document.sha256}\n"
        if self._request is None:
            return lines
        sev = self._request.config.sev
        for answer in self._answers:
            if answer.mode is sev.mode and answer.legacy_vm_type in (None, sev.legacy_vm_type):
                lines += f"digest     {answer.digest}  {launch_digests.label(self._request, answer)}\n"
        return lines


def _text(bundle: Bundle, folder: Path) -> str:
    size = f"{bundle.tree.blocks / 256:.1f} MiB"
    layers = "1 layer" if len(bundle.layers) == 1 else f"{len(bundle.layers)} layers"
    image = f"image      {bundle.digest}\n" if bundle.digest else ""
    process = bundle.process
    return (
        f"{image}made       {folder}: {layers}, {size}\n"
        f"root hash  {bundle.tree.root_hash}\n"
        f"runs       {' '.join(process.argv)}, as {process.uid}:{process.gid} in {process.directory}\n"
    )
