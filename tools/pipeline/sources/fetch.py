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

from tools.pipeline.base import ambient, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.sources import transport
from tools.pipeline.sources.download import Download, Failure, Meter
from tools.pipeline.sources.mirrors import SETTING, Mirrors
from tools.pipeline.sources.pins import LocalFile, Pin
from tools.pipeline.sources.transport import Absent, Broken, Limits, Refused
from tools.pipeline.sources.wanted import Promise

_REMEDY = f"set {SETTING} to another mirror"
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
    # Places are worked out before the first byte moves: a missing or wrong setting is told at once.
    places = {pin.sha256: _places(pin, known, root) for pin in missing}
    transport.check_proxies(place for of_pin in places.values() for place in of_pin)
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
        hint = f"{_REMEDY}, to a snapshot mirror of the time of the lock, or to the published source bundle"
        _raise(failures, hint=f"{hint}; or pin what the mirrors have now with ./doit lock")


def missing(pins: Iterable[Pin], *, mirrors: Mirrors, root: Path, limits: Limits | None = None) -> list[Failure]:
    """Ask some place for each pin's size without fetching it; the pins that none has.

    `final` are those of which every place says that it has no such file, or one of another size. The others may be
    there: some place does not answer, or not that.
    """
    limits, pins = limits or Limits(), list(pins)
    transport.check_proxies(place for pin in pins for place in _places(pin, mirrors, root))

    def one(pin: Pin) -> Failure | None:
        answers: dict[str, str] = {}
        open_ = list(_places(pin, mirrors, root))
        with transport.session(limits) as session:
            for again in (True, False):
                for place in list(open_):
                    try:
                        size = transport.size_at(place, session, limits)
                    except Absent as answer:
                        answers[place] = str(answer)
                    except (Refused, Broken) as answer:
                        answers[place] = str(answer)
                        continue
                    else:
                        if size == pin.size:
                            return None
                        answers[place] = f"is {size} bytes long"
                    open_.remove(place)
                if open_ and again:
                    ambient.sleep(limits.first_pause)
        return Failure(pin=pin, answers=tuple(answers.items()), final=not open_)

    with ThreadPoolExecutor(max_workers=limits.jobs) as pool:
        return [failure for failure in pool.map(one, pins) if failure is not None]


def look(pin: Pin, *, mirrors: Mirrors, root: Path, limits: Limits | None = None) -> Promise:
    """Size and SHA-256 of what the first place has that answers, whatever the pin says; BuildError for none."""
    answers, limits = [], limits or Limits()
    with transport.session(limits) as session:
        # A bundle's place by digest is for those who know the digest.
        places = [place for place in _places(pin, mirrors, root) if not place.endswith(pin.sha256)]
        transport.check_proxies(places)
        for place in places:
            try:
                return transport.measure(place, session, limits)
            except (Refused, Broken) as answer:
                answers.append(f"{place}: {answer}")
    raise BuildError("; ".join(answers), where=pin.where)


def refuse(failures: Iterable[Failure], *, also: str = "") -> None:
    """Raise BuildError that names the pins that could not be had, if there are any, and says what else is amiss."""
    if listed := list(failures):
        # Only `./doit lock` comes here: what it is to pin is new, and on no snapshot of an earlier time.
        _raise(listed, hint=_REMEDY, also=also)


def _raise(failures: list[Failure], *, hint: str, also: str = "") -> NoReturn:
    failures.sort(key=lambda f: (f.pin.lock, f.pin.name))
    first = failures[0]
    others = [f"{f.pin.name} {f.pin.version}" for f in failures[1 : _NAMED + 1]]
    if len(failures) > _NAMED + 1:
        others.append(f"{len(failures) - _NAMED - 1} more")
    tried = "; ".join(f"{place}: {answer}" for place, answer in first.answers)
    more = f" — and likewise {', '.join(others)}" if others else ""
    raise BuildError(
        f"{first.pin.version} (sha256 {first.pin.sha256}) could not be fetched{also and f', {also}'}. "
        f"Tried {tried}{more}",
        where=first.pin.where,
        hint=hint,
    )


def _places(pin: Pin, mirrors: Mirrors, root: Path) -> tuple[str, ...]:
    if isinstance(pin.origin, LocalFile):
        # A checkout has its own files; mirrors are for what it has not.
        return ((root / pin.origin.path).absolute().as_uri(),)
    return mirrors.urls(pin)
