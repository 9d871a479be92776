# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Where things lie in a checkout, with parsed recipes and locks: what task creators hand on."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tools.pipeline.base import ambient, toml_reader, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine import sandbox, seal
from tools.pipeline.engine.cas import Cas
from tools.pipeline.engine.seal import Seal
from tools.pipeline.engine.store import Input, Store
from tools.pipeline.recipes import profiles
from tools.pipeline.recipes.profiles import Profile, Recipes
from tools.pipeline.sources import mirrors, wanted
from tools.pipeline.sources import pins as lockfile
from tools.pipeline.sources.pins import Pin, Source, ToolchainLock
from tools.pipeline.sources.wanted import Toolchain
from tools.pipeline.toolchain import tool_tree
from tools.pipeline.toolchain.tool_tree import Tree


@dataclass(frozen=True, kw_only=True)
class Project:
    """A checkout."""

    root: Path
    recipes: Recipes
    sources: tuple[Source, ...]
    toolchain: Toolchain
    toolchain_lock: ToolchainLock

    @staticmethod
    def load(root: Path | None = None) -> "Project":
        """Read recipes and locks of the checkout that this code stands in, or of another.

        Raises UserError for anything wrong in them.
        """
        root = root or ambient.repository_root()
        sources = lockfile.read_sources_lock(root / lockfile.SOURCES_LOCK)
        return Project(
            root=root,
            recipes=profiles.load(root, sources=[s.pin.name for s in sources]),
            sources=sources,
            toolchain=wanted.read_toolchain(root / wanted.TOOLCHAIN_TOML),
            toolchain_lock=lockfile.read_toolchain_lock(root / lockfile.TOOLCHAIN_LOCK),
        )

    def check_locks(self) -> None:
        """Raise UserError when a lock does not answer the hand-written request any more.

        Not part of load(): `./doit lock` must start with a stale lock.
        """
        wanted.check_sources_fresh(wanted.read_wanted_sources(self.root / wanted.SOURCES_TOML), self.sources)
        wanted.check_toolchain_fresh(self.toolchain, self.toolchain_lock)

    @property
    def build(self) -> Path:
        """Everything intermediate; may be deleted at any time."""
        return self.root / "build"

    @cached_property
    def store(self) -> Store:
        """Results of build steps; one for the process, so that what it has checked is checked once."""
        sandbox.check_clock(ambient.cache_dir())
        return Store(
            root=self.build,
            shelves=ambient.cache_dir() / "steps",
            seal=self.seal,
            jobs=ambient.cpu_count(),
            check_tool=self._check_tool,
        )

    @cached_property
    def seal(self) -> Seal:
        """This user's mark on what lies in the cache; without a home it is this checkout's."""
        return seal.load(ambient.state_dir() or self.build)

    @property
    def cache(self) -> Cas:
        """Downloads, by digest; shared between checkouts."""
        return Cas(root=ambient.cache_dir())

    def version(self) -> str:
        """The project's version, from pyproject.toml."""
        table = toml_reader.load(self.root / "pyproject.toml").table("project")
        return table.string("version", pattern=r"[0-9][0-9A-Za-z.+]*", says="a version")

    def check_settings(self) -> None:
        """Raise UserError for a bad setting that load() does not need: the cache folder, the version."""
        self.version()
        ambient.cache_dir()

    def out(self, profile: Profile) -> Path:
        """Where a profile's artifacts go."""
        return self.root / ("out" if profile.name == profiles.DEFAULT_PROFILE else f"out-{profile.name}")

    def fragments(self, profile: Profile) -> list[Path]:
        """The profile's kernel configuration fragments, in order."""
        return [self.root / "recipes/kernel" / f"{name}.config" for name in profile.kernel.fragments]

    def fetch(self, pins: list[Pin], *, title: str) -> None:
        """Bring the pins into the cache; touches the network only for what is missing."""
        # Importing requests takes longer than a build with nothing to do.
        from tools.pipeline.sources import fetch  # noqa: PLC0415

        fetch.ensure(
            pins,
            cache=self.cache,
            mirrors=lambda: mirrors.discover(ambient.mirror_override()),
            root=self.root,
            title=title,
        )

    def source(self, name: str) -> Source:
        """The pinned source of that name; UserError when there is none."""
        for source in self.sources:
            if source.pin.name == name:
                return source
        raise UserError(f"{name!r} is not pinned", where=lockfile.SOURCES_LOCK, hint="run ./doit lock")

    def source_input(self, name: str, *, inside: str) -> Input:
        """A pinned archive as a step's input; the cache has just verified its digest."""
        pin = self.source(name).pin
        if not self.cache.verified(pin.sha256, pin.size):
            raise BuildError("is not in the cache", where=pin.where, hint="./doit fetch")
        return Input(host=self.cache.path(pin.sha256), inside=inside, digest=pin.sha256)

    def tree(self, name: str) -> Tree:
        """The tool tree of that name; unpacked on first use, its packages must be in the cache."""
        return tool_tree.ensure_tree(
            name,
            toolchain=self.toolchain,
            lock=self.toolchain_lock,
            cache=self.cache,
            trees=self._trees,
            seal=self.seal,
            jobs=ambient.cpu_count(),
        )

    def find_tree(self, name: str) -> Tree | None:
        """The tool tree of that name if it is set up already."""
        return tool_tree.find_tree(
            name, toolchain=self.toolchain, lock=self.toolchain_lock, trees=self._trees, seal=self.seal
        )

    @cached_property
    def _intact(self) -> set[Path]:
        return set()

    def _check_tool(self, used: Tree) -> None:
        """Make sure, once a process, that a tool tree is what was set up; set it up again when it is not."""
        if used.path in self._intact:
            return
        with ui.working("checking the tool tree"):
            intact = tool_tree.is_intact(used)
        if not intact:
            ui.line(f"   note: {used.path.parent} was changed after it was set up; setting it up again")
            names = [w.name for w in self.toolchain.trees if self.find_tree(w.name) == used]
            tool_tree.remove(used.path.parent)
            for name in names:
                self.tree(name)
        self._intact.add(used.path)

    @property
    def _trees(self) -> Path:
        return ambient.cache_dir() / "trees"
