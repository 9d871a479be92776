# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""160 MB to a registry on loopback and back, beside Debian's oras with the same bytes; hashing included.

`python3 -m tests.bench.publishing push HOST FILE` and `… pull HOST FOLDER SHA256 SIZE` are what is measured; they print
the most memory that they took. What they do not need is imported late: oras has nothing of it either.
"""

import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import report
from tests.bench.report import Part, Row, seconds, spread
from tools.pipeline.base import ambient, files
from tools.pipeline.engine.cas import Cas
from tools.pipeline.publish import bundle
from tools.pipeline.registry import oci, target
from tools.pipeline.registry.client import Registry
from tools.pipeline.registry.connection import Options
from tools.pipeline.registry.oci import Content, Descriptor
from tools.pipeline.registry.reference import Reference
from tools.pipeline.sources.pins import Pin, Urls

if TYPE_CHECKING:
    from tools.pipeline.tasks.project import Project

# The goals: a ratio to oras, and bytes of memory.
_RATIO, _MEMORY = 1.5, 100_000_000
_MEGABYTES = 160
_NAME = "team/thing"


def measure(project: "Project", *, runs: int) -> Part:
    """Time and memory of a process that pushes, and of one that pulls."""
    from tests.publish.kit import Server, empty  # noqa: PLC0415 (not for what is measured)

    folder = empty(report.folder(project) / "publishing")
    blob, got = folder / "blob", folder / "got"
    with blob.open("wb") as file:
        for _ in range(_MEGABYTES):
            file.write(ambient.random_bytes(1_000_000))
    known = (files.of_file(blob), str(blob.stat().st_size))
    tree = project.trees.ensure("publish").path
    oras, program = (str(_wrapper(folder, name, tree)) for name in ("oras", "docker-registry"))
    times: dict[str, list[float]] = {f"{who} {what}": [] for what in ("push", "pull") for who in ("ours", "oras")}
    most = 0
    for number in range(runs):
        for who in ("ours", "oras"):
            server = Server(program=Path(program), folder=empty(folder / "registry")).start()
            place = f"{server.host}/{_NAME}:v1"
            for what in ("push", "pull"):
                empty(got)
                words = [place, "blob:text/plain"] if what == "push" else [place, "-o", str(got)]
                theirs = [oras, what, "--plain-http", *words]
                ours = [sys.executable, "-m", "tests.bench.publishing", what, server.host]
                ours += [str(blob)] if what == "push" else [str(got), *known]
                started = ambient.monotonic()
                said = _run(ours, project.root) if who == "ours" else _run(theirs, folder)
                times[f"{who} {what}"].append(ambient.monotonic() - started)
                most = max(most, int(said) if who == "ours" else 0)
            server.kill()
        report.say(f"{number + 1} of {runs} runs")
    empty(folder)
    memory = Row(what="most memory of either", measured=f"{most / 1e6:.0f} MB", goal="≤ 100 MB", met=most <= _MEMORY)
    found = {name: spread(values) for name, values in times.items()}
    return Part(rows=(_row("push", times), _row("pull", times), memory), data={**found, "memory": most})


def _row(what: str, times: Mapping[str, Sequence[float]]) -> Row:
    ours, theirs = (statistics.median(times[f"{who} {what}"]) for who in ("ours", "oras"))
    return Row(
        what=f"{what} of {_MEGABYTES} MB, a registry on loopback, whole process",
        measured=f"{seconds(ours)} ({ours / theirs:.2f} times)",
        beside=f"{seconds(theirs)} (`oras {what}`)",
        goal=f"≤ {_RATIO} times",
        met=ours <= _RATIO * theirs,
    )


def _run(argv: Sequence[str], cwd: Path) -> str:
    return subprocess.run(argv, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _wrapper(folder: Path, name: str, tree: Path) -> Path:
    """A program of the tree, on the host's files."""
    path = folder / name
    usr = shlex.quote(f"{tree}/usr")
    path.write_text(f'#!/bin/sh\nexec bwrap --die-with-parent --dev-bind / / --ro-bind {usr} /usr -- {name} "$@"\n')
    path.chmod(0o755)
    return path


def push(host: str, blob: str) -> None:
    """Hashed, then pushed."""
    path = Path(blob)
    descriptor = Descriptor(
        media_type="text/plain",
        sha256=files.of_file(path),
        size=path.stat().st_size,
        annotations={oci.TITLE: "blob"},
    )
    whole = target.whole("text/plain", [Content(descriptor=descriptor, path=path)], annotations={})
    target.push(Registry(Reference(host=host, name=_NAME), Options(plain_http=True)), whole, [], tag="v1")


def pull(host: str, folder: str, sha256: str, size: str) -> None:
    """Hashed on the way."""
    pin = Pin(name="blob", version="1", sha256=sha256, size=int(size), origin=Urls(urls=()), lock="")
    wish = bundle.Wish(source=f"{host}/{_NAME}:v1", ca="", plain_http=True)
    bundle.bring([pin], wish, cas=Cas(root=Path(folder)), root=Path(folder))


if __name__ == "__main__":
    if sys.argv[1] == "push":
        push(*sys.argv[2:])
    else:
        pull(*sys.argv[2:])
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    print(int(found[1]) * 1024)
