# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The command line: options as engines write them, help, install, doctor, and what a start imports."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tools.runtime.cli import main as entry
from tools.runtime.cli import usage, words
from tools.runtime.cli.people import document

# What `state`, `kill` and `delete` do without: each alone takes a tenth and more of the time that they may.
SLOW = {
    "json",
    "re",
    "socket",
    "subprocess",
    "ctypes",
    "pathlib",
    "tempfile",
    "dataclasses",
    "typing",
    "enum",
    "argparse",
}


def run(program: Path, *given: str | Path) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [str(word) for word in (program, *given)], capture_output=True, text=True, check=False, timeout=60
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def program(artifacts: Path) -> Path:
    return artifacts / "sev-runtime"


@pytest.mark.parametrize(
    "command", [["state", "one"], ["kill", "one", "15"], ["delete", "one"], ["delete", "--force", "x"]]
)
def test_frequent_commands_import_next_to_nothing(repository: Path, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/state.json").write_text('{"ociVersion": "1.2.0", "id": "one", "status": "running", "pid": 1}')
    code = (
        f"import sys; sys.path.insert(0, {str(repository)!r}); from tools.runtime.cli.main import main;"
        f"main(['--root', {str(tmp_path)!r}, *{command!r}]); print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.splitlines())
    assert "tools.runtime.life.folder" in loaded
    assert not loaded & SLOW


def test_options_as_engines_write_them() -> None:
    given = ["--root", "/r", "--log=/l", "--log-format", "json", "--systemd-cgroup", "kill", "--all", "one", "9"]
    found = words.parse(given, words.GLOBAL, stop=True)
    context = entry.Context(found)
    assert (context.root, context.systemd_cgroup, context.engine_log.path) == ("/r", True, "/l")
    assert found.rest == ["kill", "--all", "one", "9"]


def test_mistakes_are_one_line(program: Path, tmp_path: Path) -> None:
    """Status 1 in what engines call, as with runc; 2 in what people type."""
    log = tmp_path / "log"
    mistakes = {
        "fly": "unknown command 'fly'",
        "instal": "'instal', did you mean install?",
        "state": "takes one container id",
        "--fly": "unknown option '--fly'",
        "start --fly x": "unknown option",
        "create --bundle": "needs a value",
        "state a/b": "no container id",
        "--root": "needs a value",
        "exec x": "no such container",
        "install": "one of --docker",
        "install --dockr": "'--dockr', did you mean --docker?",
        "--config /nowhere/c.toml install --docker": "/nowhere/c.toml: no such file",
        "install --docker --write --to /proc/none/x": "/proc/none/x: cannot be written",
        "doctor fly": "takes no words",
        "source /": "/: File exists",
    }
    for text, said in mistakes.items():
        given = text.split()
        done = run(program, "--root", tmp_path / "root", "--log", log, *given)
        engines = any(word in entry.ENGINE for word in given)
        assert (done.returncode, len(done.stderr.splitlines())) == (1 if engines else 2, 1), done
        assert said in done.stderr
    assert 'level=error msg="unknown command' in log.read_text()


def test_help_names_every_command(program: Path) -> None:
    text = run(program, "--help").stdout
    assert set(usage.COMMANDS) == set(entry.COMMANDS)
    for name in entry.COMMANDS:
        assert f"  {name} " in text
        assert run(program, name, "--help").stdout.startswith(f"usage: sev-runtime {name}")


def test_install_for_docker_keeps_what_stands_there(program: Path, tmp_path: Path) -> None:
    place = tmp_path / "daemon.json"
    place.write_text('{"debug": true, "runtimes": {"other": {"path": "/x"}}}')
    config = tmp_path / "c.toml"
    config.write_text("schema = 1\n")
    given = ("--config", config, "install", "--docker", "--name", "sev", "--to", place)
    shown = run(program, *given)
    assert "other" in place.read_text()
    assert "sev" not in json.loads(place.read_text())["runtimes"]
    assert run(program, *given, "--write").returncode == 0
    assert (
        json.loads(place.read_text())
        == json.loads(shown.stdout)
        == {
            "debug": True,
            "runtimes": {
                "other": {"path": "/x"},
                "sev": {"path": str(program.resolve()), "runtimeArgs": ["--config", str(config)]},
            },
        }
    )
    place.write_text("not JSON")
    assert "cannot be read as JSON" in run(program, *given, "--write").stderr
    assert place.read_text() == "not JSON"


def test_install_for_podman_and_containerd(program: Path, tmp_path: Path) -> None:
    for engine in ("podman", "containerd"):
        place = tmp_path / "new" / engine
        assert run(program, "install", f"--{engine}", "--write", "--to", place).returncode == 0
        assert str(program.resolve()) in json.dumps(tomllib.loads(place.read_text()))


def test_a_document_is_found_where_an_engine_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """By the beginning of its id, as engines show it."""
    for name in ("abc1", "abd2"):
        (tmp_path / "runtime-runc/moby" / name).mkdir(parents=True)
        (tmp_path / "runtime-runc/moby" / name / "document.json").write_text(f"of {name}")
    monkeypatch.setattr(document, "_ROOTS", (f"{tmp_path}/runtime-*/*".lstrip("/"),))
    assert entry.main(["document", "abd"]) == 0
    assert capfdbinary.readouterr().out == b"of abd2"
    for name, said in (("ab", b"2 containers have ids that begin so"), ("c", b"no such container")):
        assert entry.main(["document", name]) == 1
        assert said in capfdbinary.readouterr().err
    # --root is a choice: nothing else is looked at.
    assert entry.main(["--root", str(tmp_path), "document", "abd"]) == 1


def test_doctor_says_what_is_missing(program: Path, qemu: Path, tmp_path: Path) -> None:
    config = tmp_path / "sev-runtime.toml"
    config.write_text(f'schema = 1\nprotection = "unprotected"\nqemu = "{qemu}"\n')
    done = run(program, "--config", config, "doctor")
    assert done.returncode == 0, done.stdout
    assert "unprotected" in done.stdout
    config.write_text(config.read_text() + 'mkfs = "/nowhere/mkfs"\n')
    done = run(program, "--config", config, "doctor")
    assert done.returncode == 1
    assert "MISSING  artifacts  /nowhere/mkfs" in done.stdout
