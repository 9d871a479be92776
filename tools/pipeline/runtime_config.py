# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""recipes/runtime.toml.j2 + recipes + digests of the artifacts → runtime.toml."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline import digest, policy
from tools.pipeline.errors import UserError
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
    # Importing jinja2 takes a tenth of a build with nothing to do.
    import jinja2  # noqa: PLC0415

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (TOML, not HTML: the toml filter quotes)
    )
    environment.filters["toml"] = _toml
    environment.filters["policy"] = _policy
    try:
        text = environment.from_string(template).render(
            profile=profile, guest=guest, artifacts=list(artifacts.items()), version=version, digests=digests
        )
    except jinja2.TemplateSyntaxError as error:
        raise UserError(error.message or "syntax error", where=f"{TEMPLATE}:{error.lineno}") from None
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        # A template is a small program: what its expressions raise is its author's mistake, not a bug here.
        raise UserError(str(error), where=f"{TEMPLATE}{_line_of(error)}") from None
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the template gives no valid TOML: {error}", where=TEMPLATE) from None
    return text


def _line_of(error: Exception) -> str:
    """ "Give ":12" for the innermost template line that the error went through, else nothing."""
    found = ""
    trace = error.__traceback__
    while trace is not None:
        # Jinja rewrites tracebacks so that frames of a template carry its name and lines.
        if trace.tb_frame.f_code.co_filename == "<template>":
            found = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _policy(bits: int, mode: str) -> str:
    """A policy's names, for the comment above its bits."""
    return policy.spell(bits, policy.LAYOUTS[mode])


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    # JSON's string escapes are a subset of TOML's basic strings once DEL is escaped as well, but for
    # characters beyond U+FFFF: JSON writes them as two surrogates, which TOML refuses.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
