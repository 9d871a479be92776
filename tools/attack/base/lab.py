# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What attacks are given: the judged artifacts, pinned tools, and what is made once for all of them."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from tools.attack.base.host_tools import HostTools
from tools.attack.base.target import Target
from tools.pipeline.engine.step import Step
from tools.pipeline.tasks.project import Project

T = TypeVar("T")


@dataclass(kw_only=True)
class Lab:
    """`own` are this checkout's artifacts; what is judged is handed to each attempt."""

    project: Project
    own: Target
    work: Path
    _made: dict[str, Future[object]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """The result of `make`, which is called for the first one who asks for `name`; the others wait for it.

        When it fails, it fails for all of them in the same way.
        """
        with self._lock:
            first = name not in self._made
            future = self._made.setdefault(name, Future())
        if first:
            try:
                future.set_result(make())
            except BaseException as error:
                future.set_exception(error)
                raise
        return cast("T", future.result())

    def folder(self, name: str) -> Path:
        """An empty folder that lives as long as the lab, for what once() makes; `name` is unique."""
        path = self.work / "shared" / name
        path.mkdir(parents=True)
        return path

    def tool(self, name: str, tree: str = "boot") -> Path:
        """A program of a pinned tree, as an executable of this host: tool("mkfs.erofs")."""
        found = self.once(f"tree {tree}", lambda: self.project.trees.ensure(tree))
        folder = self.once("folder of tools", lambda: self.folder("tools"))
        return self.once(f"tool {tree} {name}", lambda: HostTools(folder=folder).wrapper(name, found))

    def tree(self, name: str) -> Path:
        """A pinned tree's root folder: "boot", "bench" (Debian's kernel), "build"."""
        return self.once(f"tree {name}", lambda: self.project.trees.ensure(name)).path

    @property
    def qemu(self) -> Path:
        """The pinned QEMU."""
        return self.tool("qemu-system-x86_64")

    def output(self, step: Step, name: str) -> Path:
        """A file that a build step makes, here; the step runs unless its result is in the cache."""

        def make() -> Path:
            self.project.engine.ensure(step)
            path = self.folder(f"step-{step.name}-{name}") / name
            self.project.engine.copy(step, name, path)
            return path

        return self.once(f"step {step.name} {name}", make)
