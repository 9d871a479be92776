# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What runs in the guest, as options of run, show, digest, workload and bundle."""

import dataclasses
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.launcher.base.errors import UserError, suggestion
from tools.launcher.base.ui import NAME, Ui
from tools.launcher.base.values import Values
from tools.launcher.channel.streams import FORWARDED, Signals
from tools.launcher.config.runtime_config import load_config
from tools.launcher.guest import binding as bindings
from tools.launcher.guest import rootfs
from tools.launcher.guest.binding import UNBOUND, Binding
from tools.launcher.guest.rootfs import Rootfs
from tools.launcher.guest.run_folder import RunDir
from tools.launcher.options.arguments import default_config, ids
from tools.launcher.options.parser import Group, Option
from tools.sev.errors import FormatError
from tools.sev.formats import DISK, WORKLOAD
from tools.sev.workload import reader
from tools.sev.workload.document import (
    CAPABILITIES,
    DEFAULT_CAPABILITIES,
    Capabilities,
    Document,
    Doors,
    Process,
    Tar,
    Verity,
)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOSTNAME = re.compile(r"[A-Za-z0-9.-]{1,64}")
_SECRET = re.compile(r"(?i)pass(word|wd|phrase)?|secret|token|credential|api_?key|private_?key")
_SECRET_VALUE = re.compile(r"://[^/\s:@]*:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY-----")
_MAKES_ONE = f"`{NAME} bundle` makes one"
_STDIN, _SIGNALS, _RESIZE = "stdin", "signals", "resize"
_REPORTS, _RAW_REPORTS, _HOST_REPORTS = "reports", "raw-reports", "host-reports"


def _workdir(text: str) -> str:
    if not text.startswith("/") or len(os.fsencode(text)) > 4096:
        raise ValueError(f"{text[:80]!r} is no absolute path")
    return text.rstrip("/") or "/"


def _capability(text: str) -> str:
    name = text.lower().removeprefix("cap_")
    if name not in CAPABILITIES:
        raise ValueError(f"{text[:80]!r} is no capability{suggestion(name, CAPABILITIES)}")
    return name


def _hostname(text: str) -> str:
    if _HOSTNAME.fullmatch(text) is None:
        raise ValueError(f"{text[:80]!r} is no host name (1 to 64 of A–Z a–z 0–9 . -)")
    return text


PROGRAM = Group(
    "what runs in the guest; it is in the launch digest, but for --unbound",
    Option("--workload", "FILE", text="the workload document (docs/workload.md) that says all of it", convert=Path),
    Option("--unbound", text="leave it to the host what runs, whatever the launch digest is"),
    Option(
        "--open",
        choices=(_STDIN, _SIGNALS, _RESIZE, _REPORTS, _RAW_REPORTS, _HOST_REPORTS),
        text="let the host write to stdin, send signals, say how large the terminal is; let attestation reports be "
        "asked for: by the workload at the agent's socket, by its root at the processor's own interface, by the host",
        many=True,
    ),
    Option("--env", "K=V", text="environment entry; K alone takes it from here", many=True),
    Option("--tty", text="give the command a terminal of its own", short="-t"),
    Option("--cap-add", "NAME", text="one more capability, such as syslog; of root", convert=_capability, many=True),
    Option("--workdir", "DIR", text="absolute; default: /", convert=_workdir),
    Option("--user", "UID[:GID]", text="numbers; default: 0:0; GID without one: UID", convert=ids),
    Option("--hostname", "NAME", text="default: sev-guest", convert=_hostname, default=""),
)
FOLDER = Option(
    "--folder",
    "TARGET=PATH",
    text="a folder that the document lets the host supply: an archive of it, or itself where it is shared",
    many=True,
)
EXCLUSIVE = (
    ("--workload", "--unbound"),
    ("--workload", "--open"),
    ("--workload", "--tty"),
    ("--workload", "--cap-add"),
    ("--unbound", "--cap-add"),
    ("--workload", "--workdir"),
    ("--workload", "--user"),
    ("--workload", "--verity"),
    ("--unbound", "--open"),
    *(
        ("--bundle", other)
        for other in (
            "--rootfs",
            "--workload",
            "--unbound",
            "--verity",
            "--open",
            "--tty",
            "--cap-add",
            "--workdir",
            "--user",
        )
    ),
)


def unfold(values: Values) -> None:
    """Put the document and the disk of a bundle into the places that --workload and --rootfs have."""
    folder = values.bundle
    if folder is None:
        return
    document = folder / WORKLOAD
    if not document.is_file():
        raise UserError(f"is no bundle: it has no {WORKLOAD}", where=f"--bundle {folder}", hint=_MAKES_ONE)
    values["workload"], values["rootfs"] = document, folder / DISK


def check(values: Values) -> None:
    """UserError for options that contradict each other or mean nothing; takes no time."""
    if values.workload is not None and values.argv:
        raise UserError("the workload document says what runs: leave the command out")
    if _RAW_REPORTS in values.open and not {_REPORTS, _HOST_REPORTS}.isdisjoint(values.open):
        raise UserError("--open raw-reports stands alone: whoever has it could make reports that look like the others")
    if values.argv and values.rootfs is None and not values.unbound:
        raise UserError("no root file system", hint="give --rootfs: a directory, a tar or an EROFS image")
    if _RESIZE in values.open and not values.tty:
        raise UserError("--open resize: there is no terminal to resize", hint="give --tty, too")
    environment_of(values)


