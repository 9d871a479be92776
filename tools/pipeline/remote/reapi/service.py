# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The engine's Remote over a Remote Execution API service.

    find(), offer() ── records in the action cache that a builder has signed (shared.py)
    bring()         ── an output's bytes, hashed on their way into the local store
    execute()       ── root as a Merkle tree, what is missing there is sent ── Execute ── outputs by their digests

What was executed there is another's word until sampling.py has compared it. A service that is down, slow, full or
lying costs one line and the time until that is known; the step then runs here.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tools.pipeline.base import ambient, ui
from tools.pipeline.base.errors import SevArtifactsError
from tools.pipeline.engine.remote import STEP, Different, Wanted, Work
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.store.merkle import Digest
from tools.pipeline.engine.store.origin import How, Origin
from tools.pipeline.engine.store.results import Result
from tools.pipeline.remote import patience
from tools.pipeline.remote.account import Account
from tools.pipeline.remote.reapi import action, tree
from tools.pipeline.remote.reapi.action_cache import ActionCache
from tools.pipeline.remote.reapi.address import Address
from tools.pipeline.remote.reapi.blobs import Blobs, Source
from tools.pipeline.remote.reapi.connection import Connection, Limit, RemoteError
from tools.pipeline.remote.reapi.execution import Executed, Execution, StepFailedError
from tools.pipeline.remote.reapi.tree import Root
from tools.pipeline.remote.records import Refused
from tools.pipeline.remote.uploads import WAIT, Uploads
from tools.pipeline.sign.keys import Public, Signer

