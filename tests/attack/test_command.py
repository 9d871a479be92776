# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m tools.attack`: planted attacks with real artifacts, real attacks with artifacts that lack a defence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.attack import planted
from tools.attack import catalogue
from tools.attack.base.lab import Lab
from tools.attack.base.model import Topic
from tools.attack.front import registry
from tools.attack.front.command import main
from tools.attack.undefended import agent, firmware

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """Status, standard output, standard error."""

    def run(*words: str, package: Any = planted) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main(words, package)
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return run


def verdicts(text: str) -> dict[str, str]:
    return {row["name"]: row["verdict"] for row in json.loads(text)["rows"]}


def test_a_planted_table(call: Call, artifacts: Path) -> None:
    status, out, err = call()
    assert status == 1
    assert "6 attacks: 2 held, 1 broken, 3 inconclusive, 0 unjudged\n" in out
    assert "ZeroDivisionError: by the attack" in out
    assert "Traceback" not in out + err
    # A line for each as it is there.
    assert err.count("boot/kinds/") == 5
    status, out, _ = call("--json", "--only", "boot/kinds/held,life")
    assert (status, verdicts(out)) == (0, {"boot/kinds/held": "held", "life/kind/held": "held"})
    assert json.loads(out)["artifacts"].keys() == {"kernel", "firmware", "initramfs"}


@pytest.mark.parametrize("name", ["broken", "no-attack", "no-honest", "crash"])
def test_each_that_did_not_hold_fails_alone(call: Call, artifacts: Path, name: str) -> None:
    assert call("--only", f"boot/kinds/{name}")[0] == 1


def test_list_short_and_topic(call: Call) -> None:
    status, out, _ = call("--list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["s", *["boot/kinds/" + n for n in (
        "broken", "no-attack", "no-honest", "crash")], "life/kind/held"]  # fmt: skip
    assert call("--list", "--topic", "life")[1].count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--topic", "boots"], "--topic: there is no topic 'boots'; did you mean 'boot'?"),
        (["--only", "boot/none"], "--only: no attack is called 'boot/none'; ./doit attack --list names them"),
        (["--topic", "life", "--short"], "no attack is left"),
        (["--out", "/proc/none"], "--out /proc/none: is no folder"),
        (["--kernel", "x"], "--kernel belongs to --out"),
    ],
)
def test_mistakes(call: Call, artifacts: Path, words: list[str], says: str) -> None:
    status, out, err = call(*words)
    assert (status, out) == (2, "")
    assert says in err
    assert "Traceback" not in err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in ("held", "broken", "inconclusive", "unjudged", "--short", "--out", "docs/attack.md"):
        assert word in text


def test_the_catalogue() -> None:
    """Every topic has rows, the whole has sixty and more, and every row says what the host does."""
    found = registry.entries(catalogue)
    assert len(found) >= 60
    assert {entry.topic for entry in found} >= {Topic.BOOT, Topic.STORAGE, Topic.CHANNEL}
    assert all(entry.attack.host and entry.attack.control.what for entry in found)
    short = [entry for entry in found if entry.attack.short]
    assert 10 <= len(short) < len(found) / 2


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    return folder


FIRMWARE = ("boot/blobs/word-more", "boot/table/none")
AGENT = ("storage/blocks/list-entry", "channel/words/both")


def test_others_firmware_is_judged_and_what_is_not_there_is_not(call: Call, lab: Lab, theirs: Path) -> None:
    shutil.copy(lab.own.firmware, theirs)
    words = ("--json", "--out", str(theirs), "--only", ",".join(FIRMWARE + AGENT))
    status, out, _ = call(*words, package=catalogue)
    assert (status, verdicts(out)) == (0, dict.fromkeys(FIRMWARE, "held") | dict.fromkeys(AGENT, "unjudged"))


def test_firmware_that_verifies_nothing_is_broken(call: Call, lab: Lab, theirs: Path) -> None:
    shutil.copy(firmware.unverified(lab, lab.own).firmware, theirs / "AmdSev.fd")
    words = ("--json", "--out", str(theirs), "--firmware", "AmdSev.fd", "--only", ",".join(FIRMWARE))
    status, out, _ = call(*words, package=catalogue)
    assert (status, verdicts(out)) == (1, dict.fromkeys(FIRMWARE, "broken"))


def test_an_agent_that_ignores_corruption_is_broken(call: Call, lab: Lab, theirs: Path) -> None:
    """Only where it matters."""
    shutil.copy(agent.ignoring_corruption(lab, lab.own).initramfs, theirs / "initrd.img")
    shutil.copy(lab.own.kernel, theirs / "vmlinuz")
    status, out, _ = call("--json", "--out", str(theirs), "--only", ",".join(AGENT), package=catalogue)
    assert (status, verdicts(out)) == (1, {AGENT[0]: "broken", AGENT[1]: "held"})


def test_what_is_none_of_it_is_never_held(call: Call, lab: Lab, theirs: Path) -> None:
    """A kernel that is none: nothing starts, so nothing was shown."""
    (theirs / "vmlinuz").write_bytes(lab.own.kernel.read_bytes()[:4096].ljust(1 << 20, b"\0"))
    shutil.copy(lab.own.firmware, theirs)
    status, out, _ = call("--json", "--out", str(theirs), "--only", FIRMWARE[0], package=catalogue)
    assert (status, verdicts(out)) == (1, {FIRMWARE[0]: "unjudged"})