@contextmanager
def chosen(values: Values, ui: Ui, *, memory: int | None) -> Iterator[tuple[Binding | None, Rootfs | None]]:
    """Who decides what runs, as the options say it; the root's image where it was needed for that.

    `memory`: RAM of the guest in MiB, None: the config's. None for the first: the options say nothing.
    """
    check(values)
    if values.unbound or (values.workload is None and not values.argv):
        yield UNBOUND if values.unbound else None, None
        return
    if values.rootfs is None:
        yield bindings.read_document(values.workload), None
        return
    if memory is None:
        memory = load_config(values.config or default_config()).machine.memory_mib
    with Signals(), RunDir() as folder:
        where = f"--rootfs {values.rootfs}"
        image = rootfs.prepare(
            values.rootfs, into=folder.path, memory_mib=memory, note=ui.note, limit_mib=values.rootfs_limit
        )
        if values.workload is not None:
            document = bindings.read_document(values.workload)
            bindings.check_root(document, image, where=where)
        else:
            document = _document(values, bindings.root_of(image, verity=values.verity, where=where))
            warn_of_secrets(values, ui)
        yield document, image


def _document(values: Values, root: Tar | Verity) -> Document:
    """The document that the options make."""
    uid, gid = values.user or (0, 0)
    process = Process(
        argv=values.argv, environment=environment_of(values), cwd=values.workdir or "/", uid=uid, gid=gid
    )  # fmt: skip
    return document_of(values, root=root, process=process)


def document_of(values: Values, *, root: Tar | Verity, process: Process) -> Document:
    """The process in this root, with what the options leave to the host; UserError for what no document can say."""
    signals = tuple(sorted({*map(int, FORWARDED), int(signal.SIGPIPE)})) if _SIGNALS in values.open else ()
    names = (*DEFAULT_CAPABILITIES, *values.cap_add)
    process = dataclasses.replace(
        process,
        capabilities=Capabilities.of(names, uid=process.uid) if values.cap_add else None,
        terminal=values.tty,
        host=Doors(stdin=_STDIN in values.open, signals=signals, resize=_RESIZE in values.open),
    )
    document = Document(
        root=root,
        process=process,
        hostname=values.hostname or "sev-guest",
        reports="raw" if _RAW_REPORTS in values.open else "socket" if _REPORTS in values.open else "none",
        host_reports=_HOST_REPORTS in values.open,
    )
    try:
        return reader.parse(document.data, where="the workload document of these options")
    except UnicodeEncodeError:
        raise UserError("what is not UTF-8 cannot be in a workload document", hint="--unbound takes it") from None
    except FormatError as error:
        raise UserError.of(error) from None


def warn_of_secrets(values: Values, ui: Ui) -> None:
    """Name each variable that was given and looks like a secret."""
    for name, value in given_environment(values).items():
        if _SECRET.search(name) or _SECRET_VALUE.search(value):
            ui.warn(
                f"--env {name}: if that is a secret, the host has it: the workload document passes through its hands, "
                "and what can be guessed can be found from the launch digest"
            )


def environment_of(values: Values) -> tuple[str, ...]:
    """PATH and HOME, then what was asked for; a later entry wins."""
    uid = (values.user or (0, 0))[0]
    base = {"PATH": _PATH, "HOME": "/root" if uid == 0 else "/"}
    return tuple(f"{name}={value}" for name, value in {**base, **given_environment(values)}.items())


def host_environment(values: Values, document: Document) -> list[bytes]:
    """What --env sets beside a document that was given: variables that it opens."""
    if values.workload is None:
        return []
    variables = {variable.name: variable for variable in document.process.host.environment}
    given = given_environment(values)
    for name, value in given.items():
        if name not in variables:
            raise UserError(f"--env {name}: the workload document does not let the host set it")
        try:
            reader.check_value(variables[name], value)
        except ValueError as error:
            raise UserError(f"--env {error}") from None
    return [os.fsencode(f"{name}={value}") for name, value in given.items()]


def folders(values: Values, binding: Binding | None) -> tuple[Path, ...]:
    """What --folder gives, in the document's order; which are missing says whoever makes the spec."""
    targets = [folder.target for folder in binding.folders] if isinstance(binding, Document) else []
    given = {target: Path(path) for target, _, path in (text.partition("=") for text in values.folder)}
    for target in given:
        if target not in targets:
            raise UserError(f"{target[:200]!r} is no folder of the workload document", where="--folder")
    return tuple(given[target] for target in targets if target in given)


def given_environment(values: Values) -> dict[str, str]:
    """What --env says; a later one counts."""
    result = {}
    for entry in values.env:
        name, equals, value = entry.partition("=")
        if not name:
            raise UserError(f"--env {entry!r} has no name")
        if equals:
            result[name] = value
        elif name in os.environ:
            result[name] = os.environ[name]
        else:
            raise UserError(f"--env {name}: not in the environment here", hint=f"say --env {name}=VALUE")
    return result
