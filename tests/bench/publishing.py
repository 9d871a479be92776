# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""160 MB to a registry on loopback and back, beside Debian's oras and skopeo with the same bytes; hashing included.

`python3 -m tests.bench.publishing push HOST FILE`, `… fetch HOST FOLDER SHA256 SIZE` and `sev-launch pull`, with two
endorsements to verify, are what is measured; they print the most memory that they took. What they do not need is
imported late: oras has nothing of it either.
"""

import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import report
from tests.bench.report import Part, Row, seconds, spread
from tools.pipeline.base import ambient, files
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.publish import bundle
from tools.pipeline.registry import oci, target
from tools.pipeline.registry.client import Registry
from tools.pipeline.registry.connection import Options
from tools.pipeline.registry.oci import Content, Descriptor
from tools.pipeline.sources.pins import Pin, Urls
from tools.sev.registry.reference import Reference

if TYPE_CHECKING:
    from tools.pipeline.tasks.project import Project

# The goals: a ratio to oras, and bytes of memory.
_RATIO, _MEMORY = 1.5, 100_000_000
_MEGABYTES = 160
_NAME = "team/thing"
_PULL = """
import sys
from tools.launcher.cli.main import main
status = main(sys.argv[1:])
(line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(int(line.split()[1]) * 1024)
sys.exit(status)
"""
"""`sev-launch` with the words that follow, and the most memory that it took."""


def measure(project: "Project", *, runs: int) -> Part:
    """Time and memory of a process that pushes, and of one that pulls."""
    from tests.publish.kit import Server, empty  # noqa: PLC0415 (not for what is measured)
    from tests.publish.people import World, small  # noqa: PLC0415 (the same)
    from tools.attack.base.host_tools import HostTools  # noqa: PLC0415 (the same)

    folder = empty(report.folder(project) / "publishing")
    blob, got = folder / "blob", folder / "got"
    with blob.open("wb") as file:
        for _ in range(_MEGABYTES):
            file.write(ambient.random_bytes(1_000_000))
    known = (files.of_file(blob), str(blob.stat().st_size))
    tools, tree = HostTools(folder=folder), project.trees.ensure("publish")
    oras, skopeo = (str(tools.wrapper(name, tree)) for name in ("oras", "skopeo"))
    program = tools.wrapper("docker-registry", tree)
    times: dict[str, list[float]] = {f"{who} {what}": [] for what in ("push", "fetch") for who in ("ours", "oras")}
    most = 0
    for number in range(runs):
        for who in ("ours", "oras"):
            server = Server(program=program, folder=empty(folder / "registry")).start()
            place = f"{server.host}/{_NAME}:v1"
            for what in ("push", "fetch"):
                empty(got)
                words = [place, "blob:text/plain"] if what == "push" else [place, "-o", str(got)]
                theirs = [oras, "push" if what == "push" else "pull", "--plain-http", *words]
                ours = [sys.executable, "-m", "tests.bench.publishing", what, server.host]
                ours += [str(blob)] if what == "push" else [str(got), *known]
                started = ambient.monotonic()
                said = _run(ours, project.root) if who == "ours" else _run(theirs, folder)
                times[f"{who} {what}"].append(ambient.monotonic() - started)
                most = max(most, int(said) if who == "ours" else 0)
            server.kill()
        report.say(f"{number + 1} of {runs} runs")
    server = Server(program=program, folder=empty(folder / "registry")).start()
    world = World(
        built=small(folder / "checkout", {"blob": blob.read_bytes()}), host=server.host, folder=folder / "people"
    )
    world.publish()
    world.endorse("alice", "bob")
    place = f"{world.place}:v1"
    pull = [sys.executable, "-c", _PULL, "pull", place, "--policy", str(world.policy()), "-o", str(got), "--plain-http"]
    commands = {
        "ours pull": [*pull, "--state", str(folder / "state"), "--quiet"],
        "oras pull": [oras, "pull", "--plain-http", place, "-o", str(got)],
        "skopeo copy": [
            skopeo,
            "--insecure-policy",
            "copy",
            "--src-tls-verify=false",
            f"docker://{place}",
            f"oci:{got}:v1",
        ],
    }
    for name, argv in (one for _ in range(runs) for one in commands.items()):
        empty(got)
        started = ambient.monotonic()
        said = _run(argv, project.root)
        times.setdefault(name, []).append(ambient.monotonic() - started)
        most = max(most, int(said.split()[-1])) if name.startswith("ours") else most
    server.kill()
    empty(folder)
    memory = Row(what="most memory of these", measured=f"{most / 1e6:.0f} MB", goal="≤ 100 MB", met=most <= _MEMORY)
    found = {name: spread(values) for name, values in times.items()}
    rows = (_row("push", "push", times), _row("fetch", "pull", times, goal=False), _pull_row(times), memory)
    return Part(rows=rows, data={**found, "memory": most})


def _row(what: str, beside: str, times: Mapping[str, Sequence[float]], *, goal: bool = True) -> Row:
    ours, theirs = (statistics.median(times[f"{who} {what}"]) for who in ("ours", "oras"))
    return Row(
        what=f"{what} of {_MEGABYTES} MB, a registry on loopback, whole process",
        measured=f"{seconds(ours)} ({ours / theirs:.2f} times)",
        beside=f"{seconds(theirs)} (`oras {beside}`)",
        goal=f"≤ {_RATIO} times" if goal else "",
        met=ours <= _RATIO * theirs if goal else None,
    )


def _pull_row(times: Mapping[str, Sequence[float]]) -> Row:
    ours, oras, skopeo = (statistics.median(times[name]) for name in ("ours pull", "oras pull", "skopeo copy"))
    return Row(
        what=f"`sev-launch pull` of {_MEGABYTES} MB, two endorsements and a provenance verified, whole process",
        measured=f"{seconds(ours)} ({ours / oras:.2f} and {ours / skopeo:.2f} times)",
        beside=f"{seconds(oras)} (`oras pull`), {seconds(skopeo)} (`skopeo copy`)",
        goal=f"≤ {_RATIO} times",
        met=ours <= _RATIO * min(oras, skopeo),
    )


def _run(argv: Sequence[str], cwd: Path) -> str:
    return subprocess.run(argv, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


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


def fetch(host: str, folder: str, sha256: str, size: str) -> None:
    """Hashed on the way."""
    pin = Pin(name="blob", version="1", sha256=sha256, size=int(size), origin=Urls(urls=()), lock="")
    wish = bundle.Wish(source=f"{host}/{_NAME}:v1", ca="", plain_http=True)
    bundle.bring([pin], wish, cas=Cas(root=Path(folder)), root=Path(folder))


if __name__ == "__main__":
    if sys.argv[1] == "push":
        push(*sys.argv[2:])
    else:
        fetch(*sys.argv[2:])
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    print(int(found[1]) * 1024)
