# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""recipes/runtime.toml.j2 + recipes + digests of the artifacts → runtime.toml."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2

from tools.pipeline import digest
from tools.pipeline.errors import BuildError, UserError
from tools.pipeline.recipes import Guest, Profile

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
        return Artifact(file=file, sha256=digest.of_file(path), size=path.stat().st_size)


def render(
    template: str, *, profile: Profile, guest: Guest, artifacts: Mapping[str, Artifact], version: str
) -> str:
    """The text of runtime.toml.

    Raises UserError when the template is wrong and BuildError when what it gives is not TOML.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (TOML, not HTML: the toml filter quotes)
    )
    environment.filters["toml"] = _toml
    try:
        text = environment.from_string(template).render(
            profile=profile, guest=guest, artifacts=list(artifacts.items()), version=version
        )
    except jinja2.TemplateSyntaxError as error:
        raise UserError(error.message or "syntax error", where=f"{TEMPLATE}:{error.lineno}") from None
    except jinja2.TemplateError as error:
        raise UserError(str(error), where=TEMPLATE) from None
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BuildError(f"the template gives no valid TOML: {error}", where=TEMPLATE) from None
    return text


def _toml(value: object) -> str:
    # JSON's string escapes are a subset of TOML's basic strings once DEL is escaped as well.
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(str(value)).replace("\x7f", "\\u007f")
