# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A relying party's folder, and `sev-launch verify` in it."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from tests.launcher.attest.attestation_kit import DIGEST, TCB, Draft, Issued, issue, leaf_extensions, rsa_key
from tools.sev.formats import DIGESTS_SCHEMA

NONCE = bytes(range(64))
MODELS = {"Milan": 1, "Genoa": 2}
"""CPU models of the made-up digests; the number keeps them apart."""


def draft(**changes: Any) -> Draft:
    """A report that answers the nonce."""
    return Draft(**{"report_data": NONCE, **changes})


def snp_digest(model: str, vcpus: int) -> bytes:
    """Different for each; Milan with 4 vCPUs is the report's."""
    if (model, vcpus) == ("Milan", 4):
        return DIGEST
    return bytes((MODELS[model], vcpus)) * 24


def digests_document() -> dict[str, Any]:
    """Made-up launch-digests.json."""
    snp = {m: {str(n): snp_digest(m, n).hex() for n in range(1, 65)} for m in MODELS}
    es = {m: {str(n): (bytes((MODELS[m], n)) * 16).hex() for n in (1, 2)} for m in MODELS}
    off = {m: {n: ("ee" + v[2:]) for n, v in counts.items()} for m, counts in es.items()}
    return {
        "schema": DIGESTS_SCHEMA,
        "profile": "production",
        "modes": {
            "snp": {"algorithm": "sha384", "digests": snp},
            "sev-es": {"legacy-vm-type=on": es, "legacy-vm-type=off": off},
            "sev": {"digest": "5e" * 32},
        },
        "cpu_models": {m: {"qemu_models": [f"EPYC-{m}", f"EPYC-{m}-v1"]} for m in MODELS},
        "more": ["is", "not read"],
    }


@dataclass(kw_only=True)
class Root:
    """ARK and ASK, made once, and other keys of their kind."""

    ark: Issued = field(default_factory=lambda: issue(rsa_key(), "ARK-Milan"))
    ask: Issued = field(init=False)
    other_key: Any = field(default_factory=rsa_key)
    leaf_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))

    def __post_init__(self) -> None:
        self.ask = issue(rsa_key(), "SEV-Milan", by=self.ark, serial=2)

    def vcek(self, common: str = "SEV-VCEK", **changes: Any) -> Issued:
        """A VCEK for the test chip; keywords go to leaf_extensions, `key`, `dates` and `by` to issue."""
        options = {name: changes.pop(name) for name in ("dates", "pss", "signer") if name in changes}
        key, by = changes.pop("key", self.leaf_key), changes.pop("by", self.ask)
        extensions = leaf_extensions(**{"tcb": TCB, **changes})
        return issue(key, common, by=by, ca=False, extensions=extensions, **options)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The answer of --json, taken apart."""

    status: int
    err: str
    document: dict[str, Any]

    def of(self, result: str) -> list[str]:
        """Names of the checks that ended so."""
        return [check["name"] for check in self.document["checks"] if check["result"] == result]

    @property
    def failed(self) -> list[str]:
        return self.of("failed")

    def detail(self, name: str) -> str:
        (check,) = [check for check in self.document["checks"] if check["name"] == name]
        return str(check["detail"])


@dataclass(kw_only=True)
class Desk:
    """Files of the relying party, and how to call `verify` on them."""

    folder: Path
    config: Path
    root: Root
    call: Callable[..., Any]

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def words(self, draft: Draft | bytes, *, without: tuple[str, ...] = (), **files: Any) -> list[str]:
        """Arguments that verify the default report. `files`: other bytes for vcek, ask, ark."""
        raw = draft if isinstance(draft, bytes) else draft.raw(self.root.leaf_key)
        defaults = {"vcek": self.root.vcek().der, "ask": self.root.ask.pem, "ark": self.root.ark.pem}
        options = {
            "config": str(self.config),
            "report-data": NONCE.hex(),
            "min-tcb": ",".join(f"{part}={level}" for part, level in TCB.items()),
            **{name: str(self.write(name, files.get(name, data))) for name, data in defaults.items()},
        }
        words = [str(self.write("report.bin", raw))]
        for option, value in options.items():
            if option not in without:
                words += [f"--{option}", value]
        return words if "unbound" in without else [*words, "--unbound"]

    def verify(
        self,
        draft: Draft | bytes,
        *more: str | os.PathLike[str],
        without: tuple[str, ...] = (),
        **files: Any,
    ) -> Outcome:
        """Run it with --json; later options win over the default ones."""
        answer = self.call("verify", *self.words(draft, without=without, **files), *more, "--json")
        assert answer.status in (0, 1), answer.err
        document = json.loads(answer.out)
        assert (document["verdict"] == "verified") is (answer.status == 0)
        assert (document["reasons"] == []) is (answer.status == 0)
        return Outcome(status=answer.status, err=answer.err, document=document)

    def refused(self, draft: Draft | bytes, *more: str | os.PathLike[str], **files: Any) -> str:
        """The one line of a mistake: status 2, nothing on stdout."""
        answer = self.call("verify", *self.words(draft, **files), *more)
        assert (answer.status, answer.out) == (2, "")
        line: str = answer.one_line()
        return line
