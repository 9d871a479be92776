# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The tool trees of a checkout's locks: found, made and checked, each once a process."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tools.pipeline.base import ambient, ui
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.store.seal import Seal
from tools.pipeline.engine.tree import Tree
from tools.pipeline.sources.pins import ToolchainLock
from tools.pipeline.sources.wanted import Toolchain
from tools.pipeline.toolchain import tool_tree


@dataclass(kw_only=True)
class Trees:
    """The trees below `path`. `bring` fetches the packages of a tree that a step turns out to need."""

    toolchain: Toolchain
    lock: ToolchainLock
    cas: Cas
    seal: Seal
    path: Path
    bring: Callable[[str], None] = lambda _: None
    _found: dict[str, Tree] = field(default_factory=dict, repr=False)
    _intact: set[str] = field(default_factory=set, repr=False)
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def find(self, name: str) -> Tree | None:
        """A tree that is set up; what has been found is not looked for again."""
        if name not in self._found:
            tree = tool_tree.find_tree(name, toolchain=self.toolchain, lock=self.lock, trees=self.path, seal=self.seal)
            if tree is None:
                return None
            self._found[name] = tree
        return self._found[name]

    def key(self, name: str) -> str:
        """SHA-256 over all that decides a tree's bytes, whether it is set up or not."""
        return tool_tree.key(self.toolchain.tree(name), self.toolchain.layout, self.lock.of_tree(name))

    def folders(self) -> list[tuple[Path, float]]:
        """Where trees lie that are set up, of this lock or another, and when each was last used."""
        return tool_tree.folders(self.path)

    def current(self) -> set[Path]:
        """Where the trees of this lock lie, or would."""
        return {
            tool_tree.place(tree.name, toolchain=self.toolchain, lock=self.lock, trees=self.path)
            for tree in self.toolchain.trees
        }

    def ensure(self, name: str) -> Tree:
        """The tree, unpacked now if need be, and held until this process ends; its packages must be in the cache."""
        while True:
            found = tool_tree.ensure_tree(
                name,
                toolchain=self.toolchain,
                lock=self.lock,
                cache=self.cas,
                trees=self.path,
                seal=self.seal,
                jobs=ambient.cpu_count(),
            )
            # It was there a moment ago; another checkout's ./doit gc may have been faster.
            if tool_tree.hold(found):
                self._found[name] = found
                return found

    def checked(self, name: str) -> Tree:
        """The tree after hashing all of it, once a process; one that was changed is set up again."""
        with self._guard:
            if self.find(name) is None:
                self.bring(name)
            tools = self.ensure(name)
            if name not in self._intact:
                with ui.working(f"checking the {name} tree"):
                    intact = tool_tree.is_intact(tools)
                if not intact:
                    ui.line(f"   note: {tools.path.parent} was changed after it was set up; setting it up again")
                    tool_tree.remove(tools.path.parent)
                    tools = self.ensure(name)
                self._intact.add(name)
            return tools
