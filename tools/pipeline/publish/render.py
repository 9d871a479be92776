# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A program for the sandbox: Jinja2 templates that give TOML, with values quoted as TOML.

    python3 render.py REQUEST.json TEMPLATE OUT [ROLE=ARTIFACT ...] [digests=LAUNCH-DIGESTS.json]

REQUEST.json holds `where` (what errors call the template) and `documents`: file name in OUT → values. Each artifact
is measured here, so that a template says what lies beside it: `artifacts[ROLE]` has sha256 and size, `file` comes from
the values' `files[ROLE]`. A mistake in the template ends with status 2 and one line: place and reason.
"""

import hashlib
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

MISTAKE = 2


class TemplateMistakeError(Exception):
    """What is wrong with a template, on one line with its place."""


def main(argv: Sequence[str]) -> int:
    """Render every document of the request; the exit status."""
    request = json.loads(Path(argv[0]).read_bytes())
    template = Path(argv[1]).read_bytes()
    out = Path(argv[2])
    given = dict(word.partition("=")[::2] for word in argv[3:])
    digests = given.pop("digests", None)
    measured: dict[str, Any] = {"artifacts": [], "digests": {}}
    if digests is not None:
        measured["digests"] = json.loads(Path(digests).read_bytes())["configured"]["digests"]
    try:
        for name, values in request["documents"].items():
            files = values.pop("files", {})
            measured["artifacts"] = [(role, measure(Path(path), files[role])) for role, path in given.items()]
            text = render(template, where=request["where"], values={**values, **measured})
            (out / name).write_bytes(text.encode())
    except TemplateMistakeError as mistake:
        print(mistake, file=sys.stderr)
        return MISTAKE
    return 0


def measure(path: Path, file: str) -> dict[str, object]:
    """Name, SHA-256 and size in bytes of an artifact."""
    data = path.read_bytes()
    return {"file": file, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def render(template: bytes, *, where: str, values: Mapping[str, Any]) -> str:
    """The text that the template gives for these values.

    Raises TemplateMistakeError, with the template's line where it is known, when it is wrong or gives no valid TOML.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (TOML, not HTML: the toml filter quotes)
    )
    environment.filters["toml"] = _toml
    try:
        text = environment.from_string(template.decode()).render(**values)
    except UnicodeDecodeError as error:
        raise TemplateMistakeError(f"{where}: is not UTF-8 at byte {error.start}") from None
    except jinja2.TemplateSyntaxError as error:
        raise TemplateMistakeError(f"{where}:{error.lineno}: {_one_line(error.message or 'syntax error')}") from None
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        # A template is a small program: what its expressions raise is its author's mistake, not a bug here.
        raise TemplateMistakeError(f"{where}{_line_of(error)}: {_one_line(str(error))}") from None
    try:
        tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise TemplateMistakeError(f"{where}: the template gives no valid TOML: {_one_line(str(error))}") from None
    return text


def _one_line(text: str) -> str:
    return " ".join(text.split())


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


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    # JSON's string escapes are a subset of TOML's basic strings once DEL is escaped as well, but for
    # characters beyond U+FFFF: JSON writes them as two surrogates, which TOML refuses.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
