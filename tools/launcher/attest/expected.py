# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The expected launch digests, read from launch-digests.json (docs/attestation.md).

Only what a comparison needs is read, and that strictly; further keys are somebody else's.
"""

import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.launcher.base import files
from tools.launcher.base.errors import UserError
from tools.sev.formats import DIGESTS_SCHEMA
from tools.sev.modes import Mode

_FILE_MAX = 16 << 20
_VARIANT = "legacy-vm-type="
_COUNT = re.compile(r"[1-9][0-9]{0,2}")
_HINT = "make it anew with ./doit build"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One digest and what it stands for; None: the digest does not depend on that."""

    digest: bytes
    cpu: str | None = None
    qemu_models: tuple[str, ...] = ()
    vcpus: int | None = None
    variant: str | None = None

    def __str__(self) -> str:
        parts = [self.cpu] if self.cpu else []
        if self.vcpus is not None:
            parts.append(f"{self.vcpus} vCPU{'' if self.vcpus == 1 else 's'}")
        if self.variant:
            parts.append(self.variant)
        return ", ".join(parts) or "any CPU model and vCPU count"


def read_expected(path: Path, mode: Mode) -> tuple[Entry, ...]:
    """The digests for `mode` in the file at `path`; UserError names file and key."""
    document = _load(path)
    where = str(path)
    schema = document.get("schema")
    if type(schema) is not int or schema != DIGESTS_SCHEMA:
        raise UserError(f"schema is {schema!r}, this sev-launch reads {DIGESTS_SCHEMA}", where=where, hint=_HINT)
    modes = _object(document.get("modes"), where=f"{where}: modes")
    part = _object(modes.get(str(mode)), where=f"{where}: {mode}")
    names = _qemu_models(document.get("cpu_models"), where=f"{where}: cpu_models")
    entries = tuple(
        dataclasses.replace(entry, qemu_models=names.get(entry.cpu or "", ()))
        for entry in _entries(part, mode, where=f"{where}: {mode}")
    )
    if not entries:
        raise UserError(f"{mode}: no digest in it", where=where, hint=_HINT)
    return entries


def select(entries: tuple[Entry, ...], *, cpu: str | None, vcpus: int | None, where: str) -> tuple[Entry, ...]:
    """Those for a CPU model and a vCPU count; UserError when there is none, saying what there is."""
    if cpu is not None:
        models = sorted({entry.cpu for entry in entries if entry.cpu is not None})
        entries = tuple(entry for entry in entries if cpu == entry.cpu or cpu in entry.qemu_models)
        if not entries:
            raise UserError(f"has no digest for CPU model {cpu!r}", where=where, hint=f"it has {_list(models)}")
    if vcpus is not None:
        counts = sorted({entry.vcpus for entry in entries if entry.vcpus is not None})
        entries = tuple(entry for entry in entries if entry.vcpus == vcpus)
        if not entries:
            span = f"{counts[0]} to {counts[-1]}" if counts else "none by vCPU count"
            raise UserError(f"has no digest for {vcpus} vCPUs", where=where, hint=f"it has {span}")
    return entries


def _list(names: list[str]) -> str:
    return ", ".join(names) if names else "none by model"


def _load(path: Path) -> dict[str, Any]:
    where = str(path)
    raw = files.read(path, _FILE_MAX, hint="give --digests or --digest, or make it with ./doit build")
    try:
        document = json.loads(raw.decode(), object_pairs_hook=_no_duplicates)
    except UnicodeDecodeError:
        raise UserError("not UTF-8", where=where) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {error}", where=where) from None
    if not isinstance(document, dict):
        raise UserError("no JSON object", where=where)
    return document


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


def _qemu_models(table: Any, *, where: str) -> dict[str, tuple[str, ...]]:
    """QEMU's names for each CPU model."""
    result = {}
    for cpu, entry in _object(table, where=where).items():
        names = _object(entry, where=f"{where}.{cpu}").get("qemu_models")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError("no list of names", where=f"{where}.{cpu}.qemu_models", hint=_HINT)
        result[cpu] = tuple(names)
    return result


def _entries(part: dict[str, Any], mode: Mode, *, where: str) -> Iterator[Entry]:
    """SNP: digests.MODEL.COUNT. SEV: digest. SEV-ES: legacy-vm-type=on|off.MODEL.COUNT."""
    if mode is Mode.SEV:
        yield Entry(digest=_digest(part.get("digest"), mode, where=f"{where}.digest"))
    elif mode is Mode.SNP:
        table = _object(part.get("digests"), where=f"{where}.digests")
        yield from _models(table, mode, variant=None, where=f"{where}.digests")
    else:
        for variant in sorted(key for key in part if key.startswith(_VARIANT)):
            place = f"{where}.{variant}"
            yield from _models(_object(part[variant], where=place), mode, variant=variant, where=place)


def _models(table: dict[str, Any], mode: Mode, *, variant: str | None, where: str) -> Iterator[Entry]:
    for cpu, counts in table.items():
        for count, value in _object(counts, where=f"{where}.{cpu}").items():
            place = f"{where}.{cpu}.{count}"
            if _COUNT.fullmatch(count) is None:
                raise UserError("the key is no vCPU count", where=place)
            digest = _digest(value, mode, where=place)
            yield Entry(digest=digest, cpu=cpu, vcpus=int(count), variant=variant)


def _object(value: Any, *, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError("missing, or no object", where=where, hint=_HINT)
    return value


def _digest(value: Any, mode: Mode, *, where: str) -> bytes:
    digits = 2 * mode.digest_size
    if not isinstance(value, str) or re.fullmatch(rf"[0-9a-f]{{{digits}}}", value) is None:
        raise UserError(f"must be {digits} lower-case hexadecimal digits", where=where, hint=_HINT)
    return bytes.fromhex(value)
