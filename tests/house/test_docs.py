# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The documentation and what it speaks of: files, tasks, options, tests, links, and the drawing of the rooms."""

import ast
import importlib
import re
import runpy
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tools.launcher.cli.registry import COMMANDS as LAUNCHER_COMMANDS
from tools.launcher.host.qemu_program import SEV_SINCE
from tools.pipeline.front.commands import COMMANDS as DOIT_COMMANDS
from tools.pipeline.tasks.project import Project

WIDTH = 119  # columns of a line
# The table of benchmarks is written by a program.
GENERATED = re.compile(r"<!-- begin: written by .*?<!-- end -->", re.DOTALL)
# What the pages tell people to make themselves.
EXAMPLES = (
    "initramfs/files*",
    "kernel-patches/6.18/series",
    "recipes/kernel/linux-6.18.toml",
    "recipes/kernel/linux-ikconfig.toml",
    "recipes/kernel/fragments/ikconfig.config",
    "recipes/profiles/ikconfig.toml",
    "recipes/profiles/small.toml",
    "recipes/profiles/busy.toml",
    "kernel-patches/6.12/0007-*.patch",
    "small",
    "ikconfig",
    "linux-6-18",
    "kernel-config-linux-ikconfig",
    "artifacts:small",
    "artifacts:busy",
    "artifacts:ikconfig",
    "accept:small",
)


def pages(repository: Path) -> dict[str, str]:
    found = [
        *repository.glob("*.md"),
        *repository.glob("docs/**/*.md"),
        repository / "kernel-patches/README.md",
        repository / "qemu-patches/README.md",
    ]
    return {path.relative_to(repository).as_posix(): path.read_text() for path in sorted(found)}


@pytest.fixture(scope="module")
def texts(repository: Path) -> dict[str, str]:
    found = pages(repository)
    assert {"README.md", "docs/architecture.md", "docs/howto.md"} <= found.keys()
    return found


def is_example(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in EXAMPLES)


# ---- files

TOP = r"(?:tools|tests|recipes|docs|initramfs|kernel-patches|qemu-patches|\.ci)"
PATH = re.compile(rf"(?<![\w/.$*-])({TOP}/[\w./*{{}},+-]*[\w/*}}])")
PLACEHOLDER = re.compile(r"\b[A-Z]{4,}\b")


def missing_files(text: str, root: Path) -> list[str]:
    """Paths of the checkout that are not there; NAME and PROFILE stand for any name."""
    found = []
    for path in PATH.findall(text):
        pattern = PLACEHOLDER.sub("*", path).rstrip("/")
        pattern = re.sub(r"/(\d{4})$", r"/\1*", pattern)  # patches are called by their numbers
        if not (root / path).exists() and not any(root.glob(pattern)) and not is_example(path):
            found.append(path)
    return found


def test_files_that_are_named_are_there(texts: Mapping[str, str], repository: Path) -> None:
    found = {page: names for page, text in texts.items() if (names := missing_files(text, repository))}
    assert not found


def test_a_file_that_is_not_there_is_found(repository: Path) -> None:
    text = "`tools/pipeline/engine/store.py`, `recipes/profiles/NAME.toml`, `recipes/firmware/patches/0004`, `tools/*/`"
    assert missing_files(text, repository) == ["tools/pipeline/engine/store.py"]


def missing_modules(text: str, root: Path) -> list[str]:
    """`module.py` and `test_module.py` without a folder: some file must have that name."""
    places = ("", "tools/**/", "tests/**/")
    return [
        name for name in re.findall(r"`(\w+\.py)`", text)
        if not any(any(root.glob(f"{place}{name}")) for place in places)
    ]  # fmt: skip


def test_modules_that_are_named_are_there(texts: Mapping[str, str], repository: Path) -> None:
    found = {page: names for page, text in texts.items() if (names := missing_modules(text, repository))}
    assert not found
    assert missing_modules("`test_store.py`, `test_cas.py`, `seal.py`", repository) == ["test_store.py"]


def test_links_lead_somewhere(texts: Mapping[str, str], repository: Path) -> None:
    assert not [(page, link) for page, text in texts.items() for link in dead_links(page, text, repository)]
    planted = "[a](none.md) [b](policy.md#none) [c](policy.md#two-words) [d](https://example.org/)"
    assert dead_links("docs/x.md", planted, repository) == ["none.md", "policy.md#none", "policy.md#two-words"]


