# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Jinja2 templates that give TOML: values quoted as TOML, mistakes as one line with the template's line."""

import json
import tomllib
from pathlib import Path

from tools.pipeline.base.errors import UserError
from tools.sev import policy


def read(root: Path, template: str) -> str:
    """The text of a template of the checkout at `root`. Raises UserError when it is not UTF-8."""
    try:
        return (root / template).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 at byte {error.start}", where=template) from None


def render(template: str, *, where: str, **values: object) -> str:
    """The text that the template gives for these values; `where` names the template in errors.

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
        text = environment.from_string(template).render(**values)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(error.message or "syntax error", where=f"{where}:{error.lineno}") from None
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        # A template is a small program: what its expressions raise is its author's mistake, not a bug here.
        raise UserError(str(error), where=f"{where}{_line_of(error)}") from None
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the template gives no valid TOML: {error}", where=where) from None
    return text


def _line_of(error: Exception) -> str:
    """Give ":12" for the innermost template line that the error went through, else nothing."""
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
