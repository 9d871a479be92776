# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The table of fields holds every field of the specification, and docs/oci-fields.md shows it.

python -m tests.launcher.oci.test_fields    writes the table into that page
"""

from pathlib import Path
from typing import Any

import pytest

from tests.launcher.oci.oci_kit import captured, parsed
from tools.launcher.base.errors import UserError
from tools.launcher.oci.fields import FIELDS, Verdict


def specified() -> list[str]:
    """Paths as the table has them: an array's or object's own mark only where something is below."""
    text = (Path(__file__).parent / "specification.txt").read_text()
    return [line.removesuffix("[]").removesuffix("{}") for line in text.splitlines() if not line.startswith("#")]


def within(path: str, outer: str) -> bool:
    return path == outer or path.startswith((f"{outer}.", f"{outer}[].", f"{outer}{{}}."))


def test_every_field_of_the_specification_has_one_verdict() -> None:
    paths = specified()
    assert "linux.seccomp.syscalls[].args[].valueTwo" in paths
    leaves = [path for path in paths if not any(within(other, path) for other in paths if other != path)]
    for leaf in leaves:
        rows = [outer for outer in FIELDS if within(leaf, outer)]
        assert len(rows) == 1, f"{leaf}: {rows}"


def test_the_table_has_no_field_that_is_not_in_the_specification() -> None:
    assert set(FIELDS) <= set(specified())
    assert all(field.reason for field in FIELDS.values())


BEGIN, END = "<!-- begin: written by tests/launcher/oci/test_fields.py -->\n", "<!-- end -->\n"


def table() -> str:
    """The rows of docs/oci-fields.md."""
    head = "| field | | why, or how | option |\n|---|---|---|---|\n"
    return head + "".join(
        f"| `{path}` | {field.verdict} | {field.reason} | {field.option and '`' + field.option + '`'} |\n"
        for path, field in FIELDS.items()
    )


def test_the_documentation_shows_the_table(repository: Path) -> None:
    assert table() in (repository / "docs/oci-fields.md").read_text()


def put(config: dict[str, object], path: str, value: object) -> None:
    """Set what the path leads to, making what is missing on the way."""
    *way, last = path.split(".")
    here = config
    for part in way:
        name = part.removesuffix("[]")
        inner = here.setdefault(name, [{}] if part != name else {})
        assert isinstance(inner, dict | list)
        if isinstance(inner, list):
            if not inner:
                inner.append({})
            inner = inner[0]
        here = inner
    here[last] = value


@pytest.mark.parametrize("path", [path for path, field in FIELDS.items() if field.verdict is Verdict.REFUSED])
def test_what_is_refused_is_refused_by_name_and_passes_where_it_says_nothing(path: str) -> None:
    config = captured("docker-26.1")
    put(config, path, {"some": ["thing"]})
    with pytest.raises(UserError) as caught:
        parsed(config)
    line = str(caught.value)
    assert path.replace("[]", "") in line.replace("[]", "")
    assert FIELDS[path].reason in line
    assert FIELDS[path].option in line
    empty: tuple[Any, ...] = ({}, [], 0, False, "", None, {"inner": {"deep": []}})
    for nothing in empty:
        put(config, path, nothing)
        parsed(config)


@pytest.mark.parametrize("path", ["new", "process.new", "linux.resources.cpu.new", "mounts[].new", "hooks.new"])
def test_what_is_unknown_is_refused(path: str) -> None:
    config = captured("podman-5.4")
    parsed(config)
    put(config, path, 0)
    with pytest.raises(UserError, match=r"is no field that this runtime knows"):
        parsed(config)


def write(page: Path) -> None:
    text = page.read_text()
    page.write_text(text.partition(BEGIN)[0] + BEGIN + table() + END + text.partition(END)[2])


if __name__ == "__main__":
    write(Path(__file__).parents[3] / "docs/oci-fields.md")
