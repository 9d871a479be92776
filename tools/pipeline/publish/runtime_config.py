# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""recipes/runtime.toml.j2 + recipes + digests of the artifacts → runtime.toml."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import files
from tools.pipeline.base.errors import BuildError
from tools.pipeline.publish import toml_template
from tools.pipeline.recipes.profiles import Guest, Profile

TEMPLATE = "recipes/runtime.toml.j2"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file beside runtime.toml."""

    file: str
    sha256: str
    size: int

    @staticmethod
    def of(path: Path, *, file: str) -> "Artifact":
        """Measure the file at `path`, which will be called `file` in the output folder."""
        return Artifact(file=file, sha256=files.of_file(path), size=path.stat().st_size)


def read_digests(path: Path) -> dict[str, str]:
    """From launch-digests.json: mode → digest of exactly what the runtime config will say."""
    try:
        digests: dict[str, str] = json.loads(path.read_bytes())["configured"]["digests"]
    except (ValueError, LookupError, TypeError):
        raise BuildError("is damaged", where=str(path), hint="delete it and build again") from None
    return digests


def render(
    template: str,
    *,
    profile: Profile,
    guest: Guest,
    artifacts: Mapping[str, Artifact],
    version: str,
    digests: Mapping[str, str],
) -> str:
    """The text of runtime.toml; `digests` are the launch digests by mode, in hexadecimal.

    Raises UserError, with the template's line where it is known, when the template is wrong or gives no
    valid TOML.
    """
    return toml_template.render(
        template,
        where=TEMPLATE,
        profile=profile,
        guest=guest,
        artifacts=list(artifacts.items()),
        version=version,
        digests=digests,
    )