def dead_links(page: str, text: str, root: Path) -> list[str]:
    found = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        path = (root / page).parent / name if name else root / page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            found.append(link)
    return found


def anchors(text: str) -> set[str]:
    """As GitHub and GitLab make them of headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


# ---- steps, tasks, options


@pytest.fixture(scope="module")
def tasks(repository: Path) -> dict[str, dict[str, bool]]:
    """Task → its options, and whether each takes a value."""
    found: dict[str, dict[str, bool]] = {}
    for name, create in runpy.run_path(str(repository / "dodo.py")).items():
        if name.startswith("task_"):
            base = name.removeprefix("task_")
            made = create()
            for task in [made] if isinstance(made, dict) else made:
                found[full_name(base, task)] = {
                    f"--{option['long']}": option.get("type", str) is not bool for option in task.get("params", [])
                }
            found.setdefault(base, {})
    return found


def full_name(base: str, task: Mapping[str, Any]) -> str:
    base = task.get("basename", base)
    return f"{base}:{task['name']}" if task.get("name") else base


def unknown_words(text: str, tasks: Mapping[str, Mapping[str, bool]]) -> list[str]:
    """Words behind `./doit` that are no task, no command of doit's, and no option of the task before."""
    commands = {name.lower() for command in DOIT_COMMANDS for name in [command.get_name()]}  # type: ignore[attr-defined]  # doit's
    found = []
    for line in re.findall(r"\./doit((?: [\w:.,*+-]+)+)", text):
        words, task = line.split(), ""
        while words:
            word = words.pop(0).rstrip(".,:")
            pattern = re.sub(r"\b[A-Z]{3,}\b", "*", word)
            if word.startswith("-"):
                if word not in tasks.get(task, {}):
                    found.append(f"{task} {word}")
                elif tasks[task][word] and words:
                    words.pop(0)
            elif word in commands or is_example(word):
                task = word
                if word in {"info", "help", "list", "clean", "forget"}:
                    continue
            elif any(fnmatchcase(name, pattern) for name in tasks):
                task = word
            else:
                found.append(word)
    return found


def code(text: str) -> str:
    """What is set as code, a line each: prose goes on behind a command's name."""
    blocks = [found[0] for found in re.finditer(r"^```\w*\n.*?^```|^    [^\n]*$", text, re.MULTILINE | re.DOTALL)]
    spans = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    joined = "\n".join([*blocks, *(span.replace("\n", " ") for span in spans)]).replace("\\\n", " ")
    return re.sub(r"(?m)(?<=\S) {2,}.*$| #.*$", "", joined)


def test_tasks_and_options_that_are_named_are_there(
    texts: Mapping[str, str], tasks: Mapping[str, Mapping[str, bool]]
) -> None:
    found = {page: words for page, text in texts.items() if (words := unknown_words(code(text), tasks))}
    assert not found


def test_a_task_that_is_not_there_is_found(tasks: Mapping[str, Mapping[str, bool]]) -> None:
    text = "```\n./doit kernel:production && ./doit accept:PROFILE    # ./doit no\n./doit lock --only a,b --each\n```\n"
    assert unknown_words(code(text), tasks) == ["kernel:production", "lock --each"]
    assert unknown_words(code("`./doit info TASK`, or `./doit\nfirmware`; ./doit it"), tasks) == ["firmware"]


def test_results_that_are_named_are_of_steps(texts: Mapping[str, str], project: Project) -> None:
    outputs = {f"{step.name}/{name}" for step in project.plan.steps for name in step.outputs}
    found = []
    for page, text in texts.items():
        for path in re.findall(r"build/results/([\w.-]+(?:/[\w.-]+\w)?)", text):
            pattern = PLACEHOLDER.sub("*", path).removesuffix(".json")
            good = any(fnmatchcase(name, pattern) or fnmatchcase(name.split("/")[0], pattern) for name in outputs)
            if not good and not is_example(path.split("/")[0]):
                found.append((page, path))
    assert not found


def unknown_launcher_options(text: str) -> list[str]:
    found = []
    for name, rest in re.findall(r"sev-launch ([a-z]+)((?: [^\n|&;]*)?)", text):
        if name not in LAUNCHER_COMMANDS:
            found.append(name)
            continue
        syntax = importlib.import_module(f"tools.launcher.cli.{name}").SYNTAX
        known = {option.name for option in syntax.options} | {"--help"}
        given = re.findall(r"(?<=[\s\[])(--[a-z-]+)", re.split(r" -- | --$", rest)[0])
        found += [f"{name} {option}" for option in given if option not in known]
    return found


