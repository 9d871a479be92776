# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Who is about to run a step says so beside the results, so that others who share them do not begin the same one.

    nothing is there ── write a claim ── a moment ── read it back ─┬─ ours: say so, and run the step
                                                                   └─ another listed builder's: wait for his result

A registry cannot compare and swap. So this is Fischer's lock (Lamport, "A Fast Mutual Exclusion Algorithm", 1987,
section 1): whoever finds no claim writes one, and reads it back after a time in which all who had found none, too, have
written theirs. The last one has it, and says under a second tag that he runs the step: a writer that was slower finds
that. What is slower still costs a step that runs twice, nothing else.

Nothing is believed for a claim but a wait, and that is bounded, whoever signed it and whatever it says: an old one, a
replayed one and one of a worker that has died. What the step gave is in the record (records.py), or in none.
"""

import base64
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tools.pipeline.base import ambient, children, files, ui
from tools.pipeline.engine.remote import Wanted
from tools.pipeline.engine.store.results import Result
from tools.pipeline.registry import oci
from tools.pipeline.registry.client import Registry
from tools.pipeline.remote import patience
from tools.pipeline.remote.config import Builder
from tools.pipeline.sign import keys, statements
from tools.pipeline.sign.keys import Signer

PREDICATE = "urn:sev-artifacts:claim:1"
ARTIFACT = "application/vnd.sev-artifacts.claim.v1"
CLAIM = "sev-artifacts.claim"
"""Annotation of a manifest: the claim, in base64."""
CLAIMS, RUNS = "claim", "runs"
"""Kinds of tags: of who wants to run a step, and of who does."""
MOMENT = 0.5
"""Seconds between writing and reading back, at least; three times what the writing took, if that is longer."""
UNKNOWN = 600.0
"""Seconds that a step is waited for whose time this checkout does not know: longer than our kernels compile."""
_MOST = 3600.0  # seconds, for any claim
_SLACK = 1.5  # of the last time: after a step come its checks, packing and sending
_TURNS = 2  # claims that are waited for, one after the other, before a step is run whatever is claimed
_POLL, _POLL_MOST, _MORE = 0.4, 4.0, 1.25  # seconds between two looks, at first and at most, and how they grow
_MOMENT_MOST = 3.0


class Gone(Exception):  # noqa: N818 (what happened)
    """The registry takes or gives no claims: the step runs here."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A listed builder's word that his worker runs a step since `time`, in seconds since 1970."""

    builder: str
    worker: str
    time: float


@dataclass(kw_only=True)
class Claims:
    """Claims at `registry`, of `builders` by their keys' fingerprints; `look` gives a step's result if it is there.

    All methods may be called from several threads. What the registry raises passes through.
    """

    registry: Registry
    builders: dict[str, Builder]
    worker: str
    _filled: threading.Event = field(default_factory=threading.Event)

    def take(self, wanted: Wanted, signer: Signer) -> Claim | None:
        """Claim the step unless a worker whose builder is listed has; the claim of who has it, None when we have."""
        statement = statements.statement(
            [(wanted.name, wanted.key)],
            PREDICATE,
            {
                "kind": wanted.kind,
                "key": wanted.key,
                "builder": keys.fingerprint(signer.public),
                "worker": self.worker,
                "time": round(ambient.now(), 1),
            },
        )
        claim = base64.b64encode(statements.bundle(statement, signer)).decode()
        content = oci.manifest(ARTIFACT, [oci.EMPTY.descriptor], annotations={CLAIM: claim})
        if not self._filled.is_set():
            self.registry.blob(oci.EMPTY)
            self._filled.set()
        began = ambient.monotonic()
        there = self._live(RUNS, wanted) or self._live(CLAIMS, wanted)
        if there is not None:
            return there
        self.registry.manifest(content, tag(wanted))
        ambient.sleep(min(max(MOMENT, 3 * (ambient.monotonic() - began)), _MOMENT_MOST))
        there = self._live(RUNS, wanted) or self._live(CLAIMS, wanted, ours=signer)
        if there is None:
            # Whoever was too slow to be seen by us, and reads his own claim back now, finds this one.
            self.registry.manifest(content, tag(wanted, RUNS))
        return there

    def _live(self, kind: str, wanted: Wanted, *, ours: Signer | None = None) -> Claim | None:
        found = self.read(kind, wanted, ours=ours)
        return found if found is not None and left(found, wanted) > 0 else None

    def read(self, kind: str, wanted: Wanted, *, ours: Signer | None = None) -> Claim | None:
        """Another worker's claim, signed by a listed builder for this step; None for any other and for our own."""
        content = self.registry.resolve(tag(wanted, kind))
        if content is None:
            return None
        publics = {fingerprint: builder.public for fingerprint, builder in self.builders.items()}
        if ours is not None:
            publics[keys.fingerprint(ours.public)] = ours.public
        try:
            said = oci.parse(content.data)["annotations"][CLAIM]
            payload, fingerprint = statements.unbundle(base64.b64decode(said, validate=True), publics)
            document = oci.parse(payload)
            about = document["predicate"]
            claim = Claim(builder=str(about["builder"]), worker=str(about["worker"]), time=float(about["time"]))
            good = document["predicateType"] == PREDICATE and claim.builder == fingerprint
            good = good and (about["kind"], about["key"]) == (wanted.kind, wanted.key)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
            return None
        good = good and math.isfinite(claim.time)
        return claim if good and claim.worker != self.worker else None


def left(claim: Claim, wanted: Wanted) -> float:
    """Seconds that the step is waited for at most. A clock that is wrong makes it less, never more."""
    limit = UNKNOWN if wanted.seconds is None else max(wanted.seconds * _SLACK, patience.LEAST)
    limit = min(limit, _MOST)
    return limit - min(max(ambient.now() - claim.time, 0.0), limit)


def wait(
    wanted: Wanted,
    *,
    take: Callable[[], Claim | None],
    look: Callable[[], Result | None],
    name: Callable[[str], str],
) -> Result | None:
    """The result of who runs the step already; None when it is to be run here. Holds no CPU: only a thread waits.

    What `take` and `look` raise passes through.
    """
    for _ in range(_TURNS):
        claim = take()
        if claim is None:
            return None
        limit = ambient.monotonic() + left(claim, wanted)
        pause = _POLL
        with ui.working(f"waiting for {wanted.title}, which {name(claim.builder)} runs"):
            while True:
                result = look()
                if result is not None:
                    return result
                now = ambient.monotonic()
                if now >= limit:
                    break
                children.sleep(min(pause, limit - now))
                pause = min(pause * _MORE, _POLL_MOST)
    return None


def tag(wanted: Wanted, kind: str = CLAIMS) -> str:
    """Of a step: 5 + 1 + 64 characters of the 128 that a tag may have. One for all builders: the last one has it."""
    return f"{kind}-{wanted.key}"


def worker(cache: Path) -> str:
    """Of a user's cache on a machine: processes that share one have a lock for each key, and wait for that."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        status = cache.stat()
    except OSError:
        return ambient.random_bytes(16).hex()
    return files.of_bytes(boot + f"{status.st_dev}:{status.st_ino}".encode())[:32]
