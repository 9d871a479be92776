# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A pinned source archive → the patched source tree, as one archive that later steps unpack in their own folders.

One file is hashed and copied in a fraction of the time that 100,000 take, and a step that unpacks it has a tree that
nobody else can write to.
"""

from collections.abc import Mapping, Sequence

from tools.pipeline.engine.step import Output, Reference, Step

ARCHIVE = "source.tar.zst"
INSIDE = f"/inputs/{ARCHIVE}"
TREE = "/build/src"
"""Where the tree lies in every step that uses it: a constant, because paths and their lengths get into binaries."""

TAR = "tar --format=gnu --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX"
"""The same archive for the same files, whoever packs it and when."""

UNPACK = f"mkdir {TREE} && tar --extract --zstd --file={INSIDE} --directory={TREE}"
"""Shell: unpacks the input at INSIDE."""

# GNU tar inside the sandbox refuses absolute names and `..`, and there is nothing of the host to reach.
_FIRST = (
    f"mkdir {TREE} && cd {TREE} && "
    "tar --extract --file=/inputs/source --strip-components=1 --no-same-owner --no-same-permissions"
)
LEFT_OUT = "/build/left-out"
"""Where `script` may list, a line each and as ./PATH, what of the tree no later step needs."""

# The fastest level: it is unpacked more often than it is kept.
_PACK = (
    f"touch {LEFT_OUT} && {TAR} --anchored --no-wildcards --exclude-from={LEFT_OUT} --create"
    f" --use-compress-program='zstd -1 --threads=1' --file=/out/{ARCHIVE} --directory={TREE} ."
)


def step(
    *,
    name: str,
    title: str,
    archive: Reference,
    extra: Mapping[str, Reference],
    script: str,
    outputs: Sequence[str] = (),
) -> Step:
    """The step that unpacks `archive`, runs `script` in the tree and packs the tree again.

    `script` is shell that patches the tree, its working directory, makes further `outputs` of it, and lists what need
    not be packed in LEFT_OUT; `extra` are the inputs that it takes.
    """
    return Step(
        name=name,
        title=title,
        argv=("/bin/sh", "-euc", f"{_FIRST}\n{script}\n{_PACK}"),
        tools="build",
        inputs={"/inputs/source": archive, **extra},
        outputs=(ARCHIVE, *outputs),
        mistakes=True,
    )


def inputs(source: Step) -> dict[str, Output]:
    """The tree as an input of a step whose shell begins with UNPACK."""
    return {INSIDE: source.output(ARCHIVE)}
