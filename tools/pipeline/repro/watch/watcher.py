# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Looks at a registry again and again, and rebuilds and endorses what is new there.

An endorsement that nears its end is given again, after another rebuild: what nobody can rebuild any more runs out.
Once a day each artifact is looked at whatever is noted: a registry may have lost an endorsement, since it cannot
compare and swap, or have a commit now that is claimed and was not tried.

A look begins with what the registry has, never with what was new since the last one: so a crash, a restart or a week
without the machine leaves nothing out but what has lost its last tag meanwhile, which nobody can list any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tools.pipeline.base import ambient, children, files, ui
from tools.pipeline.base.errors import BuildError, SevArtifactsError, UserError
from tools.pipeline.registry import reference
from tools.pipeline.registry.client import Registry
from tools.pipeline.registry.connection import Options
from tools.pipeline.repro import endorse
from tools.pipeline.repro.watch import memory, published
from tools.pipeline.repro.watch.memory import Memory, Note, State
from tools.pipeline.repro.watch.published import Artifact
from tools.pipeline.repro.watch.rebuilding import Different, Rebuilder
from tools.pipeline.sign import keys
from tools.pipeline.sign.keys import Public
from tools.sev.registry.reference import Reference

_PAUSE_MAX = 86_400.0  # seconds until an artifact is looked at again, at most
_COMMITS = 3
"""That are tried of one artifact in one look: who claims many keeps none of the others waiting for long."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The options. `every`: seconds between two looks."""

    to: str
    key: str
    branch: str
    every: float
    once: bool
    days: str
    ca: str
    plain_http: bool


def run(root: Path, wish: Wish) -> None:
    """Until it is stopped; with `once` one look, and a BuildError when something of it did not end well."""
    place = reference.parse(wish.to, where="--watch")
    if place.digest:
        raise UserError("a digest never changes", where="--watch", hint="./doit rebuild --manifest FILE, once")
    if not wish.key:
        raise UserError("no key", hint="an unsigned word is nobody's: --key FILE, or --key pkcs11:…")
    public = keys.load(wish.key, root=root).public
    state = ambient.state_dir()
    if state is None:
        raise UserError("no HOME and no XDG_STATE_HOME", hint="what is done must be noted somewhere: set one of them")
    folder = state / "watch" / files.of_bytes(f"{place.where} {keys.fingerprint(public)}".encode())[:16]
    with memory.alone(folder):
        watcher = Watcher(root=root, wish=wish, place=place, public=public, folder=folder)
        ui.line(f"   watching {place}, endorsing with key {keys.fingerprint(public)}; notes in {folder}")
        while True:
            good = watcher.look()
            if wish.once:
                if not good:
                    raise BuildError("not everything there could be endorsed", where=str(place), hint="see above")
                return
            children.sleep(wish.every)


