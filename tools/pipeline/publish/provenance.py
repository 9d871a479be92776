# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Where an artifact comes from: SLSA provenance, version 1, about its manifest and each file in it."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

from tools.pipeline.base import ambient, files
from tools.pipeline.publish.artifact import file_name
from tools.pipeline.publish.checkout import Checkout
from tools.pipeline.registry import oci
from tools.pipeline.registry.target import Whole
from tools.pipeline.sign import statements
from tools.pipeline.sources.pins import Pin
from tools.sev.formats import BUILD_TYPE, PROVENANCE, SUBJECT

BUILDER = "urn:sev-artifacts:somebody"
"""Who has built it, where nobody says so."""


def predicate(
    *, profile: str, version: str, checkout: Checkout, pins: Sequence[Pin], builder: str, although: str,
    objections: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """What is known without a clock. `although` and `objections`: why it was published, and what spoke against it."""
    source: dict[str, Any] = {"name": "sev-artifacts", "digest": {"gitCommit": checkout.commit}}
    if checkout.origin:
        source["uri"] = f"git+{checkout.origin}@{checkout.commit}"
    definition: dict[str, Any] = {
        "buildType": BUILD_TYPE,
        "externalParameters": {"profile": profile, "source": source},
        "resolvedDependencies": [
            source,
            *(
                {"name": f"{pin.name} {pin.version}: {file_name(pin)}", "digest": {"sha256": pin.sha256}}
                for pin in sorted({pin.sha256: pin for pin in pins}.values(), key=lambda pin: (pin.name, pin.sha256))
            ),
        ],
    }
    if objections:
        definition["internalParameters"] = {"publishedAlthough": list(objections), "because": although}
    return {
        "buildDefinition": definition,
        "runDetails": {"builder": {"id": builder or BUILDER, "version": {"sev-artifacts": version}}},
    }


def subjects_of(whole: Whole) -> list[tuple[str, str]]:
    """What statements on an artifact are about: its manifest and each file in it, as (name, SHA-256)."""
    files_in_it = [content.descriptor for content in whole.blobs if oci.TITLE in content.descriptor.annotations]
    own = (SUBJECT, whole.manifest.descriptor.sha256)
    return [own, *((one.annotations[oci.TITLE], one.sha256) for one in files_in_it)]


def statement(whole: Whole, said: dict[str, Any], *, key: str) -> tuple[bytes, str, str]:
    """The statement, dated now; what it says without the date, as a SHA-256 with the key's fingerprint; the date."""
    subjects = subjects_of(whole)
    says = files.of_bytes(statements.statement(subjects, PROVENANCE, said) + key.encode())
    now = dt.datetime.fromtimestamp(int(ambient.now()), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # SLSA's own field is for the end of the build, which may have been another day.
    dated = {**said, "runDetails": {**said["runDetails"], "metadata": {"sev-artifacts_publishedOn": now}}}
    return statements.statement(subjects, PROVENANCE, dated), says, now
