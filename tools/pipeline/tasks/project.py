# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A checkout as the task creators see it: recipes and pins, the plan made of them, and the engine that runs it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tools.pipeline.base import ambient, toml_reader
from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.jobs import Jobs
from tools.pipeline.engine.others import Others
from tools.pipeline.engine.remote import Remote
from tools.pipeline.engine.step import Blob
from tools.pipeline.engine.store import seal
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.store.results import Results
from tools.pipeline.engine.store.seal import Seal
from tools.pipeline.recipes import load as recipes
from tools.pipeline.recipes.load import Recipes
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Profile
from tools.pipeline.sandbox import sandbox
from tools.pipeline.sources import mirrors, pins, wanted
from tools.pipeline.sources.pins import Pin, Source, ToolchainLock
from tools.pipeline.sources.wanted import Toolchain
from tools.pipeline.tasks.plan import Plan
from tools.pipeline.toolchain.trees import Trees


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
        sources = pins.read_sources_lock(root / pins.SOURCES_LOCK)
        return Project(
            root=root,
            recipes=recipes.recipes(
                root, sources=[want.name for want in wanted.read_sources(root / wanted.SOURCES_TOML)]
            ),
            sources=sources,
            toolchain=wanted.read_toolchain(root / wanted.TOOLCHAIN_TOML),
            toolchain_lock=pins.read_toolchain_lock(root / pins.TOOLCHAIN_LOCK),
        )

    def check_locks(self) -> None:
        """Raise UserError when a lock does not answer the hand-written request any more.

        Not part of load(): `./doit lock` must start with a stale lock.
        """
        pins.check_fresh(self.root, sources=self.sources, toolchain=self.toolchain, locked=self.toolchain_lock)

    @property
    def build(self) -> Path:
        """Everything intermediate; may be deleted at any time."""
        return self.root / "build"

    @cached_property
    def version(self) -> str:
        """The project's version, from pyproject.toml."""
        table = toml_reader.load(self.root / "pyproject.toml").table("project")
        return table.string("version", pattern=r"[0-9][0-9A-Za-z.+]*", says="a version")

    def out(self, profile: Profile) -> Path:
        """Where a profile's artifacts go."""
        return self.root / ("out" if profile.name == DEFAULT_PROFILE else f"out-{profile.name}")

    def tasks_of(self, command: str) -> Iterator[tuple[str, Profile]]:
        """COMMAND for the default profile, COMMAND:PROFILE for each other."""
        for profile in self.recipes.all_profiles:
            yield command if profile.name == DEFAULT_PROFILE else f"{command}:{profile.name}", profile

    @cached_property
    def plan(self) -> Plan:
        """All steps. Raises UserError for a recipe, patch or list that cannot be read."""
        asked = wanted.read_sources(self.root / wanted.SOURCES_TOML)
        # What is not locked yet must not stop `./doit lock`; every build begins with check_locks(), which names it.
        sources = {want.name: pins.unlocked(want) for want in asked} | {s.pin.name: s for s in self.sources}
        return Plan(self.root, self.recipes, sources, version=self.version)

    @cached_property
    def seal(self) -> Seal:
        """This user's mark on what lies in the cache; without a home it is this checkout's."""
        return seal.load(ambient.state_dir() or self.build)

    @cached_property
    def cas(self) -> Cas:
        """Downloads and outputs of steps, by digest; shared between checkouts."""
        return Cas(root=ambient.cache_dir())

    @cached_property
    def engine(self) -> Engine:
        """Runs steps; one for the process, so that what it has checked is checked once."""
        sandbox.check_clock(ambient.cache_dir())
        return Engine(
            root=self.root,
            build=self.build,
            cas=self.cas,
            results=Results(root=ambient.cache_dir() / "results", seal=self.seal),
            jobs=Jobs(ambient.cpu_count()),
            find_tools=self.trees.find,
            check_tools=self.trees.checked,
            others=Others(remote=self.remote, tools_key=self.trees.key),
            fetch=self._fetch_blob,
        )

    @cached_property
    def remote(self) -> Remote | None:
        """The shared cache that SEV_ARTIFACTS_REMOTE names; None without. UserError for what cannot be used."""
        named = ambient.remote()
        if not named:
            if ambient.remote_execute():
                what = f"says where steps run, and {ambient.REMOTE} names no service"
                raise UserError(what, where=ambient.REMOTE_EXECUTE, hint=f"set {ambient.REMOTE}, or unset this one")
            return None
        # Importing requests takes longer than a build with nothing to do.
        from tools.pipeline.remote import choose  # noqa: PLC0415 (start-up: only builds with a remote need it)

        return choose.remote(named, cas=self.cas, folder=self.build / "remote")

    def ended(self) -> None:
        """The tasks have ended: what is sent beside them comes to its end, too."""
        if self.remote is not None:
            self.remote.end()

    def _fetch_blob(self, blob: Blob) -> None:
        """A pin that a step takes, where no task before the step's has fetched it."""
        if self.remote is not None and not self.cas.has(blob.sha256, blob.size):
            wanted_pins = [source.pin for source in self.sources if source.pin.sha256 == blob.sha256]
            self.fetch(wanted_pins, title="fetching pinned sources")

    def check(self) -> None:
        """Raise UserError for whatever would stop a task creator: recipes, patches, settings."""
        ambient.cache_dir()
        ambient.scratch_on_disk()
        _ = self.plan.steps, self.remote

    def fetch(self, wanted_pins: list[Pin], *, title: str) -> None:
        """Bring the pins into the cache; touches the network only for what is missing."""
        # Importing requests takes longer than a build with nothing to do.
        from tools.pipeline.sources import fetch  # noqa: PLC0415 (start-up: only fetching needs it)

        fetch.ensure(
            wanted_pins,
            cache=self.cas,
            mirrors=lambda: mirrors.discover(ambient.mirror_override()),
            root=self.root,
            title=title,
        )

    @cached_property
    def trees(self) -> Trees:
        """The tool trees of this checkout's locks."""
        return Trees(
            toolchain=self.toolchain,
            lock=self.toolchain_lock,
            cas=self.cas,
            seal=self.seal,
            path=ambient.cache_dir() / "trees",
            bring=self._fetch_packages,
        )

    def _fetch_packages(self, tree: str) -> None:
        if self.remote is not None:
            packages = [package.pin for package in self.toolchain_lock.of_tree(tree)]
            self.fetch(packages, title=f"fetching packages of the {tree} tree")
