# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""/etc/passwd and /etc/group of an image, as they show when all layers lie upon one another."""

import io

from tools.launcher.base.errors import UserError
from tools.launcher.layers.layer import Layer
from tools.launcher.layers.rules import Kind
from tools.launcher.layers.tree import Folder, Inode

_SIZE_MAX = 1 << 20


class Accounts:
    """`passwd` and `group` are empty when an image has none."""

    def __init__(self) -> None:
        self._files: dict[bytes, bytes] = {}

    @property
    def passwd(self) -> bytes:
        """The text of /etc/passwd."""
        return self._files.get(b"passwd", b"")

    @property
    def group(self) -> bytes:
        """The text of /etc/group."""
        return self._files.get(b"group", b"")

    def settle(self, layer: Layer, *, where: str) -> None:
        """Put the next layer on top."""
        etc = layer.tree.root.children.get(b"etc")
        if etc is None:
            return
        if not isinstance(etc, Folder):
            self._files.clear()
            return
        if etc.opaque:
            self._files.clear()
        for name in (b"passwd", b"group"):
            node = etc.children.get(name)
            if isinstance(node, Inode) and node.kind is Kind.FILE:
                if node.size > _SIZE_MAX:
                    raise UserError(f"/etc/{name.decode()} has {node.size} bytes, more than {_SIZE_MAX}", where=where)
                text = io.BytesIO()
                layer.copy(node, text)
                self._files[name] = text.getvalue()
            elif node is not None:
                # Gone, or a link that could lead anywhere: nobody is found in it.
                self._files.pop(name, None)
