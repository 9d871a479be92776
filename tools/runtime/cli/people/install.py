# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime install`: what an engine must be told, printed or written.

--docker      a runtime in /etc/docker/daemon.json, beside what stands there
--podman      a file in /etc/containers/containers.conf.d
--containerd  a file in /etc/containerd/conf.d, for Kubernetes' CRI; `ctr` takes --runc-binary
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import write_stdout
from tools.launcher.options.arguments import own_file
from tools.runtime.cli import words
from tools.runtime.cli.main import Context
from tools.runtime.config import settings

_KNOWN = {
    "--docker": False, "--podman": False, "--containerd": False, "--write": False, "--name": True, "--to": True,
}  # fmt: skip
_PLACES = {
    "--docker": "/etc/docker/daemon.json",
    "--podman": "/etc/containers/containers.conf.d/sev-runtime.conf",
    "--containerd": "/etc/containerd/conf.d/sev-runtime.toml",
}
_NEXT = {
    "--docker": "next: systemctl reload docker, then: docker run --rm --runtime NAME IMAGE",
    "--podman": "next: podman --runtime NAME run --rm IMAGE",
    "--containerd": (
        'next: imports = ["/etc/containerd/conf.d/*.toml"] in /etc/containerd/config.toml, and restart it; '
        "or at once: ctr run --runc-binary PROGRAM …"
    ),
}


def run(given: list[str], context: Context) -> int:
    """Print the configuration, or write it (--write)."""
    found = words.parse(given, _KNOWN)
    engines = [engine for engine in _PLACES if found.has(engine)]
    if len(engines) != 1 or found.rest:
        raise UserError("install takes one of --docker, --podman, --containerd")
    if context.config is not None:
        settings.load(context.config)  # a mistake in it is said now, not at the first container
    name = found.get("--name") or "sev-runtime"
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise UserError(f"{name[:40]!r} is no name of a runtime: letters, digits, - and _", where="--name")
    engine = engines[0]
    place = Path(found.get("--to") or _PLACES[engine])
    text = _TEXTS[engine](name, str(_program()), context.config, place)
    if not found.has("--write"):
        write_stdout(f"# {place}\n{text}" if engine != "--docker" else text)
        return 0
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.name}.new")
        partial.write_text(text)
        partial.chmod(place.stat().st_mode & 0o777 if place.exists() else 0o644)
        os.replace(partial, place)
    except OSError as error:
        hint = "run it as root, or give --to FILE" if isinstance(error, PermissionError) else None
        raise UserError(f"cannot be written: {error.strerror}", where=str(place), hint=hint) from None
    write_stdout(f"{place}: written\n{_NEXT[engine].replace('NAME', name).replace('PROGRAM', str(_program()))}\n")
    return 0


def _program() -> Path:
    file = own_file()
    if file is None:
        raise UserError("this is no packed program", hint="build one with ./doit build, and call out/sev-runtime")
    return file.resolve()


def _docker(name: str, program: str, config: str | None, place: Path) -> str:
    try:
        known: Any = json.loads(place.read_text()) if place.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read as JSON: {error}", where=str(place)) from None
    if not isinstance(known, dict) or not isinstance(known.setdefault("runtimes", {}), dict):
        raise UserError("is no configuration of dockerd", where=str(place))
    known["runtimes"][name] = {"path": program} | (
        {} if config is None else {"runtimeArgs": ["--config", str(Path(config).absolute())]}
    )
    return json.dumps(known, indent=2) + "\n"


def _podman(name: str, program: str, config: str | None, _place: Path) -> str:
    said = "" if config is None else f"# with: podman --runtime-flag config={Path(config).absolute()}\n"
    return f"{said}[engine.runtimes]\n{name} = [{json.dumps(program)}]\n"


def _containerd(name: str, program: str, config: str | None, _place: Path) -> str:
    if config is not None:
        raise UserError("containerd passes no options on", where="--config", hint="put the file beside the program")
    table = f'[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}'
    return (
        f'version = 2\n\n{table}]\n  runtime_type = "io.containerd.runc.v2"\n'
        f"\n{table}.options]\n  BinaryName = {json.dumps(program)}\n"
    )


_TEXTS: dict[str, Callable[[str, str, str | None, Path], str]] = {
    "--docker": _docker,
    "--podman": _podman,
    "--containerd": _containerd,
}
