# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A shared cache in a repository of a registry.

    tag KIND-KEY-BUILDER ── manifest ─┬─ annotation: the builder's signed record (records.py)
                                      └─ layers: the outputs, each a blob by its digest

One tag for each key and builder: nobody overwrites another's record by having run the same step, and nobody has to
agree with others on what a tag says. What makes a result count is the record, wherever it was found; blobs are compared
with the digests in it, so a registry can keep things back but put nothing in their place.
"""

import base64
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import BinaryIO, TypeVar

from tools.pipeline.base import ambient, ui
from tools.pipeline.base.errors import BuildError, SevArtifactsError
from tools.pipeline.engine.remote import STEP, Wanted, Work
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.store.merkle import File
from tools.pipeline.engine.store.origin import How, Origin
from tools.pipeline.engine.store.results import Result
from tools.pipeline.registry import oci
from tools.pipeline.registry.client import Registry
from tools.pipeline.registry.connection import Lost, Options
from tools.pipeline.registry.oci import Content, Descriptor
from tools.pipeline.remote import claims, patience, records, uploads
from tools.pipeline.remote.account import Account
from tools.pipeline.remote.claims import Claims, Gone
from tools.pipeline.remote.config import Builder, Config
from tools.pipeline.remote.patience import Pace, Ticket, TooLong
from tools.pipeline.remote.records import Refused
from tools.pipeline.remote.uploads import Uploads
from tools.pipeline.sign import keys
from tools.pipeline.sign.keys import Signer
from tools.sev.registry.reference import Reference

OUTPUT, ARTIFACT = "application/vnd.sev-artifacts.output.v1", "application/vnd.sev-artifacts.result.v1"
"""Media types: of an output, and of a result's manifest."""
RECORD = "sev-artifacts.record"
"""Annotation of a manifest: the record, in base64."""
_OPTIONS = {
    "connect": 5.0,
    "stall": 15.0,
    "rounds": 2,
    "first_pause": 0.2,
    "plainly": "http:// before its name",
    "authority": "remote.toml: [registry] ca =",
}
_REFUSALS = 3  # results that could not be sent before no more is tried
_SLOW = "sends some files more slowly than their steps run: those are made here"
_BREAKS = 2  # connections that may break for one file
_LARGE = 4 << 20  # bytes
_HOUR = 3600.0  # no builder's word makes a step wait longer
T = TypeVar("T")


