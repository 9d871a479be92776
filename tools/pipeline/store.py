# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Build steps whose results are kept by the digest of everything that went into them.

    inputs (path inside → digest) ┐
    argv, environment, tool tree  ├─ key ── build/store/NAME/KEY/ ── outputs
    this code                     ┘

A killed build loses only the step that was running: a step's folder gets its final name after the step
has succeeded, and is found again by its key.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.pipeline import digest, sandbox
from tools.pipeline.errors import BuildError
from tools.pipeline.tree import Tree

_OWN_CODE = ("sandbox.py", "store.py")
_MARK = "step.json"
_DOOMED = ".doomed-"


@dataclass(frozen=True, kw_only=True)
class Input:
    """A file or folder that the step sees at a constant path, and the digest of its content."""

    host: Path
    inside: str
    digest: str

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
    keep: int = 3  # how many results of this name stay in the store

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
        return digest.of_bytes(json.dumps(self.description(), sort_keys=True).encode())


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished step: its folder, and the digest of each output."""

    folder: Path
    digests: Mapping[str, str]

    def path(self, name: str) -> Path:
        """Where an output lies."""
        return self.folder / name

    def input(self, name: str, *, inside: str) -> Input:
        """An output as the input of another step. Its digest is that of its content, so a step that
        gives the same bytes again does not set off what comes after it.
        """
        return Input(host=self.folder / name, inside=inside, digest=self.digests[name])


@dataclass(frozen=True, kw_only=True)
class Store:
    """Where results, logs and scratch folders lie; all below the checkout's build folder."""

    root: Path
    jobs: int

    def run(self, step: Step, *, judge: sandbox.Judge | None = None) -> Result:
        """The step's outputs; runs the step unless they are there already."""
        shelf = self.root / "store" / step.name
        final = shelf / step.key()
        found = _load(final, step)
        if found is not None:
            os.utime(final)
            return found
        shelf.mkdir(parents=True, exist_ok=True)
        scratch = self.root / "scratch" / step.name
        _remove(scratch)
        (scratch / "build").mkdir(parents=True)
        (scratch / "out").mkdir()
        sandbox.run(
            self._command(step, scratch),
            title=step.title,
            log=self.root / "log" / f"{step.name}.log",
            replay=self.root / "replay" / f"{step.name}.sh",
            judge=judge,
        )
        result = scratch / "out"
        for name in step.outputs:
            if not os.path.lexists(result / name):
                raise BuildError(f"the step succeeded but left no {name}", where=step.title)
        digests = {name: _digest(result / name) for name in sorted(step.outputs)}
        mark = {"step": step.description(), "outputs": digests}
        digest.write_atomically(result / _MARK, json.dumps(mark, indent=1, sort_keys=True).encode())
        _remove(final)
        result.rename(final)
        _remove(scratch)
        _prune(shelf, keep=step.keep)
        return Result(folder=final, digests=digests)

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
        )


def _load(folder: Path, step: Step) -> Result | None:
    """The result in `folder` if it is complete and its files are what the step made."""
    try:
        digests = json.loads((folder / _MARK).read_bytes())["outputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(digests, dict) or sorted(digests) != sorted(step.outputs):
        return None
    for name, expected in digests.items():
        path = folder / name
        # Hashing a whole source tree takes longer than many a step: folders count as they were recorded.
        if not (path.is_dir() or (path.is_file() and digest.of_file(path) == expected)):
            return None
    return Result(folder=folder, digests=digests)


def _digest(path: Path) -> str:
    return digest.of_folder(path) if path.is_dir() and not path.is_symlink() else digest.of_file(path)


def _prune(shelf: Path, *, keep: int) -> None:
    results = [p for p in shelf.iterdir() if not p.name.startswith(_DOOMED)]
    results.sort(key=lambda p: (p.stat().st_mtime_ns, p.name), reverse=True)
    for old in results[keep:]:
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
