# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Gives the results of steps: from the cache by their keys, from others, else by running them in the sandbox.

    inputs ── digests ── key ─┬─ results.py has it, cas.py has the outputs ────────────────── result
                              ├─ a remote has it (remote.py): its bytes come when somebody needs them ── checks
                              └─ private copies in a scratch folder ── sandbox ── checks ─┬─ cas.py
                                                                                          └─ results.py
    build/results/NAME.json    what this checkout has last taken for the step NAME: key and outputs
    build/results/NAME/OUTPUT  links to the outputs, for people
    build/made/NAME.json       the key for which this checkout has last run the step itself

An interrupted build loses only the steps that were running. Nothing that others can write to is believed: inputs
are copied to where only this user can write, and hashed on the way; outputs are hashed before they leave it.
"""

import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.pipeline.base import ambient, files, ui
from tools.pipeline.base.errors import BuildError, SevArtifactsError
from tools.pipeline.engine import key, others, scratch
from tools.pipeline.engine.jobs import Jobs
from tools.pipeline.engine.memory import Memory
from tools.pipeline.engine.others import Others
from tools.pipeline.engine.remote import Different, Wanted, Work
from tools.pipeline.engine.scratch import Scratch
from tools.pipeline.engine.step import Blob, CheckoutFile, Literal, Output, Reference, Step
from tools.pipeline.engine.store import locks, merkle
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.store.results import Result, Results
from tools.pipeline.engine.tree import Tree
from tools.pipeline.sandbox import failure, sandbox

MADE, HERE = "made", "sandbox"
"""Folder of the notes on steps that were run, and who has run them."""


@dataclass(kw_only=True)
class Engine:
    """Runs the steps of one checkout at `root`, whose intermediate files lie in `build`.

    `find_tools` gives a tool tree if it is set up; `check_tools` makes sure, before a step runs on it, that it is
    what its digest says, or raises. `fetch` brings a pinned file into the cache, before a step that takes it
    runs: a build that takes results of others may need no pinned file and no tree.
    """

    root: Path
    build: Path
    cas: Cas
    results: Results
    jobs: Jobs
    find_tools: Callable[[str], Tree | None]
    check_tools: Callable[[str], Tree]
    memory: Memory = field(default_factory=Memory)
    others: Others = field(default_factory=Others)
    fetch: Callable[[Blob], None] = lambda _: None
    _known: dict[str, Result] = field(default_factory=dict, repr=False)
    _files: dict[str, merkle.File] = field(default_factory=dict, repr=False)
    _prepared: bool = field(default=False, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def key(self, step: Step) -> str | None:
        """The step's key, or None while a tool tree or an input from another step is not there yet."""
        tools = self.tools_digest(step.tools)
        inputs = self._inputs(step)
        if not tools or inputs is None:
            return None
        return key.of(key.describe(step, tools=tools, inputs=inputs))

    def tools_digest(self, name: str) -> str:
        """The digest of a tool tree that is set up, or that others have set up; empty when nobody has said it."""
        tree = self.find_tools(name)
        return self.others.tools(name, self.results) if tree is None else tree.digest

    def find(self, step: Step, *, whole: bool = False) -> Result | None:
        """The step's result if it is there; nothing runs, and nobody else is asked.

        What a remote has, and is believed, counts as there before its bytes have come, unless it is to be `whole`.
        """
        with self._lock:
            known = self._known.get(step.name)
            if known is not None and not whole:
                return known
            found = self.key(step)
            result = None if found is None else self.results.read(found)
            if result is None or sorted(result.outputs) != sorted(step.outputs) or not self.others.believes(result):
                return None
            if (whole or result.origin.ours) and not all(
                self.cas.has(node.digest.sha256, node.digest.size) for node in result.outputs.values()
            ):
                return None
            self.results.used(result.key)
            self._known[step.name] = result
            return result

    def has_run(self, step: Step, result: Result) -> bool:
        """Whether this checkout itself has run the step for that result."""
        try:
            return bool(json.loads(self.made(step.name).read_bytes()) == {"key": result.key, "by": HERE})
        except (OSError, ValueError):
            return False

    def is_current(self, step: Step) -> bool:
        """Whether this checkout has taken the step's result before, checks passed, and it is still there."""
        result = self.find(step)
        return result is not None and self._has_taken(step, result)

    def ensure(self, step: Step) -> Result:
        """The step's result, made now if it is not there; what it needs must be there or is made first.

        Raises BuildError when the step fails, UserError when it says that an input is at fault.
        """
        for needed in step.needs:
            self.ensure(needed)
        checked, result = False, self.find(step)
        if result is not None and self._has_taken(step, result):
            return result
        if result is None:
            result, checked = self._obtain(step)
        if step.checks and not checked:
            self._check_again(step, result)
        self._take(step, result)
        self.others.offer(self._wanted(step, result.key), result)
        tools = self.find_tools(step.tools)
        if tools is not None and result.origin.ours:
            # Who takes the result needs the tree's digest for its key, and may have no tree.
            self.others.offer_tools(step.tools, tools)
        return result

    def copy(self, step: Step, name: str, target: Path) -> None:
        """A private, verified copy of an output of a step that has been made.

        What a remote has is brought. What the cache has lost, or holds with other bytes, is made again; BuildError when
        that gives something else.
        """
        result = self.find(step)
        assert result is not None
        node = result.outputs[name]
        if self.cas.copy_to(node.digest.sha256, node.digest.size, target):
            return
        if result.origin.ours:
            ui.line(f"   note: the cache has lost {name} of {step.name}; making it again")
        elif self.others.bring(result, name) and self.cas.copy_to(node.digest.sha256, node.digest.size, target):
            return
        else:
            ui.line(f"   note: {result.origin} does not give {name} of {step.name}; making it here")
        with self._lock:
            self._known.pop(step.name, None)
        again = self._run_unless(step, lambda: self.find(step, whole=True))
        if again.outputs[name] != node or not self.cas.copy_to(node.digest.sha256, node.digest.size, target):
            whose = "" if result.origin.ours else f" than {result.origin} has, by {result.origin.builder}"
            raise Different(f"made another {name} from the same inputs{whose}", where=step.title)

    def log(self, step: Step) -> Path:
        """Where the step's output was written when it last ran here."""
        return self.build / "log" / f"{step.name}.log"

    # ---- inputs

    def inputs(self, step: Step) -> Mapping[str, merkle.File]:
        """What lies at each inside path; what the step needs must have been made."""
        found = self._inputs(step)
        assert found is not None
        return found

    def _inputs(self, step: Step) -> dict[str, merkle.File] | None:
        found: dict[str, merkle.File] = {}
        for inside, reference in step.inputs.items():
            node = self._node(reference)
            if node is None:
                return None
            found[inside] = node
        return found

    def _node(self, reference: Reference) -> merkle.File | None:
        match reference:
            case Blob(sha256=sha256, size=size):
                return merkle.File(digest=merkle.Digest(sha256=sha256, size=size))
            case Literal(data=data):
                return merkle.File(digest=merkle.Digest.of(data))
            case CheckoutFile(path=path):
                return self.checkout_file(path)
            case Output(step=step, name=name):
                result = self.find(step)
                return None if result is None else result.outputs[name]

    def checkout_file(self, path: str) -> merkle.File:
        """A file of the checkout, hashed once a process: what is edited meanwhile is found out when it is copied."""
        with self._lock:
            if path not in self._files:
                self._files[path] = merkle.file(self.root / path, shown_as=path)
            return self._files[path]

    def _stage(self, step: Step, room: Scratch) -> None:
        """Private copies of the inputs, each compared with the digest that is in the key."""
        for inside, reference in step.inputs.items():
            target = room.inputs / inside.removeprefix("/")
            scratch.make_folders(room.inputs, target.parent)
            self._copy_input(reference, target)

    def _copy_input(self, reference: Reference, target: Path) -> None:
        """A private copy with the mode that every step sees; BuildError when it is not what the key says any more."""
        node = self._node(reference)
        assert node is not None
        match reference:
            case Literal(data=data):
                target.write_bytes(data)
            case CheckoutFile(path=path):
                if merkle.copy(self.root / path, target) != node.digest:
                    raise BuildError("was changed while the build ran", where=path, hint="build again")
            case Blob(where=where):
                self.fetch(reference)
                if not self.cas.copy_to(node.digest.sha256, node.digest.size, target):
                    raise BuildError("is not in the cache", where=where, hint="./doit fetch")
            case Output(step=needed, name=name):
                self.copy(needed, name, target)
        target.chmod(0o755 if node.executable else 0o644)

    # ---- running

    def _obtain(self, step: Step) -> tuple[Result, bool]:
        """From others, or by running the step; and whether its checks have run."""
        if not self.tools_digest(step.tools):
            self.others.ask_for_tools(step.tools, self.results)
        if self.others.remote is not None and self.key(step) is None:
            # Without the tree's digest there is no key to ask for: who has not been told it sets the tree up.
            self.check_tools(step.tools)
        found = self.key(step) if self.others.remote is not None else None
        if found is not None:
            # Whoever of this user wants the same waits for the one who asks.
            with self._locked(step, found):
                result = self.find(step) or self._from_others(step, found)
            if result is not None:
                return result, False
        result = self._run_unless(step, lambda: self.find(step))
        return result, self.has_run(step, result)

    def _from_others(self, step: Step, found: str) -> Result | None:
        wanted = self._wanted(step, found)
        result = self.others.look(wanted, lambda: self._work(step, wanted), self.results)
        if result is not None:
            with self._lock:
                self._known[step.name] = result
        return result

    def _wanted(self, step: Step, found: str) -> Wanted:
        return others.wanted(step, found, seconds=self._last(step))

    def _last(self, step: Step) -> float | None:
        """How long the step took when this checkout last took a result of it, in seconds."""
        try:
            last = self.results.read(str(json.loads(self._record(step).read_bytes())["key"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return None if last is None else last.seconds

    def _work(self, step: Step, wanted: Wanted) -> Work:
        def copy(inside: str, target: Path) -> None:
            self._copy_input(step.inputs[inside], target)

        return Work(
            wanted=wanted,
            step=step,
            tools=self.tools_digest(step.tools),
            inputs=self.inputs(step),
            tree=lambda: self.check_tools(step.tools).path,
            copy=copy,
        )

    def _locked(self, step: Step, found: str) -> AbstractContextManager[None]:
        # Of this cache: who builds into another cannot help.
        folder = (ambient.state_dir() or self.build) / "locks" / files.of_bytes(os.fsencode(self.cas.root))[:16]
        return locks.locked(folder, found, waiting=f"waiting for another build of: {step.title}")

    def _run_unless(self, step: Step, find: Callable[[], Result | None]) -> Result:
        """Run the step, unless `find` then finds that another process, which held its lock, has done so meanwhile."""
        with self._lock:
            if not self._prepared:
                # Before the first step, not at every start: a build with nothing to do runs none.
                sandbox.available()
                scratch.sweep(self.build / "scratch")
                self.cas.sweep()
                self._prepared = True
        tools = self.check_tools(step.tools)
        self.others.compare_tools(step.tools, tools, self.results)
        found = self.key(step)
        assert found is not None
        with self._locked(step, found):
            return find() or self._run(step, found, tools)

    def _run(self, step: Step, found: str, tools: Tree) -> Result:
        started = ambient.monotonic()
        with scratch.made(self.build / "scratch", step.name) as room:
            self._stage(step, room)
            with self.jobs.slot(locks.private_folder(self.build / "jobs")), self.memory.room() as size:
                outcome = self._in_sandbox(step, tools, room, size)
                if size and failure.lacked_memory(outcome) and room.has_space():
                    ui.line(f"   note: memory was too little for {step.title}; once more, on disk")
                    room.empty_out()
                    outcome = self._in_sandbox(step, tools, room, 0)
            failure.check(outcome, title=step.title, mistakes=step.mistakes)
            taken = {name: room.take(name, title=step.title) for name in sorted(step.outputs)}
            run_checks(step, {name: path for name, (path, _) in taken.items()})
            for path, _ in taken.values():
                self.cas.put_file(path)
            outputs = {name: node for name, (_, node) in taken.items()}
            result = Result(key=found, outputs=outputs, seconds=ambient.monotonic() - started)
            # Before the scratch folder is deleted, which may take minutes: from here on nothing can be lost.
            self.results.write(result)
        files.write_if_changed(self.made(step.name), json.dumps({"key": found, "by": HERE}, sort_keys=True).encode())
        with self._lock:
            self._known[step.name] = result
        return result

    def again(self, step: Step) -> Result:
        """Run the step here although its result is known; what it gives counts from now on."""
        return self._run_unless(step, lambda: None)

    def replace(self, step: Step, result: Result, by: Result | None) -> None:
        """Note another origin of a step's result, or let it count no longer."""
        self.results.remove(result.key) if by is None else self.results.write(by)
        with self._lock:
            self._known.pop(step.name, None)

    def made(self, name: str) -> Path:
        """Where it is noted that this checkout has run the step itself, its key and how; others' results are not."""
        return self.build / MADE / f"{name}.json"

    def _in_sandbox(self, step: Step, tools: Tree, room: Scratch, memory: int) -> sandbox.Outcome:
        command = self._command(step, tools, room, memory)
        replay = self.build / "replay" / f"{step.name}.sh"
        return sandbox.run(command, title=step.title, log=self.log(step), replay=replay)

    def _command(self, step: Step, tools: Tree, room: Scratch, memory: int) -> sandbox.Command:
        mounts = [sandbox.Mount(host=path, inside=f"/{path.name}") for path in sorted(room.inputs.iterdir())]
        environment = dict(step.environment)
        if step.parallel:
            mounts.append(self.jobs.mount())
            environment |= self.jobs.environment()
        return sandbox.Command(
            argv=step.argv,
            tree=tools.path,
            mounts=(
                *mounts,
                sandbox.Mount(host=room.build, inside=sandbox.WORKING_DIRECTORY, writable=True),
                sandbox.Mount(host=room.out, inside="/out", writable=True),
            ),
            environment=environment,
            personality=sandbox.PERSONALITY,
            memory=memory,
        )

    def _check_again(self, step: Step, result: Result) -> None:
        """A result from the cache passed the checks of whoever made it; these are this checkout's."""
        with scratch.made(self.build / "scratch", f"{step.name}-checks") as room:
            for name in result.outputs:
                self.copy(step, name, room.out / name)
            run_checks(step, {name: room.out / name for name in result.outputs})

    # ---- what this checkout has taken

    def _record(self, step: Step) -> Path:
        return self.build / "results" / f"{step.name}.json"

    def _has_taken(self, step: Step, result: Result) -> bool:
        try:
            return bool(json.loads(self._record(step).read_bytes()) == _summary(result))
        except (OSError, ValueError):
            return False

    def _take(self, step: Step, result: Result) -> None:
        folder = self.build / "results" / step.name
        with self._lock:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for name, node in result.outputs.items():
                (folder / name).symlink_to(self.cas.path(node.digest.sha256))
            files.write_if_changed(self._record(step), json.dumps(_summary(result), sort_keys=True).encode())


def _summary(result: Result) -> dict[str, Any]:
    return {"key": result.key, "outputs": {name: node.digest.sha256 for name, node in result.outputs.items()}}


def run_checks(step: Step, outputs: Mapping[str, Path]) -> None:
    """Let the step's checks look at its outputs; the first that finds fault raises."""
    for check in step.checks:
        try:
            check(outputs)
        except SevArtifactsError as error:
            ui.line(f"   {ui.paint('check failed', '31')}: {step.title}")
            raise error from None
