# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What signed statements say: endorsements, "latest", provenance (docs/schemas/ has the first two).

No launch digest is taken from any of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tools.launcher.trust.envelope import Signed, Unusable
from tools.sev.formats import BUILD_TYPE, ENDORSEMENT, LATEST, PROVENANCE

_STATEMENT = "https://in-toto.io/Statement/v1"
_SVN_MAX = (1 << 32) - 1
_DIGEST, _COMMIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, kw_only=True)
class Statement:
    """Who says something about which bytes: subjects' names → SHA-256."""

    principal: str
    fingerprint: str
    subjects: Mapping[str, str]
    profile: str


@dataclass(frozen=True, kw_only=True)
class Dated(Statement):
    """With a security version, a date, and an end."""

    svn: int
    date: datetime
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Endorsement(Dated):
    """Somebody has rebuilt: the commit gives these bytes."""

    commit: str


@dataclass(frozen=True, kw_only=True)
class Latest(Dated):
    """Nothing with a lower security version is good any more."""


@dataclass(frozen=True, kw_only=True)
class Provenance(Statement):
    """The publisher's word. `although`: what spoke against publishing it."""

    commit: str
    although: tuple[str, ...]


def read(signed: Signed) -> Statement:
    """The statement; Unusable for what is of no known kind, or not of its form."""
    document = signed.document
    predicate = document.get("predicate")
    if document.get("_type") != _STATEMENT or not isinstance(predicate, dict):
        raise Unusable("is no in-toto statement of version 1")
    kind = document.get("predicateType")
    common: dict[str, Any] = {
        "principal": signed.principal,
        "fingerprint": signed.fingerprint,
        "subjects": _subjects(document.get("subject")),
    }
    if kind == PROVENANCE:
        return _provenance(predicate, common)
    if kind not in {ENDORSEMENT, LATEST}:
        raise Unusable(f"is of a kind that is not known ({str(kind)[:80]!r})")
    svn = predicate.get("svn")
    if type(svn) is not int or not 0 <= svn <= _SVN_MAX:
        raise Unusable("has no security version (svn)")
    common |= {
        "profile": _text(predicate, "profile"),
        "svn": svn,
        "date": _time(predicate, "date"),
        "until": _time(predicate, "validUntil"),
    }
    if kind == LATEST:
        return Latest(**common)
    return Endorsement(**common, commit=_commit(predicate.get("source")))


def _provenance(predicate: dict[str, Any], common: dict[str, Any]) -> Provenance:
    definition = predicate.get("buildDefinition")
    if not isinstance(definition, dict) or definition.get("buildType") != BUILD_TYPE:
        raise Unusable("is the provenance of something else")
    external, internal = definition.get("externalParameters"), definition.get("internalParameters", {})
    if not isinstance(external, dict) or not isinstance(internal, dict):
        raise Unusable("has no parameters")
    although = internal.get("publishedAlthough", [])
    if not isinstance(although, list):
        raise Unusable("does not say what spoke against it")
    return Provenance(
        **common,
        profile=_text(external, "profile"),
        commit=_commit(external.get("source")),
        although=tuple(str(line)[:200] for line in although),
    )


def _subjects(listed: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in listed if isinstance(listed, list) else []:
        name, digest = (entry.get("name"), entry.get("digest")) if isinstance(entry, dict) else (None, None)
        sha256 = digest.get("sha256") if isinstance(digest, dict) else None
        if not isinstance(name, str) or not isinstance(sha256, str) or _DIGEST.fullmatch(sha256) is None:
            raise Unusable("has a subject without name and SHA-256")
        if found.setdefault(name, sha256) != sha256:
            raise Unusable(f"names {name[:80]!r} twice")
    return found


def _text(table: dict[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str):
        raise Unusable(f"has no {key}")
    return value


def _commit(source: Any) -> str:
    digest = source.get("digest") if isinstance(source, dict) else None
    commit = digest.get("gitCommit") if isinstance(digest, dict) else None
    if not isinstance(commit, str) or _COMMIT.fullmatch(commit) is None:
        raise Unusable("names no commit")
    return commit


def _time(table: dict[str, Any], key: str) -> datetime:
    text = _text(table, key)
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise Unusable(f"has no {key} as in 2026-11-26T12:00:00Z") from None
