# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The folders of the layers below, as far as they show through.

A tar need not list the folders that its files lie in. Whoever unpacks it over other layers leaves such a folder as it
is; one layer's image has to say what it is like, since overlayfs takes the uppermost layer's word.
"""

from dataclasses import dataclass, field

from tools.launcher.layers import rules
from tools.launcher.layers.rules import Attributes
from tools.launcher.layers.tree import Folder


@dataclass(kw_only=True, slots=True)
class _Seen:
    attributes: Attributes = rules.FOLDER
    children: dict[bytes, "_Seen"] = field(default_factory=dict)


class Below:
    """What lies below the next layer; empty below the first."""

    def __init__(self) -> None:
        self._root = _Seen()

    def settle(self, root: Folder) -> None:
        """Give every folder that nothing describes its attributes; then the layer belongs to what lies below."""
        stack = [(root, self._root)]
        while stack:
            folder, seen = stack.pop()
            folder.attributes = folder.attributes or seen.attributes
            seen.attributes = folder.attributes
            if folder.opaque:
                seen.children.clear()
            for name, child in folder.children.items():
                if isinstance(child, Folder):
                    stack.append((child, seen.children.setdefault(name, _Seen())))
                else:
                    seen.children.pop(name, None)
