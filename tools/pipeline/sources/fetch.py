# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Pinned files into the cache: in parallel, resumed after an interruption, from several places in turn.

    pin ── in the cache and right? ── done
     └── partial/DIGEST (locked) ── for each round, for each place: GET Range → append, hash
                                     └── size and SHA-256 right → fsync, rename into sha256/

A complete cache needs neither network nor mirrors. What a server sends is believed only by its digest.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NoReturn

import requests

from tools.pipeline.base import ambient, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.cas import Cas
from tools.pipeline.sources.download import Download, Failure, Limits, Meter, size_at
from tools.pipeline.sources.mirrors import SETTING, Mirrors
from tools.pipeline.sources.pins import LocalFile, Pin

_NAMED = 5  # failed files that an error names besides the first: it is one line


def ensure(
    pins: Iterable[Pin],
    *,
    cache: Cas,
    mirrors: Callable[[], Mirrors],
    root: Path,
    limits: Limits | None = None,
    title: str = "fetching",
) -> None:
    """Bring every pin into the cache, verified; BuildError names the pins that no place gave.

    `mirrors` is asked only if something is missing, and `root` is where local files are relative to.
    """
    limits = limits or Limits()
    wanted = list({pin.sha256: pin for pin in pins}.values())
    with ThreadPoolExecutor(max_workers=ambient.cpu_count()) as pool:
        there = pool.map(lambda pin: cache.verified(pin.sha256, pin.size), wanted)
        missing = [pin for pin, right in zip(wanted, there, strict=True) if not right]
    if not missing:
        return
    known = mirrors() if any(not isinstance(pin.origin, LocalFile) for pin in missing) else Mirrors(mirrors=())
    # Places are worked out before the first byte moves: a missing setting is told at once.
    places = {pin.sha256: _places(pin, known, root) for pin in missing}
    stop = threading.Event()
    meter = Meter(missing)
    failures: list[Failure] = []

    def one(pin: Pin) -> Failure | None:
        job = Download(pin=pin, places=places[pin.sha256], cache=cache, limits=limits, stop=stop, meter=meter)
        return job.run()

    # Largest first: a long download at the end would leave the other workers idle.
    missing.sort(key=lambda pin: (-pin.size, pin.name))
    with ui.working(title, detail=lambda: str(meter)), ThreadPoolExecutor(max_workers=limits.jobs) as pool:
        try:
            for future in as_completed([pool.submit(one, pin) for pin in missing]):
                failure = future.result()
                if failure is not None:
                    failures.append(failure)
                    if not failure.final:
                        # A dead network fails every pin the same way, slowly: one is enough.
                        break
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    if failures:
        _raise(failures)


def check_available(pins: Iterable[Pin], *, mirrors: Mirrors, root: Path, limits: Limits | None = None) -> None:
    """Ask some place for each pin's size without fetching it; BuildError names the pins that none has."""
    limits = limits or Limits()

    def one(pin: Pin) -> Failure | None:
        answers = []
        with requests.Session() as session:
            for place in _places(pin, mirrors, root):
                size = size_at(place, session, limits)
                if size == pin.size:
                    return None
                answers.append((place, size if isinstance(size, str) else f"is {size} bytes long"))
        return Failure(pin=pin, answers=tuple(answers), final=True)

    with ThreadPoolExecutor(max_workers=limits.jobs) as pool:
        failures = [failure for failure in pool.map(one, pins) if failure is not None]
    if failures:
        _raise(failures)


def _raise(failures: list[Failure]) -> NoReturn:
    failures.sort(key=lambda f: (f.pin.lock, f.pin.name))
    first = failures[0]
    others = [f"{f.pin.name} {f.pin.version}" for f in failures[1 : _NAMED + 1]]
    if len(failures) > _NAMED + 1:
        others.append(f"{len(failures) - _NAMED - 1} more")
    tried = "; ".join(f"{place}: {answer}" for place, answer in first.answers)
    more = f" — and likewise {', '.join(others)}" if others else ""
    raise BuildError(
        f"{first.pin.version} (sha256 {first.pin.sha256}) could not be fetched. Tried {tried}{more}",
        where=first.pin.where,
        hint=f"set {SETTING} to another mirror, to a snapshot mirror of the time of the lock, or to the "
        "published source bundle; or pin what the mirrors have now with ./doit lock",
    )


def _places(pin: Pin, mirrors: Mirrors, root: Path) -> tuple[str, ...]:
    if isinstance(pin.origin, LocalFile):
        # A checkout has its own files; mirrors are for what it has not.
        return ((root / pin.origin.path).absolute().as_uri(),)
    return mirrors.urls(pin)