def test_options_of_the_launcher_are_there(texts: Mapping[str, str]) -> None:
    found = {page: words for page, text in texts.items() if (words := unknown_launcher_options(code(text)))}
    assert not found
    planted = "sev-launch run --rootfs x --port 1 -- sh --nope\nsev-launch start\nsev-launch show [--json]"
    assert unknown_launcher_options(planted) == ["run --port", "start"]


# ---- form


def test_lines_are_short(texts: Mapping[str, str]) -> None:
    found = {
        page: lines
        for page, text in texts.items()
        if (lines := [line[:60] for line in GENERATED.sub("", text).splitlines() if len(line) > WIDTH])
    }
    assert not found


# ---- the drawing of the rooms


def drawn(text: str) -> dict[str, set[str]]:
    """Side/room → rooms that it imports from, as docs/architecture.md draws it."""
    found = {}
    for side, block in re.findall(
        r"^```\ntools/(pipeline|launcher|runtime|attack)/\n(.*?)^```", text, re.MULTILINE | re.DOTALL
    ):
        for line in block.splitlines():
            room, arrow, others = line.partition("─▶")
            assert arrow, line
            found[f"{side}/{room.strip()}"] = set(others.split())
    return found


def imported(root: Path) -> dict[str, set[str]]:
    """The same, as the code has it; inside of functions too."""
    found: dict[str, set[str]] = {}
    for side in ("pipeline", "launcher", "runtime", "attack"):
        for path in sorted((root / "tools" / side).glob("*/**/*.py")):
            room = path.relative_to(root / "tools" / side).parts[0]
            others = found.setdefault(f"{side}/{room}", set())
            others.update(other for name in modules(path.read_text()) if (other := room_of(name, side)) != room)
    return {room: others - {""} for room, others in found.items()}


def modules(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str, side: str) -> str:
    """The room of a module of ours, seen from `side`; empty for any other."""
    words = module.split(".")
    if words[0] != "tools" or len(words) < 3:
        return ""
    return words[2] if words[1] == side else words[1]


def test_the_drawing_shows_the_imports(texts: Mapping[str, str], repository: Path) -> None:
    picture, real = drawn(texts["docs/architecture.md"]), imported(repository)
    assert picture == real
    order = list(picture)
    for number, room in enumerate(order):
        side = room.split("/")[0]
        below = {"sev"} | {"attack": {"pipeline", "launcher"}, "runtime": {"launcher"}}.get(side, set())
        assert all(other in below or order.index(f"{side}/{other}") > number for other in picture[room]), room


def test_a_missing_arrow_would_be_seen(repository: Path) -> None:
    text = "```\ntools/pipeline/\n  engine     ─▶ base sev\n  base       ─▶ sev\n```\n"
    assert drawn(text) == {"pipeline/engine": {"base", "sev"}, "pipeline/base": {"sev"}}
    assert drawn(text)["pipeline/engine"] != imported(repository)["pipeline/engine"]
    assert set(modules("import tools.sev.policy\ndef f():\n    from tools.pipeline.base import ui")) == {
        "tools.sev.policy",
        "tools.pipeline.base.ui",
    }


def test_where_to_change_what_is_answered(texts: Mapping[str, str]) -> None:
    section = texts["docs/architecture.md"].split("## Two sides")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| X ")]
    assert len(rows) >= 25
    assert all("`" in row.split("|")[2] for row in rows)


# ---- claims about versions


def test_the_qemu_that_is_asked_for_is_the_one_that_the_code_takes(texts: Mapping[str, str]) -> None:
    since = ".".join(map(str, SEV_SINCE[:2]))
    assert f"QEMU: {since} or later for every protected guest" in plain(texts["README.md"])
    assert f"| SEV, SEV-ES, SEV-SNP | {since} or later |" in texts["docs/launcher.md"]
    # Nowhere for some of the modes only, as a README once had it.
    only = re.compile(r"\d+\.\d+ for SEV")
    assert only.search("(7.2 or later; 9.1 for SEV-SNP)")
    assert [name for name, text in texts.items() if only.search(plain(text))] == []


def plain(text: str) -> str:
    """On one line."""
    return " ".join(text.split())
