# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit endorse`: a signed statement that this commit gives these bytes, by somebody who has rebuilt them.

result of ./doit rebuild ── every step ran there, in the sandbox ── artifact of the rebuilt files ── signed statement
                                                                          └─ the same digest as the published one

`./doit latest`: that nothing with a lower security version is good any more, until a day that it names.
Neither says a launch digest: whoever verifies computes it from the files (docs/publishing.md).
"""

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.pipeline.base import ambient, files, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.publish import artifact, checkout, manifest, places, provenance, publishing
from tools.pipeline.publish.publishing import Built
from tools.pipeline.registry import oci, target
from tools.pipeline.registry.connection import Options
from tools.pipeline.registry.oci import Content, Descriptor
from tools.pipeline.registry.target import Attachment, Tally, Target, Whole
from tools.pipeline.repro.rebuild import SCHEMA
from tools.pipeline.sign import keys, statements
from tools.pipeline.sign.keys import Signer
from tools.sev.formats import ENDORSEMENT, LATEST, LATEST_TYPE, SUBJECT, latest_tag
from tools.sev.registry.reference import Reference

KEY, _SVN = "sev-artifacts.key", "sev-artifacts.svn"
"""Annotations of a statement "latest", for whoever writes the next one: its key's fingerprint, and what it says."""

_NUMBER = re.compile(r"[0-9]{1,10}")

_DAYS_MAX = 36_500
_AGAIN = "./doit rebuild --manifest FILE, from nothing and without --cached"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The options as they were typed; "" where there was none. `svn` is the checkout's, or the one that was given."""

    to: str
    out: str
    key: str
    days: str
    svn: int
    ca: str
    plain_http: bool


@dataclass(frozen=True, kw_only=True)
class Period:
    """From now on, in seconds since the epoch."""

    begin: int
    end: int

    def says(self) -> dict[str, str]:
        """As a statement has it."""
        return {"date": _time(self.begin), "validUntil": _time(self.end)}


def endorse(built: Built, result: Path, wish: Wish) -> bytes:
    """Endorse what was rebuilt, `built.folder`; the signed statement.

    BuildError when the rebuild does not allow that, or what is published is something else.
    """
    signer, period = _signer(wish, built.root), period_of(wish.days)
    if not wish.to and not wish.out:
        raise UserError("nowhere to put the statement", hint="--to HOST/NAME:TAG, or --out FILE")
    found = read_result(result, profile=built.profile)
    ours = checkout.look(built.root)
    if ours.changes or ours.commit != found["commit"]:
        what = f"commit {found['commit'] or 'unknown'} was rebuilt, the checkout is {ours.commit}"
        what += " with changes" if ours.changes else ""
        raise BuildError(what, where=str(result), hint=f"commit or remove them, then {_AGAIN}")
    names = publishing.listed(built.folder)
    check_steps(found, built.folder / manifest.NAME, where=str(result))
    whole = publishing.made(built, ours, names)
    predicate = {
        "profile": built.profile,
        "source": {"name": SUBJECT, "digest": {"gitCommit": ours.commit}},
        "svn": wish.svn,
        **period.says(),
        "rebuilt": {"manifest": found["manifest"], "steps": len(found["made_here"])},
    }
    payload = statements.statement(provenance.subjects_of(whole), ENDORSEMENT, predicate)
    bundle = statements.bundle(payload, signer)
    if wish.to:
        with_target(built.root, wish, lambda place, where: _attach(place, where, whole, payload, signer))
    if wish.out:
        files.write_atomically(built.root / wish.out, bundle)
    _say(whole.manifest.descriptor.digest, wish, signer, period)
    return bundle


def latest(root: Path, wish: Wish, *, profile: str) -> None:
    """Say which security version it takes from now on, where the artifact is."""
    signer, period = _signer(wish, root), period_of(wish.days)
    if not wish.to:
        raise UserError("nowhere to put the statement", hint="--to HOST/NAME:TAG")

    def work(place: Reference | Path, where: Target) -> None:
        subject = _found(place, where)
        annotations = _manifest(subject, wish.to).get("annotations")
        said = annotations.get(artifact.PROFILE) if isinstance(annotations, dict) else None
        if said != profile:
            raise UserError(f"is of profile {said!r}", where=f"--to {wish.to}", hint=f"./doit latest --profile {said}")
        predicate = {"profile": profile, "svn": wish.svn, **period.says()}
        digest = subject.descriptor.sha256
        payload = statements.statement([(SUBJECT, digest)], LATEST, predicate)
        _replace(where, latest_tag(profile), payload, signer, wish.svn)
        _say(subject.descriptor.digest, wish, signer, period)

    with_target(root, wish, work)


def with_target(root: Path, wish: Wish, work: Any) -> None:
    """work(place, target), with a target that is closed then."""
    place = places.parse(wish.to, tag="", root=root, digest=True)
    if not isinstance(place, Reference | Path):
        raise UserError("is no registry and no folder", where="--to", hint="write the statement to a file: --out FILE")
    where = places.target(place, Options(plain_http=wish.plain_http, ca=root / wish.ca if wish.ca else None))
    try:
        work(place, where)
    finally:
        where.close()


