# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The engine's side of a remote: whose results count, the digests of tool trees that others have set up."""

from collections.abc import Callable
from dataclasses import dataclass

from tools.pipeline.base import ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.remote import ROOT, STEP, TREE, Remote, Wanted, Work
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.store import merkle
from tools.pipeline.engine.store.results import Result, Results
from tools.pipeline.engine.tree import Tree


@dataclass(frozen=True, kw_only=True)
class Others:
    """Nobody, unless there is a remote. `tools_key` gives the key of setting a tool tree up."""

    remote: Remote | None = None
    tools_key: Callable[[str], str] = lambda name: name

    def believes(self, result: Result) -> bool:
        """What others have made counts only as long as there is a remote that believes them."""
        return result.origin.ours or (self.remote is not None and self.remote.believes(result.origin))

    def said(self, result: Result) -> str:
        """Where a result comes from, and whose word it is."""
        return str(result.origin) if self.remote is None else self.remote.said(result.origin)

    def look(self, wanted: Wanted, work: Callable[[], Work], results: Results) -> Result | None:
        """A step's result that they have or make now, noted as theirs."""
        if self.remote is None:
            return None
        result = self.remote.find(wanted) or self.remote.execute(work())
        if result is not None:
            results.write(result)
            ui.line(f"   {wanted.name}: {self.said(result)}")
        return result

    def bring(self, result: Result, name: str) -> bool:
        """Bring the bytes of an output of theirs."""
        return self.remote is not None and self.remote.bring(result, name)

    def offer(self, wanted: Wanted, result: Result) -> None:
        """Tell them what was made here; never what somebody else has made."""
        if self.remote is not None and result.origin.ours:
            self.remote.offer(wanted, result)

    # ---- tool trees

    def tools(self, name: str, results: Results) -> str:
        """The digest of a tool tree as they have said it; empty when they have not."""
        said = None if self.remote is None else results.read(self.tools_key(name))
        return said.outputs[ROOT].digest.sha256 if said is not None and self.believes(said) else ""

    def ask_for_tools(self, name: str, results: Results) -> None:
        """Let them say the digest of a tree that is not set up here: what they have made needs none."""
        said = None if self.remote is None else self.remote.find(self._tree(name))
        if said is not None:
            results.write(said)

    def compare_tools(self, name: str, tools: Tree, results: Results) -> None:
        """BuildError when a tree that is set up is another than they said.

        Results were looked for, and may have been taken, under a digest that is not this tree's.
        """
        said = self.tools(name, results)
        if said not in {"", tools.digest}:
            what = f"has the digest {tools.digest}; somebody whose key is listed says {said}"
            raise BuildError(what, where=f"the {name} tree", hint="find out who, and remove the key")

    def offer_tools(self, name: str, tools: Tree) -> None:
        """Tell them the digest of a tree that is set up."""
        root = merkle.File(digest=merkle.Digest(sha256=tools.digest, size=0))
        self.offer(self._tree(name), Result(key=self.tools_key(name), outputs={ROOT: root}, seconds=0.0))

    def _tree(self, name: str) -> Wanted:
        return Wanted(kind=TREE, key=self.tools_key(name), outputs=(ROOT,), name=name, title=f"the {name} tree")


def wanted(step: Step, key: str, *, seconds: float | None) -> Wanted:
    """A step's result; `seconds` as in Wanted."""
    return Wanted(kind=STEP, key=key, outputs=step.outputs, name=step.name, title=step.title, seconds=seconds)