_MOST = 16 << 30  # bytes of an output
_FAILURES = 3  # after which a service is left alone for the rest of the build
_SLOWER = 10  # times: how much longer than here a step may take there
_RATE = 1 << 18  # bytes a second: an output of a step that ran there and comes more slowly is made here
_GONE = frozenset({"UNAVAILABLE", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the service is used.

    `builders`, by their keys' fingerprints, are those whose records are taken, `name` gives what the user calls one;
    `signer` gives the key of who sends records. `execute`: run steps there, and a `share` of them here, too;
    `platform` are properties that they ask for besides action.PLATFORM; `patience`: seconds that a step may take there
    in any case. `cached`: what its action cache has for a step need not be executed; whoever may write to that is
    believed as the service is.
    """

    builders: Mapping[str, Public] = field(default_factory=dict)
    name: Callable[[str], str] = str
    signer: Callable[[], Signer] | None = None
    execute: bool = False
    share: float = 0.0
    platform: Mapping[str, str] = field(default_factory=dict)
    patience: float = 120.0
    cached: bool = False


class Service:
    """A service, from several threads at once. `folder` is below build/, ours alone."""

    def __init__(self, address: Address, settings: Settings, *, cas: Cas, folder: Path) -> None:
        self.connection = Connection(address)
        self.address = address
        self._settings = settings
        self._cas = cas
        self._folder = folder
        self._blobs = Blobs(self.connection)
        self._action_cache = ActionCache(self.connection, self._blobs)
        self._execution = Execution(self.connection)
        self._uploads = Uploads(str(address))
        self._account = Account(f"{address}:")
        self._trees: dict[str, Root] = {}
        self._there: set[Digest] = set()
        self._failures = 0
        self._sending = threading.Lock()
        self._lock = threading.Lock()

    # ---- what builders share

    def believes(self, origin: Origin) -> bool:
        """Records as long as their builder is listed; what was executed there as long as steps are."""
        if origin.how is How.CACHE:
            return origin.builder in self._settings.builders
        return self._settings.execute and origin.place == str(self.address)

    def said(self, origin: Origin) -> str:
        """The service, and the builder of a record or the worker that ran the step."""
        if origin.how is How.CACHE:
            return f"{origin}, signed by {self._settings.name(origin.builder)}"
        return f"executed at {origin.executor}"

    def find(self, wanted: Wanted) -> Result | None:
        """The first good record of a listed builder, if it comes in time."""
        if not self._settings.builders or self._is_out():
            return None
        limit = patience.UNKNOWN if wanted.seconds is None else max(wanted.seconds, patience.LEAST)
        found = None
        with self._mishaps():
            found = self._action_cache.find(
                wanted, self._settings.builders, limit=Limit.of(limit), refused=partial(self._refused, wanted)
            )
        if found is not None and wanted.kind == STEP:
            self._account.count("results found")
        return found

    def _refused(self, wanted: Wanted, refused: Refused) -> None:
        self._account.note(f"a record for {wanted.title} {refused}: ignored", once=str(refused))

    def offer(self, wanted: Wanted, result: Result) -> None:
        """Sign it and send it, beside the build."""
        if self._settings.signer is not None and not self._is_out():
            self._uploads.add(partial(self._push, wanted, result, self._settings.signer))

    def _push(self, wanted: Wanted, result: Result, signer: Callable[[], Signer]) -> None:
        if self._is_out():
            return
        with self._mishaps(), tempfile.TemporaryDirectory(dir=self._private()) as folder:
            sources: dict[Digest, Source] = {
                node.digest: partial(self._copy, node.digest, Path(folder) / name)
                for name, node in result.outputs.items()
                if wanted.kind == STEP
            }
            if (
                self._action_cache.offer(wanted, result, sources, signer(), limit=Limit.of(WAIT))
                and wanted.kind == STEP
            ):
                self._account.count("results sent")

    def _copy(self, digest: Digest, target: Path) -> Path:
        if not target.exists() and not self._cas.copy_to(digest.sha256, digest.size, target):
            raise RemoteError("the local cache has lost what was to be sent")
        return target

    def bring(self, result: Result, name: str) -> bool:
        """Bring an output's bytes."""
        digest = result.outputs[name].digest
        limit = max(result.seconds, patience.LEAST)
        if result.origin.how is not How.CACHE:
            limit += self._settings.patience + digest.size / _RATE
        if self._is_out():
            return False
        with self._mishaps():
            return self._cas.put_expected(self._blobs.chunks(digest, most=_MOST, limit=Limit.of(limit)), digest)
        return False

    # ---- running

    @property
    def share(self) -> float:
        """What share of the steps executed there run here, too."""
        return self._settings.share

    def execute(self, work: Work) -> Result | None:
        """Run the step there, if steps are; None when it is to be run here."""
        if not self._settings.execute or self._is_out():
            return None
        started = ambient.monotonic()
        state = _State()
        with self._mishaps():
            try:
                with ui.working(f"{work.wanted.title}, at {self.address}", detail=lambda: state.text):
                    executed = self._run(work, state)
            except StepFailedError as failed:
                # Another's word, too. Its log and its replay script are wanted here.
                ui.line(f"   note: {work.wanted.title} {failed} at {self.address}; running it here")
                return None
            self._account.count("steps executed")
            return Result(
                key=work.wanted.key,
                outputs=executed.outputs,
                seconds=ambient.monotonic() - started,
                origin=Origin(how=How.EXECUTED, place=str(self.address), builder=executed.worker),
            )
        return None

    def _run(self, work: Work, state: "_State") -> Executed:
        seconds = work.wanted.seconds
        limit = Limit.of(action.TIMEOUT if seconds is None else self._settings.patience + _SLOWER * seconds)
        root = tree.with_inputs(self._tree(work), work.inputs)
        described = action.describe(work.step, root=root.digest, platform=self._settings.platform)
        with tempfile.TemporaryDirectory(dir=self._private()) as folder:
            sources: dict[Digest, Source] = {**root.blobs, **described.blobs}
            for number, (path, node) in enumerate(sorted(work.inputs.items())):
                sources[node.digest] = partial(_copied, work, path, Path(folder) / str(number))
            again = not self._settings.cached
            run = partial(
                self._execution.run, described.digest, work.step.outputs, again=again, limit=limit, tell=state.say
            )
            self._send(sources, limit, state)
            try:
                return run()
            except RemoteError as error:
                # Not what is gone, nor what answers something else than was asked.
                if error.code in {*_GONE, ""}:
                    raise
                # What was there has been evicted, perhaps: all of it is asked for and sent once more.
                self._there -= sources.keys()
                self._send(sources, limit, state)
                return run()

    def _send(self, sources: Mapping[Digest, Source], limit: Limit, state: "_State") -> None:
        """See to it that the service has all of these blobs."""
        # One at a time: steps share their tool trees, which are sent once.
        with self._sending:
            missing = self._blobs.missing(sources.keys() - self._there, limit=limit)
            if missing:
                state.say(f"sends {ui.size(sum(digest.size for digest in missing))}")
                self._blobs.send(missing, sources, limit=limit)
            self._there |= sources.keys()

    def _tree(self, work: Work) -> Root:
        with self._lock:
            if work.tools not in self._trees:
                kept = self._private() / f"tree-{work.tools}"
                self._trees[work.tools] = tree.load(work.tools, work.tree, kept)
            return self._trees[work.tools]

    def _private(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._folder

    # ---- what is said

    def end(self) -> None:
        """Wait for what is on its way, and say what came and went."""
        self._account.note_left(self._uploads.end(wait=0.0 if self._is_out() else WAIT))
        traffic = self.connection.traffic
        parts = [f"{what}: {count}" for what, count in self._account.close().items()]
        if parts:
            moved = f"{ui.size(traffic.sent)} sent, {ui.size(traffic.received)} received"
            ui.line(f"   {self.address}: {', '.join(parts)}; {moved}")

    def _is_out(self) -> bool:
        return self._failures >= _FAILURES

    @contextmanager
    def _mishaps(self) -> Iterator[None]:
        """What goes wrong with the service is said once; one that is gone, or fails often, is not asked any more."""
        try:
            yield
        except RemoteError as error:
            with self._lock:
                self._failures += _FAILURES if error.code in _GONE else 1
            self._account.note(f"{error}; the build goes on without it", once="failure")
        except Different:
            raise  # found out while an input was brought or made: a lie, and no mishap
        except SevArtifactsError as error:
            self._account.note(error.what, once=error.what)


@dataclass(kw_only=True)
class _State:
    """What a step that runs elsewhere is at, for people."""

    text: str = ""

    def say(self, text: str) -> None:
        self.text = text


def _copied(work: Work, path: str, target: Path) -> Path:
    """A private copy of an input, made when it is wanted."""
    if not target.exists():
        work.copy(path, target)
    return target
