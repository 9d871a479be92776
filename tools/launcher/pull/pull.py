# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From a reference to a folder: manifest, statements, decision, files, and the launch digests computed anew."""

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tools.launcher.base.errors import CheckError, UserError
from tools.launcher.base.ui import NAME, Ui
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import load_config
from tools.launcher.measure import digest_file
from tools.launcher.pull import folder as folders
from tools.launcher.pull.connection import Connection, Options
from tools.launcher.pull.registry import Registry
from tools.launcher.trust import artifact as manifests
from tools.launcher.trust import memory
from tools.launcher.trust.artifact import Artifact, File
from tools.launcher.trust.decision import Bundle, Decision, decide
from tools.launcher.trust.memory import Seen
from tools.launcher.trust.policy import Policy
from tools.sev.formats import (
    FILE_TYPE,
    MANIFEST_NAME,
    NETWORK,
    RUNTIME_NAME,
    RUNTIME_SCHEMA,
    STATEMENTS,
    SUMS_NAME,
    with_addition,
)
from tools.sev.registry.reference import Reference

_CONFIGS = {RUNTIME_NAME, with_addition(RUNTIME_NAME, NETWORK)}


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is pulled, on whose word. `bundles` come from files; `state` is where the highest SVN is remembered."""

    place: Reference
    policy: Policy
    target: Path
    options: Options
    bundles: Sequence[Bundle]
    state: Path
    sources: bool


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """What was placed."""

    artifact: Artifact
    decision: Decision
    files: int
    size: int


def pull(wish: Wish, *, now: datetime, pause: Callable[[float], object], ui: Ui) -> Pulled:
    """Pull; CheckError, and nothing placed, for whatever is not as the policy wants it."""
    folders.check_free(wish.target)
    connection = Connection(wish.place, wish.options, pause=pause)
    try:
        registry = Registry(connection)
        artifact = _artifact(wish.place, registry)
        broken: list[str] = []
        bundles = [*wish.bundles, *registry.statements(artifact, broken)]
        decision = decided(wish.policy, artifact, bundles, wish.state, now=now, broken=broken)
        files = [file for file in artifact.files.values() if file.wanted or wish.sources]
        with folders.growing(wish.target) as growing:
            for file in files:
                ui.note(f"{file.name}, {file.size / (1 << 20):.1f} MiB")
                folders.bring(connection, registry, file, growing)
            _check(growing, artifact, ui)
            folders.write(growing, MANIFEST_NAME, artifact.data)
            for number, bundle in enumerate(decision.used):
                folders.write(growing, f"{STATEMENTS}/{number}.sigstore.json", bundle.data)
    finally:
        connection.close()
    return Pulled(artifact=artifact, decision=decision, files=len(files), size=sum(file.size for file in files))


def decided(
    policy: Policy, artifact: Artifact, bundles: Sequence[Bundle], state: Path, *, now: datetime, broken: Sequence[str]
) -> Decision:
    """The decision, by what was seen before; what the statements say is remembered, whatever it is."""
    found: list[Decision] = []

    def change(seen: Seen) -> None:
        found.append(decide(policy, artifact, bundles, seen, now=now))

    try:
        memory.update(state, policy.name, policy.profile, change)
    except CheckError as error:
        error.details = (*error.details, *broken)
        raise
    return found[0]


def _artifact(place: Reference, registry: Registry) -> Artifact:
    data = registry.manifest(place.digest or place.tag)
    if data is None:
        raise CheckError(f"has no {place.digest or place.tag}", where=place.where)
    found = manifests.parse(data, where=f"{place.where}: {place.digest or place.tag}")
    if SUMS_NAME not in found.files:
        raise CheckError(f"has no {SUMS_NAME}", where=found.digest)
    return found


def _check(folder: Path, artifact: Artifact, ui: Ui) -> None:
    """The files agree with each other, and so do their launch digests with what is computed here.

    A config that only another sev-launch reads is left to that one: it is among the files.
    """
    listed = {name: file for name, file in artifact.files.items() if _is_listed(file)}
    folders.check_sums(folder, SUMS_NAME, listed)
    for name in _CONFIGS & artifact.files.keys():
        schema = _schema(folder / name)
        if schema != RUNTIME_SCHEMA:
            what = f"{name}: its schema is {schema}, this {NAME} reads {RUNTIME_SCHEMA}"
            ui.warn(f"{what}: launch digests were not computed here; the {NAME} that was pulled does, with `check`")
            continue
        try:
            config = load_config(folder / name)
            for one in config.artifacts:
                artifacts.verify(config, one)
            digest_file.check(config)
        except UserError as error:
            raise CheckError(str(error).replace(f"{folder}/", "")) from None


def _schema(path: Path) -> object:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")).get("schema")
    except (ValueError, RecursionError):
        raise CheckError("is not TOML", where=path.name) from None


def _is_listed(file: File) -> bool:
    return file.media_type == FILE_TYPE and file.name != SUMS_NAME