class Watcher:
    """Of one place, for one key."""

    def __init__(self, *, root: Path, wish: Wish, place: Reference, public: Public, folder: Path) -> None:
        self._wish, self._place, self._public = wish, place, public
        self._options = Options(plain_http=wish.plain_http, ca=root / wish.ca if wish.ca else None)
        self._memory = Memory(folder)
        words = ["--key", _absolute(wish.key, root), "--days", wish.days]
        words += ["--ca", _absolute(wish.ca, root)] if wish.ca else []
        words += ["--plain-http"] if wish.plain_http else []
        self._rebuilder = Rebuilder(root=root, folder=folder, branch=wish.branch, endorse=words)
        self._said = ""
        period = endorse.period_of(wish.days)
        self._life = (period.end - period.begin) * published.RENEWED
        if self._options.ca is not None:
            files.check_authorities(self._options.ca, f"--ca {self._options.ca}")
        self._rebuilder.check()

    def look(self) -> bool:
        """At all that is there; whether all of it is endorsed now."""
        try:
            found, unreadable = self._listed()
        except SevArtifactsError as error:
            self._say_once(f"   {error}")
            return False
        if unreadable:
            more = f" (and {len(unreadable) - 1} more)" if unreadable[1:] else ""
            self._say_once(f"   cannot be read, and is left out: {unreadable[0]}{more}")
        elif not found:
            # As quiet as a place where all is endorsed, a misspelt name would never be noticed.
            self._say_once(f"   nothing of ours is published at {self._place}; looked at again, if it is no mistake")
            return True
        else:
            self._said = ""
        if not self._place.tag and not unreadable:
            self._memory.keep([one.subject.digest for one in found])
        # What was not tried for longest comes first, so that one that never ends well holds up no other.
        waiting = sorted(found, key=lambda one: note.tries if (note := self._memory.get(one.subject.digest)) else 0)
        ended = [self._one(one) for one in waiting]
        return all(ended) and not unreadable

    def _listed(self) -> tuple[list[Artifact], list[BuildError]]:
        registry, unreadable = Registry(self._place, self._options), list[BuildError]()
        try:
            return published.artifacts(registry, self._place.tag, unreadable.append), unreadable
        finally:
            registry.close()

    def _one(self, one: Artifact) -> bool:
        digest = one.subject.digest
        note = self._memory.get(digest) or Note(state=State.BEGUN)
        # What lies farther ahead was noted by a clock that was wrong.
        if 0 < note.again - ambient.now() <= _PAUSE_MAX:
            return note.state is State.ENDORSED
        begun = replace(note, state=State.BEGUN, tries=note.tries + 1, again=0.0, why="")
        self._memory.put(digest, begun)
        try:
            ended = self._rebuilt(one, begun)
        except Different as error:
            noted, again = self._memory.get(digest) or begun, ambient.now() + _PAUSE_MAX
            # Where no other commit is claimed by now nothing was rebuilt: what is kept is that of the last time.
            why = note.why if note.state is State.DIFFERENT and noted.others == note.others else str(error)
            ended = replace(noted, state=State.DIFFERENT, why=why, again=again)
        except SevArtifactsError as error:
            pause = min(self._wish.every * 2.0 ** min(begun.tries, 20), _PAUSE_MAX)
            noted, again = self._memory.get(digest) or begun, ambient.now() + pause
            ended = replace(noted, state=State.FAILED, why=str(error), again=again)
        self._memory.put(digest, ended)
        tags = ", ".join(one.tags)
        ui.line(f"   {ended.state:<10} {tags} {digest}{': ' if ended.why else ''}{ended.why}")
        return ended.state is State.ENDORSED

    def _rebuilt(self, one: Artifact, note: Note) -> Note:
        registry = Registry(self._place, self._options)
        try:
            renewal = published.renewal(registry, one, self._public)
            if renewal > ambient.now():
                again = min(renewal, ambient.now() + _PAUSE_MAX)
                return replace(note, state=State.ENDORSED, tries=0, again=again)
            document, commits = published.read_manifest(registry, one), published.commits(registry, one)
        finally:
            registry.close()  # it would not wait for the rebuild
        self._rebuilder.update()
        return self._tried(one, note, self._rebuilder.trusted(commits), document)

    def _tried(self, one: Artifact, note: Note, commits: Sequence[str], document: bytes) -> Note:
        """Each commit in turn: anybody who may write there can say of an artifact that it comes from another one."""
        place = f"{self._place.where}@{one.subject.digest}"
        different, failed = Different("was not reproduced"), list[SevArtifactsError]()
        untried = [commit for commit in commits if commit not in note.others]
        # Each look goes on where the last one ended: what fails, and so stays untried, keeps no other from its turn.
        turn = (note.tries - 1) * _COMMITS % max(len(untried), 1)
        for commit in [*untried[turn:], *untried[:turn]][:_COMMITS]:
            ui.line(f"   rebuilding {', '.join(one.tags)}, profile {one.profile}, commit {commit}")
            try:
                self._rebuilder.rebuild(commit, document, profile=one.profile, place=place)
            except Different as error:
                different, note = error, replace(note, others=(*note.others, commit))
                self._memory.put(one.subject.digest, note)
            except SevArtifactsError as error:
                failed.append(error)
            else:
                again = ambient.now() + min(self._life, _PAUSE_MAX)
                return replace(note, state=State.ENDORSED, commit=commit, tries=0, again=again)
        if failed:
            raise failed[0]
        if (left := len(untried) - _COMMITS) > 0:
            return replace(note, state=State.BEGUN, why=f"{left} more that it is said to come from, at the next look")
        raise different

    def _say_once(self, text: str) -> None:
        if text != self._said:
            ui.line(text)
        self._said = text


def _absolute(words: str, root: Path) -> str:
    """A file's path, for a program that runs elsewhere; a PKCS#11 URI is none."""
    return words if words.startswith("pkcs11:") else str(root / words)
