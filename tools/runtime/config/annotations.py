# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a container's annotations say, where the configuration lets them by name.

docker run --annotation 'org.sev-artifacts.exec=[["pg_isready", "-q"]]'        annotations = ["exec"]
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tools.launcher.base.errors import UserError
from tools.launcher.oci import settings as oci
from tools.runtime.config.settings import ALLOWED, Protection, Reports, Settings

PREFIX = "org.sev-artifacts."
_BOOLEANS = {"true": True, "false": False}
_SIZE_MAX = 1 << 16
_TIMEOUT_MAX = 86_400


def applied(settings: Settings, annotations: Mapping[str, str]) -> Settings:
    """The settings for this container; UserError for an annotation of ours that is not allowed, or says nonsense."""
    for key in sorted(annotations):
        if not key.startswith(PREFIX):
            continue
        name, text = key.removeprefix(PREFIX), annotations[key]
        if name not in ALLOWED:
            raise UserError(f"is no annotation of ours; known are {', '.join(ALLOWED)}", where=key[:100])
        if name not in settings.annotations:
            hint = f'annotations = ["{name}"] in sev-runtime.toml allows it'
            raise UserError("this runtime's configuration does not allow this annotation", where=key, hint=hint)
        try:
            settings = _SETTERS[name](settings, text)
        except (ValueError, KeyError, RecursionError):
            raise UserError(f"is {text[:80]!r}, not {_SAYS[name]}", where=key) from None
    return settings


def _exec(settings: Settings, text: str) -> Settings:
    given: Any = json.loads(text[:_SIZE_MAX])
    if not isinstance(given, list) or not all(map(_is_argv, given)):
        raise ValueError(text)
    return _with(settings, exec=(*settings.container.exec, *(oci.Command(argv=tuple(argv)) for argv in given)))


def _is_argv(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(w, str) and _is_text(w) for w in value)


def _is_text(word: str) -> bool:
    """JSON may have a NUL in it, and half of a character, which UTF-8 cannot write."""
    return "\0" not in word and not any("\ud800" <= char <= "\udfff" for char in word)


def _timeout(settings: Settings, text: str) -> Settings:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= _TIMEOUT_MAX):
        raise ValueError(text)
    return replace(settings, timeout=float(text))


def _with(settings: Settings, **changes: Any) -> Settings:
    return replace(settings, container=replace(settings.container, **changes))


_SETTERS = {
    "exec": _exec,
    "protection": lambda settings, text: replace(settings, protection=Protection(text)),
    "reports": lambda settings, text: _with(settings, reports=Reports(text)),
    "host-reports": lambda settings, text: _with(settings, host_reports=_BOOLEANS[text]),
    "end-on-refusal": lambda settings, text: _with(settings, end_on_refusal=_BOOLEANS[text]),
    "timeout": _timeout,
}
_SAYS = {
    "exec": 'a JSON list of commands, as in [["pg_isready", "-q"]]',
    "protection": f"one of {', '.join(Protection)}",
    "reports": f"one of {', '.join(Reports)}",
    "host-reports": "true or false",
    "end-on-refusal": "true or false",
    "timeout": f"a number of seconds from 1 to {_TIMEOUT_MAX}",
}
