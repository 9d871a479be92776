# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PLR0917  pytest hands fixtures over by name
"""The launcher as one file: found config, isolation, missing descriptors, Ctrl-C, what a start imports."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launcher.channel.test_session import gone, wait_for
from tests.launcher.conftest import OWN, REPOSITORY
from tests.launcher.launcher_kit import Out
from tools.pipeline.publish import pack_launcher

# The file starts the first python3 on PATH; that which runs the tests is it for them.
PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"


@pytest.fixture
def one_file(out: Out, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The launcher packed as the build packs it, beside runtime.toml."""
    monkeypatch.setenv("PATH", PATH)
    target = out.folder / "sev-launch"
    pack_launcher.main([str(REPOSITORY), str(target)])
    return target


def run_words(standin: Path, tar: Path, *argv: str) -> list[str]:
    options = ["--unprotected", "--accel", "tcg", "--qemu", str(standin), "--qemu-user", OWN, "--rootfs", str(tar)]
    return ["run", *options, "--", *argv]


def test_one_file_finds_its_config(one_file: Path, standin: Path, tar: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(one_file)
    words = run_words(standin, tar, "echo", "hi")
    for program in ([one_file], [elsewhere / "link"], ["./link"], ["sh", "link"], [sys.executable, one_file]):
        done = subprocess.run([*program, *words], cwd=elsewhere, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout == b"hi\n"
    moved = tmp_path / "moved"
    one_file.parent.rename(moved)
    assert subprocess.run([moved / "sev-launch", *words], capture_output=True, check=False).returncode == 0
    # Nothing may be written beside it: out/ can be read-only.
    assert not (moved / "__pycache__").exists()
    (moved / "runtime.toml").unlink()
    done = subprocess.run([moved / "sev-launch", "show"], capture_output=True, check=False)
    assert done.returncode == 2
    assert str(moved / "runtime.toml") in done.stderr.decode()


def test_no_home_and_no_path(one_file: Path, tar: Path, standin: Path) -> None:
    words: list[str | Path] = [sys.executable, one_file, *run_words(standin, tar, "/bin/true")]
    done = subprocess.run(words, capture_output=True, check=False, env={}, timeout=60)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, one_file, "show"], capture_output=True, check=False, env={})
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_reader_that_left(one_file: Path) -> None:
    words = ["bash", "-c", f"{one_file} --help | true; echo ${{PIPESTATUS[0]}}"]
    done = subprocess.run(words, capture_output=True, check=False)
    assert (done.stdout.strip() in {b"0", b"141"}, done.stderr) == (True, b"")


