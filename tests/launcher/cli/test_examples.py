# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Each example in a text of --help is a command that works: its options parse, and what starts no guest is run."""

import importlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.conftest import OWN, Answer
from tests.launcher.launcher_kit import Out
from tools.launcher.base.errors import UserError
from tools.launcher.cli import registry
from tools.launcher.options.parser import Syntax, help_text, parse
from tools.runtime.cli import main as runtime
from tools.runtime.cli import usage

HASH = "ab" * 32
_EXAMPLE = re.compile(r"^  ((?:sev-launch|sev-runtime) (?:[^\\\n]|\\\n|\\.)*)", re.MULTILINE)


def syntax(name: str) -> Syntax:
    found: Syntax = importlib.import_module(f"tools.launcher.cli.{name}").SYNTAX
    return found


def texts() -> list[str]:
    """All of sev-launch's, by which --help begins."""
    return [registry.overview(), *(help_text(name, text, syntax(name)) for name, text in registry.COMMANDS.items())]


def examples(text: str) -> list[str]:
    """Behind "examples:", which usage lines are not."""
    return _EXAMPLE.findall(text.partition("examples:\n")[2])


ALL = sorted({example for text in texts() for example in examples(text)})


def words(example: str) -> list[str]:
    """As a shell would make them; what it reads from and writes to is left out."""
    text = re.sub(r"\s(?:&|[<>]\s*\S+)$", "", example.replace("\\\n", " "))
    found = [word.replace("$HASH", HASH) for word in shlex.split(text)]
    assert found[0] == "sev-launch"
    assert not [word for word in found if "…" in word]
    return found[1:]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tar: Path) -> Path:
    """Where the files of the examples are."""
    folder = tmp_path / "folder"
    (folder / "rootfs").mkdir(parents=True)
    (folder / "nonce").write_bytes(b"n" * 32)
    for name in ("app.tar", "busybox.tar"):
        (folder / name).write_bytes(tar.read_bytes())
    monkeypatch.chdir(folder)
    return folder


def parsed(example: str) -> None:
    name, *rest = words(example)
    assert name in registry.COMMANDS
    parse(syntax(name), rest, command=name)


@pytest.mark.parametrize("example", ALL)
@pytest.mark.usefixtures("folder")
def test_it_parses(example: str) -> None:
    parsed(example)


@pytest.mark.usefixtures("folder")
def test_what_would_not() -> None:
    assert len(ALL) > 20
    for wrong in ("sev-launch run --verity", "sev-launch shwo", "sev-launch verify r.bin --nonce @nonce …"):
        with pytest.raises((UserError, AssertionError)):
            parsed(wrong)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", ["show", "digest", "workload", "policy"])
def test_it_works(out: Out, standin: Path, call: Callable[..., Answer], command: str) -> None:
    """Those that start nothing and need none of the files that a test does not have."""
    chosen = [example for example in ALL if words(example)[0] == command]
    assert chosen
    ran = 0
    for example in chosen:
        name, *rest = words(example)
        if {"--vmm", "--image", "--bundle", "--verity", "--workload", "workload.json"} & set(rest):
            continue
        more = [] if name == "policy" or rest[0] == "workload.json" else ["--config", str(out.config)]
        more += ["--qemu", str(standin), "--qemu-user", OWN] if name == "show" else []
        answer = call(name, *more, *rest)
        assert answer.status == 0, answer.err
        ran += 1
    assert ran


@pytest.mark.usefixtures("folder")
def test_what_does_not_work(out: Out, call: Callable[..., Answer]) -> None:
    """The control: it parses, and says nothing of what runs."""
    assert call("show", "--json", "--config", out.config).status == 2


def test_texts_of_the_runtime(capfd: pytest.CaptureFixture[str]) -> None:
    """They have usages and no examples; one would have to be looked at here."""
    for given in (["--help"], *([name, "--help"] for name in usage.COMMANDS)):
        assert runtime.main(given) == 0
        text = capfd.readouterr().out
        assert "usage: sev-runtime" in text
        assert "example" not in text
