# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An image's blobs and the options of a `run` → the document of the container, without an engine or its host."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from tools.launcher.bundle import make
from tools.launcher.bundle.image_config import Changes
from tools.launcher.bundle.make import Steps
from tools.launcher.bundle.sources import Wanted
from tools.launcher.layers.from_folder import Note
from tools.launcher.oci.predicted import RunOptions, container
from tools.launcher.oci.settings import Settings
from tools.launcher.oci.translate import Translated, translate
from tools.sev.workload.document import Verity


def translated(
    wanted: Wanted,
    options: RunOptions,
    *,
    settings: Settings,
    stdin: bool,
    mkfs: Path,
    note: Note,
    begin: Callable[[int, int], None],
) -> Translated:
    """What a runtime would make of it. The disk is made in a temporary folder, for its root hash, and thrown away."""
    changes = Changes(
        entrypoint=options.entrypoint,
        argv=options.argv,
        env=options.environment,
        directory=options.directory,
        user=options.user,
    )
    steps = Steps(note=note, begin=begin, describe=lambda _: {})
    with tempfile.TemporaryDirectory() as name:
        bundle = make.make(wanted, Path(name, "bundle"), mkfs=mkfs, changes=changes, steps=steps)
    root = Verity(
        root_hash=bundle.tree.root_hash, salt=bundle.tree.salt, layers=tuple(one.blocks for one in bundle.layers)
    )
    made = container(bundle.config, options, passwd=bundle.passwd, group=bundle.group, where=wanted.where)
    return translate(made, root=root, settings=settings, network=options.network, stdin=stdin)
