# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Build steps whose results are kept by the digest of everything that went into them.

    inputs (path inside → digest) ┐
    argv, environment, tool tree  ├─ key ── CACHE/steps/NAME/KEY/ ── outputs
    this code                     ┘

A killed build loses only the step that was running: a step's folder gets its final name after the step
has succeeded, and is found again by its key, from any checkout. The cache is believed in nothing: a result's
record is sealed by a key that lies elsewhere, files are hashed when they are used, and folders before a
step sees them; what does not fit is made again.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tools.pipeline.base import files as digest
from tools.pipeline.base import ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine import sandbox
from tools.pipeline.engine.seal import Seal
from tools.pipeline.toolchain.tool_tree import Tree

Judge = Callable[[str, int], object]
"""Reads a whole log and the exit status, and raises BuildError with a better line than the generic one."""

_OWN_CODE = ("sandbox.py", "store.py")
_MARK = "step.json"
_KIND = "step"
_DOOMED = ".doomed-"
_SCRATCH = ".scratch"
_LOCK = ".lock"


@dataclass(frozen=True, kw_only=True)
class Input:
    """A file or folder that the step sees at a constant path, and the digest of its content."""

    host: Path
    inside: str
    digest: str
    ready: Callable[[], None] | None = field(default=None, compare=False, repr=False)
    """Called before a step sees the input: makes sure that the digest is true."""

    @staticmethod
    def file(host: Path, inside: str) -> "Input":
        """A single file, hashed now."""
        return Input(host=host, inside=inside, digest=digest.of_file(host))

    @staticmethod
    def folder(host: Path, inside: str) -> "Input":
        """A small folder, hashed now."""
        return Input(host=host, inside=inside, digest=digest.of_folder(host))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One sandboxed build step: pure data, so that its key is the digest of all that it depends on."""

    name: str
    title: str
    argv: tuple[str, ...]
    tool: Tree
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: str = ""  # what its log is called; normally its name
    keep: int = 8  # how many results of this name stay in the cache

    def description(self) -> dict[str, object]:
        """Everything that the result depends on, in a stable order."""
        here = Path(__file__).parent
        return {
            "name": self.name,
            "argv": list(self.argv),
            "environment": dict(sorted({**sandbox.ENVIRONMENT, **self.environment}.items())),
            "tool": self.tool.digest,
            "inputs": [[i.inside, i.digest] for i in sorted(self.inputs, key=lambda i: i.inside)],
            "outputs": sorted(self.outputs),
            "code": {name: digest.of_file(here / name) for name in _OWN_CODE},
        }

    def key(self) -> str:
        """SHA-256 of the description."""
        return _key(self.description())


def _key(description: Mapping[str, object]) -> str:
    return digest.of_bytes(json.dumps(description, sort_keys=True).encode())


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished step: its folder, and the digest of each output.

    A file is as its digest says. A folder is only when `ready[name]()` has been called, which takes seconds.
    """

    folder: Path
    digests: Mapping[str, str]
    ready: Mapping[str, Callable[[], None]] = field(default_factory=dict, compare=False, repr=False)

    def path(self, name: str) -> Path:
        """Where an output lies."""
        return self.folder / name

    def input(self, name: str, *, inside: str) -> Input:
        """An output as the input of another step. Its digest is that of its content, so a step that
        gives the same bytes again does not set off what comes after it.
        """
        ready = self.ready.get(name)
        return Input(host=self.folder / name, inside=inside, digest=self.digests[name], ready=ready)


