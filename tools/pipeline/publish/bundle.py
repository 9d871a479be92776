# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Pinned files out of a published artifact: a registry, an OCI image layout, a folder or a server of plain files.

    pin ── in the cache and right? ── done
     └── partial/DIGEST (locked) ── blob of that digest, from where it was ── hashed ── sha256/

Nothing that the place says is believed: what is wanted is known by size and digest.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import ambient, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.registry import layout, reference
from tools.pipeline.registry.client import Registry
from tools.pipeline.registry.connection import Options
from tools.pipeline.registry.oci import Descriptor
from tools.pipeline.sources import fetch, mirrors, partial
from tools.pipeline.sources.mirrors import Mirror, Mirrors
from tools.pipeline.sources.partial import Partial
from tools.pipeline.sources.pins import Pin

_WHERE = "--from"
_AHEAD = 16  # chunks of at most 256 KiB


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The options of the command as they were typed; "" where there was none."""

    source: str
    ca: str
    plain_http: bool


def bring(pins: Sequence[Pin], wish: Wish, *, cas: Cas, root: Path) -> None:
    """Every pin into the cache, from one place alone.

    UserError for a place that is none, BuildError for what it lacks.
    """
    text = wish.source
    if text.startswith(("/", "./", "../")) or text in {".", ".."}:
        folder = (root / text).absolute()
        if not folder.is_dir():
            raise UserError(
                "is no folder", where=f"{_WHERE} {text}", hint="name an image layout, or a folder with sha256/"
            )
        one = Mirror(base=folder.as_uri(), archive=None, oci=(folder / layout.MARK).is_file())
    elif text.startswith(("https://", "http://", "file://")):
        (one,) = mirrors.from_setting([f"bundle={text}"]).mirrors
    else:
        place = reference.parse(text, where=_WHERE)
        options = Options(plain_http=wish.plain_http, ca=root / wish.ca if wish.ca else None)
        registry = Registry(place, options)
        try:
            if registry.resolve(place.digest or place.tag or "latest") is None:
                raise BuildError("is not there", where=f"{_WHERE} {place}", hint="compare host, name and tag")
            _from_registry(pins, registry, str(place), cas)
        finally:
            registry.close()
        return
    alone = Mirrors(mirrors=(one,), alone=True)
    fetch.ensure(pins, cache=cas, mirrors=lambda: alone, root=root, title=f"fetching from {text}")


def _from_registry(pins: Sequence[Pin], registry: Registry, shown: str, cas: Cas) -> None:
    wanted = {pin.sha256: pin for pin in pins}
    missing = [pin for pin in wanted.values() if not cas.verified(pin.sha256, pin.size)]
    done = 0
    with ui.working(f"fetching from {shown}", detail=lambda: f"{done} of {len(missing)} files"):
        for pin in missing:
            with partial.opened(cas, pin, wait=ambient.sleep) as part:
                if part is not None:
                    _fill(part, pin, registry)
            done += 1


def _fill(part: Partial, pin: Pin, registry: Registry) -> None:
    descriptor = Descriptor(media_type="", sha256=pin.sha256, size=pin.size)

    def go_on() -> None:
        for chunk in _ahead(registry.fetch(descriptor, part.size)):
            part.append(chunk)

    resumed = part.size > 0
    while not part.right:
        if part.complete:
            # What was there before may have been wrong; what came from one place may not.
            part.restart()
            if not resumed:
                raise BuildError("has other bytes in that place", where=pin.where, hint="use another place")
            resumed = False
        try:
            registry.patiently(go_on)
        except BuildError as error:
            raise BuildError(f"{pin.version} could not be fetched: {error}", where=pin.where) from None
    part.commit()


def _ahead(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks, a few of them read while the caller hashes and writes those before."""
    read: queue.Queue[bytes | BaseException | None] = queue.Queue(maxsize=_AHEAD)
    stopped = threading.Event()

    def work() -> None:
        last: BaseException | None = None
        try:
            for chunk in chunks:
                read.put(chunk)
                if stopped.is_set():
                    return
        except Exception as error:  # noqa: BLE001 (raised where the chunks are used)
            last = error
        read.put(last)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while isinstance(item := read.get(), bytes):
            yield item
        if item is not None:
            raise item
    finally:
        stopped.set()
        # Room for what is being put: the reader sees then that it must stop.
        while thread.is_alive():
            with suppress(queue.Empty):
                read.get_nowait()
            thread.join(0.01)
