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
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.pipeline import digest, sandbox
from tools.pipeline.errors import BuildError
from tools.pipeline.tree import Tree

_OWN_CODE = ("sandbox.py", "store.py")
_MARK = "step.json"


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
class Store:
    """Where results, logs and scratch folders lie; all below the checkout's build folder."""

    root: Path
    jobs: int

    def run(self, step: Step, *, judge: sandbox.Judge | None = None) -> Path:
        """The folder with the step's outputs; runs the step unless it is there already."""
        shelf = self.root / "store" / step.name
        final = shelf / step.key()
        if _complete(final, step):
            os.utime(final)
            return final
        shelf.mkdir(parents=True, exist_ok=True)
        scratch = self.root / "scratch" / step.name
        _remove(scratch)
        (scratch / "build").mkdir(parents=True)
        result = Path(tempfile.mkdtemp(dir=scratch, prefix="out-"))
        mounts = [sandbox.Mount(host=i.host, inside=i.inside) for i in step.inputs]
        command = sandbox.Command(
            argv=step.argv,
            tree=step.tool.path,
            mounts=(
                *mounts,
                sandbox.Mount(host=scratch / "build", inside="/build", writable=True),
                sandbox.Mount(host=result, inside="/out", writable=True),
            ),
            # The number of jobs is no part of the key: it must not change a byte, and `repro` checks that.
            environment={**step.environment, "JOBS": str(self.jobs)},
        )
        sandbox.run(
            command,
            title=step.title,
            log=self.root / "log" / f"{step.name}.log",
            replay=self.root / "replay" / f"{step.name}.sh",
            judge=judge,
        )
        for name in step.outputs:
            if not os.path.lexists(result / name):
                raise BuildError(f"the step succeeded but left no {name}", where=step.title)
        # mkdtemp's 0700 is for the time of writing only.
        result.chmod(0o755)
        digest.write_atomically(
            result / _MARK, json.dumps(step.description(), indent=1, sort_keys=True).encode()
        )
        _remove(final)
        result.rename(final)
        _remove(scratch)
        _prune(shelf, keep=step.keep)
        return final


def _complete(folder: Path, step: Step) -> bool:
    return (folder / _MARK).is_file() and all(os.path.lexists(folder / name) for name in step.outputs)


def _prune(shelf: Path, *, keep: int) -> None:
    found = sorted(shelf.iterdir(), key=lambda p: (p.stat().st_mtime_ns, p.name), reverse=True)
    for old in found[keep:]:
        _remove(old)


def _remove(folder: Path) -> None:
    """Delete a folder under another name first, so that a half-deleted one is never taken for a result."""
    if not os.path.lexists(folder):
        return
    doomed = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".doomed-"))
    folder.rename(doomed / "x")
    shutil.rmtree(doomed)
