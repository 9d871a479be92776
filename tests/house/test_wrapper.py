# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""./doit: starts at once in a finished environment, names what is missing in one line, stops when told."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.checkout import copy_all

ERROR = "doit: error: "
# A graph with one quick task, whatever the real one needs.
SMALL = """
from pathlib import Path
from tools.pipeline.tasks import doit_glue

BUILD = Path(__file__).parent / "build"
DOIT_CONFIG = doit_glue.config(BUILD, default="small")


def make():
    (BUILD / "small").mkdir(parents=True)
    (BUILD / "small/file").touch()


def task_small():
    yield {"name": "one", "actions": [doit_glue.action(make)], "uptodate": [True], "targets": [BUILD / "small/file"]}
"""


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A copy that borrows the environment that the tests run in."""
    root = copy_all(repository, tmp_path / "checkout")
    python = root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    shutil.copy(root / "requirements.lock", root / ".venv")
    (root / "small.py").write_text(SMALL)
    (root / ".venv/stamp").write_text(f"{root}\n{python}\n")
    return root


def start(root: Path, *words: str, path: str | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [root / "doit", *words],
        cwd="/",
        env={"PATH": path or os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(root: Path, *words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    process = start(root, *words, path=path)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def shell(root: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A line as a person types it, in the checkout."""
    return subprocess.run(
        ["bash", "-c", script],
        cwd=root,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def path_without(tmp_path: Path, *missing: str) -> str:
    """A folder with the programs that the wrapper may need, except those; `id` says: not root."""
    folder = tmp_path / "bin"
    folder.mkdir()
    # Not the python3 on PATH, which may be a shim that needs a shell and tools of its own.
    (folder / "python3").symlink_to(Path(sys.base_prefix) / "bin/python3")
    for name in ("sh", "cmp", "bwrap", "apt-cache"):
        found = shutil.which(name)
        if found is not None and name not in missing:
            (folder / name).symlink_to(found)
    (folder / "id").write_text("#!/bin/sh\necho 1000\n")
    (folder / "id").chmod(0o755)
    return str(folder)


def test_a_finished_environment_is_used_as_it_is(checkout: Path) -> None:
    """From any working directory; nothing is said, nothing is set up."""
    done = run(checkout, "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("build ")


def test_it_is_found_through_a_link_and_by_its_bare_name(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(checkout)
    for done in (run(tmp_path / "link", "list"), shell(checkout, "sh doit list")):
        assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_host_package_is_one_line(checkout: Path, tmp_path: Path) -> None:
    """Without the right to install it: the command that would, and status 2."""
    done = run(checkout, "list", path=path_without(tmp_path, "bwrap"))
    assert done.returncode == 2
    assert done.stderr == f"{ERROR}host packages are missing; run: sudo apt-get install bubblewrap\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--nope"], "option --nope not recognized; see ./doit help run"),
        (["list", "--nope"], "option --nope not recognized; see ./doit help list"),
        (["repro", "--nope"], "option --nope not recognized; see ./doit help"),
        (["biuld"], "no task or command is called 'biuld'; did you mean build"),
        (["-f", "small.py", "small:oen"], "no task or command is called 'small:oen'; did you mean small:one"),
        (["clean", "biuld"], "no task or command is called 'biuld'; did you mean build"),
        (["info", "zzz"], "no task or command is called 'zzz'; ./doit list shows"),
    ],
)
def test_what_is_mistyped_is_one_line_and_status_2(checkout: Path, words: list[str], says: str) -> None:
    done = run(checkout, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{ERROR}{says}")
    assert done.stderr.count("\n") == 1


def test_help_behind_a_task_is_the_help_of_that_task(checkout: Path) -> None:
    wanted = run(checkout, "help", "repro")
    assert wanted.stdout.startswith("repro  ")
    done = run(checkout, "repro", "--help")
    assert (done.returncode, done.stdout, done.stderr) == (0, wanted.stdout, "")


@pytest.mark.parametrize(
    ("redirection", "says"),
    [
        (">/dev/full", "standard output: No space left on device; stopped"),
        (">&-", "standard output: it is closed; ./doit list prints there"),
        ("<&- >&-", "standard output: it is closed; ./doit list prints there"),
        ("| true", "standard output: nobody reads it any more; stopped"),
    ],
)
def test_lost_output_is_one_line_and_status_1(checkout: Path, redirection: str, says: str) -> None:
    # The pipe's reader ends long before the first line comes.
    done = shell(checkout, f"./doit list {redirection}; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (1, f"{ERROR}{says}\n")


@pytest.mark.parametrize("redirection", ["<&-", "2>&-", "<&- 2>&-"])
def test_closed_descriptors_that_are_not_needed_do_not_matter(checkout: Path, redirection: str) -> None:
    done = shell(checkout, f"./doit list {redirection}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("build ")


def test_a_task_that_only_answers_needs_standard_output(checkout: Path) -> None:
    done = shell(checkout, "./doit matrix --series 6.18 >&-")
    assert done.returncode == 1
    assert done.stderr == f"{ERROR}standard output: it is closed; ./doit matrix prints there\n"


def test_an_empty_argument_is_one_line_and_status_2(checkout: Path) -> None:
    """An unset variable, mostly; doit itself ends with a traceback."""
    for words in ('""', 'lock --only ""', 'matrix --series "" --json', 'help ""'):
        done = shell(checkout, f"./doit {words}")
        assert (done.returncode, done.stdout) == (2, ""), words
        assert done.stderr == f"{ERROR}an argument is empty; see ./doit help, or of a TASK\n"


def test_a_run_needs_no_standard_output(checkout: Path) -> None:
    """Its lines there are progress; what it is for are files."""
    done = shell(checkout, "./doit -f small.py >&-")
    assert done.returncode == 0, done.stderr
    assert (checkout / "build/small/file").is_file()


def test_a_run_whose_reader_goes_away_stops(checkout: Path) -> None:
    done = shell(checkout, "./doit -f small.py | true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (1, f"{ERROR}standard output: nobody reads it any more; stopped\n")


@pytest.mark.parametrize("data", [os.urandom(5000), b"", b"[]", b'{"launcher": 1}', b"[" * 100_000])
def test_a_damaged_database_is_made_again(checkout: Path, data: bytes) -> None:
    database = checkout / "build/doit.db"
    database.parent.mkdir()
    database.write_bytes(data)
    done = run(checkout, "-f", "small.py")
    note = f"note: {database} is damaged; it is made again, and every task is looked at anew\n"
    assert (done.returncode, done.stderr) == (0, note)
    done = run(checkout, "-f", "small.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing to do" in done.stdout


def test_modes_are_our_own(checkout: Path) -> None:
    done = shell(checkout, "umask 000; ./doit -f small.py")
    assert done.returncode == 0, done.stderr
    made = [checkout / "build", *sorted((checkout / "build").rglob("*"))]
    assert len(made) > 2
    assert not [path for path in made if stat.S_IMODE(path.stat().st_mode) & 0o022]


def test_a_strict_umask_stays_strict(checkout: Path) -> None:
    done = shell(checkout, "umask 077; ./doit -f small.py")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((checkout / "build").stat().st_mode) == 0o700


READ_ONLY = """
set -e
mount --bind "$1" "$1"
mount -o remount,ro,bind "$1"
cd "$1"
shift
exec ./doit "$@"
"""


def read_only(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The checkout seen through a read-only mount."""
    # fmt: off
    return subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", READ_ONLY, "sh", root, *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
    )
    # fmt: on


def test_a_read_only_checkout_can_be_looked_at(checkout: Path) -> None:
    done = read_only(checkout, "list")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_read_only_checkout_cannot_be_built_in(checkout: Path) -> None:
    done = read_only(checkout, "-f", "small.py")
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_read_only_checkout_cannot_be_set_up(checkout: Path) -> None:
    (checkout / ".venv/stamp").unlink()
    done = read_only(checkout, "list")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"{ERROR}{checkout}/.venv.lock cannot be written; work in a checkout that you can write to"
    )


# Seconds after the start: in the shell, while Python starts, imports, loads the recipes, prints.
@pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.12, 0.18, 0.25, 0.3])
def test_an_early_interrupt_is_silent(checkout: Path, delay: float) -> None:
    """At most the one line that says so; no traceback, wherever it hits."""
    process = start(checkout, "list")
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in {-signal.SIGINT, 0}
    assert err in {"", "interrupted; the next run goes on from the last finished step\n"}


@pytest.mark.parametrize("again", [False, True])
def test_an_interrupt_while_python_starts_waits_for_our_first_line(checkout: Path, *, again: bool) -> None:
    """Python's own handler would print frames; it ends the run all the same, in silence. Also after a set-up."""
    (checkout / ".venv/bin/python").write_text(
        f'#!/bin/sh\nkill -s INT $$\necho "$1" >{checkout}/started\nexec {sys.executable} "$@"\n'
    )
    words = (
        ["sh", str(checkout / "tools/setup.sh"), str(checkout), "run", "list"]
        if again
        else [f"{checkout}/doit", "list"]
    )
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
    assert (checkout / "started").read_text() == "-IS\n"


def test_an_env_that_cannot_block_signals_is_done_without(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/env").write_text(
        '#!/bin/sh\ncase $1 in -*) echo "env: unrecognized option: $1" >&2; exit 1 ;; esac\n'
    )
    (tmp_path / "bin/env").chmod(0o755)
    done = run(checkout, "list", path=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("build ")


def test_a_background_run_is_not_interrupted_by_the_terminal(checkout: Path) -> None:
    """A shell's `&` ignores SIGINT for it."""
    done = shell(checkout, "sh -c './doit list >listed & sleep 0.05; kill -INT $!; wait $!'")
    assert (done.returncode, done.stderr) == (0, "")
    assert (checkout / "listed").read_text().startswith("build ")