@pytest.mark.parametrize("command", ["--help", "policy 0x30000", "digest --unbound --quiet"])
def test_an_answer_that_nobody_could_get_is_an_error(one_file: Path, command: str) -> None:
    done = subprocess.run(["sh", "-c", f"exec {one_file} {command} >&-"], capture_output=True, check=False)
    assert done.returncode == 125
    assert done.stderr == b"sev-launch: stdout: Bad file descriptor; output was lost\n"
    done = subprocess.run(["sh", "-c", f"exec {one_file} {command} 2>&- <&-"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout


@pytest.mark.parametrize(
    ("closed", "argv", "status", "said"),
    [
        ("<&-", "cat; echo end; exit 3", 3, b"end\n"),
        ("2>&-", "echo lost >&2; echo out; exit 3", 3, b"out\n"),
        ("<&- 2>&-", "cat; echo out; exit 3", 3, b"out\n"),
        (">&-", "exit 3", 3, b""),
        (">&-", "echo needed; exit 3", 125, b""),
        ("<&- >&- 2>&-", "cat; exit 3", 3, b""),
        ("<&- >&-", "cat; exit 3", 3, b""),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_missing_standard_descriptors(
    one_file: Path, standin: Path, tar: Path, closed: str, argv: str, status: int, said: bytes, *, packed: bool
) -> None:
    """Nothing else may be opened in their place; what a lost stdout was needed for is lost output."""
    words = " ".join(f"'{word}'" for word in run_words(standin, tar, "sh", "-c", argv))
    program = str(one_file) if packed else f"{sys.executable} -m tools.launcher"
    words = words.replace("'run'", f"'run' --config {one_file.parent}/runtime.toml", 1)
    done = subprocess.run(
        ["sh", "-c", f"exec {program} {words} {closed}"], cwd=REPOSITORY, capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (status, said), done.stderr
    if status == 125:
        assert b"stdout: Bad file descriptor; output was lost" in done.stderr


def test_nothing_of_the_users_runs(one_file: Path, tmp_path: Path) -> None:
    """No PYTHON* variable, no folder that the caller stands in."""
    trap = tmp_path / "trap"
    (trap / "tools/launcher").mkdir(parents=True)
    marker = tmp_path / "marker"
    code = f"import posix; posix.close(posix.open({str(marker)!r}, posix.O_CREAT | posix.O_WRONLY))\n"
    names = ["sitecustomize", "usercustomize", "argparse", "json", "hashlib", "re", "enum", "struct", "tomllib", "site"]
    for name in (*names, "tools/__init__", "tools/launcher/__init__"):
        (trap / f"{name}.py").write_text(code)
    env = os.environ | {
        "PYTHONPATH": str(trap), "PYTHONSTARTUP": str(trap / "re.py"), "PYTHONUSERBASE": str(trap),
        "PYTHONPYCACHEPREFIX": str(trap), "PYTHONINSPECT": "1", "PYTHONWARNINGS": "error",
    }  # fmt: skip
    for words in (
        ["--help"],
        ["policy", "--json", "0x30000"],
        ["digest", "--unbound"],
        ["check"],
        ["show", "--unbound", "--cbit", "51"],
    ):
        done = subprocess.run([one_file, *words], cwd=trap, env=env, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert not marker.exists(), words
    subprocess.run([sys.executable, "-c", "import json"], cwd=trap, env=env, capture_output=True, check=False)
    assert marker.exists(), "the trap works"


def test_a_start_imports_what_it_needs() -> None:
    """--help and policy have 1.5 times what Python itself takes to start; tests/bench/launcher_start.py times it."""
    slow = {"argparse", "collections", "dataclasses", "enum", "json", "os", "pathlib", "re", "typing"}
    code = (
        "import sys; sys.path.insert(0, '.'); before = set(sys.modules); from tools.launcher.cli.main import main;"
        "status = main(sys.argv[1:]); print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    for words in (["--help"], ["policy", "0x30000"], ["policy", "smt=true"], ["policy", "--help"]):
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code, *words],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not slow & set(done.stderr.split()), done.stderr
        assert "tools.launcher.guest" not in done.stderr
        # No options are parsed for --help alone.
        assert ("tools.launcher.options.parser" in done.stderr.split()) == (words != ["--help"])
    words = [sys.executable, "-I", "-S", "-c", code, "digest", "--help"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "re" in done.stderr.split(), "what is imported is seen"
    assert "subprocess" not in done.stderr.split()


def test_another_python_compiles_the_sources(one_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["policy", "0xb0000"]
    first = subprocess.run([one_file, *words], capture_output=True, check=True).stdout

    def packed(magic: bytes) -> subprocess.CompletedProcess[bytes]:
        """With bytecode that would not even load."""
        with monkeypatch.context() as patch:
            patch.setattr(
                pack_launcher, "_compiled", lambda _, files: (magic, ("cpython-0", dict.fromkeys(files, b"no code")))
            )
            one_file.write_bytes(pack_launcher.pack(REPOSITORY / "tools"))
        return subprocess.run([one_file, *words], capture_output=True, check=False)

    done = packed(b"\0\0\r\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, first, b"")
    assert packed(importlib.util.MAGIC_NUMBER).returncode == 1, "this Python's would be looked at"


def test_the_source_can_be_unpacked(one_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "source"
    done = subprocess.run([one_file, "--source", target], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    wanted = pack_launcher.sources(REPOSITORY / "tools")
    assert found == {p.relative_to(REPOSITORY).as_posix(): p.read_bytes() for p in wanted}
    words = [sys.executable, "-m", "tools.launcher", "policy", "0x30000"]
    assert subprocess.run(words, cwd=target, capture_output=True, check=False).returncode == 0
    again = subprocess.run([one_file, "--source", target], capture_output=True, check=False, text=True)
    assert again.returncode == 2
    assert again.stderr == f"sev-launch: {target}: File exists\n"


@pytest.mark.parametrize("command", ["run --help", "--help", "policy 0x30000", "show --unbound --cbit 51", "nonsense"])
def test_ascii_terminals(command: str, out: Out) -> None:
    env = os.environ | {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-m", "tools.launcher", *command.split()]
    words += ["--config", str(out.config)] if "cbit" in command else []
    done = subprocess.run(words, cwd=REPOSITORY, env=env, capture_output=True, check=False, timeout=60)
    assert done.returncode == (2 if command == "nonsense" else 0), done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("milliseconds", [0, 3, 6, 9, 12, 20, 40, 60, 90, 120, 200, 300])
def test_ctrl_c_right_after_the_start(one_file: Path, tar: Path, standin: Path, milliseconds: int) -> None:
    """130 as a shell sees it, from the shell's first instruction on; silent from the program's first line on.

    Between the two lie the milliseconds in which Python starts: it has a handler for the signal by then, no line
    of the program has run, and nothing outside Python can keep it from showing where in its own modules it was.
    """
    words: list[str | Path] = [one_file, *run_words(standin, tar, "true")]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, env=os.environ | {"STANDIN": "silent"})
    time.sleep(milliseconds / 1000)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    frames = re.findall(rb'File "(.*?)", line (\d+)', said)
    if frames and all(file.startswith(b"<frozen") or (file, line) == (b"<string>", b"0") for file, line in frames):
        return  # Python's own start: no line of the program has run
    assert process.returncode in {130, -signal.SIGINT}
    assert [line for line in said.splitlines() if b"UNPROTECTED" not in line] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_while_the_root_is_packed_leaves_nothing(
    one_file: Path, standin: Path, tmp_path: Path, number: signal.Signals
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with (root / "large").open("wb") as stream:
        stream.truncate(64 << 30)  # takes no room here; its copy would, so packing it takes long enough
    run, *rest = run_words(standin, root, "true")
    words: list[str | Path] = [one_file, run, "--rootfs-limit", "128G", *rest]
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    packed = tmp_path / "tmp"
    wait_for(lambda: any(path.stat().st_size for path in packed.glob("*/rootfs.tar")))
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"Traceback" not in said
    assert not list(packed.iterdir())


def test_what_was_ignored_stays_ignored(one_file: Path, standin: Path, tar: Path, tmp_path: Path) -> None:
    """`nohup sev-launch`, and a background job's Ctrl-C."""
    log = tmp_path / "log"
    shell = f"trap '' INT HUP; exec {one_file} " + " ".join(run_words(standin, tar, "sh", "-c", "'sleep 1; exit 4'"))
    process = subprocess.Popen(["sh", "-c", shell], stderr=subprocess.PIPE, env=os.environ | {"STANDIN_LOG": str(log)})
    wait_for(log.exists)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 4
    wait_for(lambda: gone(json.loads(log.read_text())["pid"]))