def _believe(_: Tree) -> None:
    """For trees that somebody has just checked."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """Where results lie (`shelves`, below the cache, shared by checkouts), and logs (`root`, the checkout's).

    `check_tool` is called before a step runs and raises, or repairs, when the tool tree is not what its
    digest says.
    """

    root: Path
    shelves: Path
    seal: Seal
    jobs: int
    check_tool: Callable[[Tree], None] = _believe
    _checked: set[Path] = field(default_factory=set, compare=False, repr=False)

    def run(self, step: Step, *, judge: Judge | None = None) -> Result:
        """The step's outputs; runs the step unless they are there already."""
        # Once: what is edited while the step runs must not be recorded as what it ran with.
        description = step.description()
        final = self.shelves / step.name / _key(description)
        result = self._load(final, step, description, judge)
        if result is None:
            final.parent.mkdir(parents=True, exist_ok=True)
            with _locked(final.parent / _LOCK, waiting=f"waiting for another build of: {step.title}"):
                result = self._load(final, step, description, judge, quiet=True)
                result = result or self._make(final, step, description, judge)
        note = {**description, "log": step.log or step.name, "outputs": result.digests}
        digest.write_if_changed(self.note(step.log or step.name), json.dumps(note, sort_keys=True).encode())
        return result

    def note(self, log: str) -> Path:
        """Where this checkout keeps, for its manifest, what the step of that log was and gave."""
        return self.root / "steps" / f"{log}.json"

    def _make(self, final: Path, step: Step, description: Mapping[str, object], judge: Judge | None) -> Result:
        scratch = final.parent / _SCRATCH
        _remove(scratch)
        for name in ("build", "out"):
            (scratch / name).mkdir(parents=True)
            # A step sees the mode of its own folders: never the umask's.
            (scratch / name).chmod(0o755)
        self.check_tool(step.tool)
        with ExitStack() as used:
            for item in step.inputs:
                if item.ready is not None:
                    item.ready()
                    used.enter_context(_in_use(item.host.parent / _MARK))
            outcome = sandbox.run(
                self._command(step, scratch),
                title=step.title,
                log=self.root / "log" / f"{step.log or step.name}.log",
                replay=self.root / "replay" / f"{step.log or step.name}.sh",
            )
            if judge is not None:
                judge(outcome.log.read_text(errors="replace"), outcome.status)
            sandbox.check(outcome, title=step.title)
        result = scratch / "out"
        for name in step.outputs:
            if not os.path.lexists(result / name):
                raise BuildError(f"the step succeeded but left no {name}", where=step.title)
        digests = {name: _digest(result / name) for name in sorted(step.outputs)}
        self.seal.write(result / _MARK, {"step": description, "outputs": digests}, kind=_KIND, key=_key(description))
        _remove(final)
        result.rename(final)
        self._checked.update(final / name for name in digests)
        _remove(scratch)
        _prune(final.parent, keep=step.keep, spare=final)
        return self._result(final, step, description, digests, judge)

    def _load(
        self,
        folder: Path,
        step: Step,
        description: Mapping[str, object],
        judge: Judge | None,
        *,
        quiet: bool = False,
    ) -> Result | None:
        """The result in `folder` if it is sealed, complete, of this step, and its files are unchanged."""
        if not folder.is_dir():
            return None
        record = self.seal.read(folder / _MARK, kind=_KIND, key=_key(description))
        digests = record.get("outputs") if record is not None else None
        if not isinstance(digests, dict) or sorted(digests) != sorted(step.outputs):
            _say_spoiled(folder, "holds no result of ours", quiet=quiet)
            return None
        for name, expected in digests.items():
            path = folder / name
            # Folders are hashed when a step needs them: for a source tree it takes longer than many a step.
            if not (path.is_dir() or (path.is_file() and digest.of_file(path) == expected)):
                _say_spoiled(path, "is not what was built", quiet=quiet)
                return None
        with suppress(OSError):
            os.utime(folder)  # used just now; a cache that is mounted read-only is fine too
        return self._result(folder, step, description, digests, judge)

    def _result(
        self,
        folder: Path,
        step: Step,
        description: Mapping[str, object],
        digests: Mapping[str, str],
        judge: Judge | None,
    ) -> Result:
        def again() -> Result:
            return self._make(folder, step, description, judge)

        ready = {
            name: partial(self._ready, folder / name, expected, step.title, again)
            for name, expected in digests.items()
            if (folder / name).is_dir()
        }
        return Result(folder=folder, digests=digests, ready=ready)

    def _ready(self, path: Path, expected: str, title: str, again: Callable[[], Result]) -> None:
        """Make sure, once a process, that a folder is what was built; make it again when it is not."""
        if path in self._checked:
            return
        with ui.working(f"checking the cached result of: {title}"):
            right = path.is_dir() and digest.of_folder(path) == expected
        if not right:
            ui.line(f"   note: {path} is not what was built; making it again")
            with _locked(path.parent.parent / _LOCK, waiting=f"waiting for another build of: {title}"):
                made = again()
            if made.digests[path.name] != expected:
                raise BuildError("made other bytes from the same inputs", where=title)
        self._checked.add(path)

    def _command(self, step: Step, scratch: Path) -> sandbox.Command:
        mounts = [sandbox.Mount(host=i.host, inside=i.inside) for i in step.inputs]
        return sandbox.Command(
            argv=step.argv,
            tree=step.tool.path,
            mounts=(
                *mounts,
                sandbox.Mount(host=scratch / "build", inside="/build", writable=True),
                sandbox.Mount(host=scratch / "out", inside="/out", writable=True),
            ),
            # The number of jobs is no part of the key: it must not change a byte, and `repro` checks that.
            environment={**step.environment, "JOBS": str(self.jobs)},
            personality=sandbox.PERSONALITY,
        )


def _say_spoiled(path: Path, what: str, *, quiet: bool) -> None:
    """Say why a result is not taken; `quiet` when that has just been said."""
    if not quiet:
        ui.line(f"   note: {path} {what}; making it again")


@contextmanager
def _locked(path: Path, *, waiting: str) -> Iterator[None]:
    """The kernel's lock: whoever waits finds the result made, and what a killed process left is nobody's."""
    with path.open("ab") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with ui.working(waiting):
                fcntl.flock(guard, fcntl.LOCK_EX)
        yield


@contextmanager
def _in_use(mark: Path) -> Iterator[None]:
    """Keep another checkout's build from dropping a folder while a step works on it."""
    with mark.open("rb") as guard:
        fcntl.flock(guard, fcntl.LOCK_SH)
        yield


def _digest(path: Path) -> str:
    return digest.of_folder(path) if path.is_dir() and not path.is_symlink() else digest.of_file(path)


def _prune(shelf: Path, *, keep: int, spare: Path) -> None:
    results = [p for p in shelf.iterdir() if not p.name.startswith(".") and p != spare]
    results.sort(key=lambda p: (p.stat().st_mtime_ns, p.name), reverse=True)
    for old in results[keep - 1 :]:
        try:
            with (old / _MARK).open("rb") as guard:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(old)
        except BlockingIOError:
            continue
        except FileNotFoundError:
            _remove(old)
    # What a killed run did not finish deleting.
    for rest in sorted(shelf.glob(f"{_DOOMED}*")):
        shutil.rmtree(rest)


def _remove(folder: Path) -> None:
    """Delete a folder under another name first, so that a half-deleted one is never taken for a result."""
    # A constant name: what a killed run left half-deleted (a kernel tree is 1.5 GB) goes with the next one.
    doomed = folder.with_name(f"{_DOOMED}{folder.name}")
    if os.path.lexists(doomed):
        shutil.rmtree(doomed)
    if os.path.lexists(folder):
        folder.rename(doomed)
        shutil.rmtree(doomed)
