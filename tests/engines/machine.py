# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A box with all engines installed, what was built, the image, and the runtimes that engines are told of."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engines import images
from tests.engines.box import Box
from tests.engines.kit import CRUN, RUNC, Runtime
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks.project import Project

OUT = "/opt/sev-artifacts"
IMAGE = "image.tar"
"""In Box.share."""
_UNPROTECTED = ("schema = 1", 'protection = "unprotected"')
_CONFIGURATIONS = {
    "sev-enforce": ("schema = 1", 'protection = "enforce"'),
    "sev-protected": ("schema = 1",),
    "sev-hang": (*_UNPROTECTED, "timeout = 20"),
    "sev-small": (*_UNPROTECTED, 'cache = "/run/small/cache"'),
}
"""All but the first of runtimes(): what stands in their sev-runtime.toml."""


TREES = {"13": ("engines", "boot"), "12": ("engines-bookworm",)}
"""By Debian's version: docker 26.1, podman 5.4, QEMU 10.0; docker 20.10, podman 4.3, QEMU 7.2. Uppermost first."""

_CLOCK = "/usr/local/bin/sev-clock"
_WITH_A_CLOCK = """\
#!/bin/sh
# With a clock that jumps whenever /srv/time is written; the one by which limits are measured stays as it is.
export LD_PRELOAD=/srv/libfaketime.so.1 FAKETIME_TIMESTAMP_FILE=/srv/time FAKETIME_NO_CACHE=1
export FAKETIME_DONT_FAKE_MONOTONIC=1
exec {program} "$@"
"""


@contextmanager
def opened(project: Project, *, debian: str = "13") -> Iterator[Box]:
    """The box; no engine is started. Nothing of it is left."""
    trees = [project.trees.ensure(name).path for name in TREES[debian]]
    box = Box(trees=trees, shown={project.out(project.recipes.profile(DEFAULT_PROFILE)): OUT})
    try:
        box.start()
        images.archive(box.share / IMAGE, trees[-1] / "usr/bin/busybox")
        yield box
    finally:
        box.stop()


def runtimes(box: Box) -> dict[str, Runtime]:
    """By name. runc and crun are the controls: each expectation holds with them, too.

    sev: configured in /etc, for engines that hand no options on. The others show that one program can be several.
    """
    found = {"runc": RUNC, "crun": CRUN, "sev": Runtime(name="sev", path=f"{OUT}/sev-runtime")}
    box.write("/etc/sev-runtime.toml", _text(_UNPROTECTED))
    for name, lines in _CONFIGURATIONS.items():
        path = f"/etc/sev/{name}.toml"
        box.write(path, _text(lines))
        found[name] = Runtime(name=name, path=f"{OUT}/sev-runtime", arguments=(f"--config={path}",))
    box.write(_CLOCK, _WITH_A_CLOCK.format(program=found["sev"].path), mode=0o755)
    return {**found, "sev-clock": Runtime(name="sev-clock", path=_CLOCK)}


def _text(lines: tuple[str, ...]) -> str:
    return "".join(f"{line}\n" for line in lines)


def image_of(box: Box) -> Path:
    """The image's archive on the host."""
    return box.share / IMAGE