def read_result(path: Path, *, profile: str) -> dict[str, Any]:
    """What ./doit rebuild has written, when it allows an endorsement; BuildError when it does not."""
    try:
        found = json.loads(path.read_bytes())
        good = found["schema"] == SCHEMA and isinstance(found["made_here"], dict)
        claims = found["reproduced"], found["from_nothing"], found["profile"], found["manifest"], found["commit"]
    except (OSError, ValueError, LookupError, TypeError):
        good, claims = False, (None, None, None, None, None)
    if not good:
        raise BuildError("is not there, or of another version", where=str(path), hint=_AGAIN)
    reproduced, nothing, rebuilt, _, _ = claims
    if reproduced is not True:
        raise BuildError("the rebuild did not reproduce what is published", where=str(path), hint=_AGAIN)
    if nothing is not True:
        raise BuildError("the rebuild took results of a cache (--cached)", where=str(path), hint=_AGAIN)
    if rebuilt != profile:
        raise BuildError(f"is of profile {rebuilt!r}", where=str(path), hint=f"./doit endorse --profile {rebuilt}")
    document: dict[str, Any] = found
    return document


def check_steps(found: Mapping[str, Any], path: Path, *, where: str) -> None:
    """BuildError unless the rebuild itself ran every step of its manifest, which is the published one."""
    raw = path.read_bytes()
    if files.of_bytes(raw) != found["manifest"]:
        raise BuildError("the rebuilt files are of another rebuild", where=where, hint=_AGAIN)
    elsewhere = [
        step["name"] for step in json.loads(raw)["steps"] if found["made_here"].get(step["name"]) != step["key"]
    ]
    if elsewhere:
        what = f"{len(elsewhere)} steps were not run by the rebuild itself; first: {elsewhere[0]}"
        raise BuildError(what, where=where, hint=_AGAIN)


def _attach(place: Reference | Path, where: Target, whole: Whole, payload: bytes, signer: Signer) -> None:
    """To what is published, if that is what was rebuilt."""
    there, ours = _found(place, where, whole.manifest.descriptor).descriptor, whole.manifest.descriptor
    if there.sha256 != ours.sha256:
        raise BuildError(f"is {there.digest}, rebuilt was {ours.digest}", where=str(place), hint="compare the two")
    says = files.of_bytes(payload + keys.fingerprint(signer.public).encode())
    created = str(json.loads(payload)["predicate"]["date"])
    attachment = statements.attached(payload, signer, subject=ours, says=says, created=created)
    target.attach(where, attachment, ours, Tally())


def _found(place: Reference | Path, where: Target, wanted: Descriptor | None = None) -> Content:
    """The artifact that is published there."""
    tag = (place.digest or place.tag) if isinstance(place, Reference) else ""
    what = tag or (wanted.digest if wanted else "")
    if not what:
        raise UserError("names no tag and no digest", where="--to", hint="--to HOST/NAME:TAG")
    found = where.resolve(what)
    if found is None:
        raise BuildError(f"has no {what}", where=str(place), hint="publish it first")
    return found


def _manifest(content: Content, where: str) -> dict[str, Any]:
    """As JSON; BuildError when a registry has something else there."""
    try:
        return oci.parse(content.data)
    except ValueError:
        raise BuildError("is no manifest", where=where) from None


def _replace(where: Target, tag: str, payload: bytes, signer: Signer, svn: int) -> None:
    """Our statement in place of our older one, beside those of others."""
    there = where.resolve(tag)
    listed = _manifest(there, tag).get("layers") if there else []
    ours = keys.fingerprint(signer.public)
    others = [oci.descriptor_of(entry, where=tag) for entry in (listed if isinstance(listed, list) else [])]
    for layer in others:
        said = layer.annotations.get(_SVN, "")
        if layer.annotations.get(KEY) == ours and _NUMBER.fullmatch(said) and int(said) > svn:
            raise UserError(f"{svn} is lower than {said}, which was said before", where="--svn", hint="it only grows")
    annotations = {KEY: ours, _SVN: str(svn)}
    content = oci.of_bytes(statements.bundle(payload, signer), statements.BUNDLE, annotations=annotations)
    layers = [*(layer for layer in others if layer.annotations.get(KEY) != ours), content.descriptor]
    whole = Whole(manifest=oci.manifest(LATEST_TYPE, layers), blobs=(oci.EMPTY, content))
    target.attach(where, Attachment(whole=whole, tag=tag), whole.manifest.descriptor, Tally())
    after = where.resolve(tag)
    if after is None or after.descriptor.sha256 != whole.manifest.descriptor.sha256:
        raise BuildError(f"somebody else wrote {tag} at the same time", where=tag, hint="say it again")


def _signer(wish: Wish, root: Path) -> Signer:
    if not wish.key:
        raise UserError("no key", hint="an unsigned word is nobody's: --key FILE, or --key pkcs11:…")
    return keys.load(wish.key, root=root)


def period_of(days: str) -> Period:
    """From now on; UserError for what is no number of days."""
    if not days.isdecimal() or not 1 <= int(days) <= _DAYS_MAX:
        raise UserError(f"{days[:20]!r} is no number of days", where="--days", hint=f"from 1 to {_DAYS_MAX}")
    begin = int(ambient.now())
    return Period(begin=begin, end=begin + int(days) * 86_400)


def _time(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _say(digest: str, wish: Wish, signer: Signer, period: Period) -> None:
    ui.line("")
    ui.line(f"   {'digest':<12}{digest}")
    ui.line(f"   {'SVN':<12}{wish.svn}")
    ui.line(f"   {'until':<12}{_time(period.end)}")
    ui.line(f"   {'signed':<12}key {keys.fingerprint(signer.public)}")
    for place in filter(None, (wish.to, wish.out)):
        ui.line(f"   {'in':<12}{place}")
