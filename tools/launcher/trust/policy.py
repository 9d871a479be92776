# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The policy of `pull` and `verify`: whose endorsements count, how many it takes, how old they may be.

docs/pull.md has every key. Keys are files beside the policy, or PEM texts in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tools.launcher.base import files
from tools.launcher.base.errors import UserError
from tools.launcher.trust.crypto import Key, load_key
from tools.sev import toml

SCHEMA = 1
_SVN_MAX = (1 << 32) - 1
_AGE_MAX = 36_500  # days
_PEM = "-----BEGIN PUBLIC KEY-----"
_PEM_MAX = 64 << 10
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A policy. `principals`: name → keys, by fingerprint; `provenance`: who may say where an artifact comes from.

    `endorsers` is how many principals it takes; `maximum_age` None: whatever the endorsement itself says.
    """

    path: Path
    name: str
    profile: str
    endorsers: int
    minimum_svn: int
    maximum_age: timedelta | None
    latest: bool
    provenance: tuple[str, ...]
    although: bool
    principals: Mapping[str, Mapping[str, Key]]

    def signer(self, signature: bytes, data: bytes) -> tuple[str, str] | None:
        """Principal and fingerprint of the key whose signature it is; None when nobody's."""
        for name, keys in self.principals.items():
            for fingerprint, key in keys.items():
                if key.verifies(signature, data):
                    return name, fingerprint
        return None


class _Table(toml.Table):
    fault = UserError
    no_file_hint = "docs/pull.md says what a policy is"


def load_policy(path: Path) -> Policy:
    """Read and check a policy; UserError names file and key."""
    top = _Table.load(path, shown_as=str(path))
    top.integer("schema", low=SCHEMA, high=SCHEMA)
    people = top.table("principals")
    principals: dict[str, dict[str, Key]] = {}
    owners: dict[str, str] = {}
    for name in people.keys():  # noqa: SIM118 (a Table is no mapping)
        principals[name] = _keys(people.table(name), path.parent)
        for fingerprint in principals[name]:
            if fingerprint in owners:
                # One key would count as two people.
                raise people.error(name, f"has a key of {owners[fingerprint]}, too")
            owners[fingerprint] = name
    endorsers = top.integer("endorsers", low=1, high=1000)
    if endorsers > len(principals):
        raise top.error("endorsers", f"is {endorsers}, there are {len(principals)} principals")
    provenance = top.strings("provenance", allow_empty=True) if top.has("provenance") else tuple(principals)
    for name in provenance:
        if name not in principals:
            raise top.error("provenance", f"{name[:80]!r} is no principal")
    age = top.integer("maximum-age-days", low=1, high=_AGE_MAX) if top.has("maximum-age-days") else None
    policy = Policy(
        path=path,
        name=top.string("name", pattern=_NAME, says="a name"),
        profile=top.string("profile", pattern=_NAME, says="a profile's name"),
        endorsers=endorsers,
        minimum_svn=top.integer("minimum-svn", low=0, high=_SVN_MAX),
        maximum_age=None if age is None else timedelta(days=age),
        latest=top.boolean("latest"),
        provenance=provenance,
        although=top.boolean("although") if top.has("although") else False,
        principals=principals,
    )
    top.close()
    return policy


def _keys(table: _Table, folder: Path) -> dict[str, Key]:
    found: dict[str, Key] = {}
    for number, text in enumerate(table.strings("keys")):
        where = table.where(f"keys[{number}]")
        if text.lstrip().startswith(_PEM):
            pem = text.encode()
        else:
            where = f"{where} ({text})"
            pem = files.read(folder / text, _PEM_MAX, where=where)
        key = load_key(pem, where=where)
        if key.fingerprint in found:
            raise table.error("keys", f"has the key number {number + 1} twice")
        found[key.fingerprint] = key
    table.close()
    return found