@dataclass(kw_only=True)
class Shared:
    """The cache at `place`. `signer` gives the key of who sends results, and is None for who only takes them."""

    place: Reference
    config: Config
    cas: Cas
    signer: Callable[[], Signer] | None
    plain_http: bool = False
    _pace: Pace = field(default_factory=Pace)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _offered: set[str] = field(default_factory=set)
    _spent: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _blobs: defaultdict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))
    _off: bool = False
    _refused: int = 0
    _unclaimed: bool = False

    def __post_init__(self) -> None:
        options = Options(plain_http=self.plain_http, ca=self.config.ca, **_OPTIONS)  # type: ignore[arg-type]  # several types
        self._registry = Registry(self.place, options)
        self._account = Account(self.place.where)
        self._uploads = Uploads(self.place.where)
        self._claims = Claims(registry=self._registry, builders=dict(self.config.builders), worker="")
        self._origin = Origin(how=How.CACHE, place=self.place.where)

    # ---- taking

    def believes(self, origin: Origin) -> bool:
        """Whether the builder is still listed."""
        return origin.how is How.CACHE and self.config.believes(origin)

    def said(self, origin: Origin) -> str:
        """The cache and the builder."""
        return self.config.said(origin)

    def find(self, wanted: Wanted) -> Result | None:
        """The first good record of a listed builder; None too when nobody answers in time."""
        if self._off:
            return None
        limit = patience.UNKNOWN if wanted.seconds is None else max(wanted.seconds, patience.LEAST)
        result = self._asked(wanted.key, limit, lambda _: self._look(wanted))
        if result is not None and wanted.kind == STEP:
            self._account.count("found")
        return result

    def _look(self, wanted: Wanted) -> Result | None:
        for builder in self.config.builders.values():
            content = self._registry.resolve(_tag(wanted, builder.fingerprint))
            if content is None:
                continue
            try:
                return self._read(content, wanted, builder)
            except Refused as refused:
                self._account.note(
                    f"the record of {builder.name} for {wanted.title} {refused}: ignored", once=str(refused)
                )
        return None

    def _read(self, content: Content, wanted: Wanted, builder: Builder) -> Result:
        try:
            record = base64.b64decode(oci.parse(content.data)["annotations"][RECORD], validate=True)
        except (ValueError, LookupError, TypeError):
            raise Refused("is not signed") from None
        return records.read(record, wanted, {builder.fingerprint: builder.public}, self._origin)

    def bring(self, result: Result, name: str) -> bool:
        """The bytes of an output, hashed on the way into the local store."""
        node = result.outputs[name]
        if self._off:
            return False
        limit = min(max(result.seconds, patience.LEAST), _HOUR)
        with self._lock:
            guard = self._blobs[node.digest.sha256]
        # Several steps may want the same file: one brings it.
        with guard:
            if self.cas.verified(node.digest.sha256, node.digest.size):
                return True
            if self._pace.hopeless(node.digest.size, limit - self._spent[result.key]):
                self._account.note(_SLOW, once="slow")
                return False
            with self._shown(node):
                came = self._asked(result.key, limit, lambda ticket: self._fetch(node, ticket), asking=False)
        if came is False:
            self._account.note(
                f"sends other bytes for {name} of a result than its record says: ignored", once="other bytes"
            )
        return bool(came)

    def _shown(self, node: File) -> AbstractContextManager[None]:
        """A line of progress for what may take longer than a moment."""
        if node.digest.size < _LARGE:
            return nullcontext()
        return ui.working(f"fetching {ui.size(node.digest.size)} from {self.place.where}")

    def _fetch(self, node: File, ticket: Ticket) -> bool:
        descriptor = Descriptor(media_type=OUTPUT, sha256=node.digest.sha256, size=node.digest.size)
        for left in reversed(range(_BREAKS)):
            try:
                return self.cas.put_expected(ticket.chunks(self._timed(descriptor)), node.digest)
            except Lost:
                if not left or ticket.over.is_set():
                    raise
        raise AssertionError("the last break is raised")

    def _timed(self, descriptor: Descriptor) -> Iterator[bytes]:
        began = ambient.monotonic()
        try:
            for chunk in self._registry.fetch(descriptor):
                now = ambient.monotonic()
                self._pace.came(len(chunk), now - began)
                self._account.count("bytes_in", len(chunk))
                began = now
                yield chunk
        except OSError as error:
            # The store's own are told by their disk; this is the connection's.
            raise Lost(error.strerror or "the connection broke") from None

    def _asked(self, key: str, limit: float, work: Callable[[Ticket], T], *, asking: bool = True) -> T | None:
        """What the registry answers in what is left of the time for that key; None when it does not."""
        began = ambient.monotonic()
        try:
            return patience.within(limit - self._spent[key], work)
        except TooLong:
            if asking:
                self._stop(f"has not answered within {ui.duration(limit)}")
            else:
                self._pace.came(0, ambient.monotonic() - began)
                self._account.note(_SLOW, once="slow")
        except Lost as lost:
            self._stop(f"cannot be used: {lost}")
        except SevArtifactsError as error:
            if asking:
                hint = f" ({error.hint})" if error.hint else ""
                self._stop(f"cannot be used: {error.what}{hint}")
            else:
                self._account.note(error.what, once=error.what)
        finally:
            with self._lock:
                self._spent[key] += ambient.monotonic() - began
        return None

    # ---- giving

    def offer(self, wanted: Wanted, result: Result) -> None:
        """Sign it and send it, beside the build, unless it is there."""
        signer = self.signer
        with self._lock:
            known = result.key in self._offered
            self._offered.add(result.key)
        if signer is not None and not known and not self._off and self._refused < _REFUSALS:
            self._uploads.add(lambda: self._push(wanted, result, signer))

    def _push(self, wanted: Wanted, result: Result, signer: Callable[[], Signer]) -> None:
        if self._off or self._refused >= _REFUSALS:
            return
        try:
            self._send(wanted, result, signer())
        except (SevArtifactsError, Lost) as error:
            what = error.what if isinstance(error, SevArtifactsError) else str(error)
            with self._lock:
                self._refused += 1
            self._account.note(f"does not take results: {what}", once="refuses")
        except OSError as error:
            self._account.note(f"{wanted.title} is not sent: {error.strerror}", once="unreadable")

    def _send(self, wanted: Wanted, result: Result, signer: Signer) -> None:
        tag = _tag(wanted, keys.fingerprint(signer.public))
        there = self._registry.resolve(tag)
        if there is not None and self._is_ours(there, wanted, result, signer):
            return
        # A tree is its digest: what it is made of, everybody has in the lock.
        files = list(result.outputs.items()) if wanted.kind == STEP else []
        contents = [self._content(name, node) for name, node in files]
        for content in contents:
            if self._registry.blob(content):
                self._account.count("bytes_out", content.descriptor.size)
        record = base64.b64encode(records.write(wanted, result, signer)).decode()
        self._registry.blob(oci.EMPTY)
        layers = [content.descriptor for content in contents] or [oci.EMPTY.descriptor]
        self._registry.manifest(oci.manifest(ARTIFACT, layers, annotations={RECORD: record}), tag)
        self._account.count("sent")

    def _is_ours(self, there: Content, wanted: Wanted, result: Result, signer: Signer) -> bool:
        """Whether the tag says already what we would say."""
        fingerprint = keys.fingerprint(signer.public)
        ours = Builder(name="we", public=signer.public, fingerprint=fingerprint)
        try:
            return dict(self._read(there, wanted, ours).outputs) == dict(result.outputs)
        except Refused:
            return False

    def _content(self, name: str, node: File) -> Content:
        def opens() -> BinaryIO:
            file = self.cas.open(node.digest.sha256, node.digest.size)
            if file is None:
                raise BuildError(f"the local cache has lost {name}")
            return file

        descriptor = Descriptor(media_type=OUTPUT, sha256=node.digest.sha256, size=node.digest.size)
        return Content(descriptor=descriptor, opens=opens)

    share = 1.0

    def execute(self, work: Work) -> Result | None:
        """A registry runs nothing; but who shares it may be running the step already."""
        wanted = work.wanted
        if self._off or self.signer is None:
            return None
        try:
            signer = self.signer()
        except SevArtifactsError:
            return None  # told when there is something to send
        self._claims.worker = self._claims.worker or claims.worker(self.cas.root)
        try:
            result = claims.wait(
                wanted,
                take=lambda: self._briefly(lambda: self._claims.take(wanted, signer)),
                look=lambda: self._briefly(lambda: self._look(wanted)),
                name=self.config.name,
            )
        except Gone:
            return None
        if result is not None:
            self._account.count("found")
        return result

    def _briefly(self, work: Callable[[], T]) -> T:
        """What the registry answers soon; whatever else it does ends the claims of this build, with Gone."""
        if self._off or self._unclaimed:
            raise Gone
        try:
            return patience.within(patience.UNKNOWN, lambda _: work())
        except (TooLong, Lost, SevArtifactsError):
            # What it refuses of results is told when they are sent.
            self._unclaimed = True
            raise Gone from None

    # ---- what is said

    def end(self) -> None:
        """Wait for what is on its way, and say what came and went."""
        self._account.note_left(self._uploads.end(wait=0.0 if self._off else uploads.WAIT))
        counts, parts = self._account.close(), []
        if counts["found"]:
            parts.append(f"results found: {counts['found']}, {ui.size(counts['bytes_in'])} came")
        if counts["sent"]:
            parts.append(f"sent: {counts['sent']}, {ui.size(counts['bytes_out'])}")
        if parts:
            ui.line(f"   {self.place.where}: {'; '.join(parts)}")

    def _stop(self, why: str) -> None:
        self._off = True
        self._account.note(f"{why}; the build goes on without it", once="off")


def _tag(wanted: Wanted, fingerprint: str) -> str:
    """Of a key and a builder: 4 + 1 + 64 + 1 + 32 characters of the 128 that a tag may have."""
    return f"{wanted.kind}-{wanted.key}-{base64.b64decode(fingerprint).hex()[:32]}"
