# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime doctor`: what containers need here, line by line, and what is missing."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.launcher.base.errors import LauncherError, UserError
from tools.launcher.base.ui import write_stdout
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import load_config
from tools.launcher.guest.spec import reasons_against
from tools.launcher.host import facts
from tools.launcher.host.qemu_program import chosen_qemu, version_text
from tools.runtime.cli import words
from tools.runtime.cli.main import Context
from tools.runtime.config import settings
from tools.runtime.config.settings import QEMU_OPTION, Settings

_ENGINES = ("dockerd", "podman", "containerd")
_MIB = 1 << 20
Line = tuple[bool | None, str]
"""Whether it is as it must be (None: for information), and what there is."""


def run(given: list[str], context: Context) -> int:
    """Print the lines; 0 when nothing is missing, else 1."""
    if words.parse(given, {}).rest:
        raise UserError("doctor takes no words")
    wanted = settings.load(context.config)
    bad = 0
    for name, look in _LOOKS.items():
        try:
            lines = list(look(wanted))
        except (LauncherError, OSError) as error:
            lines = [(False, "; ".join([str(error), *getattr(error, "details", ())]))]
        for ok, text in lines:
            bad += ok is False
            mark = {True: "ok", False: "MISSING", None: "-"}[ok]
            write_stdout(f"{mark:<8} {name:<10} {text}\n")
    verdict = "containers can run here" if not bad else f"{bad} of these must be put right"
    write_stdout(f"{'ok' if not bad else 'MISSING':<8} {'verdict':<10} {verdict}\n")
    return 1 if bad else 0


def _configuration(wanted: Settings) -> Iterator[Line]:
    place = "built in (no sev-runtime.toml beside the program or in /etc)" if wanted.path is None else str(wanted.path)
    yield True, f"{place}: {wanted.protection}"


def _artifacts(wanted: Settings) -> Iterator[Line]:
    for path in (wanted.artifacts, wanted.network_artifacts):
        config = load_config(path)
        for artifact in config.artifacts:
            artifacts.verify(config, artifact)
        yield True, f"{path}: {config.profile} {config.version}, {config.kernel.file}"
    yield wanted.mkfs.is_file() and os.access(wanted.mkfs, os.X_OK), str(wanted.mkfs)


def _qemu(wanted: Settings) -> Iterator[Line]:
    program = chosen_qemu(wanted.qemu, load_config(wanted.artifacts), option=QEMU_OPTION)
    who = "its caller" if program.user is None else f"uid {program.user.uid}, another for each container"
    yield True, f"{program.path} {version_text(program.version)}, runs as {who}"
    for sentence in program.unconfined:
        yield None, sentence


def _protection(wanted: Settings) -> Iterator[Line]:
    if not wanted.encrypted:
        yield None, f"none: the configuration says {wanted.protection}"
        return
    config = load_config(wanted.artifacts)
    program = chosen_qemu(wanted.qemu, config, option=QEMU_OPTION)
    mode = wanted.mode or config.sev.mode
    reasons = reasons_against(facts.gather(), mode, program, artifacts.read_firmware(config))
    for reason in reasons:
        yield False, reason
    if reasons:
        yield None, f'to try it without: schema = 1 and protection = "unprotected" in {wanted.path or settings.ETC}'
    if not reasons:
        yield True, f"this host runs guests in mode {mode}"


def _host(wanted: Settings) -> Iterator[Line]:
    yield os.geteuid() == 0, f"uid {os.geteuid()}" + ("" if os.geteuid() == 0 else ": engines must run it as root")
    yield Path("/dev/net/tun").exists(), "/dev/net/tun, for containers with a network"
    kvm = facts.gather().kvm_error
    yield None, "/dev/kvm" if kvm is None else f"/dev/kvm: {kvm}: guests are emulated, which is slow"
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    yield None, f"control groups of version {2 if unified else 1}"
    place = next(folder for folder in (wanted.cache, *wanted.cache.parents) if folder.is_dir())
    yield None, f"{wanted.cache}: {shutil.disk_usage(place).free // _MIB} MiB free for disks of images"


def _engines(_wanted: Settings) -> Iterator[Line]:
    found = [name for name in _ENGINES if shutil.which(name)]
    yield None, f"{', '.join(found) or 'no engine'}: `sev-runtime install` tells one of this runtime"


_LOOKS: dict[str, Callable[[Settings], Iterator[Line]]] = {
    "config": _configuration,
    "artifacts": _artifacts,
    "qemu": _qemu,
    "protection": _protection,
    "host": _host,
    "engines": _engines,
}
