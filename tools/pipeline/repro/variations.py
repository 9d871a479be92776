# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is varied between the two builds, and how to tell from both probes' facts that it really was.

The list follows reprotest's. A variation that had no effect is an error: it would prove nothing.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tools.pipeline.base.errors import UserError

Facts = Mapping[str, Any]
"""What probe.py saw in one environment."""

_DAYS = 86_400


class Name(StrEnum):
    """The variations, as they are chosen on the command line."""

    BUILD_PATH = "build-path"
    USER = "user"
    UMASK = "umask"
    LOCALE = "locale"
    TIME_ZONE = "time-zone"
    HOME = "home"
    ENVIRONMENT = "environment"
    PATH = "path"
    HOST_NAME = "host-name"
    CORES = "cores"
    CLOCK = "clock"
    DIRECTORY_ORDER = "directory-order"
    PERSONALITY = "personality"
    ASLR = "aslr"
    TEMPORARY_FOLDER = "temporary-folder"


@dataclass(frozen=True, kw_only=True)
class Variation:
    """`show` gives what a person should see of an environment, `effective` whether two differ in it."""

    show: Callable[[Facts], str]
    effective: Callable[[Facts, Facts], bool]
    remedy: str


def _differs(key: str) -> Callable[[Facts, Facts], bool]:
    return lambda a, b: a[key] != b[key]


def _clock_shifted(a: Facts, b: Facts) -> bool:
    """By months, inside the sandbox too, and across a change of summer time where the zone has such changes."""
    pairs = [(a["clock"], b["clock"]), (a["sandbox"]["clock"], b["sandbox"]["clock"])]
    seasons = not b["zone_has_summer_time"] or b["summer_time"] != b["summer_time_unshifted"]
    return seasons and all(abs(x - y) > 100 * _DAYS for x, y in pairs)


VARIATIONS: Mapping[Name, Variation] = {
    Name.BUILD_PATH: Variation(
        show=lambda f: f["cwd"],
        # The length counts too: it can leak where the path itself is zeroed.
        effective=lambda a, b: a["cwd"] != b["cwd"] and len(a["cwd"]) != len(b["cwd"]),
        remedy="move the checkout to another folder",
    ),
    Name.USER: Variation(
        show=lambda f: "root" if f["uid"] == 0 else f"uid {f['uid']}",
        effective=lambda a, b: (a["uid"] == 0) != (b["uid"] == 0),
        remedy="it needs root, or user namespaces for ordinary users",
    ),
    Name.UMASK: Variation(show=lambda f: f"{f['umask']:03o}", effective=_differs("umask"), remedy="report a bug"),
    Name.LOCALE: Variation(
        show=lambda f: f"{f['locale']} (decimal mark {f['decimal_mark']!r})",
        effective=_differs("decimal_mark"),
        remedy="see the driver's log for what localedef said",
    ),
    Name.TIME_ZONE: Variation(
        show=lambda f: f"{f['utc_offset'] / 3600:+.1f} h",
        effective=_differs("utc_offset"),
        remedy="report a bug",
    ),
    Name.HOME: Variation(show=lambda f: f["home"], effective=_differs("home"), remedy="report a bug"),
    Name.ENVIRONMENT: Variation(
        show=lambda f: f"{f['variables']} variables, CFLAGS {f['cflags']!r}",
        effective=lambda a, b: a["cflags"] != b["cflags"] and a["variables"] != b["variables"],
        remedy="unset CFLAGS",
    ),
    Name.PATH: Variation(
        show=lambda f: f"gcc is {f['gcc']}",
        effective=_differs("gcc"),
        remedy="report a bug",
    ),
    Name.HOST_NAME: Variation(
        show=lambda f: f["host_name"],
        effective=_differs("host_name"),
        remedy="it needs UTS namespaces",
    ),
    Name.CORES: Variation(
        show=lambda f: f"-j{f['cores']}",
        effective=lambda a, b: min(a["cores"], b["cores"]) == 1 < max(a["cores"], b["cores"]),
        remedy="it needs a machine with two cores",
    ),
    Name.CLOCK: Variation(
        show=lambda f: f"{f['date']}, in the sandbox {f['sandbox']['date']}",
        effective=_clock_shifted,
        remedy="see the driver's log for what the loader said of libfaketime",
    ),
    Name.DIRECTORY_ORDER: Variation(
        show=lambda f: f"{f['work_type']}: {' '.join(f['order'][:4])} …",
        effective=_differs("order"),
        remedy="put the checkout on a disk file system: a tmpfs lists as a tmpfs does",
    ),
    Name.PERSONALITY: Variation(
        show=lambda f: f"uname -m says {f['machine']}",
        effective=_differs("machine"),
        remedy="allow personality(2): some container runtimes forbid it",
    ),
    Name.ASLR: Variation(
        show=lambda f: "on" if f["aslr"] else "off",
        effective=_differs("aslr"),
        remedy="allow personality(ADDR_NO_RANDOMIZE): some container runtimes forbid it",
    ),
    Name.TEMPORARY_FOLDER: Variation(
        show=lambda f: f"{f['tmp']} ({f['tmp_type']})",
        effective=lambda a, b: a["tmp"] != b["tmp"] and a["tmp_type"] != b["tmp_type"],
        remedy="put the checkout on a disk file system",
    ),
}


def choose(*, vary: str = "", without: str = "") -> tuple[Name, ...]:
    """The variations of a command line: `vary` names some (default: all), `without` leaves some out.

    Both are names separated by commas. Raises UserError for an unknown name.
    """
    chosen = _names(vary, "--vary") or tuple(Name)
    left_out = _names(without, "--without")
    return tuple(name for name in Name if name in chosen and name not in left_out)


def _names(text: str, option: str) -> tuple[Name, ...]:
    found = []
    for word in text.split(","):
        if word.strip():
            try:
                found.append(Name(word.strip()))
            except ValueError:
                hint = f"there are: {', '.join(Name)}"
                raise UserError(f"{word.strip()!r} is no variation", where=option, hint=hint) from None
    return tuple(found)


def without_effect(chosen: Collection[Name], plain: Facts, varied: Facts) -> list[Name]:
    """Those of the chosen variations in which the two environments do not differ."""
    return [name for name in Name if name in chosen and not VARIATIONS[name].effective(plain, varied)]
