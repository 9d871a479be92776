# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a builder says of a step that it has run: a signed statement, which is good for one key and one kind only.

    key, kind, outputs (digest, size, executable), engine version, builder, seconds ── DSSE envelope ── bundle

A record is read for what is wanted: another's record in its place, of another key, engine or builder, is refused.
"""

import math
from collections.abc import Mapping
from typing import Any

from tools.pipeline.engine.key import ENGINE_VERSION
from tools.pipeline.engine.remote import Wanted
from tools.pipeline.engine.store import merkle
from tools.pipeline.engine.store.origin import Origin
from tools.pipeline.engine.store.results import Result
from tools.pipeline.registry import oci
from tools.pipeline.sign import keys, statements
from tools.pipeline.sign.keys import Public, Signer
from tools.sev.registry.reference import DIGEST

PREDICATE = "urn:sev-artifacts:result:1"
RECORD_MAX = 1 << 20
"""Bytes of a record; ours have a few hundred for each output."""
_SIZE_MAX = 16 << 30  # bytes of an output; the largest of ours has 230 million
_SECONDS_MAX = 86_400.0


class Refused(Exception):  # noqa: N818 (what became of a record)
    """A record that does not count, and why in a few words."""


def write(wanted: Wanted, result: Result, signer: Signer) -> bytes:
    """The record of a result that was made here, signed."""
    outputs = {
        name: {"sha256": node.digest.sha256, "size": node.digest.size, "executable": node.executable}
        for name, node in sorted(result.outputs.items())
    }
    predicate = {
        "kind": wanted.kind,
        "key": result.key,
        "engine": ENGINE_VERSION,
        "builder": keys.fingerprint(signer.public),
        "seconds": round(result.seconds, 1),
        "outputs": outputs,
    }
    subjects = [(name, str(entry["sha256"])) for name, entry in outputs.items()]
    return statements.bundle(statements.statement(subjects, PREDICATE, predicate), signer)


def read(data: bytes, wanted: Wanted, publics: Mapping[str, Public], origin: Origin) -> Result:
    """The result that a record says, for the wanted key; `origin` gets its builder. Refused for any other record."""
    if len(data) > RECORD_MAX:
        raise Refused("is too large")
    try:
        payload, fingerprint = statements.unbundle(data, publics)
    except ValueError as error:
        raise Refused(str(error)) from None
    # What somebody who is listed has signed; it may still be about something else.
    try:
        document = oci.parse(payload)
        said = document["predicate"]
        about = {name: said[name] for name in ("kind", "key", "engine", "builder")}
        if document["predicateType"] != PREDICATE:
            raise Refused("is a statement about something else")
        _compare(about, wanted, fingerprint)
        outputs = {str(name): _node(entry) for name, entry in said["outputs"].items()}
        seconds = float(said["seconds"])
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        raise Refused("is of a form that is not known") from None
    if not math.isfinite(seconds):
        raise Refused("is of a form that is not known")
    if sorted(outputs) != sorted(wanted.outputs):
        raise Refused("names other outputs than the step has")
    whose = Origin(how=origin.how, place=origin.place, builder=fingerprint)
    return Result(key=wanted.key, outputs=outputs, seconds=min(max(seconds, 0.0), _SECONDS_MAX), origin=whose)


def _compare(about: Mapping[str, Any], wanted: Wanted, fingerprint: str) -> None:
    expected = {"kind": wanted.kind, "key": wanted.key, "engine": ENGINE_VERSION, "builder": fingerprint}
    for name, value in expected.items():
        if about[name] != value:
            raise Refused(f"is of another {'engine version' if name == 'engine' else name}")


def _node(entry: Mapping[str, Any]) -> merkle.File:
    sha256, size, executable = entry["sha256"], entry["size"], entry["executable"]
    if not isinstance(executable, bool) or type(size) is not int or not 0 <= size <= _SIZE_MAX:
        raise ValueError("no file")
    if not isinstance(sha256, str) or DIGEST.fullmatch(f"sha256:{sha256}") is None:
        raise ValueError("no digest")
    return merkle.File(digest=merkle.Digest(sha256=sha256, size=size), executable=executable)
